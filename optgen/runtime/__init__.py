"""Kernels at work: from arrays to one call of a compiled library, and the step engine for every array library.

In: a compilation, arrays, hyperparameters.
Out: arrays changed in place, or an error before anything has changed.

A change here may touch how arrays are checked, bound and stepped, and never the value of a step.
"""
