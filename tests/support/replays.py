"""Replay: what a library computed in a step of a program is given to the interpreter, and all else agrees to the bit.

Every result is looked at by itself: its arguments are what the interpreter has there, bit for bit, and it is within the
bound of its kind. So no error of a library is carried on, and no decomposition needs a convention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optgen import interpreter as interp
from optgen.compiler.driver import Compilation
from optgen.frozen import replace
from optgen.interpreter.matrix_step import MatrixStep
from optgen.interpreter.products import MATRICES
from optgen.ir.evaluate import Always
from optgen.ir.expr import Extent, Matrices
from optgen.ir.rule import Rule
from optgen.lowering.program import MatrixProgram, Multiplication, Operand
from optgen.lowering.programs import programs_of
from optgen.runtime.matrix_library import MatrixLibrary
from optgen.runtime.program_binding import ProgramBinding
from optgen.runtime.programs import ProgramSteps
from optgen.runtime.shapes import aspect_of, state_shape

Array = Any
#: Half the distance of 1 to the next number.
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


@dataclass
class Record:
    """A call of a library: its step, what it was given, and what it gave."""

    step: Multiplication
    args: list[Any]
    out: Array


class Recording:
    """A matrix library that records its calls."""

    def __init__(self, library: MatrixLibrary) -> None:
        self.library, self.fuses = library, library.fuses
        self.records: list[Record] = []

    def compute(self, step: Multiplication, args: Sequence[Any], out: Array) -> None:
        self.library.compute(step, args, out)
        self.records.append(Record(step, [_copied(x) for x in args], _copied(out)))


def _copied(x: Any) -> Any:
    """A copy, where 16 bits have become the number that they are as a bfloat16."""
    if not isinstance(x, np.ndarray):
        return x
    return (x.astype(np.uint32) << 16).view(np.float32) if x.dtype == np.uint16 else x.copy()


class Replay:
    """One parameter, stepped by a program and by the interpreter side by side."""

    def __init__(
        self, rules: Sequence[Rule], library: MatrixLibrary, shape: tuple[int, ...], dtype: str, *,
        hypers: Mapping[str, float] = {}, matrices: Matrices = Matrices.LAST_TWO, seed: int = 0,
    ) -> None:  # fmt: skip
        aspect = aspect_of(shape, matrices)
        self.rule = replace(next(rule for rule in rules if rule.takes(aspect)), matrices=matrices)
        self.values = {h.name: (hypers[h.name],) if h.name in hypers else h.default for h in self.rule.hypers}
        self.dtype, self.shape, self.rng = dtype, shape, np.random.default_rng(seed)
        self.library = Recording(library)
        self.steps = ProgramSteps(self.library, Compilation.of_rules(self.rule.name.lower(), [self.rule]))
        self.arrays = self._begun()
        self.t = 0

    def _begun(self) -> dict[str, Array]:
        p = self.rng.standard_normal(self.shape).astype(self.dtype)
        initial = interp.initial_state(self.rule, self.values, p)
        arrays = {"p": p}
        for state in self.rule.states:
            dtype = self.dtype if state.extent == Extent.ELEMENT else "float64"
            made = np.empty(state_shape(self.rule, state, self.values, self.shape), dtype)
            made[...] = initial[state.name]
            arrays[state.name] = made
        return arrays

    def gradient(self) -> Array:
        return self.rng.standard_normal(self.shape).astype(self.dtype)

    def step(self, threads: int = 1, g: Array | None = None) -> None:
        """One more step of both; AssertionError where they differ."""
        self.t += 1
        old = {name: x.copy() for name, x in self.arrays.items()}
        other = {name: x.copy() for name, x in self.arrays.items()}
        self.arrays["g"] = self.gradient() if g is None else g
        other["g"] = old["g"] = self.arrays["g"].copy()
        for given in self.rule.inputs:
            self.arrays[given.name] = other[given.name] = old[given.name] = self.gradient()
        self.library.records.clear()
        kernel = self.steps.kernel(0, self.dtype)
        binding = ProgramBinding(kernel, [kernel.row([self.arrays[name] for name in kernel.names])], threads)
        self.steps.begun([binding], [Always(self.values)], self.t)()
        ((chunk,), _) = next(reversed(self.steps._known.values()))
        results = _results(chunk.program, self.library.records, self.dtype)
        programs = programs_of(self.rule, fuses=self.library.fuses)
        assert programs is not None
        run = MatrixStep(programs.rule, self.values, self.t, other, {}, [], None, None, 0, results)
        with np.errstate(all="ignore"):
            for record in self.library.records:
                self._check(record, chunk.program, run.reading(), old)
            run.run()
            run.write(programs.rule.stores, interp.Tensor(self.t, other))
        for name, x in self.arrays.items():
            assert _same(x, other[name]), f"step {self.t}, {self.rule.variant}, {self.shape}: {name}"

    def _check(self, record: Record, program: MatrixProgram, run: MatrixStep, old: Mapping[str, Array]) -> None:
        what = f"step {self.t}, {self.rule.variant}, {self.shape}: {record.step.target.array}"
        operands = zip(record.step.args, record.args, strict=True)
        for operand, x in operands:
            if isinstance(operand, Operand):
                assert _is_known(operand, x, program, run, old), f"{what}: {operand.array}"
        check_bound(record.step, record.args, record.out, UNIT[self.dtype], what)


def _base(array: str) -> str:
    """The name of the value that a place holds."""
    for end in ("_half", "_wide", "_new"):
        array = array.removesuffix(end)
    return array


def _results(program: MatrixProgram, records: Sequence[Record], dtype: str) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for record in records:
        target = record.step.target
        if record.step.op != "convert":
            x = record.out.mT if _base(target.array) in program.turned else record.out
            found[_base(target.array)] = x.astype(dtype if target.extent == Extent.ELEMENT else "float64")
    return found


def _is_known(operand: Operand, x: Array, program: MatrixProgram, run: MatrixStep, old: Mapping[str, Array]) -> bool:
    """Whether an argument is, bit for bit, what the interpreter has by this name, before the step or after it."""
    name = _base(operand.array)
    own = x.mT if operand.turned else x
    candidates = [old[name].reshape(own.shape)] if name in old else []
    if any(assign.target == name for assign in run.rule.body):
        value = np.asarray(run.names[name])
        candidates.append(np.broadcast_to(value.mT if name in program.turned else value, own.shape))
    return any(_same(own, each.astype(own.dtype)) for each in candidates)


def _same(x: Array, y: Array) -> bool:
    """Equal, where all NaNs count as one, and zeros of different sign differ."""
    equal = (x == y) & (np.signbit(x) == np.signbit(y)) | np.isnan(x) & np.isnan(y)
    return bool(np.all(equal))


def check_bound(step: Multiplication, args: Sequence[Any], out: Array, unit: float, what: str) -> None:
    """AssertionError unless a result is within the bound of its kind."""
    wide = [x.astype(np.float64) if isinstance(x, np.ndarray) else x for x in args]
    a, c = wide[0] if wide else None, out.astype(np.float64)
    if any(isinstance(x, np.ndarray) and not np.isfinite(x).all() for x in wide):
        return
    size = max(*out.shape[-2:], 16)
    match step.op:
        case "matmul" | "multiply":
            factor, plus, other = (*wide[2:], 1.0, 0.0, 0.0)[:3] if step.op == "multiply" else (1.0, 0.0, 0.0)
            if step.op == "multiply" and len(wide) == 3:
                factor, plus, other = wide[2], 0.0, 0.0
            exact = factor * (a @ wide[1]) + other * plus
            most = abs(factor) * (abs(a) @ abs(wide[1])) + abs(other * plus)
            bound = (a.shape[-1] + 2) * unit * most + (2.0**-8 * abs(exact) if step.target.half else 0)
            assert (abs(c - exact) <= bound).all(), what
        case "convert":
            assert _same(c, a), what
        case "eigenvectors" | "orthonormal" | "leading":
            error = np.linalg.norm(c.mT @ c - np.eye(c.shape[-1]), axis=(1, 2))
            assert (error <= 4 * size * unit).all(), f"{what}: not orthogonal"
            inside = c.mT @ a @ c if step.op == "eigenvectors" else c.mT @ a
            wanted = np.triu(inside) if step.op == "orthonormal" else inside
            if step.op == "eigenvectors":
                wanted = np.where(np.eye(len(inside[0]), dtype=bool), inside, 0)
            if step.op != "leading":
                off = np.linalg.norm(inside - wanted, axis=(1, 2))
                assert (off <= 4 * size * unit * np.linalg.norm(a, axis=(1, 2))).all(), what
        case "power" | "inverse" | "eigenvalues":
            expected = MATRICES[step.op](*wide)
            scale = np.linalg.norm(expected, axis=(1, 2), keepdims=True)
            assert (abs(c - expected) <= 1e7 * unit * scale).all(), what
        case "identity":
            assert (c == np.eye(c.shape[-1])).all(), what
        case op:
            assert _same(c, MATRICES[op](*args).astype(np.float64)), what
