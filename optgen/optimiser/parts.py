"""Parts of a chain: whether they fit, and the rule that they are together.

In: optimisers, in the order in which they run. Out: the rule of the chain, and what in it belongs to which part; or an
ArgumentError that names the parts that do not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..compiler.driver import Compilation
from ..errors import ArgumentError
from ..ir.compose import Composed, compose
from ..ir.expr import Extent, Matrices, reduces
from ..ir.rule import Aspect, Rule
from ..ir.verify import verify
from ..language.limits import MOST_REDUCTIONS
from ..runtime.phases import expect_one_with_phases
from .base import Optimiser, settings_of

__all__ = ["compiled", "refuse_misfits"]


def refuse_misfits(parts: Sequence[Optimiser]) -> None:
    """ArgumentError for parts in an order that means nothing."""
    stepped = False
    for i, part in enumerate(parts):
        kind = part.rule.part
        if kind == "parameter" and not stepped:
            name = type(part).__name__
            message = f"part {i}, {name}, works on the parameter as a rule leaves it, and there is no rule before it"
            raise ArgumentError(message, hint=f"put it behind one: chain(ADAM(), {name}())")
        if kind == "gradient" and i and parts[i - 1].rule.part == "parameter":
            name, before = type(part).__name__, type(parts[i - 1]).__name__
            message = f"part {i}, {name}, works on a gradient or step, and {before} before it gives a parameter"
            raise ArgumentError(message, hint=f"put {name} before {before}")
        stepped = stepped or kind == ""
    given = {each.name: (each.extent, type(part).__name__) for part in parts for each in part.rule.inputs}
    for i, part in enumerate(parts):
        for each in part.rule.inputs:
            extent, other = given[each.name]
            if each.extent != extent:
                message = f"part {i}, {type(part).__name__}, takes {each.name} for {each.extent.words}, and {other} not"
                raise ArgumentError(message, hint="rename the input in one of the two specs")
    for shape in Aspect:
        seen = dict(_tiles(parts, shape))
        if len(seen) > 1:
            message = f"{' and '.join(seen.values())} do not fit into one chain: they see a parameter as different"
            blocks = any(isinstance(each, int) for each in seen)
            raise ArgumentError(f"{message} {'blocks' if blocks else 'matrices'}", hint="step them apart")
    expect_one_with_phases([f"part {i}, {type(part).__name__}" for i, part in enumerate(parts) if part.rule.phases])
    last = [_open(part, next(iter(Aspect)), len(part.rule.phases) - 1) for part in parts]
    held = [i for i, rule in enumerate(last) if any(assign.target == "proceed" for assign in rule.body)]
    for i, part in enumerate(parts):
        grouped = [state.name for state in part.rule.states if state.extent == Extent.GROUP]
        if grouped and held and held[0] < i:
            names = type(parts[held[0]]).__name__, type(part).__name__
            message = f"{names[0]} holds back parameters one by one, and {names[1]} has a state of all of them together"
            raise ArgumentError(f"{message} ({', '.join(grouped)})", hint=f"put {names[0]} behind {names[1]}")


def compiled(parts: Sequence[Optimiser]) -> tuple[Compilation, list[Composed]]:
    """The rule of the chain, in a variant for each kind of parameters that it tells apart; and what belongs to which
    part in each, in the last phase."""
    name = "_".join(type(part).__name__ for part in parts)
    shapes = [aspect for aspect in Aspect if all(aspect in settings_of(part).variants for part in parts)]
    if not shapes:
        raise ArgumentError(f"{name}: one part works on matrices only, another one on everything else")
    phases = range(max(1, *(len(part.rule.phases) for part in parts)))
    chosen: dict[Aspect, list[list[Rule]]] = {}
    for aspect in shapes:
        rules = [[_open(part, aspect, k) for part in parts] for k in phases]
        if rules not in chosen.values():
            chosen[aspect] = rules
    among = [[rules[i] for each in chosen.values() for rules in each] for i in range(len(parts))]
    last = {aspect: compose(each[-1], name, among) for aspect, each in chosen.items()}
    made = [compose(each[k], name, among, last[aspect].rule) for k in phases for aspect, each in chosen.items()]
    count = max(len(reduces(a.value for a in each.rule.body)) for each in made)
    if count > MOST_REDUCTIONS:
        raise ArgumentError(f"{name}: expected at most {MOST_REDUCTIONS} reductions in a chain, got {count}")
    return Compilation.of_rules("chain", [verify(each.rule) for each in made]), list(last.values())


def _tiles(parts: Sequence[Optimiser], aspect: Aspect) -> Iterator[tuple[Matrices | int, str]]:
    """As which matrices, or as the blocks of which part, parts see a parameter; and what each part is called."""
    for i, part in enumerate(parts):
        own = settings_of(part)
        rule = own.compilation.rules[own.variants[aspect]] if aspect in own.variants else None
        if rule is not None and rule.tiled:
            yield (rule.matrices if rule.block is None else i), type(part).__name__


def _open(part: Optimiser, aspect: Aspect, phase: int = 0) -> Rule:
    """The rule of a part in one of the phases of a step, by number."""
    own = settings_of(part)
    variant = own.variants.get(aspect, next(iter(own.variants.values())))
    return own.compilation.open[own.compilation.in_phase(variant, phase if own.compilation.phases else 0)]
