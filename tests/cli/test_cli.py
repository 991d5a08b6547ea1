"""What the `optgen` command says: to a person at a terminal, to a pipe, and to the shell."""

from __future__ import annotations

import json
import os
import pty
import pwd
import re
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import optgen
from optgen import paths as resources
from optgen.cli import commands as cli
from optgen.cli import doctor, markdown, pages
from optgen.codegen import spec_source
from optgen.compiler import build as builder
from optgen.compiler import catalogue, driver, toolchain, trust
from optgen.compiler import manifest as product
from optgen.ir.rule import Family
from optgen.language.check import check
from optgen.language.parse import parse
from optgen.language.vocabulary import CALLABLE, GIVEN
from optgen.lowering.pipeline import lower
from optgen.lowering.sweeps import sweeps_of
from optgen.names import GREEK
from optgen.notation import latex, text
from optgen.notation.facts import bytes_moved, shown
from optgen.runtime import library, machine

ROOT = Path(cli.__file__).parents[2]
SPEC = """
name = "Mine"
summary = "A rule of one's own."
[hyperparameters]
eta = { default = 0.5, range = "[0, inf)", doc = "learning rate" }
[update]
formulas = "delta = eta*g"
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, not made yet; and nothing said to optgen from outside."""
    for name in ("OPTGEN_ISA", "OPTGEN_NUM_THREADS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setenv("OPTGEN_CACHE_DIR", str(folder))
    return folder


WHOLE = """
name = "Whole"
summary = "All that a rule may have."
reference = "Nobody, Nothing, 2020, arXiv:2001.00001"
origin = "here"
notes = '''
Others mean
something else.
'''
[hyperparameters]
eta = { default = 0.5, range = "[0, inf)", doc = "learning rate" }
keep = { default = 0, range = "[0, 1)", doc = "how much is kept" }
eps = { default = 1e-8, range = "[0, inf)", doc = "least denominator" }
[flags]
buffered = { default = "keep != 0", doc = "keep a buffer" }
ahead = { default = false, requires = "buffered", doc = "look ahead" }
[state]
r = { init = "eps", extent = "row", when = "matrix", doc = "sums of rows" }
buffer = { init = "0", when = "buffered", doc = "sum of slopes" }
[update]
formulas = '''
slope  = g/max(norm(g), eps)
unread = slope
buffer = keep*buffer + unread
moved  = (slope + keep*buffer if ahead else buffer) if buffered else slope
r      = r + mean(g**2, row)
scaled = moved/(sqrt(r) + eps) if matrix else moved
delta  = eta*scaled
'''
"""


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.toml"
    path.write_text(WHOLE)
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SPEC)
    return path


def run(*arguments: Any) -> Result:
    result = CliRunner().invoke(cli.main, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_sweeps_are_shown_by_their_former_name_too() -> None:
    assert said("show", "adam", "--as", "passes") == said("show", "adam", "--as", "sweeps")


def said(*arguments: Any) -> str:
    """The standard output of a command that goes well and has nothing to say on the standard error."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(*arguments: Any, status: int = 1) -> str:
    """The standard error of a command that fails."""
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.stderr


def process(*arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "optgen", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}
    return subprocess.run(command, env=env, check=False, **{"capture_output": True, **more})


def at_a_terminal(*arguments: str, columns: int) -> str:
    """What a command shows on a terminal of so many columns."""
    master, terminal = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": str(columns)}
    env.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "optgen", *arguments]
    with subprocess.Popen(command, env=env, stdout=terminal, stderr=subprocess.DEVNULL):
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # which is how Linux says that nobody has the terminal open any more
            while chunk := os.read(master, 4096):
                shown += chunk
        os.close(master)
    return shown.decode().replace("\r\n", "\n")


# The command itself


def test_version_and_help() -> None:
    assert said("--version") == f"optgen {optgen.__version__}\n"
    for command in ("build", "list", "show", "new", "check", "bench", "doctor"):
        assert re.search(rf"^  {command} +\S.*[^.]\.$", said("-h"), re.MULTILINE), "one whole sentence a command"
        assert f"Usage: main {command}" in said(command, "--help")


def test_it_runs_as_a_module() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout.decode()) == (0, f"optgen {optgen.__version__}\n")


def test_help_waits_for_no_heavy_import() -> None:
    program = "import sys, optgen.cli; print({'numpy', 'rich', 'jinja2', 'cffi', 'filelock'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_unknown_command_is_a_fault_of_the_command_line() -> None:
    assert "No such command 'bild'" in refused("bild", status=2)


def test_a_fault_of_optgen_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "shipped", lambda: 1 / 0)
    assert isinstance(CliRunner().invoke(cli.main, ["list"]).exception, ZeroDivisionError)


# optgen list


def listed(*arguments: Any) -> dict[str, list[list[str]]]:
    """What `optgen list` says: for each group, its rows as cells."""
    found: dict[str, list[list[str]]] = {}
    for block in said("list", *arguments).split("\n\n")[:-1]:
        title, *lines = block.splitlines()
        found[title] = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return found


def test_list_has_a_row_for_every_shipped_rule_in_the_group_of_its_family() -> None:
    table = listed()
    titles = {family: f"{title} ({family})" for family, title in pages.FAMILIES.items() if family}
    assert list(table) == list(titles.values())
    for group in table.values():
        assert group[0] == ["rule", "states", "kept", "moved", "sweeps", "summary"]
    expected: dict[str, list[str]] = {title: [] for title in table}
    for path in catalogue.shipped():
        rule = driver.compile_file(path).rules[0]
        expected[titles[rule.family]].append(rule.name)
    assert {title: [row[0] for row in rows[1:]] for title, rows in table.items()} == expected


def test_a_rule_of_no_family_has_a_group_too() -> None:
    def of_family(name: str, more: str) -> driver.Compilation:
        return driver.compile_text(SPEC.replace("Mine", name).replace("[hyper", f"{more}\n[hyper", 1), "mine.toml")

    texts = {"A": 'part = "gradient"', "B": "", "C": 'family = "sign"', "D": 'family = "adam"', "E": ""}
    found = pages.groups(of_family(name, more) for name, more in texts.items())
    names = {family: [each.name for each in members] for family, members in found.items()}
    assert names == {"adam": ["D"], "sign": ["C"], "": ["B", "E"], "parts": ["A"]}
    assert [*names] == ["adam", "sign", "", "parts"]


def test_list_has_the_rules_of_one_family() -> None:
    assert listed("--family", "sign") == {"Steps of signs (sign)": listed()["Steps of signs (sign)"]}
    message = refused("list", "--family", "signs", status=2)
    assert "expected one of momentum, adagrad, adam, sign, layerwise, memory," in message
    assert "got 'signs'" in message


def test_list_shows_states_and_costs() -> None:
    rows = {row[0]: row[1:5] for group in listed().values() for row in group}
    assert rows["ADAM"] == ["m, v", "8/16", "28/56", "1"]
    assert rows["Descent"] == ["none", "0/0", "12/24", "1"]
    assert rows["LAMB"] == ["m, v", "8/16", "40/80", "2"]  # reads p, g, m, v, writes m, v; reads p, m, v, writes p
    assert rows["Adafactor"] == ["row_var (row), col_var (column)", "0/0", "24/48", "3"]  # of matrices
    assert rows["Prodigy"][0] == "m, v, s, p0, num (group), d (group)"
    assert rows["SGD"] == ["none", "0/0", "12/24", "1"]  # the default variant
    legend = said("list").split("\n\n")[-1]
    assert re.search(r"^  moved +bytes that a step reads and writes per element, float32/float64$", legend, re.M)


def test_a_pipe_gets_plain_rows_that_are_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = said("list")
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == len(catalogue.shipped()) + (len(pages.FAMILIES) - 1) * 3 + len(pages.LEGEND)
    assert all(line == line.rstrip() for line in shown.splitlines())


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_gets_rows_that_fit(columns: int) -> None:
    shown = at_a_terminal("list", columns=columns)
    assert "\x1b[1m" in shown
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.splitlines()]
    assert max(map(len, lines)) <= columns
    if columns >= 80:  # names are whole
        words = {line.split()[0] for line in lines if line.split()}
        assert words >= catalogue.shipped_names().keys()


# optgen show


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("ADAM", "ADAM: Adaptive moment estimation.\n"),
        ("adam", "ADAM: Adaptive moment estimation.\n"),  # the file of that name
        ("Adam", "Adam: Adaptive moment estimation with weight decay"),  # exactly PyTorch's
        ("torch_adam", "Adam: Adaptive moment estimation with weight decay"),
        ("Torch_ADAM", "Adam: Adaptive moment estimation with weight decay"),
        ("sgd", "SGD: Gradient descent with momentum"),  # no file, and one rule only
        ("adafactor", "Adafactor: "),
    ],
)
def test_show_finds_a_shipped_rule(name: str, begins: str) -> None:
    assert said("show", name).startswith(begins)


def test_every_rule_is_found_by_its_name_and_by_its_file() -> None:
    for name, path in catalogue.shipped_names().items():
        assert cli._find(name).name == name
        if path.stem.upper() not in catalogue.shipped_names():
            assert cli._find(path.stem.upper()).name == name


def test_a_name_of_several_rules_and_no_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"Twin": Path("one.toml"), "TWIN": Path("two.toml"), "Other": Path("other.toml")}
    monkeypatch.setattr(catalogue, "shipped_names", lambda: names)
    assert refused("show", "twin") == "error: optgen has no rule 'twin'\n  hint: did you mean 'Twin' or 'TWIN'?\n"


def test_the_summary_of_a_rule(whole: Path) -> None:
    assert said("show", whole) == (
        "Whole: All that a rule may have.\n"
        "\n"
        "  slope ← g/max(‖g‖, ε)\n"
        "  moved ← slope\n"
        "  r ← r + mean(g², row)\n"
        "  scaled ← moved/(√r + ε)\n"
        "  Δ ← η·scaled\n"
        "  p ← p − Δ\n"
        "\n"
        "Hyperparameters\n"
        "  η     eta  0.5    in [0, inf)  learning rate\n"
        "  keep       0      in [0, 1)    how much is kept\n"
        "  ε     eps  1e-08  in [0, inf)  least denominator\n"
        "\n"
        "Flags\n"
        "  buffered  off  on by default if keep ≠ 0  keep a buffer\n"
        "  ahead     off  by default                 look ahead; requires buffered\n"
        "  matrix    on   by the parameter           this is for parameters of two or more dimensions\n"
        "\n"
        "State\n"
        "  r  one for each row  starts as ε  sums of rows\n"
        "\n"
        "Cost\n"
        "  no state per element; numbers: 1 per row\n"
        "  16 bytes moved per element in float32, 32 in float64, in 2 sweeps over memory\n"
        "\n"
        "Matrices\n"
        "  last two: a parameter of shape (a, b, c, d) is a·b matrices of c rows and d columns\n"
        "\n"
        "Notes\n"
        "  Others mean something else.\n"
        "\n"
        "Origin\n"
        "  here\n"
        "\n"
        "Reference\n"
        "  Nobody, Nothing, 2020, arXiv:2001.00001\n"
    )


def test_flags_and_the_shape_of_parameters_choose_a_variant(whole: Path) -> None:
    shown = said("show", whole, "--flag", "buffered", "--flag", "ahead", "--flag", "no-matrix")
    for line in (
        "  buffer ← keep·buffer + unread",
        "  moved ← slope + keep·buffer",
        "  buffered  on   on by default if keep ≠ 0  keep a buffer",
        "  ahead     on   not the default            look ahead; requires buffered",
        "  matrix    off  by the parameter           this is for parameters of fewer than two dimensions",
        "  buffer  starts as 0  sum of slopes",
        "  4 bytes of state per element in float32, 8 in float64",
    ):
        assert line in shown.splitlines()
    assert "  r ← " not in shown


def test_what_a_variant_does_not_read_is_no_part_of_it(whole: Path) -> None:
    assert "unread" not in [assign.target for assign in driver.compile_file(whole).rules[0].body]
    for form in ("summary", "latex", "sweeps", "ir"):
        assert "unread" not in said("show", whole, "--as", form)
        assert "unread" in said("show", whole, "--as", form, "--flag", "buffered")
    assert "unread" not in said("show", whole, "--as", "markdown").split("With buffered=True")[0]


def test_flags_that_contradict_each_other_are_refused(whole: Path) -> None:
    assert refused("show", whole, "--flag", "ahead") == (
        "error: Whole: the flags contradict each other: ahead requires buffered; got buffered=False, ahead=True\n"
        "  hint: turn the others too: --flag NAME, --flag no-NAME\n"
    )


def test_the_sides_of_matrices_are_flags_that_can_be_given(tmp_path: Path) -> None:
    """By default a variant for wide ones is shown."""
    for name, flags, turned in (("Muon", ("tall",), "X ← Wᵀ"), ("GaLore", ("no-wide",), "G ← gᵀ")):
        usual = said("show", name)
        own = said("show", name, *(word for flag in flags for word in ("--flag", flag)))
        assert turned not in usual
        assert turned in own
    sides = tmp_path / "sides.toml"
    sides.write_text('name = "Sides"\n[update]\nformulas = "delta = (2 if tall else 1)*(3 if wide else 1)*g"\n')
    assert "Δ ← 2·1·g" in said("show", sides, "--flag", "tall")
    assert "Δ ← 1·1·g" in said("show", sides, "--flag", "no-tall", "--flag", "no-wide")
    assert refused("show", sides, "--flag", "tall", "--flag", "wide") == (
        "error: Sides has no variant that is tall and wide\n  hint: leave one of them out\n"
    )


def test_c_of_a_rule_of_products_has_what_lies_between_them() -> None:
    result = run("show", "SPlus", "--as", "c")
    assert (result.exit_code, result.stderr) == (0, "")
    assert {"splus_f32_dense", "splus_segment1_f64_dense"} <= set(re.findall(r"splus_\w+_dense", result.stdout))


def test_a_rule_of_one_shape_has_no_flag_for_it() -> None:
    for flag in ("matrix", "no-matrix"):
        assert refused("show", "adam", "--flag", flag) == "error: ADAM has no flag 'matrix'; it has none\n"
    assert "did you mean 'matrix'?" in refused("show", "adafactor", "--flag", "no-matrx")


def test_a_part_of_chains_is_shown_as_it_is_in_one() -> None:
    shown = said("show", "cautious")
    assert "g·grad" in shown  # alone, the gradient before all parts is g itself
    assert "p ← p − Δ" not in shown
    assert "  A part of chains: g is what comes in, a gradient or the step of the parts before, Δ what goes on" in shown
    assert "grad the gradient before all parts" in shown
    ema = said("show", "ema")
    assert "·new\n" in ema
    assert "  A part of chains: p is the parameter before the step, new as the parts before leave it." in ema
    assert r"\mathrm{grad}" in said("show", "cautious", "--as", "latex")


def test_a_rule_of_names_without_letters_has_no_column_for_them() -> None:
    assert re.search(r"^  lr +0\.001 +in \[0, inf\) +learning rate$", said("show", "SGD"), re.MULTILINE)
    assert "  lr            0.001" in said("show", "SGD")


def test_the_summary_of_a_rule_with_nothing_but_formulas(tmp_path: Path) -> None:
    (tmp_path / "bare.toml").write_text('name = "Bare"\n[update]\nformulas = "delta = exp(g)"\n')
    shown = said("show", tmp_path / "bare.toml")
    assert shown.startswith("Bare\n\n  Δ ← exp(g)\n")
    assert "State\n  none\n" in shown
    assert "Hyperparameters" not in shown
    assert "Reference" not in shown


@pytest.mark.parametrize(
    ("flags", "state"),
    [((), r"off +by default"), (("coupled",), r"on +not the default"), (("coupled", "no-coupled"), r"off +by default")],
)
def test_a_flag_chooses_a_variant(flags: tuple[str, ...], state: str) -> None:
    shown = said("show", "adamw", *(word for flag in flags for word in ("--flag", flag)))
    assert re.search(rf"^  coupled +{state} +multiply the decay", shown, re.MULTILINE)
    assert ("step + η·decay·p" in shown) == ("not the default" in shown)


def test_an_unknown_flag_is_refused_with_a_close_name() -> None:
    assert refused("show", "adamw", "--flag", "copled") == (
        "error: ADAMW has no flag 'copled'; did you mean 'coupled'?\n"
    )
    assert refused("show", "adam", "--flag", "x") == "error: ADAM has no flag 'x'; it has none\n"


@pytest.mark.parametrize("form", ["c", "python"])
def test_a_flag_does_not_go_with_a_file_of_all_variants(form: str) -> None:
    assert f"--flag does not go with --as {form}" in refused(
        "show", "adamw", "--as", form, "--flag", "coupled", status=2
    )


def test_latex_c_and_python_come_byte_for_byte() -> None:
    adam = driver.compile_file(resources.SPECS / "adam.toml")
    for form, source in (
        ("latex", latex.rule(adam.rules[0]) + "\n"),
        ("c", adam.c_source),
        ("python", adam.python_source),
    ):
        assert run("show", "adam", "--as", form).stdout_bytes == source.encode()


def test_latex_is_of_the_variant() -> None:
    assert r"\mathrm{decay} \, p" in said("show", "adamw", "--as", "latex")
    assert r"\eta \, \mathrm{decay} \, p" in said("show", "adamw", "--as", "latex", "--flag", "coupled")


def test_the_latex_of_every_variant_is_of_what_it_shows() -> None:
    for path in catalogue.shipped():
        compilation = driver.compile_file(path)
        for variant in range(compilation.in_phases(0).step):
            source = pages.source(compilation, variant)
            own = compilation.in_phases(variant)
            formulas = [len(shown(compilation.rules[i], compilation.open[i])) for i in own]
            assert source.count(r"&\leftarrow") == sum(formulas)
            assert len(re.findall(r"\\left(?!arrow)", source)) == source.count(r"\right")
            assert source.count("{") == source.count("}")
            commands = set(re.findall(r"\\([A-Za-z]+)", source))
            assert commands <= COMMANDS, path


#: What the LaTeX of rules is made of: all that amsmath and MathJax know.
COMMANDS = (GREEK.keys() - {"eps", "lam"}) | {
    "Delta", "begin", "bmod", "cdot", "cos", "end", "epsilon", "exp", "frac", "ge", "hat", "lVert", "lambda", "land",
    "langle", "le", "left", "leftarrow", "lfloor", "lnot", "log", "lor", "mathrm", "max", "min", "ne", "operatorname",
    "rVert", "quad", "rangle", "rfloor", "right", "sqrt", "tanh", "text", "textit", "top",
}  # fmt: skip


def test_the_ir_shows_what_is_computed_where() -> None:
    blocks = said("show", "descent", "--as", "ir").split("\n\n")
    assert blocks[0] == ("Descent, checked: as the interpreter runs it\n  element  Δ ← η·g\n  element  p ← p − Δ")
    assert blocks[1].splitlines()[0] == "Descent, lowered: scalars, in float64 on the host, once a step"
    words = "Descent, lowered: for every element, in the compute type; all else in float64"
    assert blocks[2].splitlines()[0] == words
    assert blocks[3:] == ["loads: p, g", "stores: p\n"]
    low = driver.compile_file(resources.SPECS / "adam.toml").lowered[0]
    shown = said("show", "adam", "--as", "ir")
    for assign in (*low.scalars, *low.body):
        assert text.formula(assign) in shown
    assert re.search(r"^  step +k\d ← 1 − β₁ᵗ$", shown, re.MULTILINE)


def test_the_ir_loads_and_stores_states_of_lesser_extent_too(whole: Path) -> None:
    assert said("show", whole, "--as", "ir").split("\n\n")[3:] == ["loads: p, g, r", "stores: p, r\n"]


def test_the_passes_of_a_step(whole: Path) -> None:
    assert said("show", whole, "--as", "sweeps") == (
        "Whole: a step in 2 sweeps over memory\n"
        "\n"
        "First, by the kernel, in float64\n"
        "  for each tensor  k2 ← columns\n"
        "\n"
        "Sweep 1, over every element\n"
        "  reads     g\n"
        "  reduces   r1 ← dot(g, g), for each tensor\n"
        "            r2 ← sum(g·g, row)\n"
        "\n"
        "Then, by the kernel, in float64\n"
        "  for each tensor  k1 ← max(√r1, ε)\n"
        "  for each row     r ← r + r2/k2\n"
        "                   k3 ← √r + ε\n"
        "\n"
        "Sweep 2, over every element\n"
        "  reads     p, g\n"
        "  computes  slope ← g/k1\n"
        "            moved ← slope\n"
        "            scaled ← moved/k3\n"
        "            Δ ← η·scaled\n"
        "            p ← p − Δ\n"
        "  writes    p\n"
        "\n"
        "Altogether\n"
        "  16 bytes moved per element in float32, 32 in float64, in 2 sweeps over memory\n"
    )


def test_the_passes_of_a_rule_with_one() -> None:
    blocks = said("show", "adam", "--as", "sweeps").split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "ADAM: a step in 1 sweep over memory",
        "Once a step, on the host, in float64",
        "Sweep 1, over every element",
        "Altogether",
    ]
    assert re.search(r"^  k\d ← 1 − β₁ᵗ$", blocks[1], re.MULTILINE)
    assert "η ← η" not in blocks[1]  # a hyperparameter stands where it is used
    assert blocks[2].splitlines()[1::4] == ["  reads     p, g, m, v", "            p ← p − Δ"]
    assert blocks[2].splitlines()[-1] == "  writes    p, m, v"


def test_the_passes_show_what_the_host_computes_for_all_tensors_and_what_is_read_again(mine: Path) -> None:
    states = '[state]\nm = { init = 0 }\nn = { init = 0, extent = "group" }\nlast = { init = 0, extent = "tensor" }\n'
    mine.write_text(
        SPEC.replace("[update]", f"{states}[update]").replace(
            '"delta = eta*g"',
            """'''
            m = m + g*last
            n = n + norm(m, group)
            last = 1/t
            delta = eta*m/n
            '''""",
        )
    )
    blocks = said("show", mine, "--as", "sweeps").split("\n\n")
    assert blocks[1:] == [
        "Once a step, on the host, in float64\n  k1 ← 1/t",
        "Sweep 1, over every element\n"
        "  reads     g, m\n  computes  m ← m + g·last\n  writes    m\n  reduces   r1 ← dot(m, m, group)",
        "Then, on the host, in float64\n  for all tensors together  n ← n + √r1",
        "Sweep 2, over every element\n"
        "  reads     p, m (new)\n  computes  Δ ← η·m/n\n            p ← p − Δ\n  writes    p",
        "Last, in float64\n  for each tensor  last ← k1",
        "Altogether\n  24 bytes moved per element in float32, 48 in float64, in 2 sweeps over memory\n",
    ]


def test_the_sweeps_of_every_variant_are_shown_with_all_that_is_computed() -> None:
    for path in catalogue.shipped():
        compilation = driver.compile_file(path)
        for variant in range(compilation.in_phases(0).step):
            blocks = list(pages.sweeps(compilation, variant))
            lows = [compilation.lowered[i] for i in compilation.in_phases(variant)]
            rows = [row[-1] for block in blocks if isinstance(block, pages.Table) for row in block.rows]
            named = {row.split(" ← ")[0] for row in rows}
            if compilation.rules[variant].multiplies:
                continue  # what nothing compiles has no sweeps
            assert named >= {text.formula(assign).split(" ← ")[0] for low in lows for assign in low.body}, path
            begin = max(k for k, block in enumerate(blocks) if re.search(": a (step|phase) in ", str(block)))
            titles = [str(block) for block in blocks[begin:] if str(block).startswith("\nSweep ")]
            numbers = [int(title.split()[1].removesuffix(",")) for title in titles]
            parted, count = any(", where " in title for title in titles), sweeps_of(lows[-1]).count
            assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))
            assert max(numbers) == count or (parted and max(numbers) > count)  # no course takes all of them
            assert f"in {count} sweep" in rows[-1]
            assert ("at most" in rows[-1]) == parted


def test_a_page_of_documentation(whole: Path) -> None:
    assert said("show", whole, "--as", "markdown") == PAGE


PAGE = r"""# Whole

All that a rule may have.

For parameters of two or more dimensions:

```math
\begin{aligned}
  \mathrm{slope} &\leftarrow \frac{g}{\max\left(\left\lVert g \right\rVert, \epsilon\right)} \\
  \mathrm{moved} &\leftarrow \mathrm{slope} \\
  r &\leftarrow r + \mathrm{mean}_{\text{row}}\left(g^{2}\right) \\
  \mathrm{scaled} &\leftarrow \frac{\mathrm{moved}}{\sqrt{r} + \epsilon} \\
  \Delta &\leftarrow \eta \, \mathrm{scaled} \\
  p &\leftarrow p - \Delta
\end{aligned}
```

For parameters of fewer than two dimensions:

```math
\begin{aligned}
  \mathrm{scaled} &\leftarrow \mathrm{moved}
\end{aligned}
```

With buffered=True:

```math
\begin{aligned}
  \mathrm{unread} &\leftarrow \mathrm{slope} \\
  \mathrm{buffer} &\leftarrow \mathrm{keep} \, \mathrm{buffer} + \mathrm{unread} \\
  \mathrm{moved} &\leftarrow \mathrm{buffer}
\end{aligned}
```

With buffered=True, ahead=True:

```math
\begin{aligned}
  \mathrm{unread} &\leftarrow \mathrm{slope} \\
  \mathrm{buffer} &\leftarrow \mathrm{keep} \, \mathrm{buffer} + \mathrm{unread} \\
  \mathrm{moved} &\leftarrow \mathrm{slope} + \mathrm{keep} \, \mathrm{buffer}
\end{aligned}
```

Here g is the gradient, p the parameter; reductions go over a whole parameter, unless they name something else.

## Hyperparameters

|  | default | range | meaning |
| --- | --- | --- | --- |
| `eta` | 0.5 | [0, inf) | learning rate |
| `keep` | 0 | [0, 1) | how much is kept |
| `eps` | 1e-08 | [0, inf) | least denominator |

## Flags

|  | default | requires | meaning |
| --- | --- | --- | --- |
| `buffered` | on if keep ≠ 0 |  | keep a buffer |
| `ahead` | off | `buffered` | look ahead |

## State

|  | kept | starts as | meaning |  |
| --- | --- | --- | --- | --- |
| `r` | one for each row | ε | sums of rows | only for parameters of two or more dimensions |
| `buffer` | shaped as p | 0 | sum of slopes | only with buffered=True |

## Matrices

last two: a parameter of shape (a, b, c, d) is a·b matrices of c rows and d columns

## Cost

|  | bytes of state per element | bytes moved per element | sweeps over memory |
| --- | --- | --- | --- |
| by default, for parameters of two or more dimensions | 0/0 | 16/32 | 2 |
| with buffered=True | 4/8 | 24/48 | 2 |
| with buffered=True, ahead=True | 4/8 | 24/48 | 2 |

## Notes

Others mean something else.

## Reference

Nobody, Nothing, 2020, [arXiv:2001.00001](<https://arxiv.org/abs/2001.00001>)
"""


def test_a_page_is_of_the_variant(whole: Path) -> None:
    page = said("show", whole, "--as", "markdown", "--flag", "buffered", "--flag", "no-matrix")
    assert page.count("```math") == 1
    assert "For parameters of fewer than two dimensions:" in page
    assert "With buffered" not in page
    assert "| `buffer` | shaped as p | 0 | sum of slopes |\n" in page
    assert "`r`" not in page
    assert "| 4/8 | 24/48 | 2 |\n" in page


def test_what_a_spec_says_is_text_and_nothing_but_text_in_markdown(mine: Path) -> None:
    words = r"- *a* _b_ <b>c</b> [d](e) `f_*` $g$ a|b \\ \n# h ~~i~~ &amp; arXiv:1 doi:10.1/x_y"
    mine.write_text(SPEC.replace("A rule of one's own.", words).replace("learning rate", words))
    escaped = r"\- \*a\* \_b\_ \<b\>c\</b\> \[d\](e) `f_*` \$g\$ a|b \\ \# h \~\~i\~\~ \&amp; arXiv:1 doi:10.1/x\_y"
    page = said("show", mine, "--as", "markdown")
    assert page.split("\n\n")[1] == escaped
    assert f"| `eta` | 0.5 | [0, inf) | {escaped.replace('|', chr(92) + '|')} |" in page.splitlines()


def test_markdown_keeps_paragraphs_and_hides_nothing(mine: Path) -> None:
    for words, escaped in (("1. one", r"1\. one"), ("12) x", r"12\) x"), ("2.5 x", r"2\.5 x"), ("+ x", r"\+ x")):
        mine.write_text(SPEC.replace("A rule of one's own.", words))
        assert said("show", mine, "--as", "markdown").split("\n\n")[1] == escaped
    mine.write_text(SPEC.replace("A rule of one's own.", "\\u001b[31m `\\u202e` end"))
    assert said("show", mine, "--as", "markdown").split("\n\n")[1] == r"\[31m ` ` end"


def test_list_as_markdown_is_a_page_of_contents_or_that_of_a_family() -> None:
    found = pages.groups(map(driver.compile_file, catalogue.shipped()))
    every = [each for members in found.values() for each in members]
    assert said("list", "--as", "markdown") == markdown.rules_page(every)
    page = said("list", "--as", "markdown", "--family", "sign")
    assert page == markdown.family_page(Family.SIGN, found[Family.SIGN])


# optgen new


def test_new_writes_a_spec_that_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said("new", "MyRule") == (
        "wrote myrule.toml\nnext: optgen show myrule.toml, optgen check myrule.toml, optgen.load('myrule.toml')\n"
    )
    assert said("check", "myrule.toml") == "myrule.toml: ok\n"
    assert said("show", "myrule.toml").startswith("MyRule: ")
    assert said("new", "Other", "--out", tmp_path / "file.toml").startswith(f"wrote {tmp_path / 'file.toml'}\n")
    assert driver.compile_file(tmp_path / "file.toml").name == "Other"


@pytest.mark.parametrize("part", ["gradient", "parameter"])
def test_new_writes_parts_of_chains(part: str, tmp_path: Path) -> None:
    path = tmp_path / "part.toml"
    said("new", "Part", "--part", part, "--out", path)
    assert driver.compile_file(path).rules[0].part == part
    assert "A part of chains" in said("show", path)


def test_new_explains_every_table_and_given_name() -> None:
    for part in ("", "gradient", "parameter"):
        source = spec_source.spec_source("Mine", part, "mine.toml", "Descent")
        words = {*GIVEN, *CALLABLE, "[flags]", "[state]", "[hyperparameters]", "requires", "when", "extent", "notes"}
        for word in words - {"delta" if part == "parameter" else ""}:
            assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", source), word
        assert bool(part) == ("proceed" in source) == ("grad " in source)
        assert max(map(len, source.splitlines())) <= 120


def test_new_overwrites_nothing(mine: Path, tmp_path: Path) -> None:
    assert refused("new", "Mine", "--out", mine) == (
        f"error: expected a new file, got {mine}, which is there already\n  hint: name another file with --out\n"
    )
    assert mine.read_text() == SPEC
    assert "nowhere/mine.toml, got No such file" in refused("new", "Mine", "--out", tmp_path / "nowhere" / "mine.toml")


@pytest.mark.parametrize("name", ["ADAM", "adam", "Adam", "sgd"])
def test_new_refuses_the_name_of_a_shipped_rule(name: str) -> None:
    message = refused("new", name)
    assert message.startswith(f"error: expected a new name, got {name!r}: ")
    assert re.search(r"^  hint: choose another name; to start from that rule, copy .*\.toml$", message, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("1x", "expected the name of a rule, got '1x'", "a name is a letter, then letters, digits and underscores"),
        ('a"\n', "expected the name of a rule, got", "in ASCII"),
        ("η", "expected the name of a rule, got 'η'", "in ASCII"),
        ("class", "'class' is a keyword of Python, no name for a rule", "choose another name"),
        ("sqrt", "the rule 'sqrt' shadows the function sqrt()", "choose another name"),
        ("Runtime", "expected the name of a rule, got 'Runtime'", "files of that name are optgen's own"),
    ],
)
def test_new_refuses_what_is_no_name_of_a_rule(name: str, message: str, hint: str, tmp_path: Path) -> None:
    said_so = refused("new", name, "--out", tmp_path / "x.toml")
    assert message in said_so
    assert hint in said_so
    assert not list(tmp_path.glob("*.toml"))


def test_new_refuses_a_file_that_is_no_spec(tmp_path: Path) -> None:
    assert refused("new", "Mine", "--out", tmp_path / "mine") == (
        f"error: expected a file that ends in .toml, got {tmp_path / 'mine'}\n  hint: for example: --out mine.toml\n"
    )
    assert "'rule' is not one of 'gradient', 'parameter'" in refused("new", "Mine", "--part", "rule", status=2)


def test_a_rule_that_is_not_there_is_refused_with_close_names() -> None:
    assert refused("show", "rmsporp") == (
        "error: optgen has no rule 'rmsporp'\n  hint: did you mean 'RMSProp' or 'RMSprop'?\n"
    )
    assert "hint: `optgen list` shows those it has; a spec's path ends in .toml" in refused("show", "zzz")


def test_a_spec_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.toml"
    assert f"{path}: expected a spec, got an error: no such file or directory" in refused("show", path)


def test_a_spec_with_faults_is_shown_with_its_faults(mine: Path) -> None:
    mine.write_text(SPEC.replace("eta*g", "eta*gg"))
    assert refused("show", mine).startswith("error: 1 fault in mine.toml\nmine.toml:7:")


def test_an_unknown_form_is_a_fault_of_the_command_line() -> None:
    assert "'fortran' is not one of" in refused("show", "adam", "--as", "fortran", status=2)


def test_what_a_spec_says_is_text_and_nothing_but_text(mine: Path) -> None:
    mine.write_text(SPEC.replace("learning rate", "\\u001b[31m [red]rate[/red] :smile: \\u202e"))
    assert said("show", mine).splitlines()[6].endswith("  [31m [red]rate[/red] :smile:")
    assert "\x1b[31m" not in at_a_terminal("show", str(mine), columns=80)


# optgen check


def test_check_says_which_specs_are_well(mine: Path) -> None:
    adam = resources.SPECS / "adam.toml"
    assert said("check", mine, adam) == f"{mine}: ok\n{adam}: ok\n"


def test_check_prints_all_faults_of_all_specs_as_a_compiler_does(mine: Path, tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.toml"
    faulty.write_text(SPEC.replace("eta*g", "eta*gg + nu").replace("summary", "sumary"))
    missing = tmp_path / "missing.toml"
    result = run("check", faulty, mine, missing)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    places = [line for line in lines if line.startswith(f"{faulty}:")]
    assert [re.sub(r".*toml:", "", line) for line in places] == [
        "3:1: unknown key 'sumary'", "7:25: unknown name 'gg'", "7:30: unknown name 'nu'",
    ]  # fmt: skip
    assert lines[1:3] == ['  3 | sumary = "A rule of one\'s own."', "    | ^^^^^^"]
    assert f"{mine}: ok" in lines
    assert f"{missing}: expected a spec, got an error: no such file or directory" in lines
    assert result.stderr == "error: faults in 2 of 3 specs\n"


def test_check_wants_a_spec() -> None:
    assert "Missing argument 'SPEC...'" in refused("check", status=2)


# optgen doctor


def rows(result: Result) -> dict[str, tuple[str, str]]:
    """The table of the doctor: for each name, whether all is well, and the words."""
    table: dict[str, tuple[str, str]] = {}
    for line in result.stdout.splitlines():
        if match := re.match(r"(\S.*?)  +(ok|NOT OK)  +(.*)", line):
            name = match[1]
            table[name] = (match[2], match[3])
        else:
            table[name] = (table[name][0], f"{table[name][1]}\n{line.strip()}")
    return table


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build folder of the test's own, not made yet, and a runtime as if freshly started."""
    folder = tmp_path / "built"
    for module in (resources, library, product, doctor):
        monkeypatch.setattr(module, "BUILD", folder)
    monkeypatch.setattr(library, "runtime", library.runtime.__wrapped__)
    return folder


@pytest.fixture
def compiled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the doctor compiles to try the compiler, other tests have compiled: one of something else need not wait."""
    library.runtime()
    monkeypatch.setattr(toolchain, "compile_library", lambda *arguments: "")


def test_the_doctor_finds_all_well(built: Path, cache: Path) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.stdout
    table = rows(result)
    own = ["versions", "compiler", "instruction set", "threads", "products", "cache folder", "built kernels", "torch"]
    assert list(table) == own + ["torch: fast path", "torch: threads"] * (find_spec("torch") is not None)
    assert {state for state, _ in table.values()} == {"ok"}
    compiler = toolchain.find_compiler()
    assert table["compiler"][1] == f"{' '.join(compiler.command)}: {compiler.version}"
    for name in ("numpy", "cffi"):
        assert f"{name} {metadata.version(name)}" in table["versions"][1]
    assert table["versions"][1].startswith(f"optgen {optgen.__version__}, python 3.")
    usable = library.runtime().usable
    assert table["instruction set"][1] == f"{usable[0]}, the best of {', '.join(usable)}"
    assert table["cache folder"][1].startswith(f"{cache}: 1 libraries, 0.")


@pytest.mark.parametrize(("processor", "usable", "advised"), [
    ("Haswell", ["x86_64_v4", "x86_64_v3"], True), ("Haswell", ["x86_64_v3"], False),
    ("SkylakeX", ["x86_64_v4"], False), ("", ["x86_64_v4"], False),
])  # fmt: skip
def test_the_doctor_says_when_products_are_for_an_older_processor(
    processor: str, usable: list[str], advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    blas = {"user_api": "blas", "internal_api": "openblas", "version": "0.3", "architecture": processor}
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: [blas])
    monkeypatch.setattr(library, "runtime", lambda: SimpleNamespace(usable=usable))
    _, found, advice = doctor._products()
    assert found == f"openblas 0.3{f' for {processor}' if processor else ''}"
    assert ("OPENBLAS_CORETYPE" in advice) is advised


def test_the_doctor_counts_what_is_built_and_current(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(catalogue.shipped()) + len(builder.OWN)
    found, advice = rows(run("doctor"))["built kernels"][1].splitlines()
    assert found == f"0 of {count} built and current in {built}; the others are compiled on first use"
    assert advice == f"to do: optgen build --out {built} makes them now"
    monkeypatch.setattr(catalogue, "shipped", lambda: (resources.SPECS / "descent.toml",))
    said_by_build = run("build", "--out", built)
    assert said_by_build.exit_code == 0, said_by_build.output
    assert rows(run("doctor"))["built kernels"] == ("ok", f"3 of 3 built and current in {built}")
    record = built / "descent.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "fingerprint": "of another spec"}))
    assert "2 of 3 built" in rows(run("doctor"))["built kernels"][1]


def test_the_doctor_bears_having_no_compiler(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nonexistent")
    monkeypatch.setenv("PATH", "")
    result = run("doctor")
    assert result.exit_code == 1
    table = rows(result)
    assert table["compiler"][0] == "NOT OK"
    assert "$CC is '/nonexistent', which does not run" in table["compiler"][1]
    assert "to do: install a compiler" in table["compiler"][1]
    assert table["instruction set"] == ("NOT OK", "not known: optgen's runtime is not built\nto do: see the compiler")
    assert table["built kernels"][0] == "NOT OK"
    assert "and no compiler to make a2grad, accsgd" in table["built kernels"][1]
    assert [table[name][0] for name in ("versions", "threads", "cache folder")] == ["ok"] * 3


def test_the_doctor_bears_having_no_home(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> pwd.struct_passwd:
        raise KeyError("no such user")

    for name in ("OPTGEN_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    result = run("doctor")
    assert result.exit_code == 1
    state, words = rows(result)["cache folder"]
    assert state == "NOT OK"
    assert "there is no folder for a cache" in words
    assert words.endswith(f"to do: {trust.ELSEWHERE}")
    assert rows(result)["compiler"][0] == "ok"


def test_the_doctor_finds_a_compiler_that_does_not_compile(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "no-headers"
    script.write_text('#!/bin/sh\ncase " $* " in *" -shared "*) echo no math.h >&2; exit 1;; esac\nexec cc "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    result = run("doctor")
    assert result.exit_code == 1
    assert rows(result)["compiler"][0] == "NOT OK"
    assert "\nno math.h\nto do: it was called as" in rows(result)["compiler"][1]


def test_the_doctor_looks_at_torch(compiled_before: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, threads = pytest.importorskip("optgen.torch.tensors"), pytest.importorskip("optgen.torch.threads")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    table = rows(run("doctor"))
    assert table["torch"] == ("ok", metadata.version("torch"))
    assert table["torch: fast path"] == ("ok", "the runtime looks at tensors in memory")
    assert table["torch: threads"] == ("ok", "3, those of torch")
    monkeypatch.setattr(tensors, "view_fault", lambda: "it is another Python")
    monkeypatch.setattr(threads, "_TEAM", None)
    table = rows(run("doctor"))
    assert table["torch: fast path"][0] == table["torch: threads"][0] == "NOT OK"
    assert table["torch: fast path"][1].startswith("it is another Python: a step of 200 tensors takes some 50 times")
    assert "\nto do: use CPython" in table["torch: fast path"][1]
    assert "\nto do: set OMP_WAIT_POLICY=passive" in table["torch: threads"][1]
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert rows(run("doctor"))["torch: threads"] == ("ok", "3, of a pool of optgen")


@pytest.mark.parametrize(("found", "expected"), [
    (None, ("ok", "not installed: only optgen.torch needs it")),
    ("2.4.1+cpu", ("NOT OK", "expected torch 2.5 or newer, got 2.4.1+cpu\nto do: pip install 'torch>=2.5'")),
    ("2.5.0", ("ok", "2.5.0")),
    ("3.0a1", ("ok", "3.0a1")),
])  # fmt: skip
def test_the_doctor_tells_the_version_of_torch(
    found: str | None, expected: tuple[str, str], compiled_before: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "torch" and found is None:
            raise metadata.PackageNotFoundError
        return found if name == "torch" and found else metadata.version(name)

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    table = rows(run("doctor"))
    assert table["torch"] == expected
    assert "torch: threads" not in table


def test_the_oldest_torch_is_the_same_everywhere() -> None:
    oldest = ".".join(map(str, doctor.OLDEST_TORCH))
    assert f'torch = ["torch>={oldest}"]' in (ROOT / "pyproject.toml").read_text("utf-8")
    for page in ("README.md", "docs/torch.md", "optgen/torch/__init__.py"):
        assert f"PyTorch {oldest} or newer" in (ROOT / page).read_text("utf-8"), page


def test_the_doctor_says_why_so_many_threads(compiled_before: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "processors", machine.threads)
    why = "the processors that this process may run on"
    assert rows(run("doctor"))["threads"] == ("ok", f"{machine.threads()}: {why}")
    monkeypatch.setattr(machine, "processors", lambda: 1000)
    why = "the quota of the control group; 1000 processors by affinity"
    assert rows(run("doctor"))["threads"] == ("ok", f"{machine.threads()}: {why}")
    monkeypatch.setenv("OPTGEN_NUM_THREADS", "7")
    assert rows(run("doctor"))["threads"] == ("ok", "7: as OPTGEN_NUM_THREADS says")
    monkeypatch.setenv("OPTGEN_NUM_THREADS", "many")
    state, words = rows(run("doctor"))["threads"]
    assert state == "NOT OK"
    assert words.splitlines()[0] == "OPTGEN_NUM_THREADS: expected a whole number from 1 to 256, got 'many'"


def test_the_doctor_says_which_instruction_set_is_chosen(
    compiled_before: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = library.runtime().usable[-1]
    monkeypatch.setenv("OPTGEN_ISA", least)
    assert rows(run("doctor"))["instruction set"][1].startswith(f"{least}, OPTGEN_ISA of ")
    monkeypatch.setenv("OPTGEN_ISA", "mmx")
    result = run("doctor")
    assert result.exit_code == 1
    assert "got 'mmx'\nto do: unset it for the best one" in rows(result)["instruction set"][1]


def test_the_doctor_says_what_is_wrong_with_the_cache(
    compiled_before: None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    state, words = rows(run("doctor"))["cache folder"]
    assert state == "NOT OK"
    assert "to do: delete it if it is a cache and nothing else" in words
    cache.chmod(0o700)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root may write anywhere
    assert rows(run("doctor"))["cache folder"][1].startswith(
        f"expected a folder that can be written, got {cache}\nto do: set OPTGEN_CACHE_DIR"
    )


def test_the_doctor_bears_a_missing_package(compiled_before: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "cffi":
            raise metadata.PackageNotFoundError(name)
        return "1"

    def shipped() -> None:
        raise ModuleNotFoundError("No module named 'cffi'")

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(catalogue, "shipped", shipped)
    result = run("doctor")
    assert result.exit_code == 1
    assert rows(result)["versions"][0] == "NOT OK"
    assert rows(result)["versions"][1].endswith("filelock 1\nto do: pip install cffi")
    words = "ModuleNotFoundError: No module named 'cffi'\nto do: pip install --force-reinstall optgen"
    assert rows(result)["built kernels"] == ("NOT OK", words)


# optgen bench

SMALLEST = ("--shape", "100x64", "--threads", "1", "--rounds", "1")


def test_bench_shows_a_table_and_writes_all_figures(tmp_path: Path) -> None:
    page = said("bench", "Descent", "ADAM", *SMALLEST, "--peers", "numpy", "--json", tmp_path / "figures.json")
    assert "100 × 64 (100 tensors, 0.0064 M elements), 1 thread, medians of 1" in page
    header, *rows = (re.split(r"  +", line.strip()) for line in page.splitlines() if line.startswith("  "))
    assert header == ["rule", "optgen", "GB/s", "of the memory limit", "× NumPy"]
    assert [(row[0], len(row)) for row in rows] == [("Descent", 5), ("ADAM", 5)]
    document = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert set(document) == {"machine", "results", "targets"}
    assert document["targets"] == []
    for rule, result in zip(("Descent", "ADAM"), document["results"], strict=True):
        where = (result["kind"], result["rule"], result["shape"], result["threads"], result["rounds"])
        assert where == ("steps", rule, "100x64", 1, 1)
        assert set(result["contestants"]) == {"optgen", "stream", "numpy"}
        assert {"seconds", "quartiles", "ratio"} == set(result["contestants"]["numpy"])
        assert result["bytes"] == 100 * 64 * bytes_moved(
            driver.compile_file(catalogue.shipped_names()[rule]).lowered[0], 4
        )


def test_bench_measures_adam_by_itself_and_knows_lists_by_several_names() -> None:
    page = said(
        "bench", "--shape", "100 × 64", "--shape", "100X64", "--threads", "1", "--rounds", "1", "--peers", "none"
    )
    assert page.count("medians of 1") == 1
    assert "\n  Adam  " in page


def test_bench_names_an_absent_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numba.py").write_text("raise ModuleNotFoundError('none', name='numba')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    page = said("bench", "ADAM", *SMALLEST, "--peers", "numba,numpy")
    assert re.search(r"Not measured:\n +Numba +ADAM: numba is not installed: pip install numba\n", page)


def test_bench_keeps_what_it_has_measured_when_it_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = resources.benchmarks("bench")

    def broken(work: Any, threads: int) -> Any:
        yield {"kind": "first"}
        yield 1 / 0

    monkeypatch.setattr(bench, "measured", broken)
    result = CliRunner().invoke(
        cli.main, ["bench", "ADAM", "Adam", *SMALLEST, "--json", str(tmp_path / "figures.json")]
    )
    assert isinstance(result.exception, ZeroDivisionError)
    assert json.loads((tmp_path / "figures.json").read_text("utf-8"))["results"] == [{"kind": "first"}]


def test_bench_draws_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    said("bench", "ADAM", *SMALLEST, "--peers", "none", "--picture", tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Adamm"], "there is no rule 'Adamm' to be measured\n  hint: did you mean 'Adam' or 'RAdam'?"),
        (["adam"], "did you mean 'ADAM' or 'Adam'?"),
        (["WeightDecay"], "it is a part of chains"),
        (["--shape", "resnet"], "there is no list of shapes 'resnet'\n  hint: did you mean 'resnet50'?"),
        (["--peers", "numpi"], "there is no peer 'numpi'\n  hint: did you mean 'numpy'?"),
        (["--threads", "two"], "--threads: expected numbers with commas between them, got 'two'"),
        (["--threads", "10000"], "10000 threads were asked for"),
        (["--json", "/nowhere/figures.json"], "expected a file that can be written, got /nowhere/figures.json"),
        (["--picture", "/nowhere/roofline.png"], "expected a file that can be written, got /nowhere/roofline.png"),
    ],
)
def test_bench_refuses_before_it_measures(arguments: list[str], words: str) -> None:
    assert words in refused("bench", *arguments)


def test_bench_has_targets_of_its_own_shapes_and_threads() -> None:
    for more in (("--shape", "1x1M"), ("--threads", "1")):
        assert "--targets says itself" in refused("bench", "--targets", *more, status=2)


@pytest.mark.parametrize(("least", "word", "status"), [(0.0, "ok", 0), (1e9, "NO", 1)])
def test_bench_judges_and_says_so_to_the_shell(
    least: float, word: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets, jobs_ = map(resources.benchmarks, ("targets", "jobs"))
    jobs = [[jobs_.Job("steps", "Adam", "100x64", ["numpy"], 1)]]
    monkeypatch.setattr(targets, "batches", lambda chosen, peers, rounds: jobs)
    monkeypatch.setattr(targets, "THREADS", 1)
    monkeypatch.setattr(targets, "SINGLE", (("Adam", "100x64", "", least),))
    result = run("bench", "Adam", "--targets", "--json", tmp_path / "figures.json")
    assert result.exit_code == status
    verdict = result.stdout.splitlines()[-3]
    assert verdict.split()[-1] == word
    assert "Adam, 100 × 64: the best peer, NumPy" in verdict
    (found,) = json.loads((tmp_path / "figures.json").read_text("utf-8"))["targets"]
    assert (found["least"], found["ok"]) == (least, word == "ok")
    assert set(found) == {"what", "measured", "least", "unit", "most", "why", "ok"}


# With the shell


@pytest.mark.parametrize("arguments", [("show", "adam", "--as", "c"), ("show", "adam"), ("list",)])
def test_a_reader_that_goes_away_is_no_fault(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = process(*arguments, capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == b""


def test_sources_are_utf_8_in_any_locale() -> None:
    source = driver.compile_file(resources.SPECS / "adam.toml").python_source
    done = process("show", "adam", "--as", "python", env={"PYTHONIOENCODING": "latin-1", "LC_ALL": "C"})
    assert done.stdout == source.encode()


def test_a_stream_without_greek_letters_gets_a_substitute() -> None:
    done = process("show", "adam", env={"PYTHONIOENCODING": "latin-1"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"  m ? ??\xb7m" in done.stdout


def test_it_works_without_a_compiler_where_none_is_needed(tmp_path: Path) -> None:
    for arguments in (("list",), ("show", "adam", "--as", "c"), ("check", str(resources.SPECS / "adam.toml"))):
        done = process(*arguments, env={"CC": "/nonexistent", "PATH": "", "HOME": str(tmp_path)})
        assert (done.returncode, done.stderr) == (0, b"")


# What summary computes


def of(formulas: str) -> tuple[Any, Any]:
    """A rule with one hyperparameter `eta` and these formulas, checked and lowered."""
    rule = check(parse(SPEC.replace('"delta = eta*g"', f"'''\n{formulas}\n'''"), "mine.toml"))[0]
    return rule, lower(rule)


@pytest.mark.parametrize(
    ("formulas", "arrays"),
    [
        ("delta = eta*g", 3),  # p and g read, p written
        ("delta = eta*p", 2),  # the gradient is not even read
        ("delta = eta*g*g/g", 3),  # read once, however often it is used
    ],
)
def test_bytes_moved_counts_every_array_once_for_reading_and_once_for_writing(formulas: str, arrays: int) -> None:
    for itemsize in (4, 8):
        assert bytes_moved(of(formulas)[1], itemsize) == arrays * itemsize


def test_bytes_moved_of_states() -> None:
    adam = driver.compile_file(resources.SPECS / "adam.toml")
    assert bytes_moved(adam.lowered[0], 4) == 28  # reads p, g, m, v; writes p, m, v
