"""The object a user holds: an optimiser of NumPy arrays.

In: a compiled rule, hyperparameters, then parameters and gradients.
Out: parameters and states changed in place; state dicts; chains of several optimisers.

A change here may touch what users call and what checkpoints hold, and never what a step computes.
"""

from ..former import attribute_of
from .base import Optimiser, compilation_of, settings_of

__all__ = ["Optimiser", "compilation_of", "settings_of"]

__getattr__ = attribute_of("optimiser")  # for what 0.1.0 pickled
