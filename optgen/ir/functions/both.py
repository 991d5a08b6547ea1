"""What definitions for float32 and for float64 have in common.

In: nothing. Out: a text in the language of `definition`.
"""

from __future__ import annotations

__all__ = ["BOTH"]

BOTH = '''
def power(x, y, size):
    """x**y, where `size` is |x|**y."""
    whole = floor(y) == y
    least = -INF if whole and floor(y / 2) * 2 != y else 1
    negative = 1 if whole else NAN
    size = copysign(size, x if x > least else least)
    size = size * negative if x < 0 and x != -INF else size
    return 1 if x == 1 else size

def logarithm(x, y, usual, huge):
    """That of |x| for x**y: `usual`, but for 0, infinities and NaN."""
    a = abs(x)
    unknown = 0 if y == 0 else NAN
    value = -huge if a == 0 else usual
    value = huge if a == INF else value
    return unknown if x != x else value

def cube_of(x):
    """For positive numbers x: c in [1/2, 4), its cube root to 39 bits, and 2**k, where x = c * 2**(3*k)."""
    k = exponent(x, 0.5)
    m = significand(x, 0.5)
    third = floor(k / 3)
    rest = k - 3 * third
    c = m * (4 if rest == 2 else 1 + rest)
    y = horner(m, CBRT) * (CBRT_4 if rest == 2 else (CBRT_2 if rest == 1 else 1))
    cube = y * y * y
    return c, y * (cube + 2 * c) / (2 * cube + c), power_of_two(third)

def odd(k):
    """1 for an odd number, 0 for an even one."""
    return k - 2 * floor(k / 2)

def sine_of(k, sine, cosine, x):
    """sin(x), where sine and cosine are those of |x| - k * pi/2."""
    value = cosine if odd(k) == 1 else sine
    return (-value if odd(floor(k / 2)) == 1 else value) * copysign(1, x)

def cosine_of(k, sine, cosine):
    """cos(x), where sine and cosine are those of |x| - k * pi/2."""
    value = sine if odd(k) == 1 else cosine
    return -value if odd(floor((k + 1) / 2)) == 1 else value

def slope_of(a, b):
    """Whether a > b; the smaller and the larger of both, or numbers with the same quotient where that has none."""
    steep = a > b
    n = b if steep else a
    d = a if steep else b
    both = n == INF and d == INF
    return steep, 1 if both else n, 1 if both or d == 0 else d

def sum_of(a, b):
    """The sum of two numbers, and what its rounding loses."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)

def within_4(x):
    """x less the largest multiple of 4 that is not above."""
    return x - 4 * floor(x / 4)
'''
