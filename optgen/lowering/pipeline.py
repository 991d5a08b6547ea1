"""The pipeline of passes, each of which preserves every value.

In: a checked rule. Out: the rule from which kernels are generated.
"""

from __future__ import annotations

from ..ir.rule import Rule
from . import constant_folding as fold
from . import cse, hoist
from . import dead_code as dead
from . import expand_draws as draws
from . import expand_indices as indices
from . import expand_powers as powers
from . import expand_reductions as reductions
from . import name_sizes as shards

__all__ = ["PIPELINE", "lower", "shards"]

PIPELINE = (draws.run, reductions.run, indices.run, powers.run, fold.run, hoist.run, cse.run, dead.run)


def lower(rule: Rule) -> Rule:
    """The rule after all passes, in order: same bits, less work."""
    for run in PIPELINE:
        rule = run(rule)
    return rule
