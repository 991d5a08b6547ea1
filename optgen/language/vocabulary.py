"""The words of the language: given names, reserved names, and what messages say about them.

In: nothing. Out: tables, for the whole wing.
"""

from __future__ import annotations

import math

from ..ir import draws
from ..ir.compose import DELTA, GIVEN_GRADIENT, NEW
from ..ir.expr import (
    GRADIENT,
    PARAMETER,
    Extent,
)
from ..ir.primitives import FUNCTIONS, PRODUCTS, REDUCTIONS
from ..ir.rule import FIRST_PHASE, PHASE, Part

__all__ = [
    "CALLABLE",
    "COMPARE",
    "CONSTANTS",
    "ELEMENT",
    "FREE",
    "GIVEN",
    "GIVEN_TO_DRAWS",
    "GIVEN_TO_PARTS",
    "GIVEN_TO_PHASES",
    "INITIAL",
    "MATRIX",
    "MOST_SUGGESTIONS",
    "NOT_YET",
    "NO_OUTPUT",
    "OF_BLOCKS",
    "OF_MATRICES",
    "OUTPUTS",
    "OVER",
    "OVER_WORDS",
    "RENAME",
    "SAID_AS",
    "SEED",
    "SIDES",
    "SIZE_OF_BLOCK",
    "STREAM",
    "SUM_AS_PRODUCT",
    "TALL",
    "UNIT",
    "WIDE",
    "WRITTEN_OUT",
]


#: The flag that every spec has: whether the parameter has two dimensions or more.
MATRIX = "matrix"
#: The flags that a spec may ask for too: whether a matrix has more rows than columns, or fewer.
TALL, WIDE = "tall", "wide"
#: The identity, of the size that it needs where it stands.
UNIT = "I"
#: The dimensions of a parameter, by what they are in any matrix.
SIDES = ("row", "column", "short", "long")
#: The words that tell a reduction over what it goes; and the one that tells it to go over the indices of an element.
OVER = {extent.name.lower(): extent for extent in Extent if Extent.GROUP <= extent < Extent.ELEMENT}
ELEMENT = Extent.ELEMENT.name.lower()
GIVEN = {
    PARAMETER: "the parameter", GRADIENT: "the gradient", "t": "the count of updates", DELTA: "the step",
    "size": "the number of elements",
    UNIT: "the identity matrix", TALL: "whether there are more rows than columns",
    WIDE: "whether there are more columns than rows", "ndim": "the number of dimensions",
    "rows": "the number of rows", "columns": "the number of columns",
    **dict.fromkeys((*OVER, ELEMENT), "an extent"),
}  # fmt: skip
#: How a sum of equal values is written as a product.
SUM_AS_PRODUCT = {
    Extent.TENSOR: "size*x", Extent.MATRIX: "rows*columns*x", Extent.ROW: "columns*x", Extent.COLUMN: "rows*x",
}  # fmt: skip
#: The same in words, for messages.
OVER_WORDS = {
    Extent.GROUP: "all parameters", Extent.TENSOR: "a parameter", Extent.MATRIX: "a matrix", Extent.ROW: "a row",
    Extent.COLUMN: "a column", Extent.INDEX: "an index", Extent.BLOCK: "a block",
}  # fmt: skip
#: What a part of a chain assigns, by its kind; a rule ("") may assign either.
OUTPUTS: dict[str, tuple[str, ...]] = {
    Part.RULE: (DELTA, PARAMETER),
    Part.GRADIENT: (DELTA,),
    Part.PARAMETER: (PARAMETER,),
}
NO_OUTPUT: dict[str, tuple[str, str]] = {
    Part.RULE: ("no formula gives 'delta', what is subtracted from p, or 'p' itself", "for example: delta = eta*g"),
    Part.GRADIENT: ("no formula gives 'delta', what goes on in the gradient's place", "for example: delta = g*omega"),
    Part.PARAMETER: ("no formula gives 'p', the new parameter", "for example: p = new if t > 1 else p"),
}
#: Given to the parts of chains.
GIVEN_TO_PARTS = {GIVEN_GRADIENT: "the gradient before the chain", NEW: "the parameter as the parts before leave it"}
#: Given to specs with several phases.
GIVEN_TO_PHASES = {PHASE: "which phase comes next", FIRST_PHASE: "which phase the next step begins with"}
#: The functions of whole matrices, which are called by name.
OF_MATRICES = tuple(name for name in PRODUCTS if name not in ("matmul", "transpose", "identity"))
CALLABLE = (*FUNCTIONS, *(name for name in REDUCTIONS if name not in FUNCTIONS))
#: What people ask for, by the names that other libraries have for it.
NOT_YET = {
    name: what
    for what, names in (
        ("decompositions of this kind", "svd det cholesky solve"),
        ("what depends on the place of an element", "sort argsort argmax argmin median quantile topk cumsum roll"),
        ("a function of this kind", "tan asin acos atan sinh cosh softmax round ceil"),
        ("another look at the loss", "loss value gradient grad hessian"),
    )
    for name in names.split()
}
#: Functions that are no primitives, with how many arguments; these names are free for other things.
WRITTEN_OUT = {"clip": 3, "length": 1}
#: Given to specs that draw random numbers.
SEED, STREAM = draws.SEED.name, draws.STREAM.name
GIVEN_TO_DRAWS = {SEED: draws.SEED.doc, STREAM: draws.STREAM.doc}
#: Given names that a spec may use for other things.
FREE = frozenset({"ndim", "rows", "columns", UNIT, TALL, WIDE})
#: The given names that the size of a block may be made of.
OF_BLOCKS = frozenset({"size", "ndim"})
#: What other libraries have a function for, and is said by others here.
SAID_AS = {
    **dict.fromkeys(("clip", "clamp"), "clip(x, low, high)"),
    "length": "length(1) for the first dimension, length(-1) for the last one",
    "maximum": "max(a, b)", "minimum": "min(a, b)", "relu": "max(x, 0)",
    "square": "x**2", "rsqrt": "1/sqrt(x)", "var": "mean((x - mean(x))**2)", "std": "sqrt(mean((x - mean(x))**2))",
    "randn": "normal()", "rand": "uniform()", "random": "uniform()", "bernoulli": "1 if uniform() < q else 0",
    "matmul": "A @ B", "transpose": "A.T", "qr": "orthonormal(A)", "inv": "inverse(A)", "eigh": "eigenvectors(A)",
    "mod": "a % b", "fmod": "a % b", "fabs": "abs(x)", "select": "a if condition else b",
}  # fmt: skip
#: What other languages have a name for, and formulas write out.
CONSTANTS = {"pi": math.pi, "e": math.e}
#: How many unknown names get a suggestion: to look for one takes long where a spec is nothing but faults.
MOST_SUGGESTIONS = 50
RENAME = "choose another name"
SIZE_OF_BLOCK = (
    'for example: block = 64; or a hyperparameter of a range such as "[1, inf), whole": block = "k"; '
    'or of the shape: block = "max(size // 8, 1)"'
)
COMPARE = "compare it: x > 0"
INITIAL = (
    "expected an initial value made of numbers, hyperparameters and p",
    "the gradient is not known before the first step; to start with it, write: m = g if t == 1 else rho*m + g",
)
