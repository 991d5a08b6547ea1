"""The definitions of functions, once for all.

In: the name of a function, and a compute type. Out: its definition. Those for float32 take and give numbers of float64:
the last rounding is the only one that float32 can see.
"""

from __future__ import annotations

from functools import cache

from .definition import Definition, definition

__all__ = ["function"]

BOTH = '''
def power(x, y, size):
    """x**y, where `size` is |x|**y for numbers |x| and y that are neither zero, infinite nor NaN."""
    a = abs(x)
    whole = floor(y) == y
    odd = 1 if whole and floor(y / 2) * 2 != y else 0
    negative = 1 if whole else NAN
    known = 1 if y == y else NAN
    rising = INF if y > 0 else known
    falling = INF if y < 0 else known
    large = rising * (0 if y < 0 else known)
    small = falling * (0 if y > 0 else known)
    missing = 1 if y == 0 else NAN
    limit = large if a > 1 else small
    size = limit if a == 0 or a == INF else size
    size = -size if copysign(odd, x) < 0 else size
    size = size * negative if x < 0 and a != INF else size
    size = missing if x != x else size
    return 1 if x == 1 else size

def cube_of(x):
    """For positive numbers x: c in [1/2, 4), its cube root to 39 bits, and 2**k, where x = c * 2**(3*k)."""
    k = exponent(x, 0.5)
    m = significand(x, 0.5)
    third = floor(k / 3)
    rest = k - 3 * third
    c = m * (4 if rest == 2 else 1 + rest)
    y = poly(m, CBRT) * (CBRT_4 if rest == 2 else (CBRT_2 if rest == 1 else 1))
    cube = y * y * y
    return c, y * (cube + 2 * c) / (2 * cube + c), power_of_two(third)
'''

FLOAT32 = '''
def log_of(x):
    """The logarithm of x, for positive numbers that are no denormals."""
    m = significand(x, SQRT_HALF)
    k = exponent(x, SQRT_HALF)
    s = (m - 1) / (m + 1)
    z = s * s
    rest = poly(z, ATANH_32)
    return k * LN_2 + (2 * s + 2 * s * (z * rest))

def exp_of(x):
    """The exponential of x, for numbers whose exponential float64 can hold."""
    k = near(x * LOG2_E)
    r = x - k * LN_2
    rest = poly(r, EXP_32)
    return (1 + (r + r * r * rest)) * power_of_two(k)

def exp(x):
    return exp_of(min(max(x, -200), 200))

def log(x):
    value = INF if x == INF else log_of(x)
    other = -INF if x == 0 else NAN
    return value if x > 0 else other

def pow(x, y):
    times = min(max(y, -2**100), 2**100)
    w = times * log_of(abs(x))
    return power(x, y, exp_of(min(max(w, -200), 200)))

def sigmoid(x):
    return 1 / (1 + exp_of(min(max(-x, -200), 200)))

def tanh(x):
    a = abs(x)
    e = exp_of(max(-2 * a, -200))
    value = (1 - e) / (1 + e)
    near_zero = a - a * (a * a / 3)
    return copysign(near_zero if a < 2**-12 else value, x)

def erf(x):
    a = abs(x)
    z = a * a
    inner = a * poly(z, ERF_32)
    bounded = min(max(a, 1), 4)
    w = 1 / bounded
    outer = 1 - exp_of(-bounded * bounded) * (w * poly(w, ERFC_32))
    return copysign(inner if a < 1 else outer, x)

def cbrt(x):
    a = abs(x)
    c, root, scale = cube_of(a)
    return copysign(root * scale if a > 0 and a < INF else a, x)
'''

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
    rest = poly(z, ATANH_64)
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
    rest = poly(r, EXP_64)
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
    log_high, log_low = log_of(abs(x))
    a = top(log_high + log_low)
    a_low = log_low - (a - log_high)
    b = min(max(y, -2**70), 2**70)
    b_high = top(b)
    product = a * b_high
    bounded = min(max(product, -800), 800)
    low = a * (b - b_high) + a_low * b
    high, low, k = exp_of(bounded, low if bounded == product else 0)
    return power(x, y, scaled(high + low, k))

def quotient(a, a_low, b, b_low):
    """The quotient of two sums, where the second parts are small beside the first ones."""
    inverse = 1 / b
    q = a * inverse
    q_high = top(q)
    b_high = top(b)
    q_rest = q - q_high
    b_rest = b - b_high
    left = ((a - q_high * b_high) - q_high * b_rest) - q_rest * b_high - q_rest * b_rest
    return q + (left + (a_low - q * b_low)) * inverse

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
    near_zero = a + a * (z * poly(z, TANH_64))
    return copysign(near_zero if a < 0.25 else value, x)

def erf(x):
    a = abs(x)
    z = a * a
    inner = a + a * poly(z, ERF_64)
    t = a - 0.75
    near = ERF_NEAR + (t * poly(t, ERF_NEAR_64) + ERF_NEAR_LOW)
    u = a - 1.5
    far = ERF_FAR + (u * poly(u, ERF_FAR_64) + ERF_FAR_LOW)
    bounded = min(max(a, 2), 6)
    w = 1 / bounded
    high, low, k = exp_of(-bounded * bounded, 0)
    outer = 1 - (high + low) * power_of_two(k) * (w * poly(w, ERFC_64))
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
'''


@cache
def function(name: str, dtype: str) -> Definition:
    """The definition of a function for arguments of a compute type."""
    return definition(BOTH + {"float32": FLOAT32, "float64": FLOAT64}[dtype], name)
