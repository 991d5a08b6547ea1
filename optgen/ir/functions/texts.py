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
'''


@cache
def function(name: str, dtype: str) -> Definition:
    """The definition of a function for arguments of a compute type."""
    return definition(BOTH + {"float32": FLOAT32, "float64": FLOAT64}[dtype], name)
