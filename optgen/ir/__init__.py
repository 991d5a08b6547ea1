"""The typed representation of a rule, and what can be done to it as data.

In: nothing; `language` makes the values. Out: expressions, rules, their invariants, evaluation, composition.

A change here concerns every wing: a primitive needs a row in each table, an extent a place in the lattice.
"""

from ..former import attribute_of

__getattr__ = attribute_of("ir")  # for what 0.1.0 pickled
