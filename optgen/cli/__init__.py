"""The command `optgen`."""

from .commands import main

__all__ = ["main"]
