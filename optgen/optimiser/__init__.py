"""The object a user holds."""

from ..former import attribute_of
from .base import Optimiser

__all__ = ["Optimiser"]

__getattr__ = attribute_of("optimiser")  # for what 0.1.0 pickled
