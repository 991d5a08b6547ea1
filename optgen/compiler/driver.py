"""The way of a spec through the compiler: each stage runs once and its result is kept.

In: the text of a spec, or its path. Out: a `Compilation`, with its rules, its lowered rules and its generated sources.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path

from ..errors import ArgumentError, OptgenError, SpecError
from ..frozen import frozen, replace
from ..ir.rule import Aspect, Lengths, Rounding, Rule, Storages, in_phases
from ..paths import SPECS
from .files import printable
from .manifest import built_library, built_templates, fingerprint, rules_of

__all__ = ["Compilation", "compile_built", "compile_file", "compile_text"]

#: No more is read of a file: a spec is a page of text, and of its length in characters `parse` judges.
MOST_BYTES = 1 << 20

# A rule that was built needs neither the language nor the passes nor a generator, and they take longer to import than
# everything else that its first step needs. So each is imported by the stage that it does.


@frozen
class Compilation:
    """One spec on its way: its `open` rules and the closed `rules`, checked, a variant each, the default flags first;
    then these `lowered`, and the texts. Where a step has several phases, there are all variants of the first one, then
    those of the next. `stem` is what its files are called. `sharded`: whether it is for tensors that lie in shards.
    `lengths`: how many values some hyperparameters have, if not as many as their defaults in the spec."""

    file: str
    text: str
    stem: str
    open: tuple[Rule, ...]
    rules: tuple[Rule, ...]
    sharded: bool = False
    lengths: Lengths = ()

    @classmethod
    def of_rules(cls, stem: str, rules: Iterable[Rule]) -> Compilation:
        """Closed rules that were made in memory, by composition; there is no spec, and no class is made of them."""
        return cls(file="", text="", stem=stem, open=(), rules=tuple(rules))

    @property
    def name(self) -> str:
        return self.rules[0].name

    @property
    def phases(self) -> tuple[str, ...]:
        """The names of the phases of a step, if it has several."""
        return self.rules[0].phases

    def in_phase(self, variant: int, phase: int) -> int:
        """The position of a variant of the first phase in another one, by number."""
        return variant + phase * self.in_phases(variant).step

    def in_phases(self, variant: int) -> range:
        """The positions of a variant of the first phase in all phases of a step."""
        return in_phases(self.rules, variant)

    def of_lengths(self, lengths: Mapping[str, int]) -> Compilation:
        """The same spec where hyperparameters have so many values. ArgumentError if its formulas then mean nothing."""
        if not lengths:
            return self
        own = tuple(sorted({**dict(self.lengths), **lengths}.items()))
        stem = "_".join([self.stem, *(f"{name}{length}" for name, length in own)])
        try:
            return _compilation(self.text, self.file, stem, own)
        except SpecError as error:
            turns, usual = self.rules[0].turns, {hyper.name: hyper.default for hyper in self.rules[0].hypers}
            asked = " and ".join(f"{n}={x}" if n in turns else f"{x} values of {n}" for n, x in lengths.items())
            known = ", ".join(f"{n}={usual[n][0]:g}" if n in turns else f"{n}={usual[n]}" for n in lengths)
            message = f"{self.name}: its formulas do not compile with {asked}: {error.diagnostics[0].message}"
            raise ArgumentError(message, hint=f"they do with the default, {known}") from None

    @cached_property
    def lowered(self) -> tuple[Rule, ...]:
        from ..lowering import name_sizes as shards
        from ..lowering.pipeline import lower

        lowered = tuple(map(lower, self.rules))
        return tuple(map(shards.run, lowered)) if self.sharded else lowered

    @cached_property
    def segments(self) -> tuple[Rule, ...]:
        """What kernels compute of the variants with products of matrices: formulas between these, as rules."""
        if not any(rule.multiplies for rule in self.rules):
            return ()
        from ..lowering.programs import segments_of

        return segments_of(self.rules)

    @cached_property
    def lowered_segments(self) -> tuple[Rule, ...]:
        from ..lowering.pipeline import lower

        return tuple(map(lower, self.segments))

    @cached_property
    def in_shards(self) -> Compilation:
        """The same for tensors that lie in shards; itself, if no variant needs more than the shard that is here."""
        from ..lowering import name_sizes as shards

        if self.sharded or not any(map(shards.needed, self.lowered)):
            return self
        return replace(self, stem=f"{self.stem}_shards", sharded=True)

    @cached_property
    def c_source(self) -> str:
        """The C of all kernels: every variant and segment, compute type and instruction set."""
        from ..codegen.kernel_source import kernel_source

        return kernel_source(
            self.rules, self.lowered, Path(self.file).name, compiled=built_templates(),
            segments=(self.segments, self.lowered_segments),
        )  # fmt: skip

    @cached_property
    def rounded(self) -> Compilation:
        """The same where states may be rounded stochastically: there is a seed, and the number of each parameter."""
        from ..ir.draws import with_key

        return replace(self, open=tuple(map(with_key, self.open)), rules=tuple(map(with_key, self.rules)))

    def lowered_with(self, variant: int, storages: Storages, rounding: Rounding = ()) -> Rule:
        """A lowered rule for arrays in these storages, of which some are rounded stochastically."""
        from ..lowering import rounding as stochastic

        rule = self.lowered[variant]
        rule = replace(rule, storages=storages) if storages else rule
        return stochastic.run(rule, rounding) if rounding else rule

    def c_source_for(self, variant: int, dtype: str, isa: str, storages: Storages = (), rounding: Rounding = ()) -> str:
        """The C of one kernel: no more than somebody waits for."""
        from ..codegen.kernel_source import kernel_source

        own, lowered = self.rules[variant], self.lowered_with(variant, storages, rounding)
        return kernel_source(
            [own], [lowered], Path(self.file).name, dtype=dtype, isa=isa, compiled=built_templates()
        )  # fmt: skip

    def c_source_in(self, dtype: str, isa: str) -> str:
        """The C of all variants in one compute type, for one instruction set."""
        from ..codegen.kernel_source import kernel_source

        return kernel_source(self.rules, self.lowered, dtype=dtype, isa=isa, compiled=built_templates())

    @cached_property
    def python_source(self) -> str:
        from ..codegen.module_source import module_source

        return module_source(self.rules, self.text, self.file, self.open)

    @property
    def rules_file(self) -> bytes:
        """The rules and the lowered rules, for `compile_built` to take up in another process."""
        made = self.open, self.rules, self.lowered, self.segments, self.lowered_segments
        return pickle.dumps(made, protocol=4)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.text)

    def variants(self, flags: Mapping[str, bool]) -> dict[Aspect, int]:
        """The positions, among `rules` and `lowered`, of the variants with these flags in the first phase: by what a
        parameter is, matrices first. ArgumentError if the flags contradict each other, by what they require."""
        found: dict[Aspect, int] = {}
        rules = self.rules[: self.in_phases(0).step]
        alike = [i for i, rule in enumerate(rules) if {flag.name: flag.value for flag in rule.flags} == flags]
        for aspect in Aspect:
            taking = [i for i in alike if rules[i].takes(aspect)]
            found |= {aspect: taking[0]} if taking else {}
        if not found:
            from ..notation.text import expression

            needs = [f"{f.name} requires {f.requires}" for f in self.rules[0].flags if f.requires and flags[f.name]]
            given = ", ".join(f"{name}={value}" for name, value in flags.items())
            decided = [f"{f.name} is set where {expression(f.when)}" for f in self.rules[0].flags if f.when]
            message = f"{self.name}: the flags contradict each other: {'; '.join(needs)}; got {given}"
            raise ArgumentError(message, hint="; ".join(decided) or None)
        return found

    def variant(self, flags: Mapping[str, bool]) -> int:
        """The position of the variant with these flags; that for matrices, if there are two."""
        return next(iter(self.variants(flags).values()))


def compile_text(text: str, file: str, stem: str = "") -> Compilation:
    """The spec `text`, parsed and checked once per process. SpecError lists all its faults; `file` is its name in them.
    `stem`: what its files are called, if not after the rule."""
    opened, _ = _checked(text, file, ())
    return _compilation(text, file, stem or opened[0].name.lower(), ())


@cache
def _checked(text: str, file: str, lengths: Lengths) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    from ..ir.compose import close
    from ..ir.verify import verify
    from ..language.check import check_open
    from ..language.parse import parse

    opened = check_open(parse(text, file, lengths))
    return opened, tuple(verify(close(rule)) for rule in opened)


@cache
def _compilation(text: str, file: str, stem: str, lengths: Lengths) -> Compilation:
    return Compilation(file, text, stem, *_checked(text, file, lengths), lengths=lengths)


def compile_built(text: str, file: str, module: Path) -> Compilation:
    """The same, for the spec of the generated module at `module`: its rules as `optgen build` left them beside it, if
    they were made from this text by this version of optgen and are undamaged."""
    return _compiled_before(text, file, module)


@cache
def _compiled_before(text: str, file: str, module: Path) -> Compilation:
    record = module.with_suffix(".json")
    if built_library(record, fingerprint(text)) is None:
        return compile_text(text, file, module.stem)
    opened, rules, lowered, segments, lowered_segments = pickle.loads(rules_of(record).read_bytes())
    made = Compilation(file, text, module.stem, opened, rules)
    made.__dict__.update(lowered=lowered, segments=segments, lowered_segments=lowered_segments)
    return made


def compile_file(path: Path) -> Compilation:
    """The spec at `path`; an OptgenError if the file cannot be read."""
    called = printable(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        if len(data) <= MOST_BYTES:
            raise OptgenError(f"{called}: expected a spec in UTF-8, got another byte at {error.start}") from None
    except (OSError, ValueError) as error:  # the latter for a name that no file can have here
        fault = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        message = f"{called}: expected a spec, got an error: {fault[:1].lower()}{fault[1:]}"
        raise OptgenError(message, hint="give the path of a .toml file") from None
    if len(data) > MOST_BYTES:
        raise OptgenError(f"{called}: expected a spec, got a file of more than {MOST_BYTES} bytes")
    # Two shipped rules may differ in nothing but capitals; their files do not.
    return compile_text(text, printable(Path(path.name)), path.stem if path.resolve().parent == SPECS else "")
