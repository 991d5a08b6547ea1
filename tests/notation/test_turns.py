"""Formulas as a reader sees them: loops that a hyperparameter counts are shown once."""

from __future__ import annotations

import pytest

from optgen.compiler.driver import compile_text
from optgen.notation import facts, latex

SPEC = """name = "Roots"
[hyperparameters]
eta = {{ default = 0.1, range = "[0, inf)" }}
n = {{ default = {turns}, range = "[1, 99], whole" }}
[update]
formulas = '''
y = g
for _ in range(n):
    z = y*y
    y = y + eta*z
delta = y
'''
"""


def lines(turns: int) -> list[str]:
    compilation = compile_text(SPEC.format(turns=turns), "roots.toml")
    (shown,) = facts.formulas(compilation.rules, compilation.open)
    return shown


@pytest.mark.parametrize("turns", [3, 5, 40])
def test_a_loop_is_shown_once_with_the_number_of_its_turns(turns: int) -> None:
    assert lines(turns) == ["y ← g", f"{turns} times: z ← y·y", "         y ← y + η·z", "Δ ← y", "p ← p − Δ"]


def test_few_turns_are_written_out() -> None:
    assert lines(2) == ["y_1 ← g", "z_1 ← y_1·y_1", "y_2 ← y_1 + η·z_1", "z ← y_2·y_2", "y ← y_2 + η·z", "Δ ← y",
                        "p ← p − Δ"]  # fmt: skip


def test_latex_says_the_same() -> None:
    compilation = compile_text(SPEC.format(turns=4), "roots.toml")
    (body,) = facts.bodies(compilation.rules, compilation.open)
    assert latex.formula(body[1]) == r"\text{4 times: } \quad z &\leftarrow y \, y"
    assert latex.formula(body[2]) == r"\quad y &\leftarrow y + \eta \, z"


def test_formulas_that_only_look_alike_stay() -> None:
    text = SPEC.format(turns=5).replace("for _ in range(n):\n    z = y*y\n    y = y + eta*z", "x = y*n\nx_1 = x*n")
    compilation = compile_text(text.replace("delta = y", "delta = eta*x_1"), "plain.toml")
    (shown,) = facts.formulas(compilation.rules, compilation.open)
    assert shown == ["y ← g", "x ← y·n", "x_1 ← x·n", "Δ ← η·x_1", "p ← p − Δ"]


def test_a_name_of_the_author_is_no_turn_of_another() -> None:
    """`y_1` is read after `y` has another value: it is no earlier turn of it."""
    text = SPEC.format(turns=3).replace("y = g\n", "y_1 = 3*g\ny = g\n").replace("y + eta*z", "y_1 + eta*z")
    compilation = compile_text(text, "roots.toml")
    (shown,) = facts.formulas(compilation.rules, compilation.open)
    assert shown[:3] == ["y_1 ← 3·g", "y_2 ← g", "z_1 ← y_2·y_2"]
    assert "y ← y_1 + η·z" in shown
