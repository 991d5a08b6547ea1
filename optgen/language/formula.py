"""Formulas: text to `Term`s.

In: the text of a formula, and where it stands in its file. Out: a `Term`, or a `FormulaAst` for an assignment; faults
are recorded in the spec.

Python's own parser reads the text. Syntax without a meaning here is a fault with a hint. Nothing is ever evaluated.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

from ..errors import Diagnostic, Span
from ..names import canonical
from .positions import span_at
from .syntax import Broken, Choice, FormulaAst, Invoke, Item, Name, Number, Operation, SpecAst, Term

__all__ = ["kind", "read_expression", "read_formulas", "words"]

DEEPEST_TERM = 100


def read_expression(spec: SpecAst, source: str, start: int) -> Term | None:
    """Read the expression at offset `start` of the file. If it is malformed, record the fault and return None."""
    reader = _Formula(spec, source, start)
    tree = reader.tree("eval", "an expression")
    if not isinstance(tree, ast.Expression):
        spec.unused |= words(source)
        return None
    return reader.term(tree.body)


def read_formulas(spec: SpecAst, source: str, start: int) -> Iterator[FormulaAst]:
    """Read the formulas of a text at offset `start` of the file, one per line. Yield the well-formed ones."""
    for offset, statement in _statements(source):
        reader = _Formula(spec, statement, start + offset)
        tree = reader.tree("exec", "a formula, `name = expression`")
        formula = reader.assignment(tree.body) if isinstance(tree, ast.Module) else None
        if formula is not None:
            yield formula
        else:
            spec.unassigned |= words(statement)


def _statements(source: str) -> Iterator[tuple[int, str]]:
    """Split a text into formulas, with their offsets. A formula ends with its line, unless a bracket is still open."""
    start, depth, empty = 0, 0, True
    for line in re.finditer(r"[^\n]*(?:\n|$)", source):
        code = line.group().split("#", 1)[0]
        empty = empty and not code.strip()
        depth += sum(map(code.count, "([{")) - sum(map(code.count, ")]}"))
        if depth > 0 and line.end() < len(source):
            continue
        statement = source[start : line.end()]
        if not empty:
            yield start + len(statement) - len(statement.lstrip()), statement.strip()
        start, depth, empty = line.end(), 0, True


class _Formula:
    """One formula: turns Python's tree into `Term`s, and anything else into faults that say what to write instead."""

    def __init__(self, spec: SpecAst, source: str, start: int) -> None:
        self.spec = spec
        self.source = source
        self.start = start
        self.lines = source.split("\n")
        self.line_offsets = [0, *(m.end() for m in re.finditer("\n", source))]

    def fault_at(self, start: int, end: int, message: str, hint: str | None = None) -> None:
        span = span_at(self.spec.text, self.start + start, self.start + end)
        self.spec.faults.append(Diagnostic(span, message, hint))

    def fault(self, node: ast.AST, message: str, hint: str | None = None) -> Broken:
        span = self.span(node)
        self.spec.faults.append(Diagnostic(span, message, hint))
        self.spec.unused |= words(self.text_of(node))
        return Broken(span)

    def span(self, node: Any) -> Span:
        start = self.offset(node.lineno, node.col_offset)
        end = self.offset(node.end_lineno, node.end_col_offset)
        return span_at(self.spec.text, self.start + start, self.start + end)

    def offset(self, line: int, byte: int) -> int:
        """Convert a position in `ast`, which counts columns in bytes of UTF-8, to an offset in characters."""
        text = self.lines[line - 1]
        before = byte if text.isascii() else len(text.encode()[:byte].decode(errors="ignore"))
        return self.line_offsets[line - 1] + before

    def tree(self, mode: str, what: str) -> ast.AST | None:
        """Parse the text. On a syntax error, record a fault that asks for `what`, and return None."""
        if word := _STATEMENT.match(self.source):
            hint = _INSTEAD.get(word[0], "a formula gives a value to a name: m = rho*m + g")
            self.fault_at(0, word.end(), f"expected {what}, got `{word[0]}`", hint)
            return None
        try:
            # Python warns about syntax that it may refuse one day, such as `1if x`. Here it is refused today.
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                tree = ast.parse(self.source, mode=mode)
        except SyntaxError as error:
            at = len(self.source)  # Python names no place if the text ends too early
            if error.lineno and error.offset and error.lineno <= len(self.lines):
                at = min(at, self.line_offsets[error.lineno - 1] + error.offset - 1)
            reason = error.msg.removesuffix(". Perhaps you forgot a comma?")
            self.fault_at(at, at + 1, f"expected {what}: {reason}")
        except (RecursionError, MemoryError):
            self.fault_at(0, len(self.source), "nested too deeply to read", "give names to its parts")
        else:
            if not _too_deep(tree):
                return tree
            message = f"expected an expression of at most {DEEPEST_TERM} levels, got a deeper one"
            self.fault_at(0, len(self.source), message, "give names to its parts, one formula each")
        return None

    def assignment(self, body: list[ast.stmt]) -> FormulaAst | None:
        expected = "expected a formula, `name = expression`"
        first = body[0]
        if len(body) > 1:
            self.fault(body[1], f"{expected}, got a second one on the line", "put it on a line of its own")
        elif isinstance(first, ast.AugAssign):
            spelled = ast.unparse(first.target)
            hint = f"write the whole value of {spelled} in one formula, or give its parts names of their own"
            self.fault(first, f"{expected}, got an update in place", hint)
        elif not isinstance(first, ast.Assign):
            self.fault(first, f"{expected}, got {_statement_kind(first)}")
        elif len(first.targets) > 1 or not isinstance(first.targets[0], ast.Name):
            self.fault(first.targets[0], f"{expected}, got something other than one name on the left")
            self.term(first.value)
        else:
            target = first.targets[0]
            return FormulaAst(canonical(target.id), self.span(target), self.term(first.value))
        return None

    def term(self, node: ast.expr) -> Term:
        match node:
            case ast.Constant():
                return self.number(node)
            case ast.Name():
                return Name(self.span(node), canonical(node.id), self.text_of(node))
            case ast.Subscript():
                return self.item(node)
            case ast.UnaryOp():
                return self.unary(node)
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
                return Operation(self.span(node), _BINARY[type(operator)], (self.term(left), self.term(right)))
            case ast.BinOp():
                return self.wrong_operator(node)
            case ast.BoolOp(op=connective, values=values):
                connected: Term = self.term(values[0])
                for value in values[1:]:
                    word = "and" if isinstance(connective, ast.And) else "or"
                    connected = Operation(self.span(node), word, (connected, self.term(value)))
                return connected
            case ast.Compare():
                return self.comparison(node)
            case ast.Call():
                return self.call(node)
            case ast.IfExp(test=test, body=then, orelse=other):
                return Choice(self.span(node), self.term(test), self.term(then), self.term(other))
        kind, hint = _WRONG_EXPRESSIONS.get(type(node), (f"a {type(node).__name__.lower()}", None))
        return self.fault(node, f"expected {_ALLOWED}; got {kind}", hint)

    def wrong_operator(self, node: ast.BinOp) -> Broken:
        """Record a fault at the operator itself, whose place Python's tree does not have."""
        symbol, message, hint = _WRONG_OPERATORS[type(node.op)]
        end = self.offset(node.left.end_lineno or 0, node.left.end_col_offset or 0)
        start = self.source.index(symbol, end)
        self.fault_at(start, start + len(symbol), f"`{symbol}` {message}", hint)
        self.spec.unused |= words(self.text_of(node))
        return Broken(self.span(node))

    def number(self, node: ast.Constant) -> Term:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.fault(node, f"expected {_ALLOWED}; got {kind(value)}")
        try:
            real = float(value)
        except OverflowError:
            real = math.inf
        if math.isinf(real):
            return self.fault(node, "a number too large for float64")
        if real == 0 and re.search(r"[1-9]", re.split("[eE]", self.text_of(node))[0]):
            return self.fault(node, "a number that float64 rounds to zero")
        return Number(self.span(node), real, isinstance(value, int))

    def text_of(self, node: Any) -> str:
        start = self.offset(node.lineno, node.col_offset)
        return self.source[start : self.offset(node.end_lineno, node.end_col_offset)]

    def item(self, node: ast.Subscript) -> Term:
        index = node.slice
        if not isinstance(node.value, ast.Name):
            return self.fault(node, "only a hyperparameter with several values takes an index", "for example: beta[1]")
        if not (isinstance(index, ast.Constant) and type(index.value) is int):
            message = f"expected a whole number from 1 as the index, got {self.text_of(index):.40}"
            return self.fault(index, message, "for example: beta[1]")
        return Item(self.span(node), canonical(node.value.id), self.text_of(node.value), index.value)

    def unary(self, node: ast.UnaryOp) -> Term:
        if isinstance(node.op, ast.Invert):
            return self.fault(node, "`~` has no meaning in a formula", "write `not` for a condition")
        argument = self.term(node.operand)
        if isinstance(node.op, ast.UAdd):
            return argument
        return Operation(self.span(node), "not" if isinstance(node.op, ast.Not) else "neg", (argument,))

    def comparison(self, node: ast.Compare) -> Term:
        if len(node.ops) > 1:
            return self.fault(node, "expected one comparison, got a chain of them", "write `a < b and b < c`")
        op = _COMPARISONS.get(type(node.ops[0]))
        if op is None:
            return self.fault(node, f"expected <, <=, >, >=, == or !=; got `{_OTHER_COMPARISONS[type(node.ops[0])]}`")
        return Operation(self.span(node), op, (self.term(node.left), self.term(node.comparators[0])))

    def call(self, node: ast.Call) -> Term:
        if not isinstance(node.func, ast.Name):
            self.spec.unused |= words(self.text_of(node))
            return self.fault(node.func, "expected a function by its plain name", "for example: sqrt(v)")
        if node.keywords:
            return self.fault(node, "expected arguments by position, got one by keyword")
        if any(isinstance(arg, ast.Starred) for arg in node.args):
            return self.fault(node, "expected arguments one by one, got a starred one")
        span, args = self.span(node), tuple(map(self.term, node.args))
        match node.func.id, args:
            case "where", (test, then, other):
                return Choice(span, test, then, other)
            case "clip", (x, low, high):
                return Invoke(span, "min", (Invoke(span, "max", (x, low)), high))
        return Invoke(span, node.func.id, args)


#: A word that begins a statement of Python; what to write instead, where there is something.
_STATEMENT = re.compile(
    r"(?:async|assert|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|nonlocal|pass"
    r"|raise|return|try|while|with)\b"
)
_INSTEAD = {
    "for": "there are no loops: write each formula on a line of its own",
    "while": "there are no loops: write each formula on a line of its own",
    "if": "a choice is part of a value: m = a if condition else b",
    "return": "what the rule gives is assigned: delta = eta*m, or p = ...",
}

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow",
    ast.Mod: "mod", ast.FloorDiv: "floordiv",
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne",
}  # fmt: skip
_OTHER_COMPARISONS: dict[type[ast.cmpop], str] = {ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"}
_ALLOWED = "numbers, names, operators and functions"
_BITS = "formulas are about real numbers"
#: For each operator that is refused: its symbol, what is wrong, and what to do.
_WRONG_OPERATORS: dict[type[ast.operator], tuple[str, str, str]] = {
    ast.BitXor: ("^", "is not a power here", "write `**`"),
    ast.MatMult: (
        "@",
        "has no meaning in a formula",
        "formulas work element by element: write `*`; products of matrices cannot be said yet",
    ),
    ast.BitAnd: ("&", "has no meaning in a formula", "write `and` for conditions"),
    ast.BitOr: ("|", "has no meaning in a formula", "write `or` for conditions, `abs(x)` for an absolute value"),
    ast.LShift: ("<<", "has no meaning in a formula", _BITS),
    ast.RShift: (">>", "has no meaning in a formula", _BITS),
}
_WRONG_EXPRESSIONS: dict[type[ast.expr], tuple[str, str | None]] = {
    ast.Attribute: ("an attribute (a dot)", "functions and names are written plainly: sqrt(v), not np.sqrt(v)"),
    ast.Lambda: ("a lambda", None),
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


def words(source: str) -> set[str]:
    """Every word of a malformed text, since any may be a name."""
    return set(map(canonical, re.findall(r"\w+", source)))


def _too_deep(tree: ast.AST) -> bool:
    pending = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if isinstance(node, ast.BoolOp):  # `a and b and c` is one node of Python's tree, but nested terms here
            depth += len(node.values) - 2
        if depth > DEEPEST_TERM + 3:
            return True
        pending += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
    return False


def _statement_kind(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Expr):
        return "an expression without a name"
    return f"a Python {type(statement).__name__.lower()} statement"


def kind(value: object) -> str:
    """The kind of a value, in words for a message."""
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}
    names |= {bytes: "bytes", complex: "a complex number", type(None): "None", type(...): "`...`"}
    return names.get(type(value), f"a {type(value).__name__}")
