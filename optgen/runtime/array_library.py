"""What an array library contributes to the step engine: how its arrays are looked at, and how they are marked.

In: parameters and gradients as callers give them. Out: memory that a kernel or the interpreter works on, or an
`ArrayError` that names the array at fault.

`ArrayLibrary` is the whole of it. NumPy's implementation is in `numpy_library`, PyTorch's in
`optgen.torch.tensor_library`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from .. import interpreter as interp
from ..frozen import frozen
from ..ir.rule import Rule, Storages
from .arrays import Array
from .binding import Team
from .clock import Clock
from .group_step import Shards
from .guard import Reader
from .kernel import Kernel
from .matrix_library import MatrixLibrary
from .shapes import BlockOf

__all__ = ["ArrayLibrary", "BoundStates", "Looked", "Owned", "ParameterSlot", "Piece"]


@frozen
class Looked:
    """An array of a library, as a step goes by it.

    Attributes
    ----------
    seen
        What the guard looks at.
    memory
        An array of NumPy in a compute type, or of codes: over the same memory, or with the same values.
    shape
        The shape that rules go by.
    restore
        Writes the values back, where `memory` is not the array's own.
    storage
        The storage whose codes `memory` has; empty if it has numbers of a compute type.
    """

    seen: Any
    memory: Array
    shape: tuple[int, ...]
    restore: Callable[[], object] | None = None
    storage: str = ""

    @property
    def compute(self) -> str:
        """The compute type."""
        return "float32" if self.storage else self.memory.dtype.name


class ParameterSlot(Protocol):
    """The state of one parameter: `t` updates so far, and for each state of its own an array of its library."""

    t: int
    plans: set[int]  # the numbers of those to forget together with it
    known_as: int  # by what identity its parameter is known, which is forgotten then too; 0 if it is not

    @property
    def owner(self) -> object:
        """What the parameter is known by, as long as it lives."""

    @property
    def arrays(self) -> Mapping[str, Any]: ...
    @property
    def storages(self) -> Storages:
        """Those of the states that are kept in another type than the compute type."""


class BoundStates(Protocol):
    """The states of the parameters of a plan, as kernels take them, and their clock.

    Attributes
    ----------
    clock
        Counts the steps that they take together; None before the first.
    fits
        Tells whether kernels still have the states of these parameters; None if they always do.
    """

    clock: Clock | None

    @property
    def fits(self) -> Callable[[], bool] | None: ...

    def are_of(self, slots: Any) -> bool:
        """Whether kernels still have the states of these slots here, in this order."""

    def arrays(self, i: int, names: Sequence[str]) -> Sequence[Array]:
        """The states of parameter i by these names: in the compute type, or in float64 where there are fewer values
        than elements."""

    def restart(self) -> Clock:
        """Begin the clock anew, at the counts that parameters have."""


@frozen
class Piece:
    """What this process has of a parameter that may lie in shards.

    Attributes
    ----------
    rule
        The rule that steps it.
    given
        The parameter as the caller has it.
    states
        Its states, by name, as the caller has them.
    arrays
        By name, what is here of the parameter, its inputs and its states.
    stored
        The names of those that a step writes.
    """

    rule: Rule
    given: Any
    states: Mapping[str, Any]
    arrays: Mapping[str, Array]
    stored: Collection[str]

    @property
    def sides(self) -> tuple[int, int]:
        """The rows and columns of its matrices, as wholes."""
        _, rows, columns = interp.as_matrices(tuple(self.given.shape), self.rule.matrices)
        return rows, columns


class Owned(Protocol):
    """Parameters in shards that one process each, the owner, steps whole.

    Attributes
    ----------
    arrays
        By their places in the list, their arrays as wholes; None where another process is the owner.
    """

    @property
    def arrays(self) -> Mapping[int, Mapping[str, Array] | None]: ...

    def step(self, compute: Callable[[], object]) -> None:
        """Have `compute` step the wholes that this process owns, and the shards of all be what comes of it. All
        processes call it together. After an error no shard has changed; once it is done, it does nothing."""


class ArrayLibrary(Protocol):
    """What the step engine asks of an array library.

    Attributes
    ----------
    reader
        How the runtime looks at its arrays.
    setting
        Gives what a step plan depends on besides arrays, such as the library's number of threads; None if nothing.
    mark_changed
        Tells the library that arrays were changed in place; None if it does not ask.
    matrices
        Who computes products of whole matrices.
    """

    reader: Reader
    matrices: MatrixLibrary

    @property
    def setting(self) -> Callable[[], object] | None: ...
    @property
    def mark_changed(self) -> Callable[[Sequence[Any]], None] | None: ...

    def chosen(self, params: list[Any], given: list[Any], arrays: int) -> list[int]:
        """The places of the parameters to be stepped; ArrayError unless there is a gradient for each of them. `given`:
        the gradients, then other inputs; of each parameter so many `arrays`."""

    def parameter(self, given: Any, number: int, count: int, *, coded: bool = True) -> Looked:
        """Parameter `number` of `count`; ArrayError unless a step can change it in place. `coded`: whether the step
        takes codes."""

    def given(self, array: Any, of: Any, p: Looked, number: int, count: int, *, rule: Rule, name: str) -> Looked:
        """The gradient of the parameter `of`, seen as `p`, or another input: what `rule` calls by this name. ArrayError
        unless it can step with it."""

    def memory(self, given: Any) -> Array:
        """An array of NumPy over the memory of a state, whatever its dtype."""

    def state(self, given: Any, *, small: bool, storage: str) -> Looked:
        """A state of a parameter, as the interpreter takes it. `small`: there are fewer values than elements.
        `storage`: that whose codes the step takes; else it takes numbers."""

    def parameter_seen(self, given: Any) -> Any:
        """What the guard looks at: the array behind a parameter."""

    def gradient_seen(self, given: Any) -> Any:
        """The same of a gradient."""

    def is_alone(self, seen: Any) -> bool:
        """Whether memory is told by this one object; else another array in the same place is the same parameter."""

    def is_deferred(self, seen: Any) -> bool:
        """Whether values are still to be changed when they are read, which the guard does not see."""

    def may_be_deferred(self, seen: Any) -> bool:
        """Whether another gradient laid out as this one may be so."""

    def mark(self, p: Any, g: Any) -> object:
        """What decides how a parameter is stepped that kernels do not step."""

    def expect_whole(self, rule: Rule, p: Any, place: int, block: BlockOf, *, by_kernel: bool) -> None:
        """ArrayError if other processes have parts of a parameter that `rule` cannot do without."""

    def in_shards(self, params: Sequence[Any]) -> bool:
        """Whether other processes have parts of these."""

    def shards(self, params: Sequence[Any], kernel: Kernel, blocks: Sequence[int]) -> Shards:
        """These as wholes, where `in_shards`. `blocks`: how many elements a block of each has."""

    def owned(self, parts: Sequence[Piece]) -> Owned | None:
        """Those of these parameters whose matrices are cut; None if there are none."""

    def threads(self) -> tuple[int, Team | None]:
        """How many threads a step may use, and whose they are, if not the runtime's own."""

    def fill(self, given: Any, number: float) -> None:
        """Write a number to every element of a gradient."""
