"""What the `optgen` command says: to a person at a terminal, to a pipe, and to the shell."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import optgen
from optgen import cli, doctor, driver, kernel, product, resources, toolchain
from optgen.check import check
from optgen.emit import latex, text
from optgen.parse import parse
from optgen.passes import lower
from optgen.summary import EXACT, bytes_moved, exactness, inexact

ROOT = Path(cli.__file__).parents[1]
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


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SPEC)
    return path


def run(*arguments: Any) -> Result:
    result = CliRunner().invoke(cli.main, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


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
    for command in ("build", "list", "show", "check", "doctor"):
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
    monkeypatch.setattr(driver, "shipped", lambda: 1 / 0)
    assert isinstance(CliRunner().invoke(cli.main, ["list"]).exception, ZeroDivisionError)


# optgen list


def test_list_has_a_row_for_every_shipped_rule() -> None:
    rows = [line.split() for line in said("list").split("\n\n")[0].splitlines()]
    assert rows[0] == ["rule", "states", "bytes", "summary"]
    names = [driver.compile_file(path).name for path in driver.shipped()]
    assert [row[0] for row in rows[1:]] == names


def test_list_shows_states_and_bytes_moved() -> None:
    listed = said("list")
    assert re.search(r"^ADAM +m, v +28 / 56 +Adaptive moment estimation\.$", listed, re.MULTILINE)
    assert re.search(r"^Descent +none +12 / 24 +Classic gradient descent\.$", listed, re.MULTILINE)
    assert "bytes: read and written for every element in a step, float32 / float64" in listed


def test_a_pipe_gets_plain_rows_that_are_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    listed = said("list")
    assert "\x1b" not in listed
    assert len(listed.splitlines()) == 1 + len(driver.shipped()) + 2
    assert all(line == line.rstrip() for line in listed.splitlines())


def test_a_terminal_gets_rows_that_fit() -> None:
    shown = at_a_terminal("list", columns=60)
    assert "\x1b[1m" in shown
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in shown.splitlines()[:-1]) <= 60


# optgen show


@pytest.mark.parametrize("name", ["adam", "ADAM", "Adam"])
def test_show_finds_a_shipped_rule_in_any_case(name: str) -> None:
    assert said("show", name).startswith("ADAM: Adaptive moment estimation.\n")


def test_the_summary_of_a_rule() -> None:
    assert said("show", "amsgrad") == (
        "AMSGrad: ADAM with a second moment that never falls, and without bias correction.\n"
        "\n"
        "  m ← β₁·m + (1 − β₁)·g\n"
        "  v ← β₂·v + (1 − β₂)·g²\n"
        "  vhat ← max(vhat, v)\n"
        "  Δ ← η·m/(√vhat + ε)\n"
        "  p ← p − Δ\n"
        "\n"
        "Hyperparameters\n"
        "  η  eta   0.001       in [0, inf)  learning rate\n"
        "  β  beta  0.9, 0.999  in [0, 1)    decay rates of the two moments\n"
        "  ε  eps   1e-08       in [0, inf)  keeps the denominator from zero; also where the moments start\n"
        "\n"
        "State\n"
        "  m     starts as ε  first moment\n"
        "  v     starts as ε  second moment\n"
        "  vhat  starts as ε  largest second moment so far\n"
        "\n"
        "Moves\n"
        "  36 bytes per element a step in float32, 72 in float64\n"
        "\n"
        "Exactness\n"
        "  exact: equal to the interpreter bit for bit\n"
        "\n"
        "Reference\n"
        "  Reddi, Kale and Kumar, On the Convergence of Adam and Beyond, 2018, arXiv:1904.09237\n"
    )


def test_the_summary_of_a_rule_with_nothing_but_formulas(tmp_path: Path) -> None:
    (tmp_path / "bare.toml").write_text('name = "Bare"\n[update]\nformulas = "delta = exp(g)"\n')
    shown = said("show", tmp_path / "bare.toml")
    assert shown.startswith("Bare\n\n  Δ ← exp(g)\n")
    assert "State\n  none\n" in shown
    assert "inexact: exp within 4 ulps; all else is exact" in shown
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


def test_the_ir_shows_what_is_computed_where() -> None:
    blocks = said("show", "descent", "--as", "ir").split("\n\n")
    assert blocks[0] == (
        "Descent, checked: as the interpreter runs it\n  element  Δ ← η·g\n  element  p ← p − Δ"
    )
    assert blocks[1].splitlines()[0] == "Descent, lowered: scalars, in float64 on the host, once a step"
    assert blocks[2].splitlines()[0] == "Descent, lowered: for every element, in the compute type"
    assert blocks[3:] == ["loads: p, g", "stores: p\n"]
    low = driver.compile_file(resources.SPECS / "adam.toml").lowered[0]
    shown = said("show", "adam", "--as", "ir")
    for assign in (*low.scalars, *low.body):
        assert text.formula(assign) in shown
    assert re.search(r"^  step +k\d ← 1 − β₁ᵗ$", shown, re.MULTILINE)


def test_a_rule_that_is_not_there_is_refused_with_close_names() -> None:
    assert refused("show", "rmsporp") == "error: optgen has no rule 'rmsporp'\n  hint: did you mean 'rmsprop'?\n"
    assert "hint: `optgen list` shows those it has; a spec's path ends in .toml" in refused("show", "zzz")


def test_a_spec_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "nowhere.toml: a spec was expected: No such file" in refused("show", tmp_path / "nowhere.toml")


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
    assert lines[1:3] == ["  3 | sumary = \"A rule of one's own.\"", "    | ^^^^^^"]
    assert f"{mine}: ok" in lines
    assert f"{missing}: a spec was expected: No such file or directory" in lines
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
    for room in (resources, driver, product, doctor):
        monkeypatch.setattr(room, "BUILD", folder)
    monkeypatch.setattr(driver, "runtime", driver.runtime.__wrapped__)
    return folder


def test_the_doctor_finds_all_well(built: Path, cache: Path) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.stdout
    table = rows(result)
    assert list(table) == ["versions", "compiler", "instruction set", "threads", "cache folder", "built kernels"]
    assert {state for state, _ in table.values()} == {"ok"}
    compiler = toolchain.find_compiler()
    assert table["compiler"][1] == f"{' '.join(compiler.command)}: {compiler.version}"
    for name in ("numpy", "cffi"):
        assert f"{name} {metadata.version(name)}" in table["versions"][1]
    assert table["versions"][1].startswith(f"optgen {optgen.__version__}, python 3.")
    usable = driver.runtime().usable
    assert table["instruction set"][1] == f"{usable[0]}, the best of {', '.join(usable)}"
    assert table["cache folder"][1].startswith(f"{cache}: 1 libraries, 0.")


def test_the_doctor_counts_what_is_built_and_current(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(driver.shipped()) + 1
    found, advice = rows(run("doctor"))["built kernels"][1].splitlines()
    assert found == f"0 of {count} built and current in {built}; the others are compiled on first use"
    assert advice == f"to do: optgen build --out {built} makes them now"
    monkeypatch.setattr(driver, "shipped", lambda: (resources.SPECS / "descent.toml",))
    said_by_build = run("build", "--out", built)
    assert said_by_build.exit_code == 0, said_by_build.output
    assert rows(run("doctor"))["built kernels"] == ("ok", f"2 of 2 built and current in {built}")
    record = built / "descent.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "fingerprint": "of another spec"}))
    assert "1 of 2 built" in rows(run("doctor"))["built kernels"][1]


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
    assert "and no compiler to make adadelta, adagrad" in table["built kernels"][1]
    assert [table[name][0] for name in ("versions", "threads", "cache folder")] == ["ok"] * 3


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


def test_the_doctor_says_why_so_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "processors", kernel.threads)
    why = "the processors that this process may run on"
    assert rows(run("doctor"))["threads"] == ("ok", f"{kernel.threads()}: {why}")
    monkeypatch.setattr(kernel, "processors", lambda: 1000)
    why = "the quota of the control group; 1000 processors by affinity"
    assert rows(run("doctor"))["threads"] == ("ok", f"{kernel.threads()}: {why}")
    monkeypatch.setenv("OPTGEN_NUM_THREADS", "7")
    assert rows(run("doctor"))["threads"] == ("ok", "7: as OPTGEN_NUM_THREADS says")
    monkeypatch.setenv("OPTGEN_NUM_THREADS", "many")
    state, words = rows(run("doctor"))["threads"]
    assert state == "NOT OK"
    assert words.splitlines()[0] == "OPTGEN_NUM_THREADS: a whole number from 1 to 256 was expected, got 'many'"


def test_the_doctor_says_which_instruction_set_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTGEN_ISA", "baseline")
    assert rows(run("doctor"))["instruction set"][1].startswith("baseline, OPTGEN_ISA of ")
    monkeypatch.setenv("OPTGEN_ISA", "mmx")
    result = run("doctor")
    assert result.exit_code == 1
    assert "got 'mmx'\nto do: unset it for the best one" in rows(result)["instruction set"][1]


def test_the_doctor_says_what_is_wrong_with_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    state, words = rows(run("doctor"))["cache folder"]
    assert state == "NOT OK"
    assert f"to do: run `chmod go-w {cache}`" in words
    cache.chmod(0o700)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root may write anywhere
    assert rows(run("doctor"))["cache folder"][1].startswith(f"{cache} cannot be written\nto do: set OPTGEN_CACHE_DIR")


def test_the_doctor_bears_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "cffi":
            raise metadata.PackageNotFoundError(name)
        return "1"

    def shipped() -> None:
        raise ModuleNotFoundError("No module named 'cffi'")

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(driver, "shipped", shipped)
    result = run("doctor")
    assert result.exit_code == 1
    assert rows(result)["versions"][0] == "NOT OK"
    assert rows(result)["versions"][1].endswith("filelock 1\nto do: pip install cffi")
    words = "ModuleNotFoundError: No module named 'cffi'\nto do: pip install --force-reinstall optgen"
    assert rows(result)["built kernels"] == ("NOT OK", words)


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


@pytest.mark.parametrize(
    ("formulas", "expected"),
    [
        ("delta = eta*sqrt(abs(g))", {}),
        ("delta = eta**t*exp(eta)*g", {}),  # of a step: in one place for kernel and interpreter
        ("delta = g**3*eta", {}),  # products
        ("delta = exp(g) + exp(p)*eta", {"exp": 4}),
        ("delta = abs(g)**eta + log(p)", {"pow": 4, "log": 4}),
    ],
)
def test_only_functions_of_elements_are_inexact(formulas: str, expected: dict[str, int]) -> None:
    assert inexact(of(formulas)[0]) == inexact(of(formulas)[1]) == expected


def test_exactness_in_words() -> None:
    assert exactness(of("delta = eta*g")[0]) == EXACT
    words = "inexact: pow within 4 ulps, log within 4 ulps; all else is exact"
    assert exactness(of("delta = abs(g)**eta + log(p)")[0]) == words
