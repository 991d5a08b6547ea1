"""The object a user holds."""

from .base import Optimiser

__all__ = ["Optimiser"]
