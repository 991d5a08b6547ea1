"""The pipeline of passes: a checked rule in, the rule that is emitted out. Every pass only preserves values."""

from __future__ import annotations

from ..ir import Rule
from . import cse, dead, fold, hoist, powers, reductions, shards

__all__ = ["PIPELINE", "lower", "shards"]

PIPELINE = (reductions.run, powers.run, fold.run, hoist.run, cse.run, dead.run)


def lower(rule: Rule) -> Rule:
    """`rule` after all passes, in order: same bits, less work."""
    for run in PIPELINE:
        rule = run(rule)
    return rule
