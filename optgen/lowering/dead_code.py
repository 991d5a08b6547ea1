"""Dead code: assignments that nothing reads and no array takes are removed, in `body` and in `scalars`.

Guarantees: what is left is needed by p, a state or a report, by the test whether the step counts, or by the group, to
which tensors in another variant give too; every value is the same to the bit.
Does not: remove a state, even one that no longer needs to be kept (`check` refuses such a spec).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..frozen import replace
from ..ir.expr import Local, Reduce, walk
from ..ir.rule import Assign, Rule

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    live = {a.target for a in rule.body if isinstance(a.value, Reduce) and a.value.key >= 0}
    live |= rule.stores | rule.reported | {rule.accept}
    body = _living(rule.body, live)
    return replace(rule, body=body, scalars=_living(rule.scalars, live))


def _living(block: Sequence[Assign], live: set[str]) -> tuple[Assign, ...]:
    """The assignments of `block` whose names are in `live`; what they read joins `live`."""
    kept = []
    for assign in reversed(block):
        if assign.target in live:
            kept.append(assign)
            live.update(e.name for e in walk(assign.value) if isinstance(e, Local))
    return tuple(reversed(kept))
