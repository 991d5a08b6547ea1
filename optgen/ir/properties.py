"""Properties of matrices, as far as formulas show them: symmetric, upper triangular, orthogonal, a permutation.

In: the body and the states of a rule. Out: for each expression its properties. Nothing is computed, so a matrix may
have more of them than are found here.

A state has a property if its initial value has it, and what it is assigned has it whenever the state does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from .expr import Call, Const, Expr, Extent, Load, Local, Product, dims_of, extent_of
from .rule import Assign, State

__all__ = ["Properties", "Property"]


class Property(Enum):
    SYMMETRIC = "symmetric"
    UPPER = "upper"
    ORTHOGONAL = "orthogonal"
    PERMUTATION = "permutation"


_NONE = frozenset[Property]()
_EVERY = frozenset(Property)
_SYMMETRIC, _UPPER = frozenset({Property.SYMMETRIC}), frozenset({Property.UPPER})
_ORTHOGONAL = frozenset({Property.ORTHOGONAL})
#: What leaves zeros where all of its arguments have zeros.
_KEEPS_ZEROS = ("add", "sub", "neg", "abs", "sign", "where", "min", "max")


class Properties:
    """Those of the values of a rule.

    Parameters
    ----------
    body
        The assignments of a step, in order.
    states
        The states, with their initial values.
    """

    def __init__(self, body: Sequence[Assign], states: Iterable[State]) -> None:
        self._values = {assign.target: assign.value for assign in body}
        self._states: dict[str, frozenset[Property]] = {}
        self._locals: dict[str, frozenset[Property]] = {}
        for state in states:
            if state.dims is not None and state.dims.square:
                begins = _SYMMETRIC | _UPPER if state.init == Const(0.0) else self.of(state.init)
                self._states[state.name] = begins & (_SYMMETRIC | _UPPER | _ORTHOGONAL)
        while changed := self._narrowed():
            self._states, self._locals = changed, {}

    def _narrowed(self) -> dict[str, frozenset[Property]] | None:
        """The properties of states that their new values have too; None if all do."""
        found = {
            name: own & self.of(self._values[name]) if name in self._values else own
            for name, own in self._states.items()
        }
        return None if found == self._states else found

    def of(self, expr: Expr) -> frozenset[Property]:
        match expr:
            case Local(name=name):
                if name not in self._locals:
                    self._locals[name] = self.of(self._values[name]) if name in self._values else _NONE
                return self._locals[name]
            case Load(array=name):
                return self._states.get(name, _NONE)
            case Product():
                return self._of_product(expr)
            case Call():
                return self._of_call(expr)
        return _NONE

    def symmetric(self, expr: Expr) -> bool:
        return Property.SYMMETRIC in self.of(expr)

    def _of_call(self, expr: Call) -> frozenset[Property]:
        matrices = [arg for arg in expr.args if extent_of(arg) > Extent.MATRIX]
        if not matrices:
            return _NONE
        joint = frozenset.intersection(*map(self.of, matrices))
        # Whatever is done to each element alike leaves a symmetric matrix symmetric.
        found = joint & _SYMMETRIC if all(dims_of(arg).square for arg in matrices) else _NONE
        scaled = expr.op in ("mul", "div") and len(matrices) == 1 and expr.args[0] is matrices[0]
        scaled |= expr.op == "mul" and len(matrices) == 1
        numbers_are_conditions = expr.op == "where" and len(matrices) == 2 and expr.args[0] not in matrices
        if scaled or numbers_are_conditions or (expr.op in _KEEPS_ZEROS and len(matrices) == len(expr.args)):
            found |= joint & _UPPER
        if numbers_are_conditions:  # a choice between two wholes
            found |= joint
        return found

    def _of_product(self, expr: Product) -> frozenset[Property]:
        own = [self.of(arg) for arg in expr.args]
        match expr.op:
            case "identity":
                return _EVERY
            case "transpose":
                return own[0] - _UPPER
            case "power":
                return _SYMMETRIC
            case "inverse":
                return own[0]
            case "eigenvectors" | "orthonormal":
                return _ORTHOGONAL
            case "sorting":
                return frozenset({Property.ORTHOGONAL, Property.PERMUTATION})
            case "upper":
                return _UPPER
            case "diag":
                return _SYMMETRIC | _UPPER
            case "matmul":
                found = own[0] & own[1] & (_UPPER | _ORTHOGONAL | {Property.PERMUTATION})
                return found | _SYMMETRIC if self._is_symmetric_product(*expr.args) else found
        return _NONE

    def _is_symmetric_product(self, left: Expr, right: Expr) -> bool:
        """Whether a product is `A A'`, the square of a symmetric matrix, or `A S A'`."""
        if left == self._turned(right):  # by their names
            return True
        left, right = self._shown(left), self._shown(right)
        if left == self._turned(right) or (left == right and self.symmetric(left)):
            return True
        if isinstance(left, Product) and left.op == "matmul":
            a, s = left.args
            if self.symmetric(s) and self._shown(a) == self._turned(right):
                return True
        if isinstance(right, Product) and right.op == "matmul":
            s, a = right.args
            return self.symmetric(s) and left == self._turned(self._shown(a))
        return False

    def _shown(self, expr: Expr) -> Expr:
        """What a name of a product stands for."""
        value = self._values.get(expr.name) if isinstance(expr, Local) else None
        return value if isinstance(value, Product) and value.op in ("matmul", "transpose") else expr

    def _turned(self, expr: Expr) -> Expr:
        """The transpose of a matrix."""
        if isinstance(expr, Product) and expr.op == "transpose":
            return expr.args[0]
        return expr if self.symmetric(expr) else Product("transpose", (expr,), dims_of(expr).transposed)
