"""Python's own parser, for formulas, functions and generated modules.

In: a text in Python's syntax. Out: its tree, the same from any thread.
"""

from __future__ import annotations

import ast
import threading
import warnings
from typing import Any

__all__ = ["syntax_tree"]

#: Python 3.11 and 3.12 count the depth of all trees in one place, so that two threads disturb each other and one of
#: them ends in a SystemError. Filters of warnings, too, belong to the whole process.
_ONE_AT_A_TIME = threading.RLock()


def syntax_tree(source: str, mode: str = "exec") -> Any:
    """`ast.parse`, which also raises SyntaxError for what Python only warns of, such as `1if x`."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("error")
        return ast.parse(source, mode=mode)
