"""Lowered rule to C: the statements that update one element. The loops around them are the template's.

In: a lowered rule and a compute type. Out: an `Element`. No text of a spec gets into C but through here: names are
made safe and unique by `Names`, text in comments by `comment`, numbers by `literal`.
"""

from __future__ import annotations

import math
import re
import struct
import unicodedata

from ..frozen import frozen
from ..notation.printer import Form, Power

__all__ = [
    "DOUBLE",
    "DTYPES",
    "FORMS",
    "KEYWORDS",
    "SINGLE",
    "WIDTH",
    "CType",
    "Names",
    "comment",
    "literal",
    "suffixed",
]

#: The columns of a line of C.
WIDTH = 100


@frozen
class CType:
    """A compute type: NumPy's name, C's name, the suffix of its literals and functions, the `struct` code."""

    dtype: str
    name: str
    suffix: str
    code: str

    @property
    def short(self) -> str:
        return {"float32": "f32", "float64": "f64"}[self.dtype]


SINGLE, DOUBLE = CType("float32", "float", "f", "f"), CType("float64", "double", "", "d")
DTYPES = (SINGLE, DOUBLE)

_P = Power
#: `{f}` is the suffix of math.h's functions for the type.
FORMS: dict[str, Form] = {
    "neg": Form("-{0}", _P.SIGN, (_P.RAISE,)),
    "add": Form("{0} + {1}", _P.ADD, (_P.ADD, _P.MULTIPLY)),
    "sub": Form("{0} - {1}", _P.ADD, (_P.ADD, _P.MULTIPLY)),
    "mul": Form("{0} * {1}", _P.MULTIPLY, (_P.MULTIPLY, _P.SIGN)),
    "div": Form("{0} / {1}", _P.MULTIPLY, (_P.MULTIPLY, _P.SIGN)),
    "powi": Form("optgen_pow{{f}}({0}, {1})"),  # never of an element: the pass `powers` has made products of it
    "pow": Form("optgen_pow{{f}}({0}, {1})"),
    "sqrt": Form("sqrt{{f}}({0})"),
    "exp": Form("optgen_exp{{f}}({0})"),
    "log": Form("optgen_log{{f}}({0})"),
    "tanh": Form("optgen_tanh{{f}}({0})"),
    "sigmoid": Form("optgen_sigmoid{{f}}({0})"),
    "erf": Form("optgen_erf{{f}}({0})"),
    "cbrt": Form("optgen_cbrt{{f}}({0})"),
    "sin": Form("optgen_sin{{f}}({0})"),
    "cos": Form("optgen_cos{{f}}({0})"),
    "atan2": Form("optgen_atan2{{f}}({0}, {1})"),
    "abs": Form("fabs{{f}}({0})"),
    "sign": Form("optgen_sign{{f}}({0})"),
    "floor": Form("floor{{f}}({0})"),
    "mod": Form("optgen_mod{{f}}({0}, {1})"),
    "bfloat16": Form("optgen_bfloat16{{f}}({0})"),
    "floordiv": Form("optgen_floordiv{{f}}({0}, {1})"),
    "min": Form("optgen_min{{f}}({0}, {1})"),
    "max": Form("optgen_max{{f}}({0}, {1})"),
    "lt": Form("{0} < {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "le": Form("{0} <= {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "gt": Form("{0} > {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "ge": Form("{0} >= {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "eq": Form("{0} == {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "ne": Form("{0} != {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    # Of single bits: both sides are always computed, which a vector does anyway.
    "and": Form("{0} & {1}", _P.AND, (_P.ATOM, _P.ATOM)),
    "or": Form("{0} | {1}", _P.OR, (_P.ATOM, _P.ATOM)),
    "not": Form("!{0}", _P.SIGN, (_P.ATOM,)),
    "where": Form("{0} ? {1} : {2}", _P.CHOICE, (_P.ATOM, _P.OR, _P.OR)),
    "top": Form("optgen_top({0})"),
    "exponent": Form("optgen_exponent({0}, {1})"),
    "significand": Form("optgen_significand({0}, {1})"),
    "power_of_two": Form("optgen_power_of_two({0})"),
    "copysign": Form("copysign{{f}}({0}, {1})"),
    "two_over_pi": Form("optgen_two_over_pi({0})"),
}

#: Words that C has for itself, and a paper may have for a value.
KEYWORDS = frozenset({
    "alignas", "alignof", "asm", "auto", "bool", "break", "case", "char", "const", "constexpr", "continue", "default",
    "do", "double", "else", "enum", "extern", "false", "float", "for", "goto", "if", "inline", "int", "long", "nullptr",
    "register", "restrict", "return", "short", "signed", "sizeof", "static", "static_assert", "struct", "switch",
    "thread_local", "true", "typedef", "typeof", "union", "unsigned", "void", "volatile", "while",
})  # fmt: skip
#: Names that the templates use around formulas; those of functions that they call, of their own and of C's library;
#: and all that look like the macros and types of a header, since a system may have more of those than ours.
_RESERVED = re.compile(
    r"i|n|s|at|by|given|scalars|kernels|work|signgam|math_errhandling|memcpy|(sqrt|fabs|floor|fmod|copysign)f?|exp|log|pow"
    r"|values|tensor|of|arrays|in_(step|group|tensor)|matrix_i|row_i|column_i"
    r"|optgen_\w*[^_]|drawn\d+|\w+_f(32|64)_\w*[^_]|\w+_t|[A-Z][A-Z0-9_]*[A-Z0-9]"
)
#: What else small loops use.
_OF_SMALL_LOOPS = re.compile(
    r"step|group|part|parts|begin|end|next|count|total|blocks|height|width|(columns|matrices|panels|partials|rows)\d*"
)


def literal(value: float, ctype: CType) -> str:
    """The number that `value` is once it is rounded to the type, in as few digits as give it back exactly."""
    bits = struct.pack(ctype.code, value)
    (rounded,) = struct.unpack(ctype.code, bits)
    if math.isinf(rounded):
        return "-INFINITY" if rounded < 0 else "INFINITY"
    digits = next(text for n in range(1, 18) if _reads_as(text := f"{rounded:.{n}g}", bits, ctype))
    return (digits if any(c in digits for c in ".e") else f"{digits}.0") + ctype.suffix


def _reads_as(digits: str, bits: bytes, ctype: CType) -> bool:
    """Whether a C compiler makes `bits` of the number `digits`."""
    near = float(digits)
    if ctype.dtype == "float64":
        return struct.pack(ctype.code, near) == bits
    # C rounds the decimal number once, `float` and `pack` round it twice: which is the same if no neighbour of what
    # `float` gives would go to another float32.
    around = (math.nextafter(near, -math.inf), near, math.nextafter(near, math.inf))
    return all(struct.pack(ctype.code, x) == bits for x in (around if near else (near,)))


def comment(text: str) -> str:
    """`text` as it may stand inside a C comment: nothing in it ends the comment or hides from the reader."""
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in text)
    plain = re.sub(r"\?(?=\?[=/'()!<>-])", "? ", plain)  # trigraphs, which ISO C reads before anything else
    return plain.replace("*/", "* /").replace("/*", "/ *")


def suffixed(text: str, ctype: CType) -> str:
    return text.replace("{f}", ctype.suffix).replace("{t}", ctype.name)


class Names:
    """C names, each given once; a keyword, and a name that is reserved or taken, get underscores behind them.
    `small_loop`: whether they stand in a small loop."""

    def __init__(self, *, small_loop: bool = False) -> None:
        self.taken: set[str] = set()
        self._reserved = (_RESERVED, _OF_SMALL_LOOPS) if small_loop else (_RESERVED,)

    def make(self, name: str) -> str:
        while name in self.taken or name in KEYWORDS or any(words.fullmatch(name) for words in self._reserved):
            name += "_"
        self.taken.add(name)
        return name
