"""Rules as pure functions of the arrays of another library: NumPy, PyTorch or JAX.

In: checked rules, before any pass, and the name of a library.
Out: a `RuleFunction`, from parameters, gradients and states to new ones, which that library can trace, differentiate,
compile, and run on any of its devices.

A library is a table of primitives, `LibraryTable`; one evaluator serves all of them. It rounds as the library does, so
its results are close to those of kernels and interpreter, and not the same bits.
"""

from .function import RuleFunction, Stepped

__all__ = ["RuleFunction", "Stepped"]
