"""Names for products: each product of whole matrices, and each reduction, becomes the whole value of a name.

Guarantees: a product stands nowhere but as the whole value of an assignment; so do reductions, counts of elements, and
conditions that choices are made by. The arguments of a product are names, arrays, transposes of these, and numbers.
Every value is the same to the bit.
Does not: say in what order they are computed (`programs` does).

A name for another name, for an array or for a transpose is replaced by what it stands for.
"""

from __future__ import annotations

from ..frozen import replace
from ..ir.expr import (
    Call,
    Const,
    Draw,
    Expr,
    Extent,
    Load,
    Local,
    Product,
    Reduce,
    Shape,
    Size,
    children,
    dims_of,
    extent_of,
    local_of,
    rebuilt,
    type_of,
)
from ..ir.primitives import Type
from ..ir.rule import Assign, Rule
from ..names import numbered

__all__ = ["core_of", "is_plain", "run", "transposed"]


def run(rule: Rule) -> Rule:
    naming = _Naming(rule)
    for assign in rule.body:
        naming.assign(assign)
    return replace(rule, body=tuple(naming.body))


def transposed(expr: Expr) -> Expr:
    """The transpose of what is a name, an array or a transpose of these; of a number itself."""
    if isinstance(expr, Product) and expr.op == "transpose":
        return expr.args[0]
    dims = dims_of(expr)
    return expr if dims == dims.transposed and not dims.rows else Product("transpose", (expr,), dims.transposed)


def core_of(expr: Expr) -> Expr:
    """What a transpose is of; anything else is itself."""
    return expr.args[0] if isinstance(expr, Product) and expr.op == "transpose" else expr


def is_plain(expr: Expr) -> bool:
    """Whether an expression is a name, an array or a transpose of these."""
    return isinstance(core_of(expr), Load | Local)


class _Naming:
    """The assignments of a rule so far, with names for its products."""

    def __init__(self, rule: Rule) -> None:
        self.kept = rule.stores | rule.reported | {rule.accept}
        self.taken = {a.target for a in rule.body} | set(rule.arrays) | {s.name for s in rule.states}
        self.taken |= {each.name for each in rule.hypers} | {each.name for each in rule.inputs}
        self.body: list[Assign] = []
        self.known: dict[Expr, Local] = {}
        self.aliases: dict[str, Expr] = {}
        self.halves: set[str] = set()  # names of what is rounded to bfloat16

    def assign(self, assign: Assign) -> None:
        value = self.whole(assign.value)
        if isinstance(value, Call) and value.op == "bfloat16":
            inner = value.args[0]
            if isinstance(core_of(inner), Local) and core_of(inner).name in self.halves:  # type: ignore[union-attr]
                value = inner  # a second rounding changes nothing
        if is_plain(value) and assign.target not in self.kept:
            self.aliases[assign.target] = value
            return
        self._add(assign.target, value)

    def _add(self, target: str, value: Expr) -> Local:
        if isinstance(value, Call) and value.op == "bfloat16":
            self.halves.add(target)
        self.body.append(Assign(target, value))
        local = local_of(target, value)
        if not isinstance(value, Const | Local | Load):
            self.known.setdefault(value, local)
        return local

    def whole(self, expr: Expr) -> Expr:
        """`expr` as the whole value of an assignment."""
        match expr:
            case Local():
                return self.aliases.get(expr.name, expr)
            case Product(op="transpose", args=(inner,)):
                found = self.inside(inner)
                return transposed(found if is_plain(found) else self.named(found, "turned"))
            case Product():
                return rebuilt(expr, tuple(map(self._argument, expr.args)))
            case Call(op="where", args=(test, then, other)) if extent_of(test) <= Extent.TENSOR:
                chosen = self.inside(test)
                test = chosen if isinstance(chosen, Local | Const) else self.named(chosen, "condition")
                return Call("where", (test, self.inside(then), self.inside(other)))
        return rebuilt(expr, tuple(map(self.inside, children(expr))))

    def inside(self, expr: Expr) -> Expr:
        """`expr` within another one."""
        value = self.whole(expr)
        named = isinstance(value, Draw | Reduce | Size | Shape) or (
            isinstance(value, Product) and value.op != "transpose"
        )
        return self.named(value, "product" if isinstance(value, Product) else "value") if named else value

    def named(self, value: Expr, stem: str) -> Local:
        if value not in self.known:
            self.known[value] = self._add(numbered(stem, self.taken), value)
        return self.known[value]

    def _argument(self, expr: Expr) -> Expr:
        value = self.inside(expr)
        if is_plain(value) or isinstance(value, Const):
            return value
        number = extent_of(value) < Extent.MATRIX and type_of(value) is Type.REAL
        return self.named(value, "number" if number else "factor")
