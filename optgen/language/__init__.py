"""Spec text to typed rules.

In: the text of a spec. Out: a checked rule for each variant, or all its faults by position. A change here may alter
what a spec can say and how its faults are reported; it knows nothing of C, memory or arrays.
"""
