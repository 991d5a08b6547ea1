"""Compiled kernels of a rule.

In: a compilation and a compute type. Out: the `Kernel`, from the built library or the per-user cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from ..codegen.abi import ABI
from ..compiler.driver import Compilation
from ..compiler.manifest import built_library
from ..errors import CompilerError
from ..ir.evaluate import Program, Value, evaluate
from ..ir.expr import Extent
from ..ir.rule import Rounding, Rule, Storages
from ..lowering.stages import stages
from ..lowering.sweeps import sweeps_of
from ..lowering.work import Exchange, Group, Sweeps, group_names
from .library import Runtime, open_library, runtime
from .machine import choose_isa

__all__ = ["GroupProgram", "Kernel", "kernel_of", "kernels_of"]


class Kernel:
    """One variant of a rule, compiled, for one compute type ("float32" or "float64") and one instruction set."""

    def __init__(self, runtime: Runtime, library: Any, rule: Rule, dtype: str, isa: str | None = None) -> None:
        self.runtime = runtime
        self.dtype = dtype
        self.isa = isa or choose_isa(runtime.usable)
        self.rule = rule
        self.sweeps = sweeps_of(rule)
        self.program = Program(rule.scalars, [a.target for a in self.sweeps.scalars], runtime.host)
        self.group = GroupProgram(self.sweeps)
        self._library = library  # keeps `entry` alive
        self.entry = self._find(library)
        #: Whether small matrices go through its stages several at a time.
        self.takes_slabs = any([self.entry.work[i].slab for i in range(self.entry.count)])
        self.stretches = _stretches(self.sweeps)

    def _find(self, library: Any) -> Any:
        string = self.runtime.ffi.string
        kernels = library.optgen_kernels()
        i = 0
        while kernels[i].work:
            entry = kernels[i]
            found = tuple(string(text).decode() for text in (entry.variant, entry.dtype, entry.isa))
            if found == (self.rule.variant, self.dtype, self.isa):
                return kernels + i
            i += 1
        wanted = " ".join(filter(None, (self.rule.name, self.rule.variant, self.dtype, self.isa)))
        raise CompilerError(f"the library has no kernel for {wanted}", hint="build it again: optgen build")


def _stretches(plan: Sweeps) -> list[tuple[int, int]]:
    """The kernel's own work, cut where the host computes something."""
    ends = list(accumulate(sum(len(stage.work) for stage in stretch) for stretch in stages(plan)))
    return list(pairwise([0, *ends]))


class GroupProgram:
    """The work of the host in one step, of which the tensors' own part is done by the kernel. `places`: where a kernel
    reads which value; that of a state before the step is called by `load_name`."""

    def __init__(self, plan: Sweeps) -> None:
        self.places = group_names(plan)
        self.scalars = [a.target for a in plan.scalars]
        self.states = [state.name for state in plan.rule.states if state.extent == Extent.GROUP]
        self.works = [work for work in plan.work if isinstance(work, Group | Exchange)]
        self.cells = {name: i for i, name in enumerate(plan.small(Extent.TENSOR))}
        self.values = {a.target: a.value for a in plan.rule.body}
        self.always = plan.rule.always
        hosted = {assign.target for work in self.works for assign in work.code}
        #: What the host computes before it is known what a step writes.
        self.verdict = plan.rule.verdict & hosted

    def new_states(self, names: Mapping[str, Value], *, counts: bool) -> dict[str, Value]:
        """What the states of the group become; `names` has all values that were computed."""
        changed = [n for n in self.states if n in self.values and (counts or n in self.always)]
        return {n: names[n] if n in names else evaluate(self.values[n], {}, 0, names) for n in changed}


@lru_cache(256)  # chains made anew in a loop must not fill the memory
def kernel_of(
    compilation: Compilation,
    variant: int,
    dtype: str,
    module: str | None,
    isa: str | None = None,
    storages: Storages = (),
    rounding: Rounding = (),
) -> Kernel:
    """The kernel of one variant in "float32" or "float64", for the instruction set `isa`, by itself that of
    `choose_isa`. `module`: the file of its optimiser class, if that was built. Else this one kernel is compiled now;
    so is one for arrays in `storages`."""
    run = runtime()
    isa = isa or choose_isa(run.usable)
    # `optgen build` makes none for shards, nor for other storages: few need them.
    built = module is not None and not (compilation.sharded or storages)
    path = built_library(Path(str(module)).with_suffix(".json"), compilation.fingerprint) if built else None

    def opened(path: Path) -> Kernel:
        rule = compilation.lowered_with(variant, storages, rounding)
        return Kernel(run, open_library(run.ffi, path, "optgen_abi"), rule, dtype, isa)

    if path is not None:
        return opened(path)
    from ..compiler.cache import open_cached

    return open_cached(compilation.c_source_for(variant, dtype, isa, storages, rounding), compilation.stem, ABI, opened)


def kernels_of(
    compilation: Compilation, keys: Sequence[tuple[int, str, Storages, Rounding]], module: str | None
) -> list[Kernel]:
    """The kernel of each of these variants in its compute type, for arrays in these storages."""
    found = {
        key: kernel_of(compilation, variant, dtype, module, storages=storages, rounding=rounding)
        for key in dict.fromkeys(keys)
        for variant, dtype, storages, rounding in [key]
    }
    return [found[key] for key in keys]
