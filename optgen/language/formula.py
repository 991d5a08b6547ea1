"""Formulas: text to `Term`s.

In: the text of a formula, and where it stands in its file. Out: a `Term`, or a `FormulaAst` for an assignment; faults
are recorded in the spec.

Python's own parser reads the text. Syntax without a meaning here is a fault with a hint. Nothing is ever evaluated.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from typing import Any

from ..errors import Diagnostic, Span
from ..names import canonical
from ..python_syntax import syntax_tree
from .positions import span_at
from .refusals import (
    ALLOWED,
    EXTENT_BY_NAME,
    INSTEAD,
    LAMBDA,
    OTHER_COMPARISONS,
    STATEMENT,
    WRONG_EXPRESSIONS,
    WRONG_OPERATORS,
    kind,
    statement_kind,
)
from .statements import statements
from .syntax import (
    Broken,
    Choice,
    FormulaAst,
    Gathered,
    Indexed,
    Invoke,
    LoopAst,
    Name,
    Number,
    Operation,
    SpecAst,
    Term,
)  # fmt: skip

__all__ = ["read_expression", "read_formulas", "words"]

DEEPEST_TERM = 100


def read_expression(spec: SpecAst, source: str, start: int) -> Term | None:
    """Read the expression at offset `start` of the file. If it is malformed, record the fault and return None."""
    reader = _Formula(spec, source, start)
    tree = reader.tree("eval", "an expression")
    if not isinstance(tree, ast.Expression):
        spec.unused |= words(source)
        return None
    return reader.term(tree.body)


def read_formulas(spec: SpecAst, source: str, start: int) -> Iterator[FormulaAst | LoopAst]:
    """Read the formulas and loops of a text at offset `start` of the file. Yield the well-formed ones."""
    for offset, statement in statements(source):
        reader = _Formula(spec, statement, start + offset)
        tree = reader.tree("exec", "a formula, `name = expression`")
        formula = reader.statement(tree.body) if isinstance(tree, ast.Module) else None
        if formula is not None:
            yield formula
        else:
            spec.unassigned |= words(statement)


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
        if word := STATEMENT.match(self.source):
            hint = INSTEAD.get(word[0], "a formula gives a value to a name: m = rho*m + g")
            self.fault_at(0, word.end(), f"expected {what}, got `{word[0]}`", hint)
            return None
        try:
            tree: ast.AST = syntax_tree(self.source, mode)
        except SyntaxError as error:
            at = len(self.source)  # Python names no place if the text ends too early
            if error.lineno and error.offset and error.lineno <= len(self.lines):
                at = min(at, self.line_offsets[error.lineno - 1] + error.offset - 1)
            self.malformed(at, what, error.msg)
        except (RecursionError, MemoryError):
            self.fault_at(0, len(self.source), "nested too deeply to read", "give names to its parts")
        else:
            if not _too_deep(tree):
                return tree
            message = f"expected an expression of at most {DEEPEST_TERM} levels, got a deeper one"
            self.fault_at(0, len(self.source), message, "give names to its parts, one formula each")
        return None

    def malformed(self, at: int, what: str, reason: str) -> None:
        """Record a fault of syntax; Python's reason, where it is not about statements that the language has not."""
        if re.match(r"for\b", self.source):
            message = "expected a loop, `for name in values:`, with its formulas indented alike below it"
            self.fault_at(at, at + 1, message, "for example: for b in beta:")
        elif word := re.search(r"^[^#\n]*?\b(lambda)\b", self.source, re.MULTILINE):
            self.fault_at(*word.span(1), f"expected {what}, got `lambda`, a keyword of Python", LAMBDA)
        else:
            reason = reason.removesuffix(". Perhaps you forgot a comma?")
            self.fault_at(at, at + 1, f"expected {what}: {reason}", self.said_by_index(at))

    def said_by_index(self, at: int) -> str | None:
        """What to write instead of a name with a subscript there, as in `β₁`; None if there is none."""
        digits = re.match(r"[₀-₉]+", self.source[at:])
        name = re.search(r"[^\W\d]\w*$", self.source[:at])
        if digits is None or name is None:
            return None
        self.spec.unused.add(canonical(name[0]))
        return f"write {name[0]}[{canonical(digits[0])}]"

    def statement(self, body: list[ast.stmt]) -> FormulaAst | LoopAst | None:
        first = body[0]
        if len(body) > 1:
            self.fault(body[1], f"{_EXPECTED}, got a second one on the line", "put it on a line of its own")
            return None
        return self.loop(first) if isinstance(first, ast.For) else self.assignment(first)

    def loop(self, node: ast.For) -> LoopAst | None:
        if not isinstance(node.target, ast.Name):
            self.fault(node.target, "expected one name for the turns of a loop", "for example: for b in beta:")
        elif isinstance(node.iter, ast.Tuple | ast.List | ast.Set):
            hint = "give the values to a hyperparameter: beta = { default = [0, 0.9] }"
            self.fault(node.iter, "expected a hyperparameter with several values, or range(...); got them here", hint)
        else:
            span, variable = self.span(node.target), canonical(node.target.id)
            over = self.term(node.iter)
            body = [self.statement([each]) for each in node.body]
            found = tuple(each for each in body if each is not None)
            return LoopAst(span, variable, over, found) if len(found) == len(body) else None
        return None

    def assignment(self, first: ast.stmt) -> FormulaAst | None:
        expected = _EXPECTED
        if isinstance(first, ast.AugAssign):
            spelled = ast.unparse(first.target)
            hint = f"write the whole value of {spelled} in one formula, or give its parts names of their own"
            self.fault(first, f"{expected}, got an update in place", hint)
        elif not isinstance(first, ast.Assign):
            self.fault(first, f"{expected}, got {statement_kind(first)}")
        elif len(first.targets) == 1 and isinstance(first.targets[0], ast.Name):
            target = first.targets[0]
            return FormulaAst(canonical(target.id), self.span(target), self.term(first.value))
        elif (
            len(first.targets) == 1
            and isinstance(first.targets[0], ast.Subscript)
            and isinstance(first.targets[0].value, ast.Name)
        ):
            one = first.targets[0]
            name = canonical(first.targets[0].value.id)
            return FormulaAst(name, self.span(one), self.term(first.value), index=self.term(one.slice))
        else:
            self.fault(first.targets[0], f"{expected}, got something other than one name on the left")
            self.term(first.value)
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
            case ast.Attribute(value=value, attr="T"):
                return Operation(self.span(node), "transpose", (self.term(value),))
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
        kind, hint = WRONG_EXPRESSIONS.get(type(node), (f"a {type(node).__name__.lower()}", None))
        return self.fault(node, f"expected {ALLOWED}; got {kind}", hint)

    def wrong_operator(self, node: ast.BinOp) -> Broken:
        """Record a fault at the operator itself, whose place Python's tree does not have."""
        symbol, message, hint = WRONG_OPERATORS[type(node.op)]
        end = self.offset(node.left.end_lineno or 0, node.left.end_col_offset or 0)
        start = self.source.index(symbol, end)
        self.fault_at(start, start + len(symbol), f"`{symbol}` {message}", hint)
        self.spec.unused |= words(self.text_of(node))
        return Broken(self.span(node))

    def number(self, node: ast.Constant) -> Term:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            hint = f"without quotes: {value}" if isinstance(value, str) and value.isidentifier() else None
            return self.fault(node, f"expected {ALLOWED}; got {kind(value)}", hint)
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
            return self.fault(node, "only a name that stands for several values takes an index", "for example: beta[1]")
        wrong = isinstance(index, ast.Slice | ast.Tuple)
        if isinstance(index, ast.Constant):
            wrong = type(index.value) is not int
        if wrong:
            message = f"expected a whole number from 1 as the index, got {self.text_of(index):.40}"
            return self.fault(index, message, "for example: beta[1]")
        name, spelled = canonical(node.value.id), self.text_of(node.value)
        return Indexed(self.span(node), name, spelled, self.term(index))

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
            return self.fault(node, f"expected <, <=, >, >=, == or !=; got `{OTHER_COMPARISONS[type(node.ops[0])]}`")
        return Operation(self.span(node), op, (self.term(node.left), self.term(node.comparators[0])))

    def call(self, node: ast.Call) -> Term:
        if not isinstance(node.func, ast.Name):
            self.spec.unused |= words(self.text_of(node))
            return self.fault(node.func, "expected a function by its plain name", "for example: sqrt(v)")
        if len(node.args) == 1 and isinstance(node.args[0], ast.GeneratorExp):
            return self.gathered(node.func.id, node, node.args[0])
        if node.keywords:
            name = node.func.id
            by_extent = any(each.arg in EXTENT_BY_NAME for each in node.keywords)
            hint = f"an extent is written last: {name}(x, row), {name}(x, column)" if by_extent else None
            return self.fault(node, "expected arguments by position, got one by keyword", hint)
        if any(isinstance(arg, ast.Starred) for arg in node.args):
            return self.fault(node, "expected arguments one by one, got a starred one")
        span, args = self.span(node), tuple(map(self.term, node.args))
        match node.func.id, args:
            case "where", (test, then, other):
                return Choice(span, test, then, other)
            case "clip", (x, low, high):
                return Invoke(span, "min", (Invoke(span, "max", (x, low)), high))
        return Invoke(span, node.func.id, args)

    def gathered(self, function: str, node: ast.Call, turns: ast.GeneratorExp) -> Term:
        """`sum(m[b] for b in beta)`."""
        first = turns.generators[0]
        if function not in GATHERING:
            return self.fault(node, f"{function}() gathers nothing", f"there are: {', '.join(GATHERING)}")
        if len(turns.generators) > 1 or first.ifs or not isinstance(first.target, ast.Name):
            message = "expected one loop over one name"
            return self.fault(turns, message, f"for example: {function}(m[b] for b in beta)")
        target = first.target
        value, over = self.term(turns.elt), self.term(first.iter)
        return Gathered(self.span(node), function, value, canonical(target.id), self.span(target), over)


_EXPECTED = "expected a formula, `name = expression`"
#: Functions that make one value of those of a loop.
GATHERING = ("sum", "mean", "max", "min")

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow",
    ast.Mod: "mod", ast.FloorDiv: "floordiv", ast.MatMult: "matmul",
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne",
}  # fmt: skip


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
