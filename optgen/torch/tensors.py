"""Tensors of PyTorch as memory: what a kernel may step in place, and how the runtime looks at them.

In: tensors. Out: arrays of NumPy over the same memory, and a `Reader`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch._ops import _get_current_dispatch_mode_pre_dispatch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..runtime.arrays import Array
from ..runtime.guard import Head, Reader, lists_readable
from ..runtime.library import runtime

__all__ = [
    "DTYPES",
    "SLOWER",
    "STORED",
    "TENSORS",
    "compute_dtype",
    "count_dtype",
    "early_mode",
    "has_memory",
    "increment_version",
    "library_of_torch",
    "local",
    "memory",
    "mode",
    "modes",
    "steppable",
    "storage_of",
    "traced",
    "unresolved",
    "view_fault",
    "wide",
]

#: What a kernel computes with, by the dtype of a parameter: complex numbers are pairs of real ones.
DTYPES = {
    torch.float32: "float32", torch.float64: "float64", torch.complex64: "float32", torch.complex128: "float64",
}  # fmt: skip
#: The storages that PyTorch has dtypes for.
STORED = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
#: The dtypes that a parameter and its gradient may mix: those with one compute type.
_MIXED = {torch.float32, *STORED}
_MOST_RANK = 64
#: How many times as long a step of 200 tensors takes where each is asked for what it is.
SLOWER = 50


def compute_dtype(p: torch.Tensor) -> str:
    """What a parameter is computed in: float32 also where it has 16 bits."""
    return DTYPES.get(p.dtype, "float32")


def storage_of(x: torch.Tensor) -> str:
    """The storage of a tensor; empty if it is in a compute type."""
    return STORED.get(x.dtype, "")


def local(x: Any) -> Any:
    """The tensor itself; of a DTensor, the shard that this process has."""
    return getattr(x, "_local_tensor", x)


def has_memory(x: torch.Tensor) -> bool:
    """Whether the memory of a tensor says what it holds. Where a class has operations of its own, as those that fake,
    quantise or wrap tensors do, it does not; nor within a transform of torch.func."""
    plain = type(x).__torch_dispatch__ is torch.Tensor.__torch_dispatch__
    # A tensor that is on its way from other processes is waited for when it is first used.
    if not plain and not hasattr(x, "trigger_wait"):
        return False
    return not (x.is_nested or x._is_zerotensor() or torch._C._functorch.is_functorch_wrapped_tensor(x))


def steppable(p: torch.Tensor, g: torch.Tensor) -> bool:
    """Whether kernels step such a parameter with such a gradient."""
    p, g = local(p), local(g)
    dense = p.layout is torch.strided and g.layout is torch.strided
    alike = (p.dtype in DTYPES and g.dtype is p.dtype) or {p.dtype, g.dtype} <= _MIXED
    return dense and alike and p.device.type == g.device.type == "cpu" and has_memory(p) and has_memory(g)


# Whether operations of PyTorch are recorded or replaced at this moment: by a dispatch mode, by one of those that come
# before autograd, or by torch.jit.trace. They would not see kernels. Asked in every step, so each is one call of C.
modes = torch._C._len_torch_dispatch_stack
early_mode = partial(torch._C._dispatch_tls_is_dispatch_key_included, torch._C.DispatchKey.PreDispatch)
traced = torch._C._is_tracing


def mode() -> str:
    """What records or replaces operations at this moment."""
    found = _get_current_dispatch_mode() or _get_current_dispatch_mode_pre_dispatch()
    return "torch.jit.trace" if found is None else type(found).__name__


def memory(x: torch.Tensor) -> Array:
    """An array over the memory of a tensor; of a complex one, with a last dimension for real and imaginary parts."""
    x = local(x).detach()
    x = x.view(torch.int16) if x.dtype is torch.bfloat16 else x  # which NumPy does not have
    array: Array = (torch.view_as_real(x) if x.is_complex() else x).numpy()
    return array


def wide(x: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or if it has 16 bits, the same numbers in float32."""
    x = local(x).detach()
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def count_dtype() -> torch.dtype:
    """The dtype in which PyTorch counts steps."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def unresolved(g: torch.Tensor) -> bool:
    """Whether a gradient laid out as this one may be a view that is still to be conjugated or negated, which memory
    does not show. PyTorch negates by a view nothing but imaginary parts, and these lie two apart."""
    if g.is_complex():
        return True
    return all([stride % 2 == 0 for stride, extent in zip(g.stride(), g.shape, strict=True) if extent > 1])


def increment_version(tensors: Sequence[torch.Tensor]) -> None:
    """Tells autograd that these were changed in place, so that a backward through the old values is refused."""
    try:
        torch.autograd.graph.increment_version(tensors)
    except TypeError:  # a PyTorch that takes one at a time
        for x in tensors:
            torch.autograd.graph.increment_version(x)


# ---- How the runtime looks at them ----


#: What PyTorch's stable C interface tells of a tensor, in the order in which the runtime asks for it.
_TOLD = ("layout", "device_type", "dtype", "dim", "sizes", "strides", "data_ptr")


@cache
def _looking() -> Array | None:
    """What the runtime looks at tensors with: where an object has its tensor, what is told of a strided one on the CPU,
    and the functions that tell; None if this PyTorch has not all of that."""
    try:
        library = library_of_torch("torch_cpu")
        functions = [ctypes.cast(library[f"aoti_torch_get_{told}"], ctypes.c_void_p).value for told in _TOLD]
        strided, cpu = library.aoti_torch_layout_strided(), library.aoti_torch_device_type_cpu()
    except (OSError, AttributeError):
        return None
    some = [_zeros(1), torch.nn.Parameter(_zeros(1))]
    places = [at for at in range(16, 64, 8) if all([_word(id(x) + at) == x._cdata for x in some])]
    return np.array([places[0], strided, cpu, *functions], np.int64) if places and lists_readable() else None


def library_of_torch(name: str) -> ctypes.CDLL:
    """A library that PyTorch brings and has loaded; OSError if it has none of that name."""
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    return ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", f"lib{name}{suffix}"))


def _zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Of this dtype and on the CPU, whatever is made elsewhere by default."""
    return torch.zeros(shape, dtype=dtype, device="cpu")


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _look() -> int:
    """The address of all that; 0 if there is nothing."""
    looking = _looking()
    return 0 if looking is None else looking.ctypes.data


@cache
def view_fault() -> str:
    """Why the runtime cannot look at tensors in memory; empty if it can."""
    if not lists_readable():
        return "this Python lays out lists in another way than CPython"
    if not _look():
        return f"PyTorch {torch.__version__} has not all functions that tell C of tensors"
    return "" if _seen_as_told() else f"PyTorch {torch.__version__} tells C something else of tensors than Python"


@cache
def _readable() -> bool:
    """Whether the runtime can look at tensors in memory; a warning if it cannot."""
    if fault := view_fault():
        slow = f"a step of many tensors is slow here, one of 200 takes some {SLOWER} times as long"
        warnings.warn(f"optgen.torch: {slow}: {fault}; `optgen doctor` tells more", RuntimeWarning, stacklevel=2)
    return not fault


def _seen_as_told() -> bool:
    whole, double = _zeros(5, 7, 3), _zeros(dtype=torch.float64)
    some = [whole, whole[1:4:2].transpose(0, 1), torch.nn.Parameter(_zeros(2)), double]
    heads = list(map(_head, some))
    seen = [(head.data, *head.extents) for head in heads]
    same = seen == [(x.data_ptr(), *x.shape, *x.stride()) for x in some]
    return same and [h.dtype == heads[0].dtype for h in heads] == [True, True, True, False]


@cache
def _see() -> Any:
    function = ctypes.PyDLL(str(runtime().path)).optgen_roll_see
    function.argtypes = (ctypes.c_void_p,) * 3
    function.restype = ctypes.c_int32
    return function


def _head(x: torch.Tensor) -> Head:
    seen = np.zeros(3 + 2 * _MOST_RANK, np.int64)
    if not _see()(id(x), _look(), seen.ctypes.data):
        raise BufferError(f"expected a tensor of up to {_MOST_RANK} dimensions, got {x.dim()}")
    data, dtype, rank = seen[:3].tolist()
    return Head(data, 0, dtype, 0, tuple(seen[3 : 3 + 2 * rank].tolist()))


def _mark(x: torch.Tensor) -> tuple[Any, ...]:
    return type(x), x.dtype, x.shape, x.stride(), x.device, x.layout, x.is_conj(), x.is_neg()


TENSORS = Reader(_readable, _look(), _head, _mark, lambda x: x.data_ptr())
