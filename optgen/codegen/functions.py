"""Functions as C: what C's library has not, or not with one result everywhere.

In: the primitives that formulas use, and a compute type. Out: the C functions that those are, each after what it calls.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator

from ..ir.expr import Call, Const, Expr, Local, type_of, walk
from ..ir.functions.coefficients import NUMBERS
from ..ir.functions.definition import Definition
from ..ir.functions.lookup import function
from ..ir.primitives import DEFINED, OPS, REPRESENTATION, Type
from ..notation.printer import Power, write
from .c_language import DOUBLE, FORMS, WIDTH, CType, literal, suffixed

__all__ = ["c_functions", "host_source"]

#: What C's operators are not. `{t}` is the type, `{f}` the suffix of its functions.
_WRITTEN = {
    "min": "return ((b < a) | (b != b)) ? b : a;",
    "max": "return ((b > a) | (b != b)) ? b : a;",
    "sign": "return a > 0 ? 1 : a < 0 ? -1 : a == 0 ? 0 : a;",
    "mod": """
    const {t} rest = fmod{f}(a, b);
    if (rest == 0) { return copysign{f}(rest, b); }
    return (rest < 0) != (b < 0) ? rest + b : rest;
""",
    "bfloat16": """
    const float x = (float)a;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits += 0x7FFF + (bits >> 16 & 1);
    bits = x != x ? 0x7FC00000 : bits & 0xFFFF0000;
    float rounded;
    memcpy(&rounded, &bits, sizeof rounded);
    return rounded;
""",
    "floordiv": """
    const {t} rest = fmod{f}(a, b);
    const {t} near = (a - rest) / b - ((rest != 0) & ((rest < 0) != (b < 0)) ? 1 : 0);
    const {t} whole = floor{f}(near) + (near - floor{f}(near) > ({t})0.5 ? 1 : 0);
    return b == 0 ? a / b : near == 0 ? copysign{f}(near, a / b) : whole;
""",
    "top": "return optgen_number(optgen_bits(a) >> 27 << 27);",
    # The exponent becomes the last bits of a number between 2**52 and 2**53.
    "exponent": """
    const uint64_t biased = (optgen_bits(a) - optgen_bits(b) + optgen_bits(1.0)) >> 52;
    return optgen_number(biased | optgen_bits(0x1p52)) - (0x1p52 + 1023);
""",
    "significand": """
    const uint64_t fraction = (optgen_bits(a) - optgen_bits(b) + optgen_bits(1.0)) << 12 >> 12;
    return optgen_number(fraction + optgen_bits(b));
""",
    "two_over_pi": "return optgen_digits[optgen_bits(a + (0x1.0p52 + 42)) & 127];",
    "power_of_two": "return optgen_number(optgen_bits(a + (0x1.8p52 + 1023)) << 52);",
}
_DIGITS = textwrap.fill(", ".join(f"{digit:.0f}" for digit in NUMBERS["TWO_OVER_PI"]), 92)
#: What a function reads.
_BEFORE = {
    "two_over_pi": f"static const double optgen_digits[] = {{\n{textwrap.indent(_DIGITS, '    ')}\n}};",
}
_BITS = """\
OPTGEN_INLINE uint64_t optgen_bits(double a)
{
    uint64_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}""", """\
OPTGEN_INLINE double optgen_number(uint64_t bits)
{
    double a;
    memcpy(&a, &bits, sizeof a);
    return a;
}"""  # fmt: skip


def c_functions(values: Iterable[Expr], ctype: CType) -> tuple[str, ...]:
    """The functions that C needs for these values of a compute type."""
    return tuple(dict.fromkeys(_needed({e.op for value in values for e in walk(value) if isinstance(e, Call)}, ctype)))


def host_source() -> str:
    """The functions of `DEFINED` for values of the host, as `functions.h` declares them."""
    calls, rows = [], []
    for name in DEFINED:
        arguments = ", ".join("xy"[: len(OPS[name].takes)])
        calls.append(f"static double host_{name}(double x, double y)\n{{\n    (void)y;\n"
                     f"    return optgen_{name}({arguments});\n}}")  # fmt: skip
        rows.append(f'        {{ "{name}", host_{name} }},')
    return "\n".join([
        "/* The functions of the language, for values of the host. */",
        "#include <math.h>",
        "#define OPTGEN_INLINE static inline",
        *dict.fromkeys(_needed(set(DEFINED), DOUBLE)),
        *calls,
        "OPTGEN_EXPORT const optgen_function *optgen_functions(void)",
        "{",
        "    static const optgen_function all[] = {",
        *rows,
        "        { 0, 0 },",
        "    };",
        "    return all;",
        "}\n",
    ])  # fmt: skip


def _needed(ops: set[str], ctype: CType) -> Iterator[str]:
    for op in (*_WRITTEN, *DEFINED):
        if op not in ops:
            continue
        if op in DEFINED:
            defined = function(op, ctype.dtype)
            yield from c_functions([defined.value, *(assign.value for assign in defined.body)], DOUBLE)
            yield _defined(op, defined, ctype)
        else:
            if op in REPRESENTATION:
                yield from _BITS
            if op in _BEFORE:
                yield _BEFORE[op]
            yield _written(op, ctype)


def _written(op: str, ctype: CType) -> str:
    takes = (OPS.get(op) or REPRESENTATION[op]).takes
    arguments = ", ".join(f"{ctype.name} {name}" for name in "ab"[: len(takes)])
    head = f"OPTGEN_INLINE {ctype.name} optgen_{op}{ctype.suffix}({arguments})"
    body = suffixed(_WRITTEN[op], ctype)
    if body.startswith("\n"):
        return f"{head}\n{{{body}}}"
    whole = f"{head} {{ {body} }}"
    return whole if len(whole) <= WIDTH else f"{head}\n{{\n    {body}\n}}"


def _defined(op: str, defined: Definition, ctype: CType) -> str:
    """A function as it was defined. All is computed in float64."""

    from .jinja import code  # which takes long to load

    def atom(expr: Expr) -> tuple[str, Power]:
        if isinstance(expr, Local):
            return expr.name, Power.ATOM
        assert isinstance(expr, Const)
        if not math.isfinite(expr.value):
            sign = "-" if expr.value < 0 else ""
            return f"{sign}(double){'INFINITY' if expr.value == expr.value else 'NAN'}", Power.SIGN
        text = literal(expr.value, DOUBLE)
        return text, Power.SIGN if text.startswith("-") else Power.ATOM

    def text_of(expr: Expr) -> str:
        return suffixed(write(expr, FORMS, atom)[0], DOUBLE)

    parameters = ", ".join(f"{ctype.name} {name}{'' if ctype is DOUBLE else '_'}" for name in defined.parameters)
    lines = [] if ctype is DOUBLE else [f"const double {name} = (double){name}_;" for name in defined.parameters]
    for assign in defined.body:
        kind = "int" if type_of(assign.value) is Type.BOOL else "double"
        lines.append(f"const {kind} {assign.target} = {text_of(assign.value)};")
    value = text_of(defined.value)
    lines.append(f"return {value};" if ctype is DOUBLE else f"return ({ctype.name})({value});")
    body = "\n".join(code(line, "    ") for line in lines)
    return f"OPTGEN_INLINE {ctype.name} optgen_{op}{ctype.suffix}({parameters})\n{{\n{body}\n}}"
