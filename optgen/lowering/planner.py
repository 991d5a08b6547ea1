"""The program of a step: which products, and which formulas between them, in which order.

In: a rule in which products have names, and a course. Out: its `MatrixProgram`.

The level of a value is how many products must be through before it. Formulas of one level and frame are one segment,
which the other passes lower, and kernels compute, as if it were a rule of its own. A value that another segment or a
product needs gets a place in memory. The old value of a state is kept until nothing reads it any more.
"""

from __future__ import annotations

from ..frozen import replace
from ..ir.expr import (
    PARAMETER,
    Call,
    Const,
    Expr,
    Extent,
    Load,
    Local,
    Product,
    Reduce,
    dims_of,
    extent_of,
    joint_dims,
    local_of,
    replaced,
    walk,
)
from ..ir.extents import Dims
from ..ir.primitives import Type
from ..ir.rule import Assign, Rule
from ..ir.symmetry import Symmetry
from . import dead_code as dead
from . import name_products as naming
from .courses import Course, Needs, under
from .fusion import Fused, fused
from .liveness import placed
from .name_products import core_of
from .orientation import PARAMETER_DIMS, oriented
from .program import MatrixProgram, Multiplication, Operand, Segment, Step
from .segments import segment_rule

__all__ = ["Planner", "planned"]


def planned(rule: Rule, course: Course, needs: Needs, *, fuses: bool) -> MatrixProgram:
    """The program of a rule on a course. `fuses`: as for `programs_of`."""
    return Planner(rule, course, needs, fuses=fuses).program()


def _is_scalar(value: Expr) -> bool:
    return extent_of(value) <= Extent.STEP


def _is_number(value: Expr) -> bool:
    return extent_of(value) < Extent.MATRIX


def _on_course(rule: Rule, course: Course, needs: Needs) -> Rule:
    """The rule with the choices made that a course decides, and without what nothing needs then."""
    body = tuple(Assign(a.target, under(a.value, course, needs)) for a in rule.body)
    chosen = naming.run(replace(rule, body=body))
    old = {PARAMETER: Load(PARAMETER)} | {s.name: Load(s.name, s.extent, s.dims) for s in rule.states}
    same = {a.target for a in chosen.body if a.value == old.get(a.target)}
    known: dict[Expr, Expr] = {local_of(name, old[name]): old[name] for name in same}
    kept = tuple(Assign(a.target, replaced(a.value, known)) for a in chosen.body if a.target not in same)
    return dead.run(replace(rule, body=kept))


class Planner:
    """The values of a step on one course, each with its frame and level.

    `frames`: the dimensions of the matrices that a formula goes over; products have none. `written`: at which level a
    state or the parameter is written.
    """

    def __init__(self, rule: Rule, course: Course, needs: Needs, *, fuses: bool) -> None:
        self.named = rule
        chosen = _on_course(rule, course, needs)
        self.symmetry = Symmetry(rule.body, rule.states)  # of every course: a state keeps them from step to step
        found = oriented(chosen)
        self.turned = found.turned
        joined = fused(found.rule) if fuses else Fused(found.rule, frozenset())
        self.rule, self.halves = joined.rule, joined.halves
        self.values = {a.target: a.value for a in self.rule.body}
        self.stores = {name: value for name, value in self.values.items() if name in rule.stores}
        self.frames: dict[str, Dims | None] = {}
        self.level: dict[str, int] = {}
        for name, value in self.values.items():
            self.frames[name] = self._frame(value)
            self.level[name] = self._first_level(name, value)
        self.readers = self._readers()
        self.written = {name: self._write_level(name) for name in self.stores}
        self._put_off()
        self.places: dict[str, Operand] = {}
        #: The same matrix as bfloat16 where its place has another type, and the other way round.
        self.converted: dict[str, Operand] = {}
        self.numbers: dict[Expr, Local] = {}
        self.taken = set(self.values) | set(rule.arrays) | {s.name for s in rule.states}

    # ---- Frames and levels ----

    def _frame(self, value: Expr) -> Dims | None:
        """The dimensions that a formula goes over; None for a product or a scalar."""
        if isinstance(value, Product) and value.op != "transpose":
            return None
        if _is_scalar(value):
            return None
        dims = joint_dims(value.args) if isinstance(value, Reduce) else dims_of(value)
        assert dims is not None, value
        if dims.rows and dims.columns:
            return dims
        fitting = [frame for frame in self._frames_read(value) if _fits(dims, frame)]
        if fitting:
            return fitting[-1]
        known = [frame for frame in (PARAMETER_DIMS, *filter(None, self.frames.values())) if _fits(dims, frame)]
        return known[0] if known else Dims(dims.rows or dims.columns, dims.columns or dims.rows)

    def _frames_read(self, value: Expr) -> list[Dims]:
        """The frames of the formulas that a value reads as they are, those of the highest level last."""
        names = [e.name for e in walk(value) if isinstance(e, Local)]
        turned = {core_of(e) for e in walk(value) if isinstance(e, Product)}
        read = [n for n in names if self.frames.get(n) and not any(e.name == n for e in turned if isinstance(e, Local))]
        return [frame for n in sorted(read, key=self.level.__getitem__) if (frame := self.frames[n]) is not None]

    def _first_level(self, name: str, value: Expr) -> int:
        """The first level at which a value can be computed."""
        frame, levels = self.frames[name], [0]
        for read, is_turned in _locals(value):
            if _is_scalar(self.values[read]) or self._everywhere(read, frame):
                continue
            after = self.level[read] + 1
            if self._is_product(read):
                levels.append(after)
            else:
                # Products come after the segments of their level.
                alike = frame is None or (self.frames[read] == frame and not is_turned)
                levels.append(self.level[read] if alike else after)
        return max(levels)

    def _is_product(self, name: str) -> bool:
        value = self.values[name]
        return isinstance(value, Product) and value.op != "transpose"

    def _everywhere(self, name: str, frame: Dims | None) -> bool:
        """Whether a value is computed again in each segment of this frame: a count of the parameter."""
        value = self.values[name]
        return (
            frame == PARAMETER_DIMS == self.frames[name]
            and extent_of(value) == Extent.TENSOR
            and not any(
                isinstance(e, Reduce | Load) or (isinstance(e, Local) and not self._cheap(e.name)) for e in walk(value)
            )
        )

    def _cheap(self, name: str) -> bool:
        return _is_scalar(self.values[name]) or self._everywhere(name, PARAMETER_DIMS)

    # ---- When states are written ----

    def _readers(self) -> dict[str, list[str]]:
        """The values that read the old value of each array, and each other value."""
        readers: dict[str, list[str]] = {}
        for name, value in self.values.items():
            for e in walk(value):
                if isinstance(e, Load):
                    readers.setdefault(f"old {e.array}", []).append(name)
                elif isinstance(e, Local):
                    readers.setdefault(e.name, []).append(name)
        return readers

    def state_frame(self, name: str) -> Dims:
        """The frame of the segments that write a state."""
        state = next((s for s in self.rule.states if s.name == name), None)
        if state is None or (state.extent == Extent.ELEMENT and state.dims is None):
            return PARAMETER_DIMS
        if state.dims is not None and state.extent == Extent.ELEMENT:
            return state.dims
        return self.frames[name] or PARAMETER_DIMS

    def _write_level(self, name: str) -> int:
        """The level at which an array is written: when its value is known, and its old one no longer read."""
        frame = self.state_frame(name)
        first = self.level[name] + (self._is_product(name) or self.frames[name] != frame)
        levels = [first]
        for reader in self.readers.get(f"old {name}", ()):
            alike = self.frames[reader] == frame and not self._reads_turned(reader, name)
            levels.append(self.level[reader] + (not alike))
        return max(levels)

    def _reads_turned(self, reader: str, array: str) -> bool:
        return any(
            isinstance(e, Product) and isinstance(core_of(e), Load) and core_of(e).array == array  # type: ignore[union-attr]
            for e in walk(self.values[reader])
        )

    def _put_off(self) -> None:
        """Computes what nothing but a later write needs when it is written."""
        for name, level in self.written.items():
            alike = self.frames[name] == self.state_frame(name)
            if level > self.level[name] and alike and not self.readers.get(name) and not self._is_product(name):
                self.level[name] = level

    # ---- Places ----

    def program(self) -> MatrixProgram:
        steps: list[Step] = []
        self._find_places()
        for level in range(1 + max([*self.level.values(), *self.written.values()])):
            steps += self._segments(level)
            made = [n for n in self.values if self.level[n] == level]
            steps += [self._conversion(n) for n in made if n in self.converted and not self._is_product(n)]
            for name in filter(self._is_product, made):
                steps.append(self._multiplication(name))
                if name in self.converted:
                    steps.append(self._conversion(name))
        scalars = [Assign(n, v) for n, v in self.values.items() if _is_scalar(v) and n not in self.stores]
        places = (*self.places.values(), *self.converted.values())
        scalars += [Assign(local.name, value) for value, local in self.numbers.items()]
        return MatrixProgram(self.named, self.turned, tuple(steps), placed(steps, places), tuple(scalars))

    def _find_places(self) -> None:
        """Gives a place to each value that another segment needs, or a product."""
        for name, value in self.values.items():
            if _is_scalar(value):
                continue
            apart = any(not self._beside(name, reader) for reader in self.readers.get(name, ()))
            later = name in self.written and not self._written_at_once(name)
            if self._is_product(name) or apart or later:
                self._place(name)

    def _written_at_once(self, name: str) -> bool:
        """Whether the array holds a value as soon as that is known, and as it is."""
        own = self.array(name)
        return (
            self.written[name] == self.level[name]
            and self.frames[name] == self.state_frame(name)
            and extent_of(self.values[name]) == own.extent
        )

    def array(self, name: str) -> Operand:
        """The parameter, the gradient, an input or a state."""
        state = next((s for s in self.rule.states if s.name == name), None)
        if state is None:
            return Operand(name, PARAMETER_DIMS)
        return Operand(name, dims_of(Load(name, state.extent, state.dims)), state.extent)

    def _beside(self, name: str, reader: str) -> bool:
        """Whether a value is read in its own segment, or from the array where its segment writes it."""
        if self._everywhere(name, self.frames[reader]):
            return True
        if name in self.written and self._written_at_once(name):
            return True
        same = self.frames[reader] == self.frames[name] and self.level[reader] == self.level[name]
        return same and not any(is_turned and read == name for read, is_turned in _locals(self.values[reader]))

    def _place(self, name: str) -> None:
        value = self.values[name]
        array = name if name not in self.stores else _fresh(f"{name}_new", self.taken)
        half = name in self.halves and self._is_product(name)
        place = self.places[name] = Operand(array, dims_of(value), extent_of(value), half=half)
        readers = self.readers.get(name, ())
        if any(half != self._is_half_product(reader) for reader in readers if name in self.halves):
            other = "wide" if half else "half"
            self.converted[name] = replace(place, array=_fresh(f"{name}_{other}", self.taken), half=not half)

    def _is_half_product(self, name: str) -> bool:
        return name in self.halves and self._is_product(name)

    def operand(self, expr: Expr, *, half: bool = False) -> Operand:
        """Where a segment or a product finds a matrix."""
        core = core_of(expr)
        is_turned = core is not expr and not self.symmetry.known(core)
        if isinstance(core, Load):
            return replace(self.array(core.array), turned=is_turned)
        assert isinstance(core, Local)
        if core.name in self.places:
            place = self.places[core.name]
            place = place if place.half == half else self.converted[core.name]
            return replace(place, turned=is_turned)
        return replace(self.array(core.name), turned=is_turned)

    # ---- Steps ----

    def _multiplication(self, name: str) -> Multiplication:
        value, half = self.values[name], name in self.halves
        assert isinstance(value, Product)
        args = [self._number(x) if _is_number(x) else self.operand(x, half=half) for x in value.args]
        if value.op in ("matmul", "multiply") and self.symmetry.known(core_of(value.args[1])):
            # Of a symmetric matrix either way will do: libraries go along the rows of both factors.
            args[1] = replace(args[1], turned=True)
        target = replace(self.places[name], dims=value.dims)
        symmetric = self.symmetry.known(Local(name, extent_of(value), Type.REAL))
        return Multiplication(value.op, tuple(args), target, symmetric)

    def _number(self, value: Expr) -> Const | Local:
        """A number by its name."""
        if isinstance(value, Const | Local):
            return value
        name = self.numbers.get(value) or Local(_fresh("number", self.taken), extent_of(value), Type.REAL)
        return self.numbers.setdefault(value, name)

    def _conversion(self, name: str) -> Multiplication:
        return Multiplication("convert", (self.places[name],), self.converted[name])

    def _segments(self, level: int) -> list[Segment]:
        """The formulas of a level, a segment for each frame."""
        wanted: dict[Dims, dict[str, Operand]] = {}
        for name, place in self.places.items():
            frame = self.frames[name]
            if frame is not None and self.level[name] == level and not self._is_product(name):
                wanted.setdefault(frame, {})[name] = place
        writes: dict[Dims, list[str]] = {}
        for name in self.stores:
            if self.written[name] == level:
                writes.setdefault(self.state_frame(name), []).append(name)
        frames = dict.fromkeys((*wanted, *writes))
        return [segment_rule(self, level, frame, wanted.get(frame, {}), writes.get(frame, [])) for frame in frames]

    def is_computed_in(self, name: str, level: int, frame: Dims) -> bool:
        """Whether a value is computed in the segment of this level and frame."""
        value = self.values[name]
        if _is_scalar(value) or self._everywhere(name, frame):
            return True
        return not self._is_product(name) and self.level[name] == level and self.frames[name] == frame


def _locals(value: Expr) -> list[tuple[str, bool]]:
    """The names that a value reads, and whether the transpose of each."""
    match value:
        case Local(name=name):
            return [(name, False)]
        case Product(op="transpose"):
            core = core_of(value)
            return [(core.name, True)] if isinstance(core, Local) else []
        case Call() | Reduce() | Product():
            return [found for arg in value.args for found in _locals(arg)]
    return [(e.name, False) for e in walk(value) if isinstance(e, Local)]


def _fits(dims: Dims, frame: Dims) -> bool:
    """Whether values of these dimensions are those of matrices, rows or columns of a frame."""
    return dims.rows in ("", frame.rows) and dims.columns in ("", frame.columns)


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
