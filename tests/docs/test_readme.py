"""Everything that the README and the pages in docs show is run: Python, specs, commands, a message."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from optgen.compiler import catalogue, driver
from optgen.ir.compose import ACCEPT, PROCEED
from optgen.ir.primitives import FUNCTIONS, REDUCTIONS
from optgen.language.parse import EXTENTS, EXTENTS_OF_INPUTS, MATRICES
from optgen.language.spec_names import ARGUMENTS, STEP_ARGUMENTS
from optgen.language.vocabulary import WRITTEN_OUT

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
#: The pages that are written by hand; docs/rules.md and docs/rules/ are made of the specs.
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.name != "rules.md"
}
LANGUAGE = PAGES["docs/language.md"]
LANGUAGES = {"python", "toml", "sh", "text"}


def blocks(page: str, language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [block for name, block in fences if name == language]


def specs(page: str) -> dict[str, str]:
    """The whole specs that a page shows, by name; not the excerpts of shipped ones."""
    found = [block for block in blocks(page, "toml") if not block.startswith("# specs/")]
    names = [re.search(r'^name\s*= "(\w+)"', block, re.MULTILINE) for block in found]
    return {name[1]: block for name, block in zip(names, found, strict=True) if name}


@pytest.fixture
def folder(tmp_path):
    """A folder of a new user, with the rules that the pages have them write."""
    (tmp_path / "lion.toml").write_text(specs(README)["Lion"], "utf-8")
    for name in ("Scaled", "Curved", "Blockwise", "Covers", "Seldom", "Clipped", "Sharp", "SharpNorm", "Velocities"):
        (tmp_path / f"{name.lower()}.toml").write_text(specs(LANGUAGE)[name], "utf-8")
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_its_language(page):
    names = re.findall(r"^```(\w*)\n.*?^```$", PAGES[page], re.DOTALL | re.MULTILINE)
    assert set(names) <= LANGUAGES
    assert len(re.findall(r"^```", PAGES[page], re.MULTILINE)) == 2 * len(names)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(PAGES[page], "python")])
@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_python_runs_from_top_to_bottom(folder, page, library):
    every = blocks(PAGES[page], "python")
    if page == "docs/torch.md":  # whose later blocks go on from the first
        chosen = every if library == "torch" else []
    else:
        chosen = [block for block in every if library == _library_of(block)]
    if not chosen:
        pytest.skip(f"{page} has none for {library}")
    if library != "numpy":
        pytest.importorskip({"torch": "torch", "jax": "optax"}[library])
        chosen.append("assert loss < 1\n")
    (folder / "page.py").write_text("\n".join(chosen), "utf-8")
    done = run(folder, sys.executable, "-W", "error", "page.py")
    assert done.returncode == 0, done.stderr


def _library_of(block: str) -> str:
    return next((name for name in ("jax", "torch") if f"import {name}" in block or f"optgen.{name}" in block), "numpy")


EXCERPTS = [(page, block) for page in PAGES for block in blocks(PAGES[page], "toml") if block.startswith("# specs/")]


@pytest.mark.parametrize(("page", "block"), EXCERPTS, ids=[page for page, _ in EXCERPTS])
def test_excerpts_are_what_ships(page, block):
    first, excerpt = block.split("\n", 1)
    (path,) = re.findall(r"specs/\w+\.toml", first)
    assert excerpt in (ROOT / path).read_text("utf-8")


WHOLE = [(page, name) for page in PAGES for name in specs(PAGES[page])]


@pytest.mark.parametrize(("page", "name"), WHOLE)
def test_specs_compile(page, name):
    compilation = driver.compile_text(specs(PAGES[page])[name], f"{name.lower()}.toml")
    assert {rule.name for rule in compilation.rules} == {name}


@pytest.mark.parametrize("page", PAGES)
def test_every_spec_is_whole_or_an_excerpt(page):
    excerpts = [block for on, block in EXCERPTS if on == page]
    assert len(specs(PAGES[page])) + len(excerpts) == len(blocks(PAGES[page], "toml"))


LINES = [(page, line) for page in PAGES for block in blocks(PAGES[page], "sh") for line in block.splitlines()]
#: What makes a command small that would take minutes.
SMALL = {"bench": ["--shape", "100x64", "--threads", "1", "--peers", "numpy", "--rounds", "1"]}
COMMANDS = sorted({line.split("#")[0].strip() for _, line in LINES if line.startswith("optgen ")})


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_optgen_run(folder, command):
    words = command.split()
    done = run(folder, sys.executable, "-m", *words, *SMALL.get(words[1], []))
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout


@pytest.mark.parametrize("command", sorted({line.split("#")[0].strip() for _, line in LINES} - set(COMMANDS)))
def test_other_commands_name_what_is_there(command):
    """They take minutes, or need what a test cannot install: whether the target, module or file exists is looked at."""
    match command.split():
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        case ["python", "-m", module]:
            assert importlib.util.find_spec(module) is not None
        case ["torchrun", *_, file] | ["python", file]:
            assert (ROOT / file).is_file()
        case _:
            pytest.fail(f"nothing here runs {command!r}")


def test_the_message_is_the_one_that_comes(folder):
    spec = folder / "lion.toml"
    right, wrong = "m     = beta[2]*m + (1 - beta[2])*g\n", "m     = beta[2]*m + (1 - beta[2])*g^2\n"
    assert right in spec.read_text("utf-8")
    spec.write_text(spec.read_text("utf-8").replace(right, wrong), "utf-8")
    (shown,) = blocks(README, "text")
    done = run(folder, sys.executable, "-m", "optgen", "check", "lion.toml")
    assert done.returncode == 1
    assert shown.strip() in done.stdout + done.stderr


def test_every_rule_and_every_variable_is_listed():
    for path in catalogue.shipped():
        assert driver.compile_file(path).name in README
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "optgen").rglob("*.py"))
    variables = set(re.findall(r"""environ\S*?["'](OPTGEN_\w+)["']""", sources))
    assert variables == {"OPTGEN_NUM_THREADS", "OPTGEN_ISA", "OPTGEN_CACHE_DIR"}
    for variable in variables:
        assert f"`{variable}`" in PAGES["docs/training.md"], variable


def test_the_table_of_rules_is_what_ships():
    origins = r"Flux|torch\.optim|Optimisers\.jl|optax|pytorch-optimizer|papers|their authors|parts of chains"
    rows = re.findall(rf"^\| ({origins})\b[^|]*\| (.*) \|$", README, re.MULTILINE)
    table, found = {}, {}
    for origin, names in rows:
        table.setdefault(origin, set()).update(re.findall(r"[A-Z]\w+", names.split("`")[1]))
    for path in catalogue.shipped():
        rule = driver.compile_file(path).rules[0]
        origin = "their authors" if "/" in rule.origin else rule.origin
        found.setdefault("parts of chains" if rule.part else origin, set()).add(rule.name)
    assert table == found


def anchors(page: str) -> set[str]:
    """How the headings of a page are linked to, as GitHub and GitLab make it of their text."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', page))


@pytest.mark.parametrize("page", PAGES)
def test_internal_links_lead_somewhere(page):
    text = PAGES[page]
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src(?:set)?="([^"]+)"', text)
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


@pytest.mark.parametrize("page", PAGES)
def test_the_paths_that_it_names_are_there(page):
    named = re.findall(r"\b(?:tests|optgen|specs|templates|examples|benchmarks|docs)/[\w/.-]*", PAGES[page])
    for name in {name.rstrip(".") for name in named}:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES)
def test_no_cell_of_a_table_is_a_paragraph(page):
    for line in re.findall(r"^\|.*\|$", PAGES[page], re.MULTILINE):
        for cell in line.split("|"):
            assert len(cell.split()) <= 40, cell


def test_the_table_of_the_benchmark_is_what_there_is():
    from optgen.cli import commands as cli
    from optgen.paths import benchmarks

    options = {name for parameter in cli.bench.params for name in parameter.opts if name.startswith("--")}
    table = PAGES["docs/performance.md"].split("| `optgen bench [RULE]...` |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(--\w+)", table, re.MULTILINE)) == options - {"--rounds"}
    (names,) = re.findall(r"^\| `--shape NAME` \| (.*) \|$", table, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", names)) - {"all"} == set(benchmarks("shapes").SHAPES)


def test_the_rule_with_norms_takes_two_sweeps(folder):
    done = run(folder, sys.executable, "-m", "optgen", "show", "scaled.toml", "--as", "sweeps")
    assert done.returncode == 0, done.stderr
    assert re.search(r"a step in 2 sweeps over memory", done.stdout)


def test_the_rule_with_a_flag_has_a_state_in_one_variant_only():
    rules = driver.compile_text(specs(LANGUAGE)["Heavy"], "heavy.toml").rules
    states = {rule.variant: [state.name for state in rule.states] for rule in rules}
    assert states == {"momentum": ["v"], "": []}


def test_the_reference_of_the_language_shows_every_construct():
    shown = "\n".join(specs(LANGUAGE).values())
    for function in (*FUNCTIONS, *WRITTEN_OUT, *REDUCTIONS):
        assert re.search(rf"\b{function}\(", shown), function
        assert re.search(rf"`{function}\(", LANGUAGE), function
    compared = ("<=", "<", ">=", ">", "==", "!=")
    for operator in ("+", "-", "*", "/", "//", "%", "**", *compared, " and ", " or ", "not ", " if "):
        assert operator in shown, operator
    for extent in EXTENTS:
        assert f'extent = "{extent}"' in shown or extent == "element", extent
        assert f'"{extent}"' in LANGUAGE, extent
    for extent in EXTENTS_OF_INPUTS:
        assert f'extent = "{extent}"' in shown, extent
        assert f'"{extent}"' in LANGUAGE, extent
    for extent in set(EXTENTS) - {"element"}:
        assert re.search(rf", {extent}\)", shown), extent
    for name in (ACCEPT, PROCEED, "delta", "p", "grad"):
        assert re.search(rf"^{name}\s*=", shown, re.MULTILINE), name
        assert f"`{name}`" in LANGUAGE, name
    for name in ("t", "size", "matrix", "new", "grad"):
        assert re.search(rf"\b{name}\b", shown), name
    assert all(f'`"{each}"`' in LANGUAGE for each in MATRICES)


def test_the_reference_of_the_language_has_every_name_that_is_taken():
    for before, names in (("has some names for itself", ARGUMENTS), ("The names `self`", STEP_ARGUMENTS)):
        (paragraph,) = [own for own in LANGUAGE.split("\n\n") if before in own]
        assert set(re.findall(r"`(\w+)`", paragraph)) == names


def test_the_reference_of_the_language_has_every_key():
    source = (ROOT / "optgen" / "language" / "parse.py").read_text("utf-8")
    keys = re.findall(r"refuse_unknown\(\S+ table, \(([^)]*)\)", source)
    keys += re.findall(r'known = \(\s*("name"[^)]*)\)', source)
    keys += re.findall(r'else \(("formulas"[^)]*)\)', source)
    assert len(keys) == 9
    for key in re.findall(r'"(\w+)"', ",".join(keys)):
        assert re.search(rf"`\[?{key}\]?`|`{key} = |`{key}`", LANGUAGE), key
