"""A function of the language as data: a straight line of formulas in primitives that IEEE 754 defines.

In: the text of definitions, in the syntax of Python. Out: the `Definition` of a function in it, which the host, the
interpreter and C follow alike, so that they give the same bits.

A text has functions of a few lines, `name = expression` and at last `return expression`. They may call

- the primitives of the language that are not `DEFINED`, and those of `REPRESENTATION`;
- each other, if those called stand before: their lines take the place of the call, and they may return several values;
- `horner(x, NAME)` and `estrin(x, NAME)`, the polynomial in x with the coefficients NAME, by these schemes: the first
  loses less, the second is faster;
- `near(x)`, the whole number next to x, for |x| below 2**51.

NAME in capitals is a number of `coefficients.NUMBERS`, or `INF`, `NAN`, `PI`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...frozen import frozen
from ...python_syntax import syntax_tree
from ..expr import Call, Const, Expr, Extent, Local, type_of
from ..primitives import OPS, REPRESENTATION, Type
from ..rule import Assign
from .coefficients import NUMBERS

__all__ = ["Definition", "compiled", "definition"]

#: A number that is added to another and taken away again, to round it to a whole one.
_NEAR = 1.5 * 2.0**52

_OPERATORS: dict[type, str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt",
    ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne", ast.And: "and", ast.Or: "or", ast.Not: "not", ast.USub: "neg",
}  # fmt: skip
_INFIX = {"add": "+", "sub": "-", "mul": "*", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_CONSTANTS = {"INF": math.inf, "NAN": math.nan, "PI": math.pi}


@frozen
class Definition:
    """A function of float64: its parameters, its formulas in order, and the expression of its value."""

    parameters: tuple[str, ...]
    body: tuple[Assign, ...]
    value: Expr


def definition(text: str, name: str) -> Definition:
    """The function of this name in a text."""
    functions = {node.name: node for node in syntax_tree(text).body if isinstance(node, ast.FunctionDef)}
    reader = _Reader(functions)
    parameters = tuple(arg.arg for arg in functions[name].args.args)
    (value,) = reader.run(functions[name], [reader.own(parameter, Type.REAL) for parameter in parameters])
    return Definition(parameters, tuple(reader.body), value)


def compiled(function: Definition, table: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The function in Python, each primitive as `table` has it; arithmetic and comparisons are Python's own."""

    def text(expr: Expr) -> str:
        match expr:
            case Call(op=op, args=args) if op in _INFIX:
                return "(" + _INFIX[op].join(map(text, args)) + ")"
            case Call(op=op, args=args):
                return f"table[{op!r}]({', '.join(map(text, args))})"
            case Local(name=name):
                return name
        assert isinstance(expr, Const)
        return f"float({str(expr.value)!r})" if not math.isfinite(expr.value) else repr(expr.value)

    lines = [f"{assign.target} = {text(assign.value)}" for assign in function.body]
    head = f"def function({', '.join(function.parameters)}):"
    names: dict[str, Any] = {"table": table, "float": float}
    exec("\n    ".join([head, *lines, f"return {text(function.value)}"]), names)
    made: Callable[..., Any] = names["function"]
    return made


class _Reader:
    """Collects the formulas of one function."""

    def __init__(self, functions: Mapping[str, ast.FunctionDef]) -> None:
        self.functions = functions
        self.body: list[Assign] = []
        self.taken: set[str] = set()

    def own(self, name: str, kind: Type) -> Local:
        """A local with a name that no other has."""
        number, unique = 1, name
        while unique in self.taken:
            number += 1
            unique = f"{name}_{number}"
        self.taken.add(unique)
        return Local(unique, Extent.CONSTANT, kind)

    def run(self, function: ast.FunctionDef, args: Iterable[Expr]) -> list[Expr]:
        """What a function returns for these arguments; its formulas are added to the body."""
        names = dict(zip((arg.arg for arg in function.args.args), args, strict=True))
        for line in function.body:
            match line:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    names[name] = self.named(name, self.expr(value, names))
                case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Call() as call):
                    for target, result in zip(targets, self.call(call, names), strict=True):
                        names[ast.unparse(target)] = self.named(ast.unparse(target), result)
                case ast.Return(value=ast.Tuple(elts=elements)):
                    return [self.expr(element, names) for element in elements]
                case ast.Return(value=ast.expr() as value):
                    return [self.expr(value, names)]
                case ast.Expr(value=ast.Constant(value=str())):
                    pass
                case _:
                    raise SyntaxError(f"line {line.lineno}: {ast.unparse(line)}")
        raise SyntaxError(f"{function.name} returns nothing")

    def named(self, name: str, value: Expr) -> Expr:
        if isinstance(value, Const | Local):
            return value
        local = self.own(name, type_of(value))
        self.body.append(Assign(local.name, value))
        return local

    def expr(self, node: ast.expr, names: Mapping[str, Expr]) -> Expr:
        match node:
            case ast.Constant(value=int() | float() as number):
                return Const(float(number))
            case ast.Name(id=name) if name in _CONSTANTS or name in NUMBERS:
                return Const(_CONSTANTS[name] if name in _CONSTANTS else NUMBERS[name][0])
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.BinOp(left=ast.Constant(value=int(base)), op=ast.Pow(), right=right):
                return Const(float(base) ** ast.literal_eval(right))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return Call(_OPERATORS[type(op)], (self.expr(left, names), self.expr(right, names)))
            case ast.UnaryOp(op=op, operand=operand):
                value = self.expr(operand, names)
                return Const(-value.value) if isinstance(value, Const) else Call(_OPERATORS[type(op)], (value,))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return Call(_OPERATORS[type(op)], (self.expr(left, names), self.expr(right, names)))
            case ast.BoolOp(op=op, values=[first, *rest]):
                value = self.expr(first, names)
                for each in rest:
                    value = Call(_OPERATORS[type(op)], (value, self.expr(each, names)))
                return value
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return Call("where", tuple(self.expr(each, names) for each in (test, body, orelse)))
            case ast.Call():
                (value,) = self.call(node, names)
                return value
        raise SyntaxError(f"line {node.lineno}: {ast.unparse(node)}")

    def call(self, node: ast.Call, names: Mapping[str, Expr]) -> list[Expr]:
        function = ast.unparse(node.func)
        if function in ("horner", "estrin"):
            x, coefficients = self.expr(node.args[0], names), NUMBERS[ast.unparse(node.args[1])]
            return [_horner(x, coefficients) if function == "horner" else self.estrin(x, coefficients)]
        args = [self.expr(arg, names) for arg in node.args]
        if function == "near":
            return [Call("sub", (Call("add", (args[0], Const(_NEAR))), Const(_NEAR)))]
        if function in self.functions:
            parameters = self.functions[function].args.args
            return self.run(
                self.functions[function],
                [self.named(parameter.arg, arg) for parameter, arg in zip(parameters, args, strict=True)],
            )
        primitive = OPS.get(function) or REPRESENTATION.get(function)
        if primitive is None or len(args) != len(primitive.takes):
            raise SyntaxError(f"line {node.lineno}: {ast.unparse(node)}")
        return [Call(function, tuple(args))]

    def estrin(self, x: Expr, coefficients: tuple[float, ...]) -> Expr:
        """The polynomial in halves: few operations wait for each other."""
        terms: list[Expr] = [Const(coefficient) for coefficient in coefficients]
        power = self.named("x1", x)
        while len(terms) > 1:
            pairs = [terms[i : i + 2] for i in range(0, len(terms), 2)]
            terms = [_added(Call("mul", (pair[1], power)), pair[0]) if pair[1:] else pair[0] for pair in pairs]
            power = self.named("power", Call("mul", (power, power))) if terms[1:] else power
        return terms[0]


def _horner(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    value: Expr = Const(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = _added(Call("mul", (value, x)), Const(coefficient))
    return value


def _added(a: Expr, b: Expr) -> Expr:
    return Call("add", (a, b))
