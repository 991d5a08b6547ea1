"""Faults of widely used kernels, put back on purpose: the check for equivalence must catch each of them.

A fault of the mathematics is put into the spec, one of the loops into the C, one of the threads into the runtime, one
of the binding into its Python. The oracle always runs the rule as it should be.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import equivalence
import numpy as np
import pytest
from equivalence import ACCUMULATORS, PLAIN, Array, check_all, check_kernel, open_kernel, open_runtime

from optgen.codegen import c_language as c
from optgen.codegen import kernel_source as render
from optgen.codegen import runtime_source
from optgen.compiler import driver
from optgen.frozen import replace
from optgen.paths import SPECS
from optgen.runtime import binding, library
from optgen.runtime.group_step import GroupStep
from optgen.runtime.kernel import Kernel, kernel_of
from optgen.runtime.layout import Layout, layout_of


def replaced(text: str, old: str, new: str) -> str:
    """`text` with the regular expression `old` replaced: the fault must find its place, and change something."""
    mutant, count = re.subn(old, new, text)
    assert count, f"{old} is not there any more"
    assert mutant != text
    return mutant


def with_reciprocals_in_the_body(source: str) -> str:
    element = re.search(r"(?s)OPTGEN_INLINE void \w+_element\(.*?\n}\n", source)
    assert element is not None
    fast = replaced(element[0].replace("_element(", "_fast("), r"/ \((sqrt.*)\) \*", r"* (1.0f / (\1)) *")
    call = r"(?s)\n        (\w+)_element\(([^;]*p_at \+ i[^;]*)\);"
    split = r"\n        if (i < n / 8 * 8) \1_fast(\2); else \1_element(\2);"
    return replaced(source.replace(element[0], f"{element[0]}\n{fast}"), call, split)


def with_stale_states(source: str) -> str:
    """The first sweep keeps to itself what the second one reads."""
    first = re.search(r"(?s)OPTGEN_INLINE void \w+_1_element\(.*?\n}\n", source)
    assert first is not None
    return source.replace(first[0], replaced(first[0], r"\*m_at = m_new;", "*m_at = m;"))


@dataclass(frozen=True)
class Mutant:
    """What is put (`old` by `new`, or `edit`) into which text of which rule; or with which flags it is compiled."""

    fault: str
    into: str
    rule: str
    old: str = ""
    new: str = ""
    edit: Callable[[str], str] | None = None
    flags: tuple[str, ...] = ()

    def applied(self, into: str, text: str) -> str:
        if into != self.into or self.flags:
            return text
        return self.edit(text) if self.edit else replaced(text, self.old, self.new)


#: What the comparison says when it finds a fault: no other assertion counts.
NOTICED = (
    r"\d+ of \d+ elements differ, the first at \(|: memory beside the array was written$"
    r"|an element was left out|the arrays went out of step|an empty row|a long row does not begin with a line"
)
_spec, _c, _runtime = (partial(Mutant, into=into) for into in ("spec", "C", "runtime"))
pytestmark = pytest.mark.slow

_MAX = r"(optgen_maxf\(float a, float b\))\s*\{[^}]*\}"
_END = r"end = begin \+ size < total \? begin \+ size : total;"
MUTANTS = [
    _spec("eps inside the root", rule="adam", old=r"sqrt\((v/.*\))\) \+ eps", new=r"sqrt(\1 + eps)"),
    _spec("eps left out", rule="rmsprop", old=r"acc\) \+ eps", new="acc) + 0*eps"),
    _spec("the norm of the gradient for that of the step", rule="lamb", old=r"norm\(u\)", new="norm(g)"),
    _spec(
        "weights of the moving average swapped",
        rule="adam",
        old=r"beta\[1\]\*m \+ \(1 - beta\[1\]\)\*g",
        new="(1 - beta[1])*m + beta[1]*g",
    ),
    _spec(
        "decay rates swapped", rule="adam", old=r"beta\[2\]\*v \+ \(1 - beta\[2\]\)", new="beta[1]*v + (1 - beta[1])"
    ),
    _spec("the two moments swapped", rule="adam", old=r"(m = \{.*\}\n)(v = \{.*\}\n)", new=r"\2\1"),
    _spec("bias corrected with t - 1", rule="adam", old=r"beta\[1\]\*\*t", new="beta[1]**(t - 1)"),
    _spec("bias corrected with t + 1", rule="adam", old=r"beta\[2\]\*\*t", new="beta[2]**(t + 1)"),
    _spec("bias not corrected", rule="adamax", old=r"beta\[1\]\*\*t", new="0*beta[1]"),
    _spec("weight decay of the new parameter", rule="adamw", old=r"else decay\*p", new="else decay*(p - step)"),
    _spec("weight decay through the moments", rule="adamw", old=r"(- beta\[1\]\))\*g", new=r"\1*(g + decay*p)"),
    _spec("the flag ignored", rule="adamw", old=r"else decay\*p", new="else eta*decay*p"),
    _spec("the second moment may fall", rule="amsgrad", old=r"max\(vhat, v\)", new="max(beta[2]*vhat, v)"),
    _spec("the same sum in another order", rule="nesterov", old=r"\(1 \+ rho\)\*eta\*g", new="eta*g + rho*eta*g"),
    _c(
        "strides of the gradient ignored",
        rule="adam",
        old=r"OPTGEN_READ\((\w+), g_at, 1\);",
        new=r"\1 g_at; memcpy(&g_at, at[1] + i * by[0], sizeof g_at);",
    ),
    _c("one course taken for the other", rule="lookahead", old=r"return (\w+\[\d+\]) != 0;", new=r"return \1 == 0;"),
    _c("no course taken", rule="accumgrad", old=r"return \w+\[\d+\] == 0( .*)?;", new="return 0;"),
    _c("the update goes into a copy and is lost", rule="adam", old=r"OPTGEN_WRITE\(p_at, 0\);", new=""),
    _c("a state goes into a copy and is lost", rule="adam", old=r"OPTGEN_WRITE\(v_at, 3\);", new=""),
    _c("NaN lost, as in fmax", rule="amsgrad", old=_MAX, new=r"\1 { return fmaxf(a, b); }"),
    _c("NaN lost on one side", rule="adamax", old=_MAX, new=r"\1 { return b > a ? b : a; }"),
    _c("NaN lost on the other side", rule="amsgrad", old=_MAX, new=r"\1 { return a > b ? a : b; }"),
    _c("vector body and tail differ", rule="adam", edit=with_reciprocals_in_the_body),
    _c("a reciprocal in place of a division", rule="rmsprop", old=r"s.eta / \((.*)\)", new=r"s.eta * (1.0f / (\1))"),
    _c("a literal in double precision", rule="plain", old=r"0\.3f", new="0.3"),
    _c("a product in double precision", rule="rmsprop", old=r"\(g \* g\)", new="((double)g * g)"),
    _c("one element too many", rule="descent", old=r"i < n; \+\+i\)\n", new="i <= n; ++i)\n"),
    _c("one element too few", rule="descent", old=r"i < n; \+\+i\)\n", new="i < n - 1; ++i)\n"),
    _c("the new state read for the old", rule="adam", old=r"s.beta2 \* v \+", new="s.beta2 * m_new +"),
    # Without start files, for one of them would set the flushing of denormals in this very process.
    _c("-ffast-math", rule="rmsprop", flags=("-ffast-math", "-U__FAST_MATH__", "-nostartfiles")),
    _c("a*b + c rounded once", rule="adam", flags=("-ffp-contract=fast", "-mfma")),
    _c("squares in single precision", rule="lamb", old=r"\(double\)\(u\) \* \(double\)\(u\)", new="(double)(u * u)"),
    _c(
        "lanes added in another order",
        rule="novograd",
        old=r"lanes\[lane \+ WIDTH\]",
        new="lanes[2 * WIDTH - 1 - lane]",
    ),
    _c("the rest of a block left out", rule="lamb", old=r"i < rest;", new="i < 0;"),
    _c("the norm of another array", rule="lamb", old=r"(sum\()partials1\b", new=r"\1partials0"),
    _c("the old moment read in the second sweep", rule="lamb", edit=with_stale_states),
    _c("NaN lost in a maximum", rule="accumulators", old=r"\(\(x > total\) \| \(x != x\)\)", new="(x > total)"),
    _c("a panel begun with every row", rule="accumulators", old=r"first && j < n", new="j < n"),
    _c("a panel never begun", rule="accumulators", old=r"first && j < n", new="j < 0"),
    _runtime(
        "a block folded in the place of the first", rule="lamb", old=r"partials \+ block \*", new="partials + 0 *"
    ),
    _runtime(
        "the last column of a tile left out",
        rule="accumulators",
        old=r"\? of.columns - left :",
        new="? of.columns - left - 1 :",
    ),
    _runtime("every matrix has the rows of the first", rule="accumulators", old=r"= matrix \* of.rows \+ i", new="= i"),
    _runtime(
        "every matrix has the columns of the first",
        rule="accumulators",
        old=r"= matrix \* of.columns \+ left",
        new="= left",
    ),
    _runtime(
        "a panel as long as the matrix",
        rule="accumulators",
        old=r"top \+ OPTGEN_PANEL < of.rows \?[^;]*",
        new="of.rows",
    ),
    _runtime(
        "more than 2**31 elements not updated",
        rule="adam",
        old=r"\.total = total,",
        new=".total = (uint32_t)total,",
    ),
    _runtime(
        "last element of a chunk left out",
        rule="adam",
        old=_END,
        new="end = (begin + size < total ? begin + size : total) - 1;",
    ),
    _runtime(
        "first element of a chunk twice",
        rule="adam",
        old=_END,
        new="end = begin + size + 1 < total ? begin + size + 1 : total;",
    ),
    _runtime(
        "what comes before a line of the cache left out",
        rule="adam",
        old=r"values.column \+= n;",
        new="begin += head, values.column += n;",
    ),
    _runtime(
        "a row begun anew at a line of the cache",
        rule="adam",
        old=r"at\[a\] \+= n \* inner",
        new="at[a] += (n - head) * inner",
    ),
    _runtime(
        "outer strides of the gradient ignored",
        rule="adam",
        old=r"by\[\(d - 1\) \* arrays \+ a\]",
        new="by[(d - 1) * arrays]",
    ),
    _runtime(
        "every chunk begins in the first row",
        rule="adam",
        old=r"at\[a\] \+= index\[d\] \*",
        new="at[a] += (d == last ? index[d] : 0) *",
    ),
    _runtime(
        "one count of updates for all tensors",
        rule="adam",
        old=r"\.step = tensor->scalars,",
        new=".step = ((const optgen_tensor *)step->tensors)->scalars,",
    ),
    # Of slabs.
    _c(
        "the value of another row beside an element",
        rule="torch_adafactor",
        old=r"many\.rows, of\.columns\);(\s*OPTGEN_REPEATED)",
        new=r"many.rows, 1);\1",
    ),
    _c("the columns of the first matrix for all", rule="accumulators", old=r"= x\[m \* n \+ j\]", new="= x[j]"),
    _c(
        "a row of three folded from the first to the last",
        rule="torch_adafactor",
        old=r"width = OPTGEN_LANES / 2; width > 0; width /= 2\)(\s*\\\n\s*if)",
        new=r"width = 1; width < OPTGEN_LANES; width *= 2)\1",
    ),
    _c(
        "a lane left out where a row is no power of two",
        rule="torch_adafactor",
        old=r"own - width < width \? own - width : width",
        new="own / 2",
    ),
    _c(
        "a slab with panels as long as its matrices",
        rule="torch_adafactor",
        old=r"rows - top < OPTGEN_PANEL \? rows : top \+ OPTGEN_PANEL",
        new="rows; top = rows",
    ),
    _c(
        "the states of the first slab for all",
        rule="accumulators",
        old=r"OPTGEN_FROM\((\d), rows, double\)",
        new=r"tensor->at[\1]",
    ),
    _runtime(
        "every second slab from the first matrix",
        rule="accumulators",
        old=r"first = slab \* each",
        new="first = slab % 2 * each",
    ),
    _runtime(
        "the last matrix of a tensor left out",
        rule="accumulators",
        old=r"each < left \? each : left",
        new="each < left ? each : left - 1",
    ),
    # Of blocks.
    _c(
        "a mean of a short block as of a long one",
        rule="adammini",
        old=r"of\.columns : of\.elements - row_i \* of\.columns",
        new="of.columns : of.columns",
    ),
    _runtime(
        "the last element of a short block left out",
        rule="adamwsn",
        old=r"remain < wide \? remain :",
        new="remain < wide ? remain - 1 :",
    ),
    _runtime("a block begun with the second element", rule="adamwsn", old=r"each \* along\[a\]", new="along[a]"),
    _c(
        "a short block as long as the others in a slab",
        rule="adamwsn",
        old=r"left < most \? left : most",
        new="most",
    ),
    # Of stages.
    _runtime(
        "a piece of work left out",
        rule="torch_adafactor",
        old=r"go_on\(step, \*k\);",
        new="go_on(step, *k + (*k == 0));",
    ),
    _runtime(
        "some rows left out between two sweeps",
        rule="torch_adafactor",
        old=r"share % of->parts,\s+of->parts",
        new="share % of->parts, of->parts + 1",
    ),
    _runtime("denormals flushed", rule="adam", old="0x1f80", new="0x9fc0"),
]
SOUND = [Mutant("no fault", "nothing", rule) for rule in sorted({mutant.rule for mutant in MUTANTS})]


def spec(rule: str) -> str:
    own = {"plain": PLAIN, "accumulators": ACCUMULATORS}
    return own[rule] if rule in own else (SPECS / f"{rule}.toml").read_text("utf-8")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Mutant], Kernel]]:
    """Gives the kernel of a mutant. All are compiled as soon as one is asked for, on all processors, each in float32
    and for one instruction set."""
    folder = tmp_path_factory.mktemp("mutants")

    def make(mutant: Mutant, source: str, lowered: Any, folder: Path) -> Kernel:
        folder.mkdir()
        runtime = None
        if mutant.into == "runtime":
            runtime = open_runtime(mutant.applied("runtime", runtime_source.runtime_source()), folder / "runtime.so")
        return open_kernel(source, folder / "rule.so", lowered, "float32", least, mutant.flags, runtime)

    least = library.runtime().usable[-1]
    targets = [target for target in render.TARGETS if target.isa == least]
    jobs: dict[Mutant, Future[Kernel]] = {}
    with ThreadPoolExecutor() as pool:
        for i, mutant in enumerate((*SOUND, *MUTANTS)):
            compilation = driver.compile_text(mutant.applied("spec", spec(mutant.rule)), "mutant.toml")
            with mock.patch.object(c, "DTYPES", c.DTYPES[:1]), mock.patch.object(render, "TARGETS", targets):
                source = mutant.applied("C", render.kernel_source(compilation.rules, compilation.lowered))
            jobs[mutant] = pool.submit(make, mutant, source, compilation.lowered[0], folder / str(i))
        yield lambda mutant: jobs[mutant].result()


def rule_of(mutant: Mutant) -> Any:
    return driver.compile_text(spec(mutant.rule), "sound.toml").rules[0]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.fault)
def test_the_fault_is_caught(mutant: Mutant, kernels: Callable[[Mutant], Kernel]) -> None:
    if "-mfma" in mutant.flags and "x86_64_v3" not in library.runtime().usable:
        pytest.skip("this processor has no fused multiplication and addition")
    if mutant.fault == "denormals flushed" and platform.machine() != "x86_64":
        pytest.skip("the fault is put into the control state of x86-64")
    kernel = kernels(mutant)  # whose fault has found its place
    with pytest.raises(AssertionError, match=NOTICED):
        check_all(rule_of(mutant), kernel)
    denormal = np.full(2, np.finfo(np.float32).smallest_subnormal)
    assert (denormal * np.float32(1) > 0).all(), "the fault has changed this process"


@pytest.mark.parametrize("mutant", SOUND, ids=lambda m: m.rule)
def test_without_a_fault_nothing_is_caught(mutant: Mutant, kernels: Callable[[Mutant], Kernel]) -> None:
    check_all(rule_of(mutant), kernels(mutant))


# ---- Faults of the binding ----


def as_the_parameter(arrays: list[Array], **how: bool) -> Layout:
    return layout_of([arrays[0], arrays[0], *arrays[2:]], **how)


def dense_if_the_parameter_is(arrays: list[Array], **how: bool) -> Layout:
    layout = layout_of(arrays, **how)
    if arrays[0].flags.c_contiguous:
        item = (arrays[0].itemsize,) * len(arrays)
        return Layout(True, (arrays[0].size,), (item,), (0,) * len(arrays))
    return layout


def from_the_first_byte(arrays: list[Array], **how: bool) -> Layout:
    return replace(layout_of(arrays, **how), offsets=(0,) * len(arrays))


@pytest.mark.parametrize("fault", [as_the_parameter, dense_if_the_parameter_is, from_the_first_byte])
def test_a_layout_that_does_not_look_at_the_gradient_is_caught(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compilation = driver.compile_text(spec("adam"), "sound.toml")
    kernel = kernel_of(compilation, 0, "float32", None)
    check_kernel(compilation.rules[0], kernel)
    monkeypatch.setattr(binding, "layout_of", fault)
    with pytest.raises(AssertionError, match=NOTICED):
        check_kernel(compilation.rules[0], kernel)


def test_counts_of_the_step_before_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    compilation = driver.compile_text(spec("adam"), "sound.toml")
    kernel = kernel_of(compilation, 0, "float32", None)
    run = kernel.program.run
    monkeypatch.setattr(kernel.program, "run", lambda values, t: run(values, max(1, t - 1)))
    with pytest.raises(AssertionError, match=NOTICED):
        check_kernel(compilation.rules[0], kernel)


def test_a_group_added_up_in_another_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    compilation = driver.compile_text(spec("prodigy"), "sound.toml")
    kernel = kernel_of(compilation, 0, "float32", None)

    def backwards(bindings: Any, order: Any, *rest: Any) -> GroupStep:
        return GroupStep(bindings, [places[::-1] for places in order], *rest)

    check_kernel(compilation.rules[0], kernel)
    monkeypatch.setattr(equivalence, "GroupStep", backwards)
    with pytest.raises(AssertionError, match=NOTICED):
        check_kernel(compilation.rules[0], kernel)
