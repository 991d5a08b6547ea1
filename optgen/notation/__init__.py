"""From a rule to something that a person reads: formulas, LaTeX, and facts such as the bytes that it moves.

In: a rule, checked or lowered. Out: text. A change here never alters what is computed.
"""
