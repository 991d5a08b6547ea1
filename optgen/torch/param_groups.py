"""Hyperparameters and variants of the rule, read from the groups of an optimiser.

In: `param_groups`, at every step. Out: `Groups.values` and `Groups.variants`, computed again only after a change.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from functools import cache
from operator import itemgetter
from types import UnionType
from typing import Any

import numpy as np
import torch

from ..compiler.driver import Compilation
from ..errors import ArgumentError, HyperparameterError, shown
from ..frozen import frozen
from ..ir.evaluate import Always, HyperValues, ValuesByCount, evaluate
from ..ir.expr import Call, Expr, Extent, Local, Scalar, extent_of, walk
from ..ir.rule import Aspect, Hyper, Rounding, Rule
from ..optimiser.hyperparameters import checked
from ..runtime.shapes import block_of, chosen_once, variant_for
from ..runtime.underflow import refuse_vanishing
from .naming import Naming
from .tensors import compute_dtype

__all__ = [
    "NO_SCHEDULE", "SCHEDULERS", "GroupValues", "Groups", "called", "expect_absent", "expect_group", "expect_shapes",
    "named_parameters",
]  # fmt: skip

NO_SCHEDULE = "expected a number, got a schedule"
SCHEDULERS = "use one of torch.optim.lr_scheduler"
#: Parts of chains that do what a rule does not, by what groups call it: behind the rule, and before it.
_PARTS = {"lr": "..., optgen.Descent({0})", "weight_decay": "optgen.WeightDecay({0}), ..."}
#: What to do with a parameter that a rule has no variant for.
BOTH = "step it with another rule, both as one optimiser: optim.split(...)"
#: What else helps, or what else there is to know.
_BESIDES = {
    "lr": "or, in a spec of your own, call the learning rate eta",
    "weight_decay": "there it passes through the moments (L2); behind the rule it is decoupled, not multiplied by lr",
}


#: What each group has hyperparameters for: None stands for the machine epsilon of these.
_COMPUTED = {"float32": torch.float32, "float64": torch.float64}
_NUMBER = {name: i for i, name in enumerate(_COMPUTED)}


@frozen
class GroupValues:
    """The hyperparameters of all groups: a set for each group and compute type.

    `sets` is how kernels take them, `number` the position of one there, and `of` the set itself.
    """

    sets: Sequence[ValuesByCount] = ()

    def number(self, group: int, dtype: str) -> int:
        return len(_NUMBER) * group + _NUMBER[dtype]

    def of(self, group: int, dtype: str = "float32") -> HyperValues:
        return self.sets[self.number(group, dtype)][1]  # the same at each count


class Groups:
    """The groups of an optimiser as they were last read.

    Attributes
    ----------
    values
        The hyperparameters.
    variants
        Of each group the variant of the rule, by what a parameter is; None for a group that PyTorch's own
        loop steps.
    """

    def __init__(self, naming: Naming) -> None:
        self._naming = naming
        self._groups: Sequence[Mapping[str, Any]] = ()
        self._get: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*naming.keys)
        self._raw: list[tuple[Any, ...]] | None = None
        self._keys: list[tuple[str, ...]] = []  # of each group: a new one may be another spelling
        self._sizes: list[int] = []
        self._owners: list[int] = []
        self._moving = False  # whether there are tensors or arrays among these, which may change where they stand
        self.values = GroupValues()
        #: Whether plans go by other variants or groups; who has forgotten them says so.
        self.changed = False
        self.variants: tuple[dict[Aspect, int] | None, ...] = ()
        self._sizing = sorted(chosen_once(naming.rules))
        self._blocks: list[tuple[Any, ...]] = []  # of each group, what says how large blocks are

    def read(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Looks at the groups, and gives what is in them in other spellings the keys that groups have; whether a
        parameter has another variant or group than before. HyperparameterError or ArgumentError for what a rule of
        optgen's own does not allow."""
        naming = self._naming
        self._groups = groups
        if (naming.spellings or naming.absent) and list(map(tuple, groups)) != self._keys:
            for group in groups:
                naming.respell(group)
            self._keys = list(map(tuple, groups))
        raw = list(map(self._get, groups))
        sizes = [len(group["params"]) for group in groups]  # by these a parameter may have gone to another group
        regrouped = sizes != self._sizes
        if not self._moving and raw == self._raw and not regrouped:
            return self.changed
        raw = [tuple(tuple(x) if type(x) is list else x for x in each) for each in raw]
        sets: list[ValuesByCount] = []
        variants: list[dict[Aspect, int] | None] = []
        for i, group in enumerate(groups):
            expect_absent(naming, group, f"{naming.name}, group {i}")
            found = {name: self._values(group, dtype, i) for name, dtype in _COMPUTED.items()}
            sets += map(Always, found.values())
            chosen = None if naming.strategy.steps_group(group) else self._variants_of(group, found["float64"])
            variants.append(chosen)
            if naming.strategy.checks_values and chosen is not None:
                for dtype in {compute_dtype(p) for p in group["params"]}:
                    owner = f"{naming.name}, group {i}"
                    refuse_vanishing(owner, naming.compilation, chosen.values(), [found[dtype]], [dtype])
        values = GroupValues(sets)
        self._refuse_different(values, len(groups))
        # What is looked at first in the next step is noted last: this may be broken off at any point.
        blocks = [tuple(own[1][name] for name in self._sizing) for own in sets]
        self.changed = self.changed or regrouped or tuple(variants) != self.variants or blocks != self._blocks
        self._owners = [i for i, size in enumerate(sizes) for _ in range(size)]
        self.values, self.variants, self._blocks = values, tuple(variants), blocks
        self._moving = _has(torch.Tensor | np.ndarray, raw)
        self._raw, self._sizes = raw, sizes
        return self.changed

    # What the step engine asks of hyperparameters. The place of a parameter is counted over all groups.

    @property
    def compilation(self) -> Compilation:
        return self._naming.compilation

    @property
    def fixed(self) -> Sequence[ValuesByCount]:
        return self.values.sets

    def sets_at(self, slots: Sequence[Any], ahead: int = 1) -> Sequence[ValuesByCount]:
        return self.values.sets

    def number(self, place: int, dtype: str) -> int:
        return self.values.number(self._owners[place], dtype)

    def rounding(self, place: int, rule: Rule) -> Rounding:
        chosen = self._naming.storing.rounding
        return tuple((name, chosen[name]) for name in rule.arrays if name in chosen) if chosen else ()

    def variant(self, place: int, shape: tuple[int, ...]) -> int:
        """The position in `compilation.rules` of the variant for a parameter of this shape."""
        variants = self.variants[self._owners[place]] or {}
        naming, what = self._naming, self.what(place)
        return variant_for(variants, shape, naming.matrices, naming.name, what=what, hint=BOTH)

    def values_at(self, place: int) -> HyperValues:
        """The hyperparameters that the parameter in this place goes by."""
        return self.values.of(self._owners[place])

    def block(self, place: int, rule: Rule, shape: tuple[int, ...]) -> int:
        return block_of(rule, self.values_at(place), shape)

    def what(self, place: int) -> str:
        """What the parameter in this place is called in messages."""
        return called(self._groups, place)

    def by_kernel(self, place: int) -> bool:
        """Whether the group of a parameter leaves the step to optgen."""
        return self.variants[self._owners[place]] is not None

    def variants_at(self, place: int) -> Collection[int]:
        """The variants that a parameter may be stepped in."""
        return (self.variants[self._owners[place]] or {}).values()

    def known_to_fit(self, dtypes: Set[str]) -> bool:
        return True  # `read` has refused what does not

    def refuse_vanishing(self, dtypes: Set[str], sets: Sequence[ValuesByCount]) -> None:
        """`read` has done that."""

    # ---- Reading ----

    def variants_of(self, group: Mapping[str, Any], i: int) -> dict[Aspect, int]:
        """The variants of the rule that a saved group, number `i`, stepped with, by what a parameter is."""
        return self._variants_of(group, self._values(group, torch.float64, i))

    def values_of(self, group: Mapping[str, Any], i: int) -> HyperValues:
        """The hyperparameters of a group, number `i`."""
        return self._values(group, torch.float64, i)

    def _values(self, group: Mapping[str, Any], dtype: torch.dtype, i: int) -> HyperValues:
        """A None stands for the machine epsilon of the dtype where PyTorch's default is one, as in Adafactor."""
        eps = torch.finfo(dtype).eps
        values = {}
        for hyper in self._naming.rules[0].hypers:
            key = self._naming.hypers[hyper.name]
            found = _numbers(group[key], hyper, eps if key in self._naming.strategy.epsilons else None)
            if found is None:
                expected = f"{len(hyper.default)} numbers" if hyper.vector else "a number"
                message = f"{self._naming.name}, group {i}, {key}: expected {expected}, got {shown(group[key])}"
                raise ArgumentError(message, hint=f"such as {_shown(hyper.default)}")
            if self._naming.strategy.checks_values:
                _expect_value(self._naming, hyper, found if hyper.vector else found[0], i)
            values[hyper.name] = found
        return values

    def _variants_of(self, group: Mapping[str, Any], values: HyperValues) -> dict[Aspect, int]:
        flags = {}
        for flag in self._naming.rules[0].flags:
            given = group.get(self._naming.flags[flag.name])
            if given is None:
                given = flag.default if flag.when is None else evaluate(flag.when, values, 0, {})
            word = self._naming.meaning.get(flag.name)
            flags[flag.name] = bool(given) if word is None else given == word
        return self._naming.compilation.variants(flags)

    def _refuse_different(self, values: GroupValues, groups: int) -> None:
        """ArgumentError if groups differ in a value that a rule needs once for all parameters, or say that loops have
        other turns than they were compiled for."""
        rule, lengths = self._naming.rules[0], dict(self._naming.compilation.lengths)
        for hyper in rule.hypers if rule.turns else ():
            turns = lengths.get(hyper.name, hyper.default[0])
            for i in range(groups) if hyper.name in rule.turns else ():
                (got,) = values.of(i)[hyper.name]
                if got not in hyper.ranges[0]:
                    message = f"{self._naming.name}, group {i}, {self._naming.hypers[hyper.name]}"
                    raise HyperparameterError(f"{message}: expected {hyper.ranges[0].words}, got {got:g}")
                if got != turns:
                    key = self._naming.hypers[hyper.name]
                    message = f"{self._naming.name}, group {i}: expected {key}={turns:g}, as this was made, got {got:g}"
                    raise ArgumentError(message, hint=f"{key} is one for all groups: make an optimiser for each")
        for name in _of_all(self._naming.rules) if groups > 1 else ():
            first = values.of(0)[name]
            for i in range(1, groups):
                if (own := values.of(i)[name]) != first:
                    key, one, other = self._naming.hypers[name], _shown(first), _shown(own)
                    message = f"{self._naming.name}: {key} is one for all parameters, got {one} in group 0"
                    hint = f"give all groups the same {key}, or make an optimiser for each"
                    raise ArgumentError(f"{message} and {other} in group {i}", hint=hint)


def called(groups: Sequence[Mapping[str, Any]], i: int) -> str:
    """What parameter i, counted over all groups, is called in messages."""
    within = i
    for group in groups:
        if within < len(group["params"]):
            names = group.get("param_names")
            return f"parameter {i} ({names[within]})" if names else f"parameter {i}"
        within -= len(group["params"])
    return f"parameter {i}"


def named_parameters(groups: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, str]]:
    """All parameters with their names, or with their numbers, counted over all groups, where there are no names."""
    first = 0
    for group in groups:
        params = group["params"]
        yield from zip(params, group.get("param_names") or map(str, range(first, first + len(params))), strict=True)
        first += len(params)


def expect_absent(naming: Naming, given: Mapping[str, Any], where: str) -> None:
    """ArgumentError for a learning rate or a weight decay that a rule does not have, unless it changes nothing."""
    for key, nothing in naming.absent.items():
        value = given.get(key, nothing)
        value = _number(value) if isinstance(value, torch.Tensor) else value
        if not isinstance(value, numbers.Real) or value != nothing:
            part = _PARTS[key].format(shown(value))
            message = f"{where}, {key}: expected {nothing:g}, since {naming.name} has none, got {shown(value)}"
            raise ArgumentError(message, hint=f"give it one: optgen.torch.chain(params, {part}); {_BESIDES[key]}")


def expect_group(naming: Naming, group: Mapping[str, Any], i: int) -> None:
    """HyperparameterError or ArgumentError for what a new group, number `i`, may not say."""
    expect_absent(naming, group, f"{naming.name}, group {i}")
    for hyper in naming.rules[0].hypers:
        key = naming.hypers[hyper.name]
        if key in group and not _has(torch.Tensor, [[group[key]]]):
            _expect_value(naming, hyper, group[key], i)


def expect_shapes(naming: Naming, usual: Mapping[str, Any], group: Mapping[str, Any], i: int, where: str) -> None:
    """ArrayError for a parameter of a shape that the rule has no variant for. `usual` has what the group, number `i`,
    does not say."""
    full = {**usual, **naming.spelled({**group, "params": ()}, usual)}
    if naming.strategy.steps_group(full):
        return
    variants = Groups(naming).variants_of(full, i)
    for p, name in zip(group["params"], group["param_names"], strict=True):
        what, hint = f"{where}: {name}", "give it to another line"
        variant_for(variants, tuple(p.shape), naming.matrices, naming.name, what=what, hint=hint)


def _expect_value(naming: Naming, hyper: Hyper, value: Any, i: int) -> None:
    """HyperparameterError or ArgumentError unless a group may have such a value."""
    where = f"{naming.name}, group {i}, {naming.hypers[hyper.name]}"
    try:
        values = checked(hyper, value)
    except (HyperparameterError, ArgumentError) as error:
        raise type(error)(f"{where}: {error.message}", hint=error.hint) from None
    if any(map(callable, values)):
        raise ArgumentError(f"{where}: {NO_SCHEDULE}", hint=SCHEDULERS)


def _numbers(given: Any, hyper: Hyper, missing: float | None) -> tuple[float, ...] | None:
    """The values of a hyperparameter, `missing` for a None; None for what are no such numbers."""
    each = given if hyper.vector else (given,)
    try:
        if len(each) == len(hyper.default):
            return tuple(missing if x is None and missing is not None else _number(x) for x in each)
    except (TypeError, ValueError, RuntimeError):
        pass
    return None


def _number(x: Any) -> float:
    """TypeError for a text, though it may read like a number."""
    if isinstance(x, str | bytes | bytearray):
        raise TypeError
    return float(x.detach() if isinstance(x, torch.Tensor) else x)


def _shown(values: tuple[float, ...]) -> str:
    return str(values[0] if len(values) == 1 else values)


@cache
def _of_all(rules: tuple[Rule, ...]) -> tuple[str, ...]:
    """The hyperparameters of which a value is made that all parameters have together."""
    found: set[str] = set()
    for rule in rules:
        known = {assign.target: assign.value for assign in (*rule.scalars, *rule.body)}

        def gather(expr: Expr, known: Mapping[str, Expr] = known) -> None:
            for part in walk(expr):
                if isinstance(part, Scalar):
                    found.add(part.hyper)
                elif isinstance(part, Local) and part.extent <= Extent.STEP and part.name in known:
                    gather(known[part.name])

        of_all = {state.name for state in rule.states if state.extent == Extent.GROUP}
        for assign in rule.body:
            if assign.target in of_all and extent_of(assign.value) <= Extent.STEP:
                gather(assign.value)
            for part in walk(assign.value):
                if extent_of(part) == Extent.GROUP and isinstance(part, Call):
                    for arg in part.args:
                        if extent_of(arg) <= Extent.STEP:
                            gather(arg)
    return tuple(hyper.name for hyper in rules[0].hypers if hyper.name in found)


def _has(kinds: type | UnionType, raw: Iterable[Iterable[Any]]) -> bool:
    """Whether something of these kinds is among the values."""
    return any([isinstance(x, kinds) for values in raw for v in values for x in (v if type(v) is tuple else (v,))])
