"""Tensors in shards: can a rule step them, and what must their shards exchange?

In: parameters and gradients, of which some are DTensors, laid out over a mesh of processes. Out: gradients laid out as
their parameters are, errors, and `shards_of`, with which a step reduces over whole tensors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import ArrayError
from ..interpreter import FOLDS
from ..ir.expr import PARAMETER, Extent, Load, Matrices, Reduce, Shape, Size, varying_dimensions, walk
from ..ir.rule import Rule, in_phases
from ..runtime.arrays import Array
from ..runtime.group_step import Shards
from ..runtime.kernel import Kernel
from ..runtime.layout import counts_of
from ..runtime.programs import has_programs
from ..runtime.shapes import BlockOf

__all__ = [
    "aligned", "cut", "cuts_matrices", "expect_apart", "expect_numbered", "expect_whole", "part_of", "shards_of",
    "small_like", "span",
]  # fmt: skip


def cut(p: Any) -> dict[int, int]:
    """The dimensions of the mesh along which a parameter lies in shards, each with the dimension of the parameter that
    it cuts. A mesh of one process cuts nothing."""
    mesh = getattr(p, "device_mesh", None)
    if mesh is None:
        return {}
    return {i: each.dim % p.dim() for i, each in enumerate(p.placements) if _cuts(each) and mesh.size(i) > 1}


def _cuts(placement: Any) -> bool:
    return not placement.is_replicate() and not placement.is_partial()


def aligned(p: Any, g: Any, i: int, overwrites: bool) -> Any:
    """The gradient `g` of parameter i, laid out as the parameter is: itself, or what the processes make of it together.

    `overwrites`: whether the rule writes into it. ArrayError if one of the two is a DTensor and the other is not, or if
    the gradient would be written, but lies otherwise.
    """
    mesh, other = getattr(p, "device_mesh", None), getattr(g, "device_mesh", None)
    if mesh is None and other is None:
        return g
    if mesh is None or other is None or mesh != other:
        message = f"parameter {i}: expected a gradient on the mesh of the parameter, got {_where(other)}"
        raise ArrayError(message, hint=f"give it as a DTensor on {_where(mesh)}")
    if any([placement.is_partial() for placement in p.placements]):
        message = f"parameter {i}: expected shards or replicas, got the placements {p.placements}"
        raise ArrayError(message, hint="redistribute the parameter before it is given to the optimiser")
    if g.placements == p.placements:
        return g
    if overwrites:
        message = f"parameter {i}: expected a gradient placed as {p.placements}, got {g.placements}"
        raise ArrayError(message, hint="the rule writes into gradients: p.grad = p.grad.redistribute(...) before it")
    with torch.no_grad():
        return g.redistribute(mesh, p.placements)


def _where(mesh: Any) -> str:
    return "no DTensor" if mesh is None else str(mesh)


# ---- Rows, columns and matrices ----


_DRAWS = "draws random numbers, which are those of whole parameters"


def expect_whole(rule: Rule, p: Any, i: int, block: BlockOf, kernels: bool = True) -> None:
    """ArrayError if the shards of parameter i cut what the rule reduces, unless one process steps it whole. Norms over
    the tensor, and over all parameters, are put together by kernels alone; `kernels`: whether one steps it."""
    dims = set(cut(p).values())
    if not dims or (cuts_matrices(rule, p) and _has_owner(rule, p, i)):
        return
    if rule.draws:
        message = f"parameter {i} of shape {tuple(p.shape)}: {rule.name} {_DRAWS}"
        hint = "keep that parameter whole (fully_shard(..., ignored_params={p}), or Replicate()), "
        raise ArrayError(message, hint=hint + "or step it with another rule")
    reduced = _reduced(rule)
    met = reduced | {state.extent for state in rule.states}
    for extent in Extent:
        if extent not in met or not Extent.TENSOR < extent < Extent.ELEMENT:
            continue
        shape = tuple(p.shape)
        if dims & _inner(extent, rule.matrices, shape) and not (extent == Extent.BLOCK and _of_slices(p, block)):
            what = {
                Extent.ROW: "rows", Extent.COLUMN: "columns", Extent.MATRIX: "matrices", Extent.BLOCK: "blocks",
                Extent.INDEX: "dimensions",
            }[extent]  # fmt: skip
            message = f"parameter {i} of shape {shape}: {rule.name} reduces over its {what}, which are cut: "
            message += f"it is sharded along dimension {', '.join(map(str, sorted(dims)))}"
            hint = "keep that parameter whole (fully_shard(..., ignored_params={p}), or Replicate()), "
            raise ArrayError(message, hint=hint + "or step it with another rule")
    if not kernels and any([extent <= Extent.TENSOR for extent in reduced]):
        message = f"parameter {i}: {rule.name} reduces over tensors, and takes no shards of {p.dtype}"
        raise ArrayError(message, hint="keep the parameters in float32: fully_shard's mp_policy computes in less")


def cuts_matrices(rule: Rule, p: Any) -> bool:
    """Whether a rule multiplies matrices of a parameter that its shards cut."""
    return rule.multiplies and not _inner(Extent.MATRIX, rule.matrices, tuple(p.shape)).isdisjoint(cut(p).values())


def _has_owner(rule: Rule, p: Any, i: int) -> bool:
    """Whether one process can step parameter i whole; ArrayError where only its layout is against it."""
    made = {e for state in rule.matrix_states for e in walk(state.init)}
    if not has_programs(rule) or Load(PARAMETER) in made:
        return False
    placements = [p.placements[along] for along in cut(p)]
    if len(placements) > 1 or type(placements[0]).__name__ != "Shard":
        message = f"parameter {i} of shape {tuple(p.shape)}: {rule.name} needs whole matrices, and puts them together "
        message += f"along one dimension of the mesh, got the placements {p.placements}"
        raise ArrayError(message, hint="shard it along one dimension of the mesh, or step it with another rule")
    return True


def expect_numbered(name: str, p: Any, i: int, *, blocks: bool) -> None:
    """ArrayError if elements of parameter i are not here by the numbers that they have in the whole parameter, by which
    random bits are chosen for stochastic rounding, and neighbours share scales where there are `blocks`."""
    flat = getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False)
    if cut(p) or (flat and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
        does = "keeps blocks of neighbours of" if blocks else "rounds stochastically by the numbers of elements in"
        hint = 'give storage="bfloat16" and rounding="nearest"' if blocks else 'give rounding="nearest"'
        message = f"parameter {i} of shape {tuple(p.shape)}: {name} {does} whole parameters, and this one is cut"
        raise ArrayError(message, hint=hint)


def expect_apart(rules: Sequence[Rule], variants: Collection[int], p: Any, i: int) -> None:
    """ArrayError if FSDP1 has laid parameter i and others out as one of one dimension, of which each process has a
    piece, and one of the `variants` of the rule looks at more than single elements."""
    several = getattr(p, "_is_flat_param", False)
    if not several and not getattr(p, "_fsdp_flattened", False):
        return
    alone = not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
    if alone and not several:  # then nothing is in pieces
        return
    stepping = [rules[i] for variant in variants for i in in_phases(rules, variant)]
    reduced = {extent for rule in stepping for extent in _reduced(rule)}
    reduced -= {Extent.GROUP} if alone else set()
    if any([rule.draws for rule in stepping]) and not alone:
        does = _DRAWS
    elif reduced:
        does = "reduces over more than an element"
    elif len(set(variants)) > 1:
        does = "steps matrices in another way"
    else:
        return
    message = f"parameter {i}: {rules[0].name} {does}, and FullyShardedDataParallel gives it pieces of flat parameters"
    raise ArrayError(message, hint="use fully_shard, whose shards are reduced over together, or an elementwise rule")


def _reduced(rule: Rule) -> set[Extent]:
    """Over what the rule reduces or counts; over the tensor, if it looks at the shape, and matrices, if it has products
    of them."""
    values = [e for assign in rule.body for e in walk(assign.value)]
    shaped = {Extent.TENSOR for e in values if isinstance(e, Shape)}
    multiplied = {Extent.MATRIX} if rule.multiplies else set()
    return shaped | multiplied | {e.over for e in values if isinstance(e, Reduce | Size)}


def _inner(extent: Extent, matrices: Matrices, shape: tuple[int, ...]) -> frozenset[int]:
    """The dimensions of a parameter that are within one row, column or matrix of it; a block may be in any, and the
    elements of an index are in all."""
    return frozenset(range(len(shape))) - varying_dimensions(extent, shape, matrices)


def _of_slices(p: Any, block: BlockOf) -> bool:
    """Whether each block of a parameter in shards is a slice of its first dimension, in whatever shard: then no block
    is cut, and its value is where that shard has its share of all values."""
    length, *rest = p.shape
    lengths = {length}
    for i, dimension in cut(p).items():
        if dimension != 0:
            return False
        most = {-(-n // p.device_mesh.size(i)) for n in lengths if n}
        lengths = most | {n % each for n in lengths for each in most}
    return all([block((n, *rest)) == math.prod(rest) > 0 for n in {length, *lengths} - {0}])


def small_like(p: Any, shape: tuple[int, ...], value: float, dtype: torch.dtype) -> torch.Tensor:
    """A state that is not like its parameter. That of rows, columns or matrices of a parameter in shards is in shards
    too, so that a checkpoint finds its parts; that of the tensor is the same everywhere."""
    if not shape or not cut(p):
        return torch.full(shape, value, dtype=dtype, device="cpu")
    from torch.distributed.tensor import Shard, full

    placements = [Shard(0) if _cuts(each) and each.dim >= len(shape) else each for each in p.placements]
    return full(shape, value, dtype=dtype, device_mesh=p.device_mesh, placements=placements)


def span(length: int, count: int, number: int) -> slice:
    """What the shard `number` of `count` has of a dimension of this length."""
    most = -(-length // count)
    return slice(min(length, number * most), min(length, (number + 1) * most))


def part_of(x: Any, whole: Array) -> Array:
    """What this process has of an array that is as a tensor of the whole, which may be in shards."""
    part = np.broadcast_to(whole, tuple(x.shape))
    for along, dim in cut(x).items():
        mesh, length = x.device_mesh, part.shape[dim]
        part = np.moveaxis(
            np.moveaxis(part, dim, 0)[span(length, mesh.size(along), mesh.get_local_rank(along))], 0, dim
        )
    return part


# ---- Reductions over whole tensors ----


def shards_of(params: Sequence[Any], kernel: Kernel, blocks: Sequence[int]) -> Shards:
    """What a step must know of the tensors of one binding, of which some are in shards. `blocks`: how many elements a
    block of each has."""
    shapes = [(*p.shape, 2) if p.is_complex() else tuple(p.shape) for p in params]
    tiled = kernel.rule if kernel.entry.units == 0 else None
    counts = [counts_of(shape, tiled, block) for shape, block in zip(shapes, blocks, strict=True)]
    rows: dict[tuple[Any, int], list[int]] = {}
    for i, p in enumerate(params):
        for along in cut(p):
            rows.setdefault((p.device_mesh, along), []).append(i)
    groups = [(mesh.get_group(along), mesh.size(along), own) for (mesh, along), own in rows.items()]

    def joined(folds: Sequence[str], parts: Array) -> Array:
        whole = parts.copy()
        for group, size, own in groups:
            gathered = _gathered(whole[own], group, size)
            for k, how in enumerate(folds):
                take = FOLDS[how][1]
                total = gathered[0, :, k]
                with np.errstate(all="ignore"):
                    for part in gathered[1:, :, k]:
                        total = take(total, part)
                whole[own, k] = total
        return whole

    return Shards(shapes, counts, joined)


def _gathered(parts: Array, group: Any, size: int) -> Array:
    """What each process of the group has, in the order of their ranks.

    They are not reduced on their way: so every process adds them up in one order, to the same bits whatever the
    backend does, and a NaN is not lost in a maximum.
    """
    import torch.distributed as dist

    mine = torch.from_numpy(np.ascontiguousarray(parts))
    everyone = torch.empty((size, *mine.shape), dtype=mine.dtype, device=mine.device)
    dist.all_gather(list(everyone), mine, group=group)
    found: Array = everyone.numpy()
    return found
