"""From a rule to the work of one step: passes over the IR, then sweeps over memory and small loops between them.

In: a checked rule. Out: the lowered rule, its sweeps, and the stages in which a tensor goes through them.

A pass preserves every value, bit for bit. Nothing here knows C, arrays or threads.
"""
