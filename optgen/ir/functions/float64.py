"""The functions of float64. What a rounding loses is kept as a second number, from step to step.

In: nothing. Out: a text in the language of `definition`, to be read behind that of `both`.
"""

from __future__ import annotations

__all__ = ["FLOAT64"]

FLOAT64 = '''
def log_of(x):
    """The logarithm of x, for positive numbers, as the sum of two numbers."""
    tiny = x < 2**-1022
    x = x * 2**54 if tiny else x
    m = significand(x, SQRT_THREE_QUARTERS)
    k = exponent(x, SQRT_THREE_QUARTERS) - (54 if tiny else 0)
    upper = m > SQRT_THREE_HALVES
    c = 1.5 if upper else 1
    n = m - c
    d = m + c
    inverse = 1 / d
    s = n * inverse
    s_high = top(s)
    d_high = top(d)
    s_low = ((n - s_high * d_high) - s_high * (m - (d_high - c))) * inverse
    z = s * s
    z_high = s_high * s_high
    rest = horner(z, ATANH_64)
    z_low = s_low * (s_high + s) + z * z * rest
    t_high = top(3 + (z_high + z_low))
    t_low = z_low - ((t_high - 3) - z_high)
    u = s_high * t_high
    v = s_low * t_high + s * t_low
    p_high = top(u + v)
    p_low = v - (p_high - u)
    q = TWO_THIRDS_HIGH * p_high
    q_low = TWO_THIRDS_LOW * p_high + TWO_THIRDS * p_low
    base = k * LN_2_HIGH + (LN_1_5_HIGH if upper else 0)
    base_low = k * LN_2_LOW + (LN_1_5_LOW if upper else 0)
    high = base + q
    return high, (q - (high - base)) + (q_low + base_low)

def exp_of(x, x_low):
    """The exponential of a sum of two numbers, the first within 800, as (high + low) * 2**k."""
    k = near(x * LOG2_E)
    a = x - k * LN_2_HIGH
    b = x_low - k * LN_2_LOW
    r = a + b
    part = r - a
    r_low = (a - (r - part)) + (b - part)
    rest = horner(r, EXP_64)
    high = 1 + r
    return high, (r - (high - 1)) + (r * r * rest + (r_low + r_low * r)), k

def scaled(x, k):
    """x * 2**k, rounded once."""
    half = floor(k / 2)
    return x * power_of_two(half) * power_of_two(k - half)

def exp(x):
    high, low, k = exp_of(min(max(x, -800), 800), 0)
    return scaled(high + low, k)

def log(x):
    high, low = log_of(x)
    value = INF if x == INF else high + low
    other = -INF if x == 0 else NAN
    return value if x > 0 else other

def pow(x, y):
    usual, log_low = log_of(abs(x))
    log_high = logarithm(x, y, usual, 2**1000)
    a = top(log_high + log_low)
    a_low = log_low - (a - log_high)
    b = min(max(y, -2**70), 2**70)
    b_high = top(b)
    product = a * b_high
    bounded = min(max(product, -800), 800)
    low = a * (b - b_high) + a_low * b
    high, low, k = exp_of(bounded, low if bounded == product else 0)
    return power(x, y, scaled(high + low, k))

def quotient_of(a, a_low, b, b_low):
    """The quotient of two sums, where the second parts are small beside the first ones, as a sum."""
    inverse = 1 / b
    q = a * inverse
    q_high = top(q)
    b_high = top(b)
    q_rest = q - q_high
    b_rest = b - b_high
    left = ((a - q_high * b_high) - q_high * b_rest) - q_rest * b_high - q_rest * b_rest
    return q, (left + (a_low - q * b_low)) * inverse

def quotient(a, a_low, b, b_low):
    """The same, rounded."""
    q, low = quotient_of(a, a_low, b, b_low)
    return q + low

def decay_of(x):
    """exp(-|x|), or exp(-700) if it is less than that, and what its rounding loses."""
    high, low, k = exp_of(max(-abs(x), -700), 0)
    total = high + low
    scale = power_of_two(k)
    return total * scale, (low - (total - high)) * scale

def sigmoid(x):
    e, e_low = decay_of(x)
    d = 1 + e
    d_low = (e - (d - 1)) + e_low
    high, low, k = exp_of(max(min(x, 0), -800), 0)
    n = high + low
    return scaled(quotient(n, low - (n - high), d, d_low), k)

def tanh(x):
    a = abs(x)
    e, e_low = decay_of(2 * a)
    n = 1 - e
    d = 1 + e
    value = quotient(n, ((1 - n) - e) - e_low, d, (e - (d - 1)) + e_low)
    z = a * a
    near_zero = a + a * (z * horner(z, TANH_64))
    return copysign(near_zero if a < 0.25 else value, x)

def erf(x):
    a = abs(x)
    z = a * a
    inner = a + a * horner(z, ERF_64)
    t = a - 0.75
    near = ERF_NEAR + (t * horner(t, ERF_NEAR_64) + ERF_NEAR_LOW)
    u = a - 1.5
    far = ERF_FAR + (u * horner(u, ERF_FAR_64) + ERF_FAR_LOW)
    bounded = min(max(a, 2), 6)
    w = 1 / bounded
    high, low, k = exp_of(-bounded * bounded, 0)
    outer = 1 - (high + low) * power_of_two(k) * (w * horner(w, ERFC_64))
    beyond = far if a < 2 else outer
    return copysign(inner if a < 0.5 else (near if a < 1 else beyond), x)

def cbrt(x):
    a = abs(x)
    tiny = a < 2**-1022
    c, root, scale = cube_of(a * 2**54 if tiny else a)
    y = top(root)
    square = y * y
    square_high = top(square)
    rest = (c - y * square_high) - y * (square - square_high)
    value = (y + y * rest / (3 * (square * y) + rest)) * scale * (2**-18 if tiny else 1)
    return copysign(value if a > 0 and a < INF else a, x)

def next_digit(x, rest, digit, total, low, lowest):
    """Adds x + rest times a digit of 2/pi, as far as it does not turn full circles."""
    total, lost = sum_of(total, within_4(x * digit))
    total, lost_too = sum_of(total, within_4(rest * digit))
    low, lost = sum_of(low, lost)
    low, lost_too = sum_of(low, lost_too)
    return total, low, lowest + (lost + lost_too)

def turned(x):
    """x in quarters of a circle, as a whole number, and the sine and cosine of the angle that is left."""
    j = floor((exponent(x, 0.5) - 55) / 26)
    scaled = x * power_of_two(-26 * (j + 1))
    x = top(scaled)
    rest = scaled - x
    total, low, lowest = next_digit(x, rest, two_over_pi(j), 0, 0, 0)
    total, low, lowest = next_digit(x, rest, two_over_pi(j + 1) * 2**-26, total, low, lowest)
    total, low, lowest = next_digit(x, rest, two_over_pi(j + 2) * 2**-52, total, low, lowest)
    total, low, lowest = next_digit(x, rest, two_over_pi(j + 3) * 2**-78, total, low, lowest)
    total, low, lowest = next_digit(x, rest, two_over_pi(j + 4) * 2**-104, total, low, lowest)
    total, low, lowest = next_digit(x, rest, two_over_pi(j + 5) * 2**-130, total, low, lowest)
    total, low, lowest = next_digit(x, rest, two_over_pi(j + 6) * 2**-156, total, low, lowest)
    total, low, lowest = next_digit(x, rest, two_over_pi(j + 7) * 2**-182, total, low, lowest)
    k = near(total)
    turn, turn_low = sum_of(total - k, low)
    r = turn * HALF_PI
    turn_high = top(turn)
    turn_rest = turn - turn_high
    lost = ((turn_high * HALF_PI_HIGH - r) + turn_high * HALF_PI_REST) + turn_rest * HALF_PI
    r_low = lost + ((turn_low + lowest) * HALF_PI + turn * HALF_PI_LOW)
    z = r * r
    half = z / 2
    one = 1 - half
    sine = r + (r * (z * horner(z, SIN_64)) + r_low * one)
    cosine = one + (((1 - one) - half) + (z * z * horner(z, COS_64) - r * r_low))
    return k, sine, cosine

def sin(x):
    a = abs(x)
    k, sine, cosine = turned(a)
    return x if a < 2**-30 else sine_of(k, sine, cosine, x)

def cos(x):
    k, sine, cosine = turned(abs(x))
    return cosine_of(k, sine, cosine)

def atan2(y, x):
    steep, n, d = slope_of(abs(y), abs(x))
    scale = 2**-200 if d > 2**800 else (2**150 if n < 2**-700 else 1)
    n = n * scale
    d = d * scale
    upper = n > d * TAN_EIGHTH_PI
    less = n - d
    more = n + d
    less_low = n - (less + d)
    more_low = n - (more - d)
    a_low = less_low if upper else 0
    b_low = more_low if upper else 0
    q, q_low = quotient_of(less if upper else n, a_low, more if upper else d, b_low)
    small = n < d * 2**-900
    t = n / d if small else q
    t_low = 0 if small else q_low
    z = t * t
    rest = t * (z * horner(z, ATAN_64)) + t_low * (1 - z)
    eighths = 1 if upper else 0
    eighths = 2 - eighths if steep else eighths
    back = copysign(1, x) < 0
    eighths = 4 - eighths if back else eighths
    sign = (-1 if steep else 1) * (-1 if back else 1)
    base = eighths * QUARTER_PI_HIGH
    angle = base + sign * t
    lost = (base - angle) + sign * t
    return copysign(angle + (lost + (sign * rest + eighths * QUARTER_PI_LOW)), y)
'''
