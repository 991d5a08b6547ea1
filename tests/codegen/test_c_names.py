"""No name of a spec meets a name of the templates: every word of generated C is tried as a name, in every role."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from functools import cache

import pytest
from test_golden import STRICT, say

from optgen.codegen.c_language import KEYWORDS
from optgen.compiler import driver
from optgen.compiler.toolchain import find_compiler
from optgen.errors import SpecError

#: How a name is used: its declaration, what formula gives it, and what the update multiplies with. `{i}` makes each
#: its own. What is folded into `row`, `column`, `matrix` and `tensor` needs small loops and slabs.
ROLES = {
    "a hyperparameter": (
        "[hyperparameters]", "{0} = {{ default = 2, range = '[0, inf)' }}",
        "of_rows{i} = x_row*{0} + {i}\nof_columns{i} = x_column*{0}", "{0}*of_rows{i}*of_columns{i}",
    ),
    "a state of elements": ("[state]", "{0} = {{ init = '0' }}", "{0} = {0}*0.5 + g", "{0}"),
    **{
        f"a state of a {extent}": (
            "[state]", f"{{0}} = {{{{ init = '0', extent = '{extent}' }}}}", f"{{0}} = {{0}}*0.5 + x_{extent}", "{0}"
        )
        for extent in ("row", "column", "matrix", "tensor")
    },
    "a value of elements": ("", "", "{0} = g*p + {i}", "{0}*{0}"),
    **{
        f"a value of a {extent}": ("", "", f"{{0}} = x_{extent} + {{i}}", "{0}*{0}")
        for extent in ("row", "column", "matrix", "tensor")
    },
}  # fmt: skip


def spec(role: str, names: Sequence[str]) -> str:
    table, declaration, formula, factor = ROLES[role]

    def each(text: str) -> list[str]:
        return [text.format(name, i=i) for i, name in enumerate(names)]

    return "\n".join([
        'name = "Every"', 'summary = "All of them."', table, *each(declaration), "[update]", "formulas = '''",
        "x_row = mean(g*g, row)", "x_column = mean(g*g, column)", "x_matrix = mean(x_row, matrix)",
        "x_tensor = norm(p)",
        *each(formula), " * ".join(["delta = g*x_row*x_column*x_matrix*x_tensor", *each(factor)]), "'''",
    ])  # fmt: skip


def is_free(role: str, name: str) -> bool:
    try:
        driver.compile_text(spec(role, [name]), "every.toml")
    except SpecError:
        return False
    return True


@cache
def words() -> list[str]:
    """The keywords of C, and the names that the templates give to what is no macro and no type."""
    sources = [driver.compile_text(spec(role, ["thing"]), "every.toml").c_source for role in ROLES]
    code = re.sub(r"/\*.*?\*/", " ", "\n".join(sources), flags=re.DOTALL)
    found = set(re.findall(r"[A-Za-z]\w*", code)) | KEYWORDS
    own = re.compile(r"thing|every|x_|of_rows|of_columns|_t$|^[A-Z]|^optgen_")
    return sorted(word for word in found if not own.search(word) and not keyword.iskeyword(word))


def test_the_words_are_found() -> None:
    assert {"begin", "end", "count", "step", "n", "s", "at", "memcpy", "long"} <= set(words())


@pytest.mark.parametrize("role", ROLES)
def test_every_word_of_the_templates_may_be_a_name_of_a_spec(role: str) -> None:
    free = [word for word in words() if is_free(role, word)]
    assert len(free) > 50
    sources = {
        " ".join(some): driver.compile_text(spec(role, some), "every.toml").c_source
        for some in (free[i : i + 30] for i in range(0, len(free), 30))
    }
    said = say(find_compiler().command[0], sources, *STRICT, "-fsyntax-only")
    assert not {names: warnings for names, warnings in said.items() if warnings}
