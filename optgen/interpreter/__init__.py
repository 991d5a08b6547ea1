"""The reference interpreter, the oracle: runs a checked rule with NumPy, before any pass.

In: a checked rule, hyperparameters, and the arrays of one or more tensors. Out: the arrays after one step, in place.

It shares with the kernels the names of the primitives, the definitions of functions and the arithmetic of scalars
(`ir`), and nothing else. It is slow and plain on purpose. A change here changes what the right bits are.
"""

from .draws import philox
from .folds import as_matrices
from .indices import by_dimension
from .matrix_step import side_lengths
from .primitives import FOLDS, NUMPY
from .steps import Tensor, computed_group, evaluated, initial_state, step, step_group
from .tensor_step import shape_of

__all__ = [
    "FOLDS", "NUMPY", "Tensor", "as_matrices", "by_dimension", "computed_group", "evaluated", "initial_state", "philox",
    "shape_of", "side_lengths", "step", "step_group",
]  # fmt: skip
