"""What Python's grammar has and the language of specs has not: what it is called, and what to write instead. And what
is no TOML.

In: kinds of syntax, and values; what is wrong with a document. Out: words for messages, and a fault.
"""

from __future__ import annotations

import ast
import re

from ..errors import Diagnostic, Span
from .positions import span_at

__all__ = [
    "ALLOWED", "EXTENT_BY_NAME", "INSTEAD", "LAMBDA", "OTHER_COMPARISONS", "STATEMENT", "WRONG_EXPRESSIONS",
    "WRONG_OPERATORS", "kind", "malformed_toml", "statement_kind",
]  # fmt: skip

#: A word that begins a statement of Python; what to write instead, where there is something.
STATEMENT = re.compile(
    r"(?:async|assert|break|class|continue|def|del|elif|else|except|finally|from|global|if|import|nonlocal|pass"
    r"|raise|return|try|while|with)\b"
)
INSTEAD = {
    "while": "a loop goes over the values of a list: for b in beta: m[b] = b*m[b] + g",
    "if": "a choice is part of a value: m = a if condition else b",
    "return": "what the rule gives is assigned: delta = eta*m, or p = ...",
}

OTHER_COMPARISONS: dict[type[ast.cmpop], str] = {ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"}
ALLOWED = "numbers, names, operators and functions"
#: What other libraries call the extent of a reduction.
EXTENT_BY_NAME = {"axis", "dim"}
_BITS = "formulas are about real numbers"
#: For each operator that is refused: its symbol, what is wrong, and what to do.
WRONG_OPERATORS: dict[type[ast.operator], tuple[str, str, str]] = {
    ast.BitXor: ("^", "is not a power here", "write `**`"),
    ast.BitAnd: ("&", "has no meaning in a formula", "write `and` for conditions"),
    ast.BitOr: ("|", "has no meaning in a formula", "write `or` for conditions, `abs(x)` for an absolute value"),
    ast.LShift: ("<<", "has no meaning in a formula", _BITS),
    ast.RShift: (">>", "has no meaning in a formula", _BITS),
}
LAMBDA = "for a value write lam, or λ"
WRONG_EXPRESSIONS: dict[type[ast.expr], tuple[str, str | None]] = {
    ast.Attribute: (
        "an attribute (a dot)",
        "functions and names are written plainly: sqrt(v), not np.sqrt(v); a transposed matrix is A.T",
    ),
    ast.Lambda: ("a lambda", LAMBDA),
    ast.NamedExpr: ("`:=`", "give the part a formula of its own, on the line before"),
    ast.ListComp: ("a comprehension", None),
    ast.SetComp: ("a comprehension", None),
    ast.DictComp: ("a comprehension", None),
    ast.GeneratorExp: ("a comprehension", None),
    ast.JoinedStr: ("text", None),
    ast.List: ("a list", None),
    ast.Tuple: ("a tuple", "a comma here makes two values; write a point in a number"),
    ast.Dict: ("a dictionary", None),
    ast.Set: ("a set", None),
    ast.Await: ("`await`", None),
    ast.Yield: ("`yield`", None),
    ast.YieldFrom: ("`yield`", None),
    ast.Starred: ("a star", None),
}


def statement_kind(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Expr):
        return "an expression without a name"
    return f"a Python {type(statement).__name__.lower()} statement"


def kind(value: object) -> str:
    """The kind of a value, in words for a message."""
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}
    names |= {bytes: "bytes", complex: "a complex number", type(None): "None", type(...): "`...`"}
    return names.get(type(value), f"a {type(value).__name__}")


def malformed_toml(text: str, message: str) -> Diagnostic:
    """The fault of a document that is no TOML; `message`: what the parser says of it."""
    if place := re.search(r"\(at line (\d+), column (\d+)\)", message):
        span = Span(int(place[1]), int(place[2]))
    else:  # "(at end of document)"
        span = span_at(text, len(text.rstrip("\n")), len(text))
    reason = re.sub(r" \(at [^)]*\)", "", message)
    letter = text.split("\n")[span.line - 1][span.column - 1 : span.column]
    hint = None if letter.isascii() else f'TOML wants quotes around it, also in a key: "{letter}" = ...'
    if "invalid value" in reason.lower() and letter.isascii() and letter.isalpha():
        hint = 'TOML writes true and false, numbers, and text in quotes: "..."'
    return Diagnostic(span, f"malformed TOML: {reason[:1].lower()}{reason[1:]}", hint)
