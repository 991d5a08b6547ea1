"""From a rule to the work of one step: passes over the IR, then sweeps over memory and small loops between them.

In: a checked rule. Out: the lowered rule, its sweeps, and the stages in which a tensor goes through them.

A change here may alter the order and the number of sweeps, never a value: passes preserve every bit. Nothing here knows
C, arrays or threads.
"""
