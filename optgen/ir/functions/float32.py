"""The functions of float32, defined in float64: the last rounding is the only one that float32 can see.

In: nothing. Out: a text in the language of `definition`, to be read behind that of `both`.
"""

from __future__ import annotations

__all__ = ["FLOAT32"]

FLOAT32 = '''
def log2_of(x):
    """The logarithm of x to base 2, for positive numbers that are no denormals."""
    m = significand(x, SQRT_HALF)
    s = (m - 1) / (m + 1)
    z = s * s
    return exponent(x, SQRT_HALF) + s * estrin(z, LOG2_32)

def exp2_of(x):
    """2**x, for numbers within 1000."""
    k = near(x)
    r = x - k
    rest = estrin(r, EXP2_32)
    return (1 + r * rest) * power_of_two(k)

def exp_of(x):
    """The exponential of x, as far as float32 can tell it."""
    return exp2_of(min(max(x * LOG2_E, -200), 200))

def exp(x):
    return exp_of(x)

def log(x):
    value = INF if x == INF else log2_of(x) * LN_2
    other = -INF if x == 0 else NAN
    return value if x > 0 else other

def pow(x, y):
    usual = log2_of(abs(x))
    times = min(max(y, -2**100), 2**100)
    return power(x, y, exp2_of(min(max(times * logarithm(x, y, usual, 2**200), -200), 200)))

def sigmoid(x):
    return 1 / (1 + exp_of(-x))

def tanh(x):
    a = abs(x)
    e = exp_of(-2 * a)
    value = (1 - e) / (1 + e)
    near_zero = a - a * (a * a / 3)
    return copysign(near_zero if a < 2**-12 else value, x)

def erf(x):
    a = abs(x)
    z = a * a
    inner = a * estrin(z, ERF_32)
    bounded = min(max(a, 1), 4)
    w = 1 / bounded
    outer = 1 - exp_of(-bounded * bounded) * (w * estrin(w, ERFC_32))
    return copysign(inner if a < 1 else outer, x)

def cbrt(x):
    a = abs(x)
    c, root, scale = cube_of(a)
    return copysign(root * scale if a > 0 and a < INF else a, x)

def next_digit(x, digit, total, low):
    """Adds x times a digit of 2/pi, as far as it does not turn full circles."""
    total, lost = sum_of(total, within_4(x * digit))
    return total, low + lost

def turned(x):
    """x in quarters of a circle, as a whole number, and the sine and cosine of the angle that is left."""
    total, low = next_digit(x, DIGIT_0, 0, 0)
    total, low = next_digit(x, DIGIT_1, total, low)
    total, low = next_digit(x, DIGIT_2, total, low)
    total, low = next_digit(x, DIGIT_3, total, low)
    total, low = next_digit(x, DIGIT_4, total, low)
    total, low = next_digit(x, DIGIT_5, total, low)
    total, low = next_digit(x, DIGIT_6, total, low)
    k = near(total)
    r = ((total - k) + low) * HALF_PI
    z = r * r
    return k, r + r * (z * estrin(z, SIN_32)), (1 - z / 2) + z * z * estrin(z, COS_32)

def sin(x):
    k, sine, cosine = turned(abs(x))
    return sine_of(k, sine, cosine, x)

def cos(x):
    k, sine, cosine = turned(abs(x))
    return cosine_of(k, sine, cosine)

def atan2(y, x):
    steep, n, d = slope_of(abs(y), abs(x))
    upper = n > d * TAN_EIGHTH_PI
    t = (n - d if upper else n) / (n + d if upper else d)
    z = t * t
    angle = (PI / 4 if upper else 0) + (t + t * (z * estrin(z, ATAN_32)))
    angle = PI / 2 - angle if steep else angle
    angle = PI - angle if copysign(1, x) < 0 else angle
    return copysign(angle, y)
'''
