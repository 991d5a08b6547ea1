"""Arithmetic on the host: all float64 arithmetic of scalars, in this one place.

In: expressions of extent CONSTANT, STEP or GROUP, hyperparameters, a count. Out: Python numbers.

The interpreter and the kernels both take their scalars from here, so `beta[1]**t` has one value. Each primitive follows
IEEE 754, as NumPy does: a division by zero is an infinity or a NaN, never an exception.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from .expr import COUNTS, Call, Const, Count, Expr, Given, Local, Scalar, Shape, replaced, walk
from .functions.coefficients import NUMBERS
from .functions.definition import compiled
from .functions.lookup import function
from .primitives import DEFINED, power_steps
from .rule import Assign, Rule

__all__ = [
    "HOST", "Always", "HyperValues", "Program", "Value", "ValuesByCount", "block_size", "evaluate", "with_numbers",
]  # fmt: skip

Value: TypeAlias = float | bool
#: The values of the hyperparameters, by name; one number or several. In a step, the numbers that it is given too.
HyperValues: TypeAlias = Mapping[str, tuple[float, ...]]
#: The same by count of updates, since a schedule may change them.
ValuesByCount: TypeAlias = Mapping[int, HyperValues]
#: The cell of a value, the operation that computes it, and the cells of its arguments.
Instruction: TypeAlias = tuple[int, Callable[..., Value], tuple[int, ...]]

#: How many sets of hyperparameters a program remembers.
MOST_KNOWN = 64


class Always(dict[int, HyperValues]):
    """The same hyperparameters whatever the count."""

    def __init__(self, values: HyperValues) -> None:
        super().__init__({1: values})

    def __missing__(self, t: int) -> HyperValues:
        return self[1]


def with_numbers(sets: Sequence[ValuesByCount], numbers: HyperValues) -> Sequence[ValuesByCount]:
    """Sets of hyperparameters, each with the numbers that a step is given."""
    return [
        Always({**own[1], **numbers})
        if isinstance(own, Always)
        else {t: {**values, **numbers} for t, values in own.items()}
        for own in sets
    ]


def _div(a: float, b: float) -> float:
    try:
        return a / b
    except ZeroDivisionError:
        if a == 0 or math.isnan(a):
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)


def _powi(a: float, b: float) -> float:
    powers = {1: a}
    for i, j in power_steps(int(b)):
        powers[i + j] = powers[i] * powers[j]
    return powers[int(b)]


def _sign(a: float) -> float:
    return 1.0 if a > 0 else -1.0 if a < 0 else 0.0 if a == 0 else a


def _floor(a: float) -> float:
    # A whole number of Python has no minus zero, and no infinity.
    return math.copysign(float(math.floor(a)), a) if math.isfinite(a) else a


_FLOAT, _BITS = struct.Struct("<f"), struct.Struct("<I")


def _bfloat16(a: float) -> float:
    if math.isnan(a):
        return math.nan
    try:
        (bits,) = _BITS.unpack(_FLOAT.pack(a))
    except OverflowError:
        return math.copysign(math.inf, a)
    bits += 0x7FFF + (bits >> 16 & 1)
    (rounded,) = _FLOAT.unpack(_BITS.pack(bits & 0xFFFF0000))
    return float(rounded)


def _mod(a: float, b: float) -> float:
    return a % b if b != 0 else math.nan


def _floordiv(a: float, b: float) -> float:
    return a // b if b != 0 else _div(a, b)


_DOUBLE, _WORD = struct.Struct("<d"), struct.Struct("<Q")


def _bits(a: float) -> int:
    (bits,) = _WORD.unpack(_DOUBLE.pack(a))
    return int(bits)


def _number(bits: int) -> float:
    (number,) = _DOUBLE.unpack(_WORD.pack(bits % 2**64))
    return float(number)


def _exponent(a: float, least: float) -> float:
    return float(((_bits(a) - _bits(least) + _bits(1.0)) % 2**64 >> 52) - 1023)


def _significand(a: float, least: float) -> float:
    return _number((_bits(a) - _bits(least) + _bits(1.0)) % 2**52 + _bits(least))


def _power_of_two(a: float) -> float:
    return _number(_bits(a + (1.5 * 2**52 + 1023)) << 52)


@cache
def _made(name: str) -> Callable[..., Value]:
    return compiled(function(name, "float64"), HOST)


def _defined(name: str) -> Callable[..., Value]:
    return lambda *args: _made(name)(*args)


HOST: dict[str, Callable[..., Value]] = {
    "neg": operator.neg,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": _div,
    "powi": _powi,
    "sqrt": lambda a: math.sqrt(a) if a >= 0 else math.nan,
    "abs": abs,
    "sign": _sign,
    "floor": _floor,
    "bfloat16": _bfloat16,
    "mod": _mod,
    "floordiv": _floordiv,
    "min": lambda a, b: b if b < a or b != b else a,
    "max": lambda a, b: b if b > a or b != b else a,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "not": operator.not_,
    "where": lambda condition, a, b: a if condition else b,
    "top": lambda a: _number(_bits(a) >> 27 << 27),
    "exponent": _exponent,
    "significand": _significand,
    "power_of_two": _power_of_two,
    "copysign": math.copysign,
    "two_over_pi": lambda k: NUMBERS["TWO_OVER_PI"][int(k) + 42],
    **{name: _defined(name) for name in DEFINED},
}


def evaluate(expr: Expr, values: HyperValues, t: int, names: Mapping[str, Value]) -> Value:
    """The value of an expression of extent STEP or less; `names` are the values of the locals in it."""
    match expr:
        case Const():
            return expr.value
        case Scalar():
            return values[expr.hyper][max(0, expr.index - 1)]
        case Count():
            return float(t)
        case Given():
            return values[expr.name][0]
        case Local():
            return names[expr.name]
        case Call():
            return HOST[expr.op](*(evaluate(arg, values, t, names) for arg in expr.args))
    raise AssertionError(f"{expr} has no value on the host")


def block_size(rule: Rule, values: HyperValues, shape: tuple[int, ...]) -> float:
    """How many elements a block of a parameter of this shape has, no more than all of them; 0 if there are no blocks.
    What is no whole number of 1 or more is the caller's to refuse."""
    if rule.block is None:
        return 0.0
    size = float(math.prod(shape))
    known: dict[Expr, Expr] = {COUNTS["size"]: Const(size)}
    known |= {e: Const(float(e.of(shape))) for e in walk(rule.block) if isinstance(e, Shape)}
    return min(float(evaluate(replaced(rule.block, known), values, 0, {})), size) if size else 1.0


class Program:
    """The `scalars` of a lowered rule as a straight line of Python.

    `run(values, t)` gives the value of each name in `wanted`, in that order. What depends on nothing but
    hyperparameters is computed once for each set of them, to keep a step cheap. `table`: the primitives, `HOST` or the
    same compiled.
    """

    def __init__(
        self, scalars: Sequence[Assign], wanted: Sequence[str], table: Mapping[str, Callable[..., Value]] = HOST
    ) -> None:
        self._table = table
        self._cells: list[Value] = [0.0]  # the first is t
        self._inputs: list[tuple[int, str, int]] = []
        self._given: list[tuple[int, str]] = []
        self._steady: list[Instruction] = []
        self._moving: list[Instruction] = []
        self._moved = {0}  # the cells that depend on the step
        self._places: dict[Expr, int] = {Count(): 0}
        names: dict[str, int] = {}
        for assign in scalars:
            names[assign.target] = self._place(assign.value, names)
        self._wanted = [names[name] for name in wanted]
        self._pack = struct.Struct(f"{len(self._inputs)}d").pack  # which tells zeros apart
        self._known: dict[bytes, list[Value]] = {}
        self.run: Callable[[HyperValues, int], Sequence[Value]] = self._first_run

    def _place(self, expr: Expr, names: Mapping[str, int]) -> int:
        """The cell that will hold the value of `expr`."""
        if isinstance(expr, Local):
            return names[expr.name]
        if expr in self._places:
            return self._places[expr]
        arguments = tuple(self._place(arg, names) for arg in expr.args) if isinstance(expr, Call) else ()
        cell = self._places[expr] = len(self._cells)
        self._cells.append(expr.value if isinstance(expr, Const) else 0.0)
        if isinstance(expr, Scalar):
            self._inputs.append((cell, expr.hyper, max(0, expr.index - 1)))
        elif isinstance(expr, Given):
            self._given.append((cell, expr.name))
            self._moved.add(cell)
        elif isinstance(expr, Call):
            moves = not self._moved.isdisjoint(arguments)
            if moves:
                self._moved.add(cell)
            (self._moving if moves else self._steady).append((cell, self._table[expr.op], arguments))
        return cell

    def __len__(self) -> int:
        """How many values `run` gives."""
        return len(self._wanted)

    def _first_run(self, values: HyperValues, t: int) -> Sequence[Value]:
        """Makes `run` of the instructions, and runs it."""
        hypers = {name: f"h{i}" for i, name in enumerate(dict.fromkeys(name for _, name, _ in self._inputs))}
        numbers = "".join(f"{hypers[name]}[{index}], " for _, name, index in self._inputs)
        lines = [f"{local} = values[{name!r}]" for name, local in hypers.items()]
        others = "".join(f" or {h} is not was[{i}]" for i, h in enumerate(hypers.values(), 1))
        # What other threads do meanwhile changes nothing: `was` is looked at and taken as a whole.
        lines += ["was = last[0]", f"if was[0] is None{others}:"]
        lines += [f"    was = last[0] = begun(({numbers})), {', '.join(hypers.values())}"]
        lines += ["c = was[0].copy()", "c[0] = float(t)"]
        lines += [f"c[{cell}] = values[{name!r}][0]" for cell, name in self._given]
        lines += [f"c[{cell}] = f{cell}({', '.join(f'c[{i}]' for i in places)})" for cell, _, places in self._moving]
        lines += [f"return [{', '.join(f'c[{i}]' for i in self._wanted)}]"]
        known: dict[str, Any] = {f"f{cell}": operation for cell, operation, _ in self._moving}
        known |= {"begun": self._begun, "last": [(None,) * (len(hypers) + 1)]}
        exec("\n    ".join(["def run(values, t):", *lines]), known)
        self.run = known["run"]
        return self.run(values, t)

    def _begun(self, given: Sequence[float]) -> list[Value]:
        """The cells as far as they do not depend on the step."""
        key = self._pack(*given)
        cells = self._known.get(key)
        if cells is None:
            cells = self._cells.copy()
            for (cell, _, _), value in zip(self._inputs, given, strict=True):
                cells[cell] = value
            for cell, operation, places in self._steady:
                cells[cell] = operation(*[cells[i] for i in places])
            if len(self._known) >= MOST_KNOWN:  # schedules give other ones for each step
                self._known.clear()
            self._known[key] = cells
        return cells
