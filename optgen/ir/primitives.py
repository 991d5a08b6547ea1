"""The primitives of the language of rules, one row each.

In: nothing but the sizes that C shares. Out: tables; an interpretation of the language is a table with the same keys.

Each primitive means the same in NumPy, on the host, in C and in mathematics:

- `max` and `min` give NaN if either argument is NaN, and the first argument if both are equal (so `max(0, -0)` is 0);
- `sign` gives 0 for both zeros, and NaN for NaN;
- `bfloat16` rounds to float32 and from there to the nearest bfloat16, of two equally near ones to the even one; of any
  NaN it makes the same one;
- `floor` gives the largest whole number that is not above its argument;
- `mod(a, b)` and `floordiv(a, b)` are `a % b` and `a // b` of Python's floats: the remainder has the sign of `b`. A
  division by zero gives NaN, and what `a / b` gives;
- `powi(x, n)` is the product that `power_steps` lists, so it is exact in the sense of the numerical contract;
- the functions of `DEFINED` are what `functions/` says they are, in the other primitives and those of
  `REPRESENTATION`; all others are correctly rounded, or round nothing. So each has one right result in every place.
"""

from __future__ import annotations

from enum import Enum

from ..frozen import frozen
from ..paths import constant

__all__ = [
    "BLOCK", "DEFINED", "FOLD_OF", "FUNCTIONS", "LANES", "LARGEST_POWER", "OPS", "PANEL", "PRODUCTS", "REDUCTIONS",
    "REPRESENTATION", "Op", "Type", "power_steps",
]  # fmt: skip


class Type(Enum):
    """What a value is: a real number, or a truth value."""

    REAL = "a number"
    BOOL = "a condition"


@frozen
class Op:
    """One primitive: its name, and the types it takes and gives."""

    name: str
    takes: tuple[Type, ...]
    gives: Type


_R, _B = Type.REAL, Type.BOOL
OPS = {
    op.name: op
    for op in (
        Op("neg", (_R,), _R),
        Op("add", (_R, _R), _R),
        Op("sub", (_R, _R), _R),
        Op("mul", (_R, _R), _R),
        Op("div", (_R, _R), _R),
        Op("powi", (_R, _R), _R),
        Op("pow", (_R, _R), _R),
        Op("sqrt", (_R,), _R),
        Op("exp", (_R,), _R),
        Op("log", (_R,), _R),
        Op("tanh", (_R,), _R),
        Op("sigmoid", (_R,), _R),
        Op("erf", (_R,), _R),
        Op("cbrt", (_R,), _R),
        Op("sin", (_R,), _R),
        Op("cos", (_R,), _R),
        Op("atan2", (_R, _R), _R),
        Op("abs", (_R,), _R),
        Op("sign", (_R,), _R),
        Op("floor", (_R,), _R),
        Op("bfloat16", (_R,), _R),
        Op("mod", (_R, _R), _R),
        Op("floordiv", (_R, _R), _R),
        Op("min", (_R, _R), _R),
        Op("max", (_R, _R), _R),
        Op("lt", (_R, _R), _B),
        Op("le", (_R, _R), _B),
        Op("gt", (_R, _R), _B),
        Op("ge", (_R, _R), _B),
        Op("eq", (_R, _R), _B),
        Op("ne", (_R, _R), _B),
        Op("and", (_B, _B), _B),
        Op("or", (_B, _B), _B),
        Op("not", (_B,), _B),
        Op("where", (_B, _R, _R), _R),
    )
}

#: The primitives that definitions of functions call, and formulas do not; all of float64.
#: `top(x)` is x with its last 27 bits zero: the product of two such numbers is exact.
#: `exponent(x, m)` is k, and `significand(x, m)` is x / 2**k, for the k that puts it in [m, 2m); x > 0 is no denormal,
#: and m in [1/2, 1). `power_of_two(k)` is 2**k for a whole k from -1022 to 1023. `copysign(x, y)` is |x| with the sign
#: of y. `two_over_pi(k)` is the digit k of 2/pi in base 2**26, counted from 0 behind the point, for k from -42 to 44.
REPRESENTATION = {
    op.name: op
    for op in (
        Op("top", (_R,), _R),
        Op("exponent", (_R, _R), _R),
        Op("significand", (_R, _R), _R),
        Op("power_of_two", (_R,), _R),
        Op("copysign", (_R, _R), _R),
        Op("two_over_pi", (_R,), _R),
    )
}

#: The primitives that are defined by others.
DEFINED = ("exp", "log", "pow", "tanh", "sigmoid", "erf", "cbrt", "sin", "cos", "atan2")

#: The primitives that formulas call by name; the others are written with operators.
FUNCTIONS = (
    "sqrt", "exp", "log", "tanh", "sigmoid", "erf", "cbrt", "sin", "cos", "atan2", "abs", "sign", "floor", "bfloat16",
    "min", "max", "where",
)  # fmt: skip

#: The reductions, each with its number of arguments. All add up in float64, in the fixed order of the numerical
#: contract; `norm(x)` is the square root of `dot(x, x)`, `mean(x)` is `sum(x)` over how many they are.
REDUCTIONS = {"sum": 1, "mean": 1, "norm": 1, "dot": 2, "max": 1, "min": 1}

#: What is computed of whole matrices by a library, each with its number of arguments. `matmul` and `transpose` are
#: written `A @ B` and `A.T`, `identity` is `I`; the others are called by name. Of a symmetric matrix, `eigenvectors`
#: are the columns of the result, in the order of falling `eigenvalues`; `power(A, x)` has its eigenvalues to the power
#: of x. `orthonormal(A)` is Q of A = QR with a positive diagonal of R; `leading(A, n)` has the n leading left singular
#: vectors; `sorting(v)` is the permutation matrix P for which P.T @ v falls. `upper` is the triangle with the diagonal,
#: `diagonal` a value for each row, and `diag` the matrix that has it.
PRODUCTS = {
    "matmul": 2, "transpose": 1, "identity": 0, "power": 2, "eigenvectors": 1, "eigenvalues": 1, "orthonormal": 1,
    "leading": 2, "sorting": 1, "upper": 1, "inverse": 1, "diagonal": 1, "diag": 1, "trace": 1,
}  # fmt: skip

#: The one order in which values are reduced. A run of values (a tensor, or where rows matter a row) is cut into blocks;
#: in a block, value i goes to lane i modulo LANES; lanes are folded in halves, blocks of a run in order, runs in order.
#: Down a column, PANEL values are folded in order, and then the panels. `templates/c/abi.h` states the numbers.
BLOCK, LANES, PANEL = constant("BLOCK"), constant("LANES"), constant("PANEL")

#: How each goes on from value to value.
FOLD_OF = {"sum": "sum", "mean": "sum", "norm": "sum", "dot": "sum", "max": "max", "min": "min"}

#: `x**n` with a whole literal n from 2 to this is `powi`; any other power of an element is `pow`.
LARGEST_POWER = 64


def power_steps(n: int) -> tuple[tuple[int, int], ...]:
    """The products that make the n-th power: each pair `(i, j)` makes x**(i+j) of x**i and x**j made before.

    Squares as far as they go, then the binary digits of n from the top: 5 is ((1, 1), (2, 2), (4, 1)).
    """
    steps = []
    square = 1
    while 2 * square <= n:
        steps.append((square, square))
        square *= 2
    rest, total, digit = n - square, square, square // 2
    while rest:
        if rest >= digit:
            steps.append((total, digit))
            total, rest = total + digit, rest - digit
        digit //= 2
    return tuple(steps)
