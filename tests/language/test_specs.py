"""What a spec may hold: everything else is refused with its place, the reason and what to do, all faults at once."""

from __future__ import annotations

import ast
import keyword
import re
import subprocess
import sys
import time
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searching import search
from test_matrices import FAULTY
from test_spec_blocks import FAULTS as OF_BLOCKS
from test_spec_indices import SPECS as OF_INDICES

from optgen import interpreter as interp
from optgen.codegen.c_language import KEYWORDS
from optgen.compiler import driver
from optgen.compiler.toolchain import FLAGS, find_compiler
from optgen.errors import Diagnostic, Span, SpecError, SpecWarning
from optgen.ir.expr import Call, Const, Extent, Load, Local, Reduce, Scalar, extent_of
from optgen.ir.primitives import Type
from optgen.ir.rule import Rule
from optgen.language.check import check, check_open
from optgen.language.parse import parse
from optgen.language.spec_names import ARGUMENTS
from optgen.notation.text import expression
from optgen.optimiser import classes
from optgen.paths import PACKAGE

#: What may follow the name of a hyperparameter, and of a state.
ONE, GROUP = "{ default = 1, range = '[0, 1]' }", "{ init = 0, extent = 'group' }"
PART = 'name = "Part"\npart = '
ETA = 'eta = { default = 0.1, range = "[0, inf)", doc = "rate" }'
BETA = 'beta = { default = [0.9, 0.999], range = "[0, 1)" }'
M = 'm = { init = "0" }'


def phased(first: str = "p = p + g", second: str = "delta = g", begin: str = "", names: str = "a b") -> str:
    """A spec with two phases: without `begin`, line 4 is the formula of the first one, line 8 that of the second."""
    named = zip(names.split(), (first, second), strict=True)
    tables = [f"[update.{name}]\nformulas = '''\n{formulas}\n'''\n" for name, formulas in named]
    return 'name = "Rule"\n' + begin + "".join(tables)


def spec(
    formulas: str = "delta = eta*g",
    *,
    name: str = 'name = "Rule"',
    hypers: str = ETA,
    flags: str = "",
    inputs: str = "",
    states: str = "",
    evaluation: str = "",
    reports: str = "",
) -> str:
    """A spec in which line 1 is the name, 3 the first hyperparameter; flags, inputs, states and formulas follow if
    given, then reports."""
    parts = [name, "[hyperparameters]", hypers]
    parts += ["[flags]", flags] if flags else []
    parts += ["[inputs]", inputs] if inputs else []
    parts += ["[state]", states] if states else []
    after = ["[evaluation]", "formulas = '''", evaluation, "'''"] if evaluation else []
    after += ["[report]", reports] if reports else []
    return "\n".join([*parts, "[update]", "formulas = '''", formulas, "'''", *after, ""])


def steps(count: int, formula: str) -> str:
    """So many formulas of one form, each of the one before, and delta."""
    return "\n".join(["b0 = g", *(formula.format(i, i - 1) for i in range(1, count + 1)), f"delta = eta*b{count}"])


def rules(text: str) -> tuple[Rule, ...]:
    return check(parse(text, "rule.toml"))


def faults(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        rules(text)
    return caught.value.diagnostics


def described(text: str) -> list[str]:
    return [f"{d.span.line}:{d.span.column} {d.message}" for d in faults(text)]


def formula_spec(source: str) -> str:
    """A spec that has `source` on line 12, between right formulas that use everything, `x` too if `source` gives it."""
    last = "delta = eta*m*x" if source.startswith("x =") else "delta = eta*m"
    formulas = f"m = beta[1]*m + beta[2]*g*(1 if f else 2)\n{source}\n{last}"
    return spec(formulas, hypers=f"{ETA}\n{BETA}", flags="f = {}", states=M)


def flagged(*flags: str) -> str:
    """A spec with the flag `f`, or `e` and `f`, with these keys, from line 5 on."""
    names = ("f",) if len(flags) == 1 else ("e", "f")
    lines = [f"{name} = {{ {keys} }}" for name, keys in zip(names, flags, strict=True)]
    return spec(f"delta = eta*g*(1 if {' and '.join(names)} else 2)", flags="\n".join(lines))


def kept(formulas: str, extent: str, init: str = "0") -> str:
    """A spec with the state `k` on line 5, and formulas from line 8 on; the last is that of `k`."""
    states = f"k = {{ init = '{init}', extent = '{extent}' }}"
    return spec(f"{formulas}\ndelta = eta*k*g", states=states)


def several(each: str, formulas: str = "v[1] = v[2] + g\nv[2] = g\ndelta = eta*v[1]") -> str:
    """A spec with several states `v` on line 5, and formulas from line 8 on."""
    return spec(formulas, states=f"v = {{ init = '0', {each} }}")


def factors(count: int) -> str:
    return "".join(f"*(1 if f{i} else 2)" for i in range(count))


def switches(count: int) -> str:
    return "\n".join(f"f{i} = {{}}" for i in range(count))


# ---- The table of faults: what is wrong, the spec, line, column, part of the message, part of the hint ----

FORM = [
    ("an empty file", "", 1, 1, "expected a spec, got an empty file", "README"),
    ("a blank file", " \n\t\n", 1, 1, "expected a spec, got an empty file", "README"),
    ("a file too large", "#" + "x" * (64 * 1024), 1, 1, "at most 64 KiB, got 64 KiB", "split it"),
    ("half a character", "name = '\ud800'", 1, 1, "expected a spec in UTF-8", ""),
    ("malformed TOML", 'name = "R"\neta = = 1', 2, 7, "malformed TOML: invalid value", ""),
    ("malformed TOML at the end", 'name = "R"\n\n[update\n', 3, 8, "malformed TOML: expected ']'", ""),
    ("text that never ends", "name = 'R'\nsummary = '''a\nb\n", 3, 2, "malformed TOML", ""),
    ("a Greek key without quotes", "a = 1\nη = 2", 2, 1, "malformed TOML: invalid statement", '"η" = ...'),
    ("a key twice", spec(hypers=f"{ETA}\n{ETA}"), 4, 58, "malformed TOML: cannot overwrite a value", ""),
    ("a word for whether a state always changes",
     spec(states="k = { init = 0, extent = 'group', always = 'yes' }"), 5, 44,
     "'always': expected true or false, got text", "true: it changes in every step"),
    ("a report with no value", spec(reports="n = { doc = 'norm' }"), 9, 1, "report 'n' has no value",
     'add: value = "norm(g)"'),
    ("a report of no text", spec(reports="n = { value = 1 }"), 9, 15, "'value': expected text, got a number", "quotes"),
    ("a report that is no table", spec(reports="n = 'norm(g)'"), 9, 5, "'n': expected a table in braces, got text",
     'length = { value = "norm(g)" }'),
    ("a key of no report", spec(reports="n = { value = 'norm(g)', extent = 'row' }"), 9, 26, "unknown key 'extent'",
     "value, when, doc"),
    ("a broken condition of a report", spec(reports="n = { value = 'norm(g)', when = 1 }"), 9, 33,
     "'when': expected text, got a number", ""),
    ("a table twice", spec() + "[update]\n", 8, 8, "malformed TOML: cannot declare ('update',) twice", ""),
    ("a NUL", "name = 'a\0b'", 1, 10, "malformed TOML: found invalid character", ""),
    ("a control character", "name = 'R'\n\x07", 2, 1, "malformed TOML", ""),
    ("brackets without end", "x = " + "[" * 3000, 1, 13, "nested at most 8 deep, got more", "one level"),
    ("tables without end", "x = " + "{ x = " * 3000, 1, 53, "nested at most 8 deep, got more", "one level"),
    ("a key of very many names", "x." * 30_000 + "x = 1", 1, 16, "nested at most 8 deep, got more", "one level"),
    ("a table of very many names", "[" + "x . " * 15_000 + "x]", 1, 32, "nested at most 8 deep, got more", "one level"),
    ("a key of quoted names", "'x.y'.\"z\\\".\"." * 8 + "x = 1", 1, 52, "nested at most 8 deep, got more", "one level"),
    ("a whole number of 5000 digits", f"x = {'1' * 5000}", 1, 5, "a number too large for float64", ""),
    ("an unknown key", spec(name="name = 'R'\nnane = 2"), 2, 1, "unknown key 'nane'", "one of: name, summary"),
    ("an unknown table", spec() + "[extra]\n", 8, 2, "unknown key 'extra'",
     "inputs, state, update, report, evaluation"),
    ("a key of no hyperparameter", spec(hypers=ETA[:-1] + ", max = 1 }"), 3, 59, "unknown key 'max'",
     "default, range, doc"),
    ("a key of no flag", spec(flags="f = { init = 0 }"), 5, 7, "unknown key 'init'",
     "default, requires, doc"),
    ("a key of no state", spec(states="m = { init = 0, range = 1 }"), 5, 17, "unknown key 'range'",
     "init, extent, when, each, always, doc"),
    ("a key of no update", spec() + "more = 1\n", 8, 1, "unknown key 'more'", "one of: formulas, matrices"),
    ("no name", spec(name=""), 1, 1, "'name' is missing", 'add: name = "..."'),
    ("a name that is no text", spec(name="name = 3"), 1, 8, "'name': expected text, got a number", "put it in quotes"),
    ("an empty name", spec(name="name = ' '"), 1, 8, "'name': expected text, got none", ""),
    ("a summary that is a list", spec(name="summary = [1]\nname='R'"), 1, 11, "'summary': expected text, got a l", ""),
    ("a doc that is a date", spec(hypers=ETA.replace('"rate"', "2020-01-01")), 3, 50,
     "'doc': expected text, got a date", ""),
    ("a reference that is true", spec(name="name = 'R'\nreference = true"), 2, 13, "got true or false", ""),
    ("hyperparameters that are a number", "hyperparameters = 3\nname = 'R'", 1, 19, ": expected a table, got a number",
     "[hyper"),
    ("an array of tables", spec() + "[[flags]]\nf = {}\n", 8, 3, "'flags': expected a table, got a list", "[flags]"),
    ("a bare hyperparameter", spec(hypers="eta = 0.1"), 3, 7, "'eta': expected a table in braces",
     "eta = { default = 0.1 }"),
    ("a bare flag", spec(flags="f = true"), 5, 5, "'f': expected a table in braces, got true", "nesterov = {"),
    ("a bare state", spec(states="m = '0'"), 5, 5, "'m': expected a table in braces, got text", 'm = { init = "0" }'),
    ("one name in two alphabets", spec(hypers=f"{ETA}\n'η' = {{}}"), 4, 1, "'η' is the name 'eta', which 'eta'",
     "one name"),
    ("no default", spec(hypers="eta = { range = '[0, 1]' }"), 3, 1, "hyperparameter 'eta' has no default",
     "default = ..."),
    ("a default of text", spec(hypers="eta = { default = '1', range = '[0, 1]' }"), 3, 19,
     "expected a number as the default, or a list of two or more; got text", ""),
    ("a default that is true", spec(hypers="eta = { default = true, range = '[0, 1]' }"), 3, 19, "got true or false",
     ""),
    ("a list of one default", spec(hypers="eta = { default = [1], range = '[0, 1]' }"), 3, 19,
     "a list of two or more", ""),
    ("a list of texts", spec(hypers="eta = { default = ['a', 1], range = '[0, 1]' }"), 3, 19, "a list of two or more",
     ""),
    ("an empty range", spec(hypers="eta = { default = 1, range = '' }"), 3, 30, "expected a range, got nothing",
     "leave it out"),
    ("a flag among the hyperparameters", spec(hypers="on = { default = true }"), 3, 18, "got true or false",
     "a choice is a flag: [flags] on = { default = true }"),
    ("a default that is not whole", spec(hypers="eta = { default = 1.5, range = '[1, inf), whole' }"), 3, 19,
     "the default 1.5 of 'eta' is out of its range [1, inf), whole", ""),
    ("a range that is none", spec(hypers="eta = { default = 1, range = '0..1' }"), 3, 30,
     "expected a range, got '0..1'", "[0, 1)"),
    ("a range without numbers", spec(hypers="eta = { default = 1, range = '[a, b]' }"), 3, 30, "expected a range",
     ""),
    ("a range backwards", spec(hypers="eta = { default = 1, range = '[1, 0]' }"), 3, 30, "expected a range", ""),
    ("a range of NaN", spec(hypers="eta = { default = 1, range = '[0, nan]' }"), 3, 30, "expected a range", ""),
    ("a default below", spec(hypers="eta = { default = -1, range = '[0, 1]' }"), 3, 19,
     "the default -1 of 'eta' is out of its range [0, 1]", "change"),
    ("a default on an open end", spec(hypers="eta = { default = 1, range = '[0, 1)' }"), 3, 19,
     "out of its range [0, 1)", ""),
    ("one default of two", spec("delta = beta[1]*beta[2]*g", hypers=BETA.replace("0.999", "1.5")), 3, 20,
     "the default 1.5", ""),
    ("a default of infinity", spec(hypers="eta = { default = inf, range = '[0, inf)' }"), 3, 19, "the default inf", ""),
    ("a default of NaN", spec(hypers="eta = { default = nan, range = '[0, inf]' }"), 3, 19,
     "expected a number as the default, got NaN", ""),
    ("a default of 400 digits", spec(hypers=f"eta = {{ default = {'9' * 400}, range = '[0, 1]' }}"), 3, 19,
     "too large for float64", ""),
    ("a range that is a number", spec(hypers="eta = { default = 1, range = 3 }"), 3, 30,
     "'range': expected text, got a number", ""),
    ("a list of one range", spec("delta = beta[1]*beta[2]*g", hypers=BETA.replace('"[0, 1)"', '["[0, 1)"]')), 3, 42,
     "expected a range in text, or a list of two or more of them", '["[0, 1)", "(1, inf)"]'),
    ("a list of numbers for a range", spec(hypers="eta = { default = 1, range = [0, 1] }"), 3, 30,
     "expected a range in text, or a list of two or more of them", ""),
    ("two ranges of one number", spec(hypers="eta = { default = 1, range = ['[0, 1]', '[0, 2]'] }"), 3, 31,
     "'eta' has one value, got 2 ranges", "one for each"),
    ("three ranges of two numbers",
     spec("delta = beta[1]*beta[2]*g", hypers=BETA.replace('"[0, 1)"', "['[0, 1]', '[0, 1]', '[0, 1]']")),
     3, 43, "'beta' has 2 values, got 3 ranges", "a list with one for each"),
    ("one range of two that is none",
     spec("delta = beta[1]*beta[2]*g", hypers=BETA.replace('"[0, 1)"', "['[0, 1]', '0..1']")), 3, 53,
     "expected a range, got '0..1'", ""),
    ("one default of two out of its own range",
     spec("delta = beta[1]*beta[2]*g", hypers=BETA.replace('"[0, 1)"', "['[0, 1]', '[0, 0.9]']")), 3, 20,
     "the default 0.999 of 'beta[2]' is out of its range [0, 0.9]", "change"),
    ("an unknown part", spec(name=f"{PART}'gradients'"), 2, 8,
     "'part': expected one of gradient, parameter; got 'gradients'", "did you mean 'gradient'?"),
    ("a part that is true", spec(name=f"{PART}true"), 2, 8, "'part': expected text, got true or false", ""),
    ("an origin that is a number", spec(name="name = 'R'\norigin = 3"), 2, 10, "'origin': expected text", ""),
    ("a family that is none", spec(name="name = 'R'\nfamily = 'adams'"), 2, 10,
     "'family': expected one of momentum, adagrad, adam, sign,", "did you mean 'adam'?"),
    ("notes that are a list", spec(name="name = 'R'\nnotes = ['a']"), 2, 9, "'notes': expected text, got a list", ""),
    ("an unknown extent", spec(states="m = { init = 0, extent = 'rows' }"), 5, 26,
     "'extent': expected one of element, block, index, row, column, matrix, tensor, group; got 'rows'",
     "did you mean 'row'?"),
    ("a random start", spec("m = m + g\ndelta = m", states="m = { init = 'normal()' }"), 5, 15,
     "normal(): there are no random numbers before the first step", "if t == 1"),
    ("a random evaluation", spec() + "[evaluation]\nformulas = 'p = p + normal()'\n", 9, 21,
     "normal(): there are no random numbers in [evaluation]", "draw in [update]"),
    ("an empty extent", spec(states="m = { init = 0, extent = '' }"), 5, 26, "'extent': expected one of element, block",
     ""),
    ("a bare input", spec(inputs="loss = 'step'"), 5, 8, "'loss': expected a table in braces, got text",
     'loss = { extent = "step" }'),
    ("a key of no input", spec(inputs="h = { init = 0 }"), 5, 7, "unknown key 'init'", "extent, doc"),
    ("an extent of no input", spec(inputs="h = { extent = 'row' }"), 5, 16,
     "'extent': expected one of element, step; got 'row'", ""),
    ("inputs that are a list", "name = 'R'\ninputs = ['loss']", 2, 10, "'inputs': expected a table, got a list",
     "[inputs]"),
    ("one input in two alphabets", spec(inputs="eps = {}\n'ε' = {}"), 6, 1, "'ε' is the name 'eps', which 'eps'",
     "one name"),
    ("phases beside formulas", phased().replace("[update.a]", "[update]\nformulas = 'delta = g'\n[update.a]"), 3, 1,
     "expected formulas of one step, or of its phases, got both", "move them into the phases"),
    ("one phase", phased().split("[update.b]")[0], 2, 9, "expected 2 to 4 phases, got 1", "formulas in [update]"),
    ("five phases", phased() + "".join(f"[update.{c}]\nformulas = 'delta = g'\n" for c in "cde"), 14, 9,
     "expected 2 to 4 phases, got 5", ""),
    ("a phase without formulas", phased() + "[update.c]\n", 10, 9, "'formulas' is missing", 'add: formulas = "..."'),
    ("a key of no phase", phased() + "[update.c]\nformulas = 'delta = g'\ninit = 't'\n", 12, 1, "unknown key 'init'",
     "expected one of: when, formulas"),
    ("a key of no update with phases", "[update]\nformula = 1\n" + phased(), 2, 1, "unknown key 'formula'",
     "expected one of: matrices"),
    ("an evaluation of text", "evaluation = 'p'\n" + spec(), 1, 14, "'evaluation': expected a table, got text",
     "p = avg"),
    ("a key of no evaluation", spec() + "[evaluation]\nformula = 'p = p'\n", 9, 1, "unknown key 'formula'", "formulas"),
    ("an evaluation of nothing", spec() + "[evaluation]\n", 8, 2, "'formulas' is missing", ""),
    ("an evaluation with escapes", spec() + '[evaluation]\nformulas = "p = p\\t*2"\n', 9, 12, "formulas with escapes",
     "'''"),
    ("unknown matrices", spec() + "matrices = 'last to'\n", 8, 12,
     "'matrices': expected one of last two, first by rest, all but last by last; got 'last to'",
     "did you mean 'last two'?"),
    ("matrices of nothing", spec() + "matrices = 'first by rest'\n", 8, 12,
     "'first by rest' says which matrices are meant, and nothing here has rows or columns", "mean(g, row)"),
    ("a requirement that is true", spec(flags="f = { requires = true }"), 5, 18, "'requires': expected text, got true",
     ""),
    ("an empty requirement", spec(flags="f = { requires = '' }"), 5, 18, "'requires': expected text, got none", ""),
    ("a broken requirement", spec(flags="f = { requires = 'f and' }"), 5, 24, "expected an expression", ""),
    ("an empty default of a flag", spec(flags="f = { default = ' ' }"), 5, 17, "'default': expected text, got no", ""),
    ("a broken default of a flag", spec(flags="f = { default = 'eta >' }"), 5, 23, "expected an expression", ""),
    ("a flag that is a number", spec(flags="f = { default = 1 }"), 5, 17,
     "expected true or false as the default of a flag, got a number", 'or a condition in quotes: "momentum != 0"'),
    ("no initial value", spec(states="m = { doc = 'x' }"), 5, 1, "state 'm' has no initial value", 'init = "0"'),
    ("an infinite initial value", spec(states="m = { init = inf }"), 5, 14, "expected a finite initial value", ""),
    ("an initial value of NaN", spec(states="m = { init = nan }"), 5, 14, "expected a finite initial value", ""),
    ("an initial value of 400 digits", spec(states=f"m = {{ init = {'9' * 400} }}"), 5, 14,
     "expected a finite initial value, got nan", ""),
    ("an empty initial value", spec(states="m = { init = '' }"), 5, 14, "'init': expected text, got none", ""),
    ("an empty condition", spec(states="m = { init = 0, when = '' }"), 5, 24, "'when': expected text, got none", ""),
    ("a condition that is true", spec(states="m = { init = 0, when = true }"), 5, 24, "'when': expected text", ""),
    ("an initial value with escapes", spec(states='m = { init = "\\u0030*\\u0031" }'), 5, 14,
     "an expression with escapes", "'''"),
    ("formulas with escapes", 'name = "R"\n[update]\nformulas = "delta = g\\t*2"', 3, 12, "formulas with escapes",
     "'''"),
    ("no update", "name = 'R'", 1, 1, "the table [update] is missing", "[update]"),
    ("an update of text", "name = 'R'\nupdate = 'x'", 2, 10, "'update': expected a table, got text", "formulas = '''"),
    ("no formulas", "name = 'R'\n[update]\n", 2, 2, "'formulas' is missing", ""),
    ("empty formulas", spec("\n  \n"), 5, 12, "'formulas': expected text, got none", ""),
]  # fmt: skip

FORMULAS = [  # each is a formula of `formula_spec`, on line 12
    ("an expression alone", "eta*m", 1,
     "expected a formula, `name = expression`, got an expression without a name", ""),
    ("an import", "import os", 1, "expected a formula, `name = expression`, got `import`", "m = rho*m + g"),
    ("a loop over one value", "for i in m: x = i", 10, "expected a hyperparameter with several values",
     "there are: beta"),
    ("a loop over a number", "for i in 3: x = i", 10, "expected a hyperparameter with several values, or range(", ""),
    ("a loop over a value that may change", "for i in range(eta): x = i", 10, "of whole numbers that the spec states",
     "range(steps)"),
    ("a loop of no turn", "for i in range(3, 3): x = i", 10, "expected a loop of 1 to 2000 turns, got none", ""),
    ("a loop of steps of 0", "for i in range(3, 5, 0): x = i", 10, "1 to 2000 turns, got none", ""),
    ("a loop of too many turns", "for i in range(10**9): x = i", 10, "of whole numbers that the spec states", ""),
    ("a loop of a million turns", "for i in range(1000000): x = i", 10, "1 to 2000 turns, got 1000000", ""),
    ("a loop by the name of a state", "for m in beta: x = m", 5, "the name 'm' of a loop is another's too", "another"),
    ("a loop by the name of a function", "for max in beta: x = 1", 5, "the name 'max' of a loop is another's too", ""),
    ("a loop that assigns its name", "for i in beta: i = 2", 5, "the name 'i' of a loop is another's too", ""),
    ("a loop with two names", "for i, j in beta: x = i", 5, "expected one name for the turns of a loop", "for b"),
    ("a loop that is open", "for i in beta:", 15, "expected a loop, `for name in values:`, with its", "for b in"),
    ("a loop without `in`", "for i beta: x = i", 7, "expected a loop, `for name in values:`", ""),
    ("a loop without a colon", "for i in beta\n    x = i", 14, "expected a loop, `for name in values:`", ""),
    ("a loop over values of its own", "for i in [1, 2]: x = i", 10, "or range(...); got them here", "a hyperparameter"),
    ("a while", "while m: x = 1", 1, "got `while`", "for b in beta"),
    ("a sum of a number", "x = sum(i for i in 3)", 20, "expected a hyperparameter with several values", ""),
    ("a root of turns", "x = sqrt(i for i in beta)", 5, "sqrt() gathers nothing", "there are: sum, mean, max, min"),
    ("a sum with a condition", "x = sum(i for i in beta if i > 0)", 8, "expected one loop over one name", ""),
    ("a sum by a name that is taken", "x = sum(m for m in beta)", 15, "the name 'm' of a loop is another's too", ""),
    ("the number of one value", "x = len(eta)*m", 5, "len(): expected the name of several values", "len(beta)"),
    ("a condition in front", "if f: x = m", 1, "got `if`", "m = a if condition else b"),
    ("a return", "return m", 1, "got `return`", "delta = eta*m"),
    ("an annotation", "m: float = 1", 1, "got a Python annassign statement", ""),
    ("two on a line", "x = m; y = x", 8, "got a second one on the line", "line of its own"),
    ("an update in place", "m += g", 1, "got an update in place", "in one formula"),
    ("two names on the left", "x, y = m", 1, "got something other than one name on the left", ""),
    ("two targets", "x = y = m", 1, "got something other than one name on the left", ""),
    ("an index on the left", "m[1] = g", 1, "'m' takes no index", "each = 3"),
    ("an index of a call on the left", "max(m)[1] = g", 1, "got something other than one name on the left", ""),
    ("a missing operand", "x = m *", 8, "expected a formula, `name = expression`: invalid syntax", ""),
    ("a missing operator", "x = m 2", 7, "`name = expression`: invalid syntax", ""),
    ("an open bracket", "x = (m", 5, "`name = expression`: '(' was never closed", ""),
    ("a wrong bracket", "x = m)", 6, "`name = expression`: unmatched ')'", ""),
    ("a sign of no language", "x = m $ 2", 7, "`name = expression`: invalid syntax", ""),
    ("a number that runs into a word", "x = 1if f else m", 5, "invalid decimal literal", ""),
    ("a call", "x = eval(m)", 5, "unknown function 'eval'", "there are: sqrt, exp"),
    ("a product of matrices by name", "x = matmul(m, g)", 5,
     "unknown function 'matmul'", "write A @ B"),
    ("a decomposition", "x = svd(m)", 5,
     "unknown function 'svd': decompositions of this kind cannot be said in this language yet", "there are"),
    ("a random number of more", "x = m*normal(3)", 7, "normal(): expected no arguments, or two dimensions; got 1",
     "write normal()"),
    ("a random number by another name", "x = m*randn()", 7, "unknown function 'randn'", "write normal()"),
    ("an order of elements", "x = m - median(g)", 9, "what depends on the place of an element cannot be said", ""),
    ("clamp", "x = clamp(m, 0, 1)", 5, "unknown function 'clamp'", "write clip(x, low, high)"),
    ("a rectifier", "x = relu(m)", 5, "unknown function 'relu'", "write max(x, 0)"),
    ("a deviation", "x = m/std(g)", 7, "unknown function 'std'", "write sqrt(mean((x - mean(x))**2))"),
    ("half a clip", "x = clip(m, 1)", 5, "clip(): expected 3 arguments, got 2", "clip(x, low, high)"),
    ("a length of nothing", "x = length()", 5, "length(): expected 1 argument, got 0", "length(-1) for the last one"),
    ("a length of what is not known", "x = m*length(t)", 14, "length(): expected a dimension from 1 to 64", "write le"),
    ("a dimension 0", "x = m*length(0)", 14, "length(): expected a dimension from 1 to 64, or from -1 to -64", ""),
    ("a function that there is not yet", "x = round(m)", 5, "a function of this kind cannot be", "there are: sqrt"),
    ("the loss", "x = m*loss(p)", 7, "another look at the loss cannot be said", ""),
    ("nearly a function", "x = sqr(m)", 5, "unknown function 'sqr'", "did you mean sqrt()?"),
    ("an attribute", "x = m.real", 5, "functions; got an attribute (a dot)", "not np.sqrt(v)"),
    ("a function of a module", "x = np.sqrt(m)", 5, "expected a function by its plain name", "sqrt(v)"),
    ("code behind a name", '__import__("os").system("sh")', 1, "got an expression without a name", ""),
    ("code in a value", 'x = __import__("os").system("sh")', 5, "expected a function by its plain name", ""),
    ("a lambda", "x = lambda y: y", 5, "functions; got a lambda", "lam, or λ"),
    ("lambda as a value", "x = lambda*m", 5, "got `lambda`, a keyword of Python", "write lam, or λ"),
    ("lambda behind a sign", "x = m*lambda", 7, "got `lambda`, a keyword of Python", "write lam, or λ"),
    ("lambda in a comment", "x = m $ g  # lambda", 7, "invalid syntax", ""),
    ("an index below the line", "x = m*β₁", 8, "invalid character '₁'", "write β[1]"),
    ("an index of two digits below it", "x = m*beta₁₀", 11, "invalid character '₁'", "write beta[10]"),
    ("text", "x = m + 'a'", 9, "numbers, names, operators and functions; got text", "without quotes: a"),
    ("text that is no name", "x = m + 'a b'", 9, "numbers, names, operators and functions; got text", ""),
    ("bytes", "x = b'a'", 5, "numbers, names, operators and functions; got bytes", ""),
    ("text with a formula in it", "x = f'{m}'", 5, "functions; got text", ""),
    ("a truth", "x = True", 5, "functions; got true or false", ""),
    ("nothing", "x = None", 5, "functions; got None", ""),
    ("dots", "x = ...", 5, "functions; got `...`", ""),
    ("an imaginary number", "x = 2j*m", 5, "functions; got a complex number", ""),
    ("a comprehension", "x = [y for y in m]", 5, "functions; got a comprehension", ""),
    ("a set comprehension", "x = {y for y in m}", 5, "functions; got a comprehension", ""),
    ("a dictionary comprehension", "x = {y: y for y in m}", 5, "functions; got a comprehension", ""),
    ("a generator", "x = (y for y in m)", 5, "functions; got a comprehension", ""),
    ("a walrus", "x = (y := m)", 6, "functions; got `:=`", "line before"),
    ("a list", "x = [m]", 5, "functions; got a list", ""),
    ("a comma for a point", "x = 0,5", 5, "functions; got a tuple", "a point in a number"),
    ("a dictionary", "x = {}", 5, "functions; got a dictionary", ""),
    ("a set", "x = {m}", 5, "functions; got a set", ""),
    ("an await", "x = await m", 5, "functions; got `await`", ""),
    ("a yield", "x = yield m", 5, "functions; got `yield`", ""),
    ("a yield from", "x = yield from m", 5, "functions; got `yield`", ""),
    ("a star", "x = min(*m, g)", 5, "one by one, got a starred one", ""),
    ("a keyword", "x = max(m, b=g)", 5, "expected arguments by position, got one by keyword", ""),
    ("an axis", "x = mean(g, axis=0)", 5, "by position, got one by keyword", "last: mean(x, row), mean(x, column)"),
    ("a star in a value", "x = *m, g", 5, "functions; got a tuple", ""),
    ("a star alone", "x = *m", 5, "functions; got a star", ""),
    ("a hat", "x = m^2", 6, "`^` is not a power here", "write `**`"),
    ("an ampersand", "x = m & m", 7, "`&` has no meaning", "write `and`"),
    ("a bar", "x = m | m", 7, "`|` has no meaning", "abs(x)"),
    ("a shift left", "x = m << 2", 7, "`<<` has no meaning", ""),
    ("a shift right", "x = m >> 2", 7, "`>>` has no meaning", ""),
    ("a tilde", "x = ~m", 5, "`~` has no meaning", "write `not`"),
    ("a chain", "x = where(0 < m < 1, m, g)", 11, "expected one comparison, got a chain of them", "a < b and b < c"),
    ("`is`", "x = where(m is g, m, g)", 11, "expected <, <=, >, >=, == or !=; got `is`", ""),
    ("`in`", "x = where(m in g, m, g)", 11, "got `in`", ""),
    ("an index of a sum", "x = (m + g)[1]", 5, "only a name that stands for several values", "beta[1]"),
    ("an index that is a name", "x = beta[m]*m", 10,
     "expected a whole number from 1 as the index, or the name of a loop; got m",
     "beta[1]"),
    ("an index below", "x = beta[-1]*m", 5, "expected beta[1] to beta[2], got beta[-1]", ""),
    ("an index that is true", "x = beta[True]*m", 10, "expected a whole number from 1 as the index, got", ""),
    ("a slice", "x = beta[1:2]*m", 10, "expected a whole number from 1 as the index, got", ""),
    ("an index of 0", "x = beta[0]*m", 5, "expected beta[1] to beta[2], got beta[0]", "counted from 1"),
    ("an index above", "x = β[3]*m", 5, "expected beta[1] to beta[2], got β[3]", ""),
    ("no index", "x = beta*m", 5, "'beta' has 2 values", "write beta[1] to beta[2]"),
    ("an index of one number", "x = eta[1]*m", 5, "'eta' is one number, not several", "write eta"),
    ("an index of a state", "x = m[1]", 5, "'m' takes no index", "element by element"),
    ("an index of the gradient", "x = g[1]*m", 5, "'g' takes no index", ""),
    ("an index of nothing", "x = q[1]*m", 5, "unknown name 'q'", ""),
    ("an unknown name", "x = m*nomentum", 7, "unknown name 'nomentum'", "define it"),
    ("a constant", "x = m*pi", 7, "unknown name 'pi'", "write 3.141592653589793"),
    ("a constant in Greek", "x = m*π", 7, "unknown name 'π'", "write 3.141592653589793"),
    ("a constant of one letter", "x = m*e", 7, "unknown name 'e'", "write 2.718281828459045"),
    ("one of several by its digit", "x = m*beta1", 7, "unknown name 'beta1'", "write beta[1]"),
    ("one of several by its digit in Greek", "x = m*β2", 7, "unknown name 'β2'", "write beta[2]"),
    ("one of fewer by its digit", "x = m*beta3", 7, "unknown name 'beta3'", "did you mean 'beta'?"),
    ("nearly a name", "x = m*dleta", 7, "unknown name 'dleta'", "did you mean 'delta'?"),
    ("a Greek name unknown", "x = m*ω", 7, "unknown name 'ω'", ""),
    ("a name before its formula", "x = delta*m", 5, "'delta' is used before it has a value",
     'formulas run in order: move the one that gives it before this one; or declare it, if it is kept'),
    ("a state that is not declared", "x = x*m", 5, "'x' is used before it has a value",
     'declare it, if it is kept from step to step: [state] x = { init = "0" }'),
    ("a flag for a number", "x = f*m", 5, "the flag 'f' is no number", "a if f else b"),
    ("a choice by nearly a flag", "x = m if ff else g", 10, "unknown name 'ff'", "did you mean 'f'?"),
    ("a choice by a number", "x = m if eta else g", 10, "expected a condition, got a number", "compare it: x > 0"),
    ("a choice by half a flag", "x = m if f and g else g", 16, "expected a condition, got a number", ""),
    ("a choice of a condition", "x = m if g > 0 else g > 1", 21, "expected a number, got a condition",
     "write 1 if condition else 0"),
    ("no condition", "x = where(m, m, g)", 11, "expected a condition, got a number", "compare it: x > 0"),
    ("no number", "x = m*(g > 0)", 8, "expected a number, got a condition", "1 if condition else 0"),
    ("an `and` of numbers", "x = where(m and g > 0, m, g)", 11, "expected a condition", ""),
    ("a `not` of a number", "x = where(not m, m, g)", 15, "expected a condition", ""),
    ("a sum of conditions", "x = m*((g > 0) + 1)", 9, "expected a number, got a condition", ""),
    ("three values", "x = min(m, g, p)", 5, "min(): expected 1 or 2 values, got 3",
     "nest it: min(a, min(b, c)); min(x)"),
    ("no values", "x = max()*m", 5, "max(): expected 1 or 2 values, got 0", "max(x) is that of all elements"),
    ("two values and an extent", "x = max(m, g, row)", 5, "max() over a row: expected 1 value, got 2",
     "max(x, row); max(a, b) has no extent"),
    ("an extent alone", "x = norm(row)*m", 5, "norm(): expected 1 value, then an extent if it has one; got 0",
     "norm(x), or norm(x, row) with one of group, tensor, matrix, row, column"),
    ("nothing to reduce", "x = norm()*m", 5, "norm(): expected 1 value, then an extent if it has one; got 0", ""),
    ("half a product", "x = dot(m)", 5, "dot(): expected 2 values, then an extent if it has one; got 1",
     "dot(x, y, row)"),
    ("two extents", "x = sum(m, row, column)", 5, "sum(): expected 1 value, then an extent if it has one; got 2", ""),
    ("nearly an extent", "x = sum(m, rows)", 12, "expected an extent, got 'rows'", "did you mean 'row'?"),
    ("an extent that is none", "x = dot(m, g, elements)", 15, "expected an extent, got 'elements'",
     "there are: group, tensor"),
    ("a value for an extent", "x = sum(m, g)", 5, "sum(): expected 1 value, then an extent if it has one; got 2", ""),
    ("a number for an extent", "x = sum(m, 2)", 5, "sum(): expected 1 value, then an extent if it has one; got 2", ""),
    ("a sum of conditions", "x = sum(g > 0)*m", 9, "expected a number, got a condition", "1 if condition else 0"),
    ("a product with a condition", "x = dot(m, g > 0)", 12, "expected a number, got a condition", ""),
    ("a norm of a norm", "x = norm(norm(m))", 5,
     "norm() over a parameter was given one value for each parameter (tensor), which is the same all over it",
     "leave the reduction out, or write norm(x, group)"),
    ("a sum of the count", "x = sum(t)*m", 5, "sum() over a parameter was given one value a step, which",
     "a sum of equal values is a product: write size*x"),
    ("a sum of one over a row", "x = sum(1, row)*m", 5, "sum() over a row was given a constant", "write columns*x"),
    ("a count of no matrix", "x = m*(1 if matrix else rows)", 25, "there are no rows where the parameter is no matrix",
     "a if matrix else b"),
    ("a sum of a constant", "x = sum(eta)*m", 5, "sum() over a parameter was given a constant, which is the same", ""),
    ("a sum of the size", "x = sum(size)*m", 5, "was given one value for each parameter (tensor), which", ""),
    ("a mean of group", "x = mean(norm(m, group), group)", 5,
     "mean() over all parameters was given one value for all parameters (group), which is the same all over it",
     "leave the reduction out"),
    ("a mean of rows by rows", "x = mean(mean(m, row), row)", 5,
     "mean() over a row was given one value for each row (row), which is the same", "mean(x, matrix)"),
    ("a mean of rows by columns", "x = mean(mean(m, row), column)", 5,
     "mean() over a column was given one value for each row (row), not one for each element", "mean(x, matrix)"),
    ("a mean of columns by rows", "x = mean(mean(m, column), row)", 5,
     "mean() over a row was given one value for each column (column), not one for each element", "mean(x, matrix)"),
    ("a mean of matrices by rows", "x = mean(max(m, matrix), row)", 5,
     "mean() over a row was given one value for each matrix (matrix), which is the same", "mean(x, tensor)"),
    ("a product of what is the same", "x = dot(norm(m), norm(g))", 5, "dot() over a parameter was given one value for",
     "dot(x, y, group)"),
    ("a row of no matrix", "x = m*(1 if matrix else sum(m, row))", 25,
     "there is no row where the parameter is no matrix",
     "a if matrix else b"),
    ("a matrix of no matrix", "x = m*(1 if matrix else max(m, matrix))", 25, "there is no matrix where the", ""),
    ("an extent for a number", "x = row*m", 5, "'row' is an extent, which is written last in a reduction",
     "norm(g, row)"),
    ("an extent in a function", "x = sqrt(tensor)*m", 10, "'tensor' is an extent, which is", "norm(g, tensor)"),
    ("the flag for a number", "x = matrix*m", 5, "the flag 'matrix' is no number", "a if matrix else b"),
    ("an index of an extent", "x = row[1]*m", 5, "'row' takes no index", ""),
    ("an index of the size", "x = size[1]*m", 5, "'size' takes no index", ""),
    ("what parts are given", "x = grad*m", 5, "'grad' is given to parts of chains only", 'part = "gradient"'),
    ("the other thing parts are given", "x = m - new", 9, "'new' is given to parts of chains only", ""),
    ("a number for a condition", "proceed = t - 1", 11, "'proceed': expected a condition, got a number", "x > 0"),
    ("a condition of elements", "proceed = m > 0", 11,
     "'proceed': expected one value for each parameter (tensor) or less, got one value for each element (element)",
     "max(x)"),
    ("a condition of rows", "proceed = max(m, row) > 0", 11, "got one value for each row (row)", ""),
    ("a number for whether a step counts", "accept = t - 1", 10, "'accept': expected a condition, got a num", "x > 0"),
    ("whether a step counts of each parameter", "accept = norm(m) > 0", 10,
     "'accept': expected one value for all parameters (group), got one value for each parameter (tensor)",
     "reduce what it compares over the group: max(x, group)"),
    ("whether a step counts without a look", "accept = t > 1", 10, "'accept': expected one value for all", ""),
    ("proceed twice", "proceed = t > 1; proceed = t > 2", 18, "got a second one", ""),
    ("no argument", "x = sqrt()*m", 5, "sqrt(): expected 1 argument, got 0", ""),
    ("a number too large", "x = 1e400*m", 5, "a number too large for float64", ""),
    ("a whole number too large", f"x = {'9' * 400}*m", 5, "a number too large for float64", ""),
    ("a number too small", "x = 1e-400*m", 5, "a number that float64 rounds to zero", ""),
    ("the size assigned", "size = m", 1, "'size' is the number of elements, which a rule does not assign",
     "another name"),
    ("an extent assigned", "row = m", 1, "'row' is an extent, which a rule does not assign", ""),
    ("the flag assigned", "matrix = m", 1, "'matrix' is an extent, which a rule does not assign", ""),
    ("a reduction's name", "norm = m", 1, "'norm' shadows the function norm()", "another name"),
    ("g assigned", "g = m", 1, "'g' is the gradient, which a rule does not assign", "another name"),
    ("t assigned", "t = m", 1, "'t' is the count of updates, which a rule does not assign", ""),
    ("a hyperparameter assigned", "eta = m", 1, "'eta' is a hyperparameter, which a rule does not assign", ""),
    ("a flag assigned", "f = m", 1, "'f' is a flag, which a rule does not assign", ""),
    ("a name assigned twice", "m = g", 1, "'m' is assigned twice", "its own name"),
    ("a function's name", "max = m", 1, "'max' shadows the function max()", "another name"),
    ("a division by zero", "x = m + 1/0", 9, "a division by zero", "a/x if x > 0 else b"),
    ("a number over zero", "x = m/0.0", 5, "a division by zero", "a/x if x > 0 else b"),
    ("a keyword of Python in Greek", "λbda = m", 1, "'lambda' is a keyword of Python, no name for a value", "another"),
    ("a name in another alphabet", "ж = m", 1, "'ж' cannot be a name", "ASCII or Greek"),
    ("a name of underscores", "__x = m", 1, "'__x' cannot be a name", ""),
    ("a name for nothing", "y = m", 1, "'y' is computed, but never used", "use it, or remove it"),
]  # fmt: skip

NAMES = [
    ("a phase without a name", phased(names='"" b'), 2, 9, "'' cannot be the name of a phase", "a letter, then"),
    ("a phase that is a keyword", phased(names="a for"), 6, 9, "'for' cannot be the name of a phase", ""),
    ("two phases of one name", phased(names='"η" eta'), 6, 9, "two phases are called 'eta'",
     "another name"),
    ("phases of a part behind", phased("p = new", "p = new", 'part = "parameter"\n'), 3, 9,
     "a part 'parameter' has no phases", "belong to a rule"),
    ("a condition of the last phase", phased() + 'when = "t > 1"\n', 10, 9,
     "every step ends with its last phase 'b', got a condition", "leave it out"),
    ("a phase by what is not known", phased().replace("[update.a]\n", '[update.a]\nwhen = "norm(g) > 1"\n'), 3, 14,
     "'a': expected a condition of t and hyperparameters", 'when = "t % k == 0"'),
    ("a phase by a number", phased().replace("[update.a]\n", '[update.a]\nwhen = "t % 2"\n'), 3, 9,
     "'a': expected a condition of t and hyperparameters", 'when = "t % k == 0"'),
    ("a phase and a flag", phased(names="a a_b", begin="[flags]\nb = {}\n", second="delta = g if b else 2*g"), 3, 1,
     "two variants would be called 'a_b'", "rename this one"),
    ("a phase without an output", phased("q = p"), 3, 1, "no formula gives 'delta'", ""),
    ("a last phase of a part without one", phased(second="p = 2*p", begin='part = "gradient"\n'), 8, 1,
     "no formula gives 'delta', what goes on", ""),
    ("both outputs in a phase that is not the last", phased("p = 2*p\ndelta = g"), 5, 1,
     "both 'delta' and 'p' are assigned", ""),
    ("a value of another phase", phased("q = 2*g\np = p + q", "delta = q"), 9, 9, "'q' is used before it has a value",
     'another phase gives it: keep it as a state, [state] q = { init = "0" }'),
    ("a phase that is assigned", phased("phase = 1\np = g"), 4, 1, "'phase' is which phase comes next", ""),
    ("a state called phase", phased(begin="[state]\nphase = { init = 0 }\n"), 3, 1,
     "the state 'phase' shadows the given name 'phase'", "another name"),
    ("reductions of matrices in a phase",
     phased(second="n = norm(g, group) if matrix else mean(g, group)\np = n*g"), 8, 5,
     "got norm for matrices and mean for others", ""),
    ("an input called phase", spec("delta = phase*g", inputs="phase = {}"), 5, 1,
     "'phase' is what a step is called with already", ""),
    ("an evaluation with the gradient", spec(evaluation="p = p - g"), 10, 9, "'g' belongs to a step, and there is none",
     "write it with p and states"),
    ("an evaluation with a value of the step", spec("x = eta*g\ndelta = x", evaluation="p = p - x"), 11, 9,
     "'x' belongs to a step, and there is none", ""),
    ("an evaluation with an input", spec("delta = eta*h", inputs="h = {}", evaluation="p = p - h"), 12, 9,
     "'h' belongs to a step, and there is none", ""),
    ("an evaluation that reduces", spec(evaluation="p = p/norm(p)"), 10, 7,
     "norm(): expected operations on elements, got a reduction", "keep it as a state"),
    ("an evaluation that writes a state", spec("m = m + g\ndelta = eta*m", states=M, evaluation="m = 0*p\np = m"), 13,
     1, "'m' is written by [update] alone", "[evaluation] gives p"),
    ("an evaluation without a parameter", spec(evaluation="q = p"), 9, 1, "no formula gives 'p', what is evaluated",
     "p = avg"),
    ("an evaluation of two parameters", spec(evaluation="p = 2*p\np = 3*p"), 11, 1, "'p' is assigned twice", ""),
    ("an evaluation of an unknown name", spec(evaluation="p = avg"), 10, 5, "unknown name 'avg'", "define it"),
    ("a value of an evaluation for nothing", spec(evaluation="q = 2*p\np = 3*p"), 10, 1,
     "'q' is computed, but never used", "remove it"),
    ("several states of no number", several("each = 0"), 5, 26,
     "a whole number or the name of a hyperparameter; got none", 'each = "beta"'),
    ("several states of true", several("each = true"), 5, 26, "the name of a hyperparameter; got true or false", ""),
    ("several states of a list", several("each = [1]"), 5, 26, "the name of a hyperparameter; got a list", ""),
    ("several states by a single value", several("each = 'eta'"), 5, 26,
     "expected the name of a hyperparameter with several values, got 'eta'", ""),
    ("too many states", several("each = 3000"), 5, 26, "expected at most 2000 states, got 3000", ""),
    ("a name of several that is taken",
     several("each = 2", "v[1] = v[2] + g\nv[2] = g\nv2 = v[1]\ndelta = eta*v2*v[1]"),
     5, 1, "'v2' is how v[2] is called, and another name too", "another name"),
    ("several states as one", several("each = 2", "v[1] = v[2] + g\nv[2] = g\ndelta = eta*v"), 10, 13,
     "'v' stands for 2 states", "write v[1] to v[2]"),
    ("several states assigned as one", several("each = 2", "v[1] = v[2] + g\nv = g\ndelta = eta*v[1]"), 9, 1,
     "'v' stands for 2 states", "write v[1] to v[2]"),
    ("a state too many", several("each = 2", "v[1] = v[2] + g\nv[2] = g\ndelta = eta*v[3]"), 10, 13,
     "expected v[1] to v[2], got v[3]", "counted from 1"),
    ("a value that changes its type", spec("x = 1\nfor b in beta:\n    x = x*b + 1 > 0\ndelta = eta*g*x",
     hypers=f"{ETA}\n{BETA}"), 9, 9, "'x': expected a number in every turn, got a condition", "its own name"),
    ("a loop in a loop of the same name", spec("x = 0\nfor b in beta:\n    for b in beta:\n        x = x + b\n"
     "delta = eta*g*x",
     hypers=f"{ETA}\n{BETA}"), 9, 9, "the name 'b' of a loop is another's too", ""),
    ("loops of very many turns", spec("x = 0\nfor i in range(100):\n    for j in range(100):\n        x = x + j\n"
     "delta = eta*g*x"), 9, 9, "expected loops of at most 2000 formulas altogether, got more", "fewer turns"),
    ("loops that assign twice outside", spec("x = 0\nfor b in beta:\n    x = x + b\nx = 2\ndelta = eta*g*x",
     hypers=f"{ETA}\n{BETA}"), 10, 1, "'x' is assigned twice", ""),
    ("a rule's name", spec(name='name = "a b"'), 1, 8, "'a b' cannot be the name of a rule", "in ASCII"),
    ("code in a rule's name", spec(name="""name = 'm; system("x")'"""), 1, 8, "cannot be the name of a rule", ""),
    ("a rule that is a keyword", spec(name="name = 'class'"), 1, 8, "'class' is a keyword of Python", ""),
    ("lambda, for λ", spec(hypers=f"{ETA}\nlambda = {{ default = 1, range = '[0, 1]' }}"), 4, 1,
     "'lambda' is a keyword of Python", "write lam, or λ in quotes"),
    ("a rule that is a function", spec(name="name = 'max'"), 1, 8, "the rule 'max' shadows the function max()", ""),
    ("an empty name", spec(hypers=f"{ETA}\n'' = {{ default = 1, range = '[0, 1]' }}"), 4, 1,
     "'' cannot be the name of a", ""),
    ("a comment's end", spec(flags="'*/' = {}"), 5, 1, "'*/' cannot be the name of a flag", "letters, digits"),
    ("a line end", spec(states='"a\\nb" = { init = 0 }'), 5, 1, "'a\\nb' cannot be the name of a state", ""),
    ("quotes", spec(flags="""'a"b' = {}"""), 5, 1, "cannot be the name of a flag", "ASCII or Greek"),
    ("dunder", spec(flags="__import__ = {}"), 5, 1, "'__import__' cannot be the name of a flag", ""),
    ("an input that is never read", spec(inputs="h = {}"), 5, 1, "the input 'h' is never used", "remove it"),
    ("an input assigned", spec("h = g\ndelta = eta*h", inputs="h = {}"), 8, 1,
     "'h' is an input, which a rule does not assign", "another name"),
    ("an input with an index", spec("delta = eta*h[1]", inputs="h = {}"), 8, 13, "'h' takes no index", ""),
    ("an input of a step for a flag", spec("delta = eta*g if l else g", inputs="l = { extent = 'step' }"), 8, 18,
     "expected a condition, got a number", "compare it"),
    ("nearly an input", spec("delta = eta*hesian*hessian", inputs="hessian = {}"), 8, 13, "unknown name 'hesian'",
     "did you mean 'hessian'?"),
    ("a state that starts as an input",
     spec("m = m + h\ndelta = eta*m*g", inputs="h = {}", states="m = { init = 'h' }"), 7, 15,
     "expected an initial value made of numbers, hyperparameters and p", "m = g if t == 1"),
    ("an input called as a hyperparameter", spec("delta = eta*g", inputs="eta = {}"), 5, 1,
     "the input 'eta' shadows the hyperparameter of that name", "another name"),
    ("a state called as an input", spec("m = m + g\ndelta = eta*m", inputs="m = {}", states=M), 5, 1,
     "the input 'm' shadows the state of that name", "another name"),
    ("an input called as the gradient", spec("delta = eta*g", inputs="g = {}"), 5, 1,
     "the input 'g' shadows the given name 'g', the gradient", "another name"),
    ("an input called as an argument of a step", spec("delta = eta*closure*g", inputs="closure = {}"), 5, 1,
     "'closure' is what a step is called with already", "another name"),
    ("an input of a keyword", spec("delta = eta*g", inputs="class = {}"), 5, 1, "'class' is a keyword of Python", ""),
    ("a state called p", spec(states="p = { init = 0 }"), 5, 1,
     "the state 'p' shadows the given name 'p', the parameter", ""),
    ("a flag called delta", spec(flags="'Δ' = {}"), 5, 1, "the flag 'delta' shadows the given name 'delta', the step",
     ""),
    ("a function's name", spec(states="max = { init = 0 }"), 5, 1, "the state 'max' shadows the function max()", ""),
    ("a keyword of Python", spec(flags="async = {}"), 5, 1, "'async' is a keyword of Python", ""),
    ("a state and a hyperparameter", spec(states="eta = { init = 0 }"), 5, 1,
     "the state 'eta' shadows the hyperparameter", ""),
    ("a flag and a hyperparameter", spec(flags="'η' = {}"), 5, 1, "the flag 'eta' shadows the hyperparameter",
     "another"),
    ("a spelling of beta[1]",
     spec("delta = beta[1]*beta[2]*beta1*g", hypers=f"{BETA}\nbeta1 = {{ default = 1, range = '[0, 1]' }}"),
     4, 1, "'beta1' is how callers may write beta[1]", "another"),
    *((f"a hyperparameter called {name}", spec(hypers=f"{ETA}\n{name} = {ONE}"), 4, 1,
       f"the hyperparameter {name!r} shadows the given name {name!r}, an extent", "another")
      for name in ("group", "tensor", "matrix", "row", "column")),
    ("a hyperparameter called size", spec(hypers=f"{ETA}\nsize = {ONE}"), 4, 1,
     "the hyperparameter 'size' shadows the given name 'size', the number of elements", "another"),
    ("a state called row", spec(states="row = { init = 0 }"), 5, 1, "the state 'row' shadows the given name 'row'", ""),
    ("a flag called matrix", spec(flags="matrix = {}"), 5, 1, "the flag 'matrix' shadows the given name 'matrix'", ""),
    ("a rule called norm", spec(name="name = 'norm'"), 1, 8, "the rule 'norm' shadows the function norm()", ""),
    ("a hyperparameter called mean", spec(hypers=f"{ETA}\nmean = {ONE}"), 4, 1, "shadows the function mean()", ""),
    ("a hyperparameter called floor", spec(hypers=f"{ETA}\nfloor = {ONE}"), 4, 1, "shadows the function floor()", ""),
    ("a hyperparameter called step", spec("delta = step*g", hypers="step = { default = 1, range = '[0, 1]' }"), 3, 1,
     "'step' is a name that every optimiser has for itself", "another"),
    ("seven flags",
     spec("delta = eta*g" + factors(7), flags=switches(7)),
     11, 1, "expected at most 6 flags, got 7", "two rules"),
    ("33 reductions",
     spec("delta = eta*g*(" + " + ".join(f"norm(g*{i})" for i in range(2, 35)) + ")"),
     5, 1, "expected at most 32 reductions, got 33", "two rules"),
    ("more than 2000 operations",
     spec(steps(500, "b{} = b{}*p + sqrt(g)")),
     5, 1, "expected at most 2000 operations, got 2003", "two rules"),
    ("many operations outside of formulas",
     spec(states="\n".join(f"s{i} = {{ init = '1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1' }}" for i in range(200))),
     206, 1, "expected at most 2000 operations, got 2002", "two rules"),
    ("many operations and many variants",
     spec(steps(100, "b{} = b{}*p + g") + factors(6), flags=switches(6)),
     12, 1, "expected at most 16000 operations in all variants, got 315 x 64", "two rules"),
    ("many operations behind many reductions",
     spec(steps(16, "b{0} = sum(g*b{1}, row) + p" + "*p"*16)),
     5, 1, "expected at most 4000 operations x (1 + reductions), got 323 x (1 + 16)", "two rules"),
    ("many reductions in many variants",
     spec(steps(8, "b{0} = sum(g*b{1})*p") + factors(6), flags=switches(6)),
     12, 1, "expected at most 16000 operations x (1 + reductions) in all variants, got 23616 in 64", "two rules"),
    ("flags that join to a flag", spec("delta = eta*g*(1 if a and b and a_b else 2)", flags="a = {}\nb = {}\na_b = {}"),
     7, 1, "two variants would be called 'a_b'", "rename"),
    ("a flag that joins to a variant for matrices",
     spec("delta = eta*g*(1 if a and a_matrix and matrix else 2)", flags="a = {}\na_matrix = {}"),
     6, 1, "two variants would be called 'a_matrix'", "rename"),
    ("a state of elements that always changes",
     spec("m = m + g\ndelta = eta*m", states="m = { init = 0, always = true }"), 5, 1,
     "'m': expected one value for all parameters (group), got one value for each element (element), of what changes in "
     "steps that do not count", 'extent = "group", always = true'),
    ("a report of elements", spec(reports="n = { value = 'abs(g)' }"), 9, 16,
     "'n': expected one value for each parameter (tensor), or of rows, columns, indices, matrices or blocks, got",
     "reduce it: mean(x), norm(x), max(x)"),
    ("a report of a step that is one number",
     spec("delta = eta + 0*mean(g)", reports="n = { value = '2*delta' }"), 9, 16,
     "'n': 'delta' is given on as one value for each element", "report what it is made of"),
    ("a report of a condition", spec(reports="n = { value = 'norm(g) > 1' }"), 9, 16,
     "'n': expected a number, got a condition", "write 1 if x > 0 else 0"),
    ("a report of an unknown name", spec(reports="n = { value = 'norm(h)' }"), 9, 21, "unknown name 'h'", ""),
    ("a report of no name", spec(reports="'a b' = { value = 'norm(g)' }"), 9, 1, "'a b' cannot be the name of a report",
     "a name is a letter"),
    ("a report of a random number", spec(reports="n = { value = 'mean(normal())' }"), 9, 21,
     "normal(): there are no random numbers in [evaluation] and [report]", "draw in [update]"),
    ("a report over the group of matrices only",
     spec(reports="n = { value = 'norm(g, group)', when = 'matrix' }"), 9, 16,
     "expected the same reductions over the group for every parameter, got norm", "inside of one reduction"),
    ("an unused hyperparameter", spec(hypers=f"{ETA}\nrho = {{ default = 1, range = '[0, 1]' }}"), 4, 1,
     "the hyperparameter 'rho' is never used", "remove"),
    ("an unused flag", spec(flags="f = {}"), 5, 1, "the flag 'f' is never used", "remove"),
    ("a state never written", spec("delta = eta*m", states=M), 5, 1, "the state 'm' is never written", "m = ..."),
    ("a state that a variant lacks",
     spec("m = m + g\ndelta = eta*m", flags="f = {}", states="m = { init = 0, when = 'f' }"),
     11, 13, "there is no state 'm' if not f", "a if flag else b"),
    ("delta missing", spec("m = m + eta*g", states=M), 7, 1,
     "no formula gives 'delta', what is subtracted from p, or 'p' itself", "delta = eta*g"),
    ("delta missing in a part", spec("m = m + eta*g", states=M, name=f"{PART}'gradient'"), 8, 1,
     "no formula gives 'delta', what goes on in the gradient's place", "delta = g*omega"),
    ("p missing in a part", spec("m = m + eta*new", states=M, name=f"{PART}'parameter'"), 8, 1,
     "no formula gives 'p', the new parameter", "p = new if t > 1 else p"),
    ("delta and p", spec("delta = eta*g\np = p - delta"), 7, 1, "both 'delta' and 'p' are assigned",
     "either delta, what is subtracted from p, or p itself"),
    ("p and delta", spec("p = p - eta*g\ndelta = eta*g"), 7, 1, "both 'delta' and 'p' are assigned", ""),
    ("p twice", spec("p = p - eta*g\np = p*2"), 7, 1, "'p' is assigned twice", ""),
    ("delta where p is assigned", spec("p = p - eta*delta"), 6, 13, "'delta' has no value where p itself is assigned",
     "p = p - step"),
    ("delta of a part that works on the parameter", spec("delta = eta*new", name=f"{PART}'parameter'"), 7, 1,
     "a part 'parameter' assigns 'p', got 'delta'", "'delta' goes on in the gradient's place"),
    ("p of a part that works on the gradient", spec("p = p - eta*g", name=f"{PART}'gradient'"), 7, 1,
     "a part 'gradient' assigns 'delta', got 'p'", "'p' is the new parameter"),
    ("new assigned in a part", spec("new = eta*g\ndelta = new", name=f"{PART}'gradient'"), 7, 1,
     "'new' is the parameter as the parts before leave it, which a rule does not assign", "another name"),
    ("a state called grad in a part", spec("delta = eta*g", name=f"{PART}'gradient'", states="grad = { init = 0 }"),
     6, 1, "the state 'grad' shadows the given name 'grad', the gradient before the chain", ""),
    ("a state called proceed", spec(states="proceed = { init = 0 }"), 5, 1,
     "the state 'proceed' shadows the given name 'proceed', whether the step goes on", "another"),
    ("a state called accept", spec(states="accept = { init = 0 }"), 5, 1,
     "the state 'accept' shadows the given name 'accept', whether the step counts", "another"),
    ("the gradient left as elements", spec("delta = eta*g\ngrad = g", name=f"{PART}'gradient'"), 8, 8,
     "'grad', what the gradient is left as: expected a number or a hyperparameter", "for example: grad = 0"),
    ("the gradient left by a rule", spec("delta = eta*g\ngrad = 0"), 7, 1, "'grad' is computed, but never used", ""),
    ("a condition for p", spec("p = p > eta"), 6, 5, "'p': expected a number, got a condition",
     "a if condition else b"),
    ("a condition for delta", spec("delta = g > eta"), 6, 9, "'delta': expected a number, got a condition",
     "a if condition else b"),
    ("a condition for a state", spec("m = g > eta\ndelta = m", states=M), 8, 5,
     "'m': expected a number, got a condition", "a if condition else b"),
    ("an initial value of the gradient", spec("m = m + eta*g\ndelta = m", states="m = { init = '2*g' }"), 5, 15,
     "expected an initial value made of", "first step"),
    ("an initial value of t", spec("m = m + eta*g\ndelta = m", states="m = { init = 't' }"), 5, 15,
     "expected an initial value made of", ""),
    ("an initial condition", spec("m = m + eta*g\ndelta = m", states="m = { init = '1 < 2' }"), 5, 15,
     "expected an initial value made of", ""),
    ("a broken initial value", spec("m = m + g\ndelta = m", states="m = { init = 'eta +' }"), 5, 20,
     "expected an expression", ""),
    ("a state from a later state",
     spec("m = m + eta*g\nv = g\ndelta = v + m", states="m = { init = 'v' }\nv = { init = 0 }"), 5, 15,
     "expected an initial value made of", ""),
    ("a condition on a value", spec("m = m + eta*g\ndelta = m", states="m = { init = 0, when = 'eta' }"), 5, 25,
     "expected a condition of flags (flag, not, and, or)", "flags: matrix"),
    # Flags that hyperparameters decide, and flags that require others.
    ("a default that is a number", flagged("default = 'eta + 1'"), 5, 18,
     "'f': expected true, false, or a condition of hyperparameters as the default", "momentum != 0"),
    ("a default of the gradient", flagged("default = 'eta > g'"), 5, 24,
     "'f': expected true, false, or a condition of hyperparameters as the default", ""),
    ("a default of the count", flagged("default = 't > 1'"), 5, 18,
     "'f': expected true, false, or a condition of hyperparameters as the default", ""),
    ("a default of a state", spec("m = g\ndelta = eta*m*(1 if f else 2)", flags="f = { default = 'm > 0' }", states=M),
     5, 18, "'f': expected true, false, or a condition of hyperparameters as the default", ""),
    ("a default of a flag", flagged("", "default = 'not e'"), 6, 22,
     "'f': expected true, false, or a condition of hyperparameters as the default", "is said by: requires"),
    ("a default by matrix", flagged("default = 'matrix'"), 5, 18,
     "'f': expected true, false, or a condition of hyperparameters as the default", "is said by: requires"),
    ("a default of a reduction", flagged("default = 'sum(eta) > 1'"), 5, 18,
     "sum() over a parameter was given a constant", ""),
    ("a default of too many values",
     spec("delta = beta[1]*g*(1 if f else beta[2])", hypers=BETA, flags="f = { default = 'beta[3] > 1' }"),
     5, 18, "expected beta[1] to beta[2], got beta[3]", ""),
    ("a requirement of a value", flagged("requires = 'eta > 0'"), 5, 19,
     "expected a condition of flags (flag, not, and, or)", "flags: none here"),
    ("a requirement of itself", flagged("", "requires = 'not f'"),
     6, 23, "expected a condition of flags", "flags: e"),
    ("a requirement by matrix", flagged("requires = 'matrix'"), 5, 19,
     "expected a condition of flags", "flags: none here"),
    ("a requirement of an unknown flag",
     flagged("", "requires = 'e or q'"), 6, 24,
     "expected a condition of flags", "flags: e"),
    ("a flag that is only required", spec("delta = eta*g*(1 if f else 2)", flags="e = {}\nf = { requires = 'e' }"),
     5, 1, "the flag 'e' is never used", ""),
    ("defaults that contradict each other",
     flagged("", "default = true, requires = 'e'"), 6, 35,
     "'f' is set by default, and what it requires is not: e", "agree"),
    ("defaults that contradict each other by a hyperparameter",
     flagged("default = 'eta > 1'", "default = true, requires = 'e'"),
     6, 35, "'f' is set by default, and what it requires is not: e", ""),
    ("a flag that can never be set",
     flagged("", "requires = 'e and not e'"), 6, 19,
     "'f' can never be set, since it requires e and not e", "what the other flags allow"),
    ("a flag that another one rules out",
     flagged("requires = 'not f'", "requires = 'e'"), 6, 19,
     "'f' can never be set, since it requires e", ""),
    # Extents.
    ("a tensor's state that starts as p", kept("k = norm(g)", "tensor", "p"),
     5, 15, "'k': expected one value for each parameter (tensor), got one value for each element (element)",
     "may start as p"),
    ("a row's state that starts as p",
     kept("k = mean(g, row)", "row", "2*p"), 5, 15,
     "'k': expected one value for each row (row), got one value for each element (element)", ""),
    ("a state that starts as a norm", kept("k = norm(g)", "tensor", "norm(p)"),
     5, 15, "expected an initial value made of numbers, hyperparameters and p", "first step"),
    ("a state that starts as the size", kept("k = norm(g)", "tensor", "size"),
     5, 15, "expected an initial value made of", ""),
    ("an element for a tensor", kept("k = k + g", "tensor"), 8, 5,
     "'k': expected one value for each parameter (tensor), got one value for each element (element)",
     "sum(x), mean(x), norm(x); or give the state another extent"),
    ("a tensor for the group", kept("k = k + norm(g)", "group"), 8, 5,
     "'k': expected one value for all parameters (group), got one value for each parameter (tensor)", ""),
    ("the size for the group", kept("k = size", "group"), 8, 5,
     "'k': expected one value for all parameters (group), got one value for each parameter (tensor)", ""),
    ("an element for the group", kept("k = p", "group"), 8, 5,
     "'k': expected one value for all parameters (group), got one value for each element (element)", ""),
    ("a row for a column", kept("k = mean(g, row)", "column"), 8, 5,
     "'k': expected one value for each column (column), got one value for each row (row)", ""),
    ("a row for a matrix", kept("k = mean(g, row)", "matrix"), 8, 5,
     "'k': expected one value for each matrix (matrix), got one value for each row (row)", ""),
    ("row and column for a row",
     kept("k = mean(g, row)*mean(g, column)", "row"), 8, 5,
     "'k': expected one value for each row (row), got one value for each element (element)", ""),
    ("a row's state of no matrix",
     kept("k = mean(g, row) if matrix else 1", "row"), 5, 28,
     "'k' has one value for each row (row), and there is none where the parameter is no matrix", 'when = "matrix"'),
    # What a step of matrices and others has in common.
    ("a norm of matrices only", spec("n = norm(g, group) if matrix else 1\ndelta = eta*n*g"), 6, 5,
     "expected the same reductions over the group for every parameter, got norm for matrices and none for others",
     "choose inside of one reduction"),
    ("other reductions of matrices", spec("n = norm(g, group) if matrix else mean(g, group)\ndelta = eta*n*g"), 6, 5,
     "got norm for matrices and mean for others", ""),
    ("reductions in another order",
     spec("n = norm(g, group)\nd = sum(n*g, group)/max(p, group) if matrix else max(p, group)/sum(g, group)\np = d"),
     7, 5, "got sum, max for matrices and max, sum for others", ""),
    ("a reduction in a state of matrices",
     spec("k = norm(g, group) + 0*mean(g, row)\ndelta = eta*g*(sum(k) if matrix else 1)",
          states="k = { init = 0, extent = 'row', when = 'matrix' }"), 8, 5,
     "got norm for matrices and none for others", ""),
    ("a state of the group for matrices only",
     spec("k = k + 1\ndelta = eta*g*(k if matrix else 1)", states=f"k = {GROUP[:-1]}, when = 'matrix' }}"), 5, 1,
     "'k' is one for all parameters, got another one for matrices than for others", '"when" and "init"'),
    ("a state of the group that starts by the shape",
     kept("k = k + 1*(1 if matrix else 1)", "group", "1 if matrix else 2"), 5, 1,
     "'k' is one for all parameters, got another one for matrices than for others", ""),
    ("a state of the group that goes by the shape",
     kept("n = norm(g, group)\nk = k + (n if matrix else 2*n)", "group"), 9, 5,
     "'k' is one for all parameters, got another one for matrices than for others", "inside of reductions"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"), [row[1:] for row in FORM], ids=[row[0] for row in FORM]
)
def test_a_fault_of_form_is_reported_where_it_stands(
    text: str, line: int, column: int, message: str, hint: str
) -> None:
    found = [d for d in faults(text) if message in d.message]
    assert [(d.span.line, d.span.column) for d in found] == [(line, column)]
    assert hint in (found[0].hint or "")


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"), [row[1:] for row in NAMES], ids=[row[0] for row in NAMES]
)
def test_a_fault_of_names_is_reported_where_it_stands(
    text: str, line: int, column: int, message: str, hint: str
) -> None:
    found = [d for d in faults(text) if message in d.message]
    assert [(d.span.line, d.span.column) for d in found] == [(line, column)]
    assert hint in (found[0].hint or "")


@pytest.mark.parametrize(
    ("source", "column", "message", "hint"), [row[1:] for row in FORMULAS], ids=[row[0] for row in FORMULAS]
)
def test_a_faulty_formula_gives_one_fault_where_it_stands(source: str, column: int, message: str, hint: str) -> None:
    (fault,) = faults(formula_spec(source))
    assert (fault.span.line, fault.span.column) == (12, column)
    assert message in fault.message
    assert hint in (fault.hint or "")


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
@pytest.mark.parametrize("what", ["hyperparameter", "flag"])
def test_no_argument_takes_a_name_of_the_optimiser_itself(name: str, what: str) -> None:
    text = {
        "hyperparameter": spec(f"delta = {name}*g", hypers=ETA.replace("eta", name, 1)),
        "flag": spec(f"delta = eta*g*(1 if {name} else 2)", flags=f"{name} = {{}}"),
    }[what]
    assert [d.message for d in faults(text)] == [f"{name!r} is a name that every optimiser has for itself"]


def test_the_tables_raise_every_fault_that_the_front_end_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call that reports a fault, found in the source text, is on the stack when some fault of the tables is."""
    reached: set[tuple[str, int]] = set()

    class Recorded(Diagnostic):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            frame = sys._getframe()
            while (frame := frame.f_back) and "optgen" in frame.f_code.co_filename:  # type: ignore[assignment]
                reached.add((frame.f_code.co_filename, frame.f_lineno))

    sites: list[tuple[str, ast.Call]] = []
    for path in (PACKAGE / "language").glob("*.py"):
        module = sys.modules["optgen.language" if path.stem == "__init__" else f"optgen.language.{path.stem}"]
        monkeypatch.setattr(module, "Diagnostic", Recorded, raising=False)  # others report through `resolve`
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name not in ("fault", "fault_at", "warn"):
                calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
                names = ("fault", "fault_at", "Diagnostic")
                sites += [(str(path), c) for c in calls if ast.unparse(c.func).split(".")[-1] in names]
    assert len(sites) > 60

    for text in (
        *(row[1] for row in (*FORM, *NAMES, *OF_BLOCKS, *OF_INDICES)),
        *(formula_spec(row[1]) for row in FORMULAS),
        *DEEP.values(),
        *FAULTY,
    ):
        faults(text)
    missed = [
        f"{file}:{call.lineno} {ast.unparse(call)}"
        for file, call in sites
        if not any((file, line) in reached for line in range(call.lineno, (call.end_lineno or 0) + 1))
    ]
    assert missed == []


# ---- Loops ----

LOOPED = """
total = 0
for k in range(3, 1, -1):
    h[k] = h[k-1]   # the oldest first

h[1] = g
for b in beta:
    u[b] = b*h[1]
    for k in range(1, 1 + len(h)):

        # which may stand anywhere
        total = total + u[b]*h[k]/k
most = max(abs(h[k]) for k in range(1, 4))
delta = eta*(total + most*sum(c for c in beta) + mean(u[b] for b in beta))
"""
#: The same by hand.
UNROLLED = """
h3 = h2
h2 = h1
h1 = g
u1 = beta[1]*h1
a1 = 0 + u1*h1/1
a2 = a1 + u1*h2/2
a3 = a2 + u1*h3/3
u2 = beta[2]*h1
a4 = a3 + u2*h1/1
a5 = a4 + u2*h2/2
a6 = a5 + u2*h3/3
most = max(max(abs(h1), abs(h2)), abs(h3))
delta = eta*(a6 + most*(beta[1] + beta[2]) + (u1 + u2)/2)
"""


def test_a_loop_is_its_turns_written_out():
    hypers = f"{ETA}\n{BETA}"
    (looped,) = rules(spec(LOOPED, hypers=hypers, states="h = { init = 0, each = 3 }"))
    (plain,) = rules(spec(UNROLLED, hypers=hypers, states="\n".join(f"h{i} = {{ init = 0 }}" for i in (1, 2, 3))))
    assert looped.states == plain.states
    rng = np.random.default_rng(0)
    ends = []
    for rule in (looped, plain):
        arrays = {name: np.full(5, 0.5) for name in ("p", "g", "h1", "h2", "h3")}
        rng = np.random.default_rng(1)
        for t in range(1, 6):
            arrays["g"][:] = rng.standard_normal(5)
            interp.step(rule, {"eta": (0.1,), "beta": (0.9, 0.999)}, t, arrays)
        ends.append({name: array.tobytes() for name, array in arrays.items()})
    assert ends[0] == ends[1]


def test_a_name_that_a_loop_assigns_keeps_it_for_the_last_value():
    text = spec("x = g\nfor b in beta:\n    x = b*x\ndelta = eta*x", hypers=f"{ETA}\n{BETA}")
    assert body(text, matrix=None) == {
        "x_1": "g", "x_2": "β₁·x_1", "x": "β₂·x_2", "delta": "η·x", "p": "p − Δ"
    }  # fmt: skip


def test_a_state_that_a_loop_assigns_goes_from_turn_to_turn():
    text = spec("for b in beta:\n    m = b*m + g\ndelta = eta*m", hypers=f"{ETA}\n{BETA}", states=M)
    assert body(text, matrix=None) == {"m_1": "β₁·m + g", "m": "β₂·m_1 + g", "delta": "η·m", "p": "p − Δ"}


def test_states_for_the_values_of_a_list_have_their_flag_and_extent_too():
    text = spec(
        "for b in beta:\n    v[b] = b*v[b] + norm(g)\ndelta = eta*g*(sum(v[b] for b in beta) if f else 1)",
        hypers=f"{ETA}\n{BETA}", flags="f = {}",
        states="v = { init = 'eta', extent = 'tensor', when = 'f', each = 'beta', doc = 'lengths' }",
    )  # fmt: skip
    without, with_f = sorted(rules(text), key=lambda rule: rule.flags[0].value)
    assert not without.states
    assert [(s.name, s.extent, s.doc) for s in with_f.states] == [(f"v{i}", Extent.TENSOR, "lengths") for i in (1, 2)]


# ---- Choices ----


def body(text: str, **choice: bool) -> dict[str, str]:
    """The formulas of the variant with these flags, by what they assign."""
    (rule,) = (r for r in rules(text) if {f.name: f.value for f in r.flags} | {"matrix": r.matrix} == choice)
    return {a.target: expression(a.value) for a in rule.body}


def test_one_notation_chooses_by_flags_by_the_count_and_by_elements():
    text = spec("delta = eta*(g if f else 2*g if t == 1 and not f else 3*g if g > 0 else 4*g)", flags="f = {}")
    assert body(text, f=True, matrix=None)["delta"] == "η·g"
    assert body(text, f=False, matrix=None)["delta"] == "η·(2·g if t = 1 else (3·g if g > 0 else 4·g))"


@pytest.mark.parametrize(
    ("test", "when_f", "when_not_f"),
    [
        ("f and g > 0", "(g if g > 0 else −g)", "−g"),
        ("g > 0 and f", "(g if g > 0 else −g)", "−g"),
        ("f or g > 0", "g", "(g if g > 0 else −g)"),
        ("g > 0 or not f", "(g if g > 0 else −g)", "g"),
        ("not (f and g > 0)", "(g if not g > 0 else −g)", "g"),
    ],
)
@pytest.mark.parametrize("choice", ["g if {} else -g", "where({}, g, -g)"])
def test_a_condition_may_join_flags_and_values(test, when_f, when_not_f, choice):
    text = spec(f"delta = {choice.format(test)}\nx = eta\np0 = x", flags="f = {}").replace("\nx = eta\np0 = x", "*eta")
    for f, expected in ((True, when_f), (False, when_not_f)):
        assert body(text, f=f, matrix=None)["delta"].replace("·η", "") in (expected, f"({expected})")


def test_what_only_one_side_needs_is_not_asked_of_the_other():
    text = spec("x = mean(g, row)\ny = 2*x\ndelta = eta*(g - y if matrix else g)")
    assert [*body(text, matrix=True)] == ["x", "y", "delta", "p"]
    assert [*body(text, matrix=False)] == ["delta", "p"]


@pytest.mark.parametrize("test", ["f and m > 0", "m > 0 and f", "not (m <= 0 or not f)"])
def test_what_a_decided_test_needs_is_not_asked_either(test):
    text = spec(f"delta = eta*(g if {test} else 2*g)\nm = g", flags="f = {}", states='m = { init = 0, when = "f" }')
    assert "m" in body(text, f=True, matrix=None)["delta"]
    assert body(text, f=False, matrix=None)["delta"] == "η·(2·g)"


def test_the_given_flag_decides_in_either_spelling():
    for choice in ("g if matrix and g > 0 else 2*g", "where(matrix and g > 0, g, 2*g)"):
        text = spec(f"delta = eta*({choice})")
        assert body(text, matrix=True)["delta"] == "η·(g if g > 0 else 2·g)"
        assert body(text, matrix=False)["delta"] == "η·(2·g)"


def test_a_reduction_over_the_group_is_of_every_parameter():
    text = spec("n = norm(g, group)\nx = 1/n\ndelta = eta*(g*x if matrix else g)")
    assert [*body(text, matrix=True)] == ["n", "x", "delta", "p"]
    assert [*body(text, matrix=False)] == ["n", "delta", "p"]


def test_rows_and_columns_are_counted():
    text = spec("delta = eta*g*(rows/columns if matrix else size)")
    assert body(text, matrix=True)["delta"] == "η·g·(rows/columns)"
    p = np.zeros((2, 4, 3))
    classes.module_class(driver.compile_text(text, "counts.toml"))(1.0).step([p], [np.ones(p.shape)])
    assert (p == -4 / 3).all()


@pytest.mark.parametrize("name", ["clip", "rows_", "row_count"])
def test_names_of_functions_that_are_written_out_are_free(name):
    assert rules(spec(f"{name} = 2*g\ndelta = eta*{name}"))


def test_a_hyperparameter_without_a_range_takes_every_number():
    (hyper,) = rules(spec(hypers="eta = { default = -3 }"))[0].hypers
    assert str(hyper.ranges[0]) == "(-inf, inf)"
    (hyper,) = rules(spec(hypers="eta = { default = inf, range = '[0, inf]' }"))[0].hypers
    assert hyper.default == (np.inf,)


@pytest.mark.parametrize(
    ("formula", "flags", "said"),
    [
        ("delta = eta*g", "", "rule.toml:5:1: the state 'm' is written, but never read"),
        ("delta = eta*(p + m if f else g)", "f = {}", "the state 'm' is written, but never read, if not f"),
    ],
)
def test_a_state_may_be_kept_to_be_looked_at_with_a_warning(formula, flags, said):
    with pytest.warns(SpecWarning, match=re.escape(said)):
        found = rules(spec(f"m = g\n{formula}", flags=flags, states=M))
    assert all("m" in {a.target for a in rule.body} for rule in found)


# ---- Depth and size ----

DEEP = {
    "brackets": spec(f"delta = eta*{'(' * 300}g{')' * 300}"),
    "minus after minus": spec(f"delta = eta*{'-' * 60_000}g"),
    "plus after plus": spec(f"delta = {'+' * 1000}eta*g"),
    "a long sum": spec(f"delta = eta*g{'+g' * 30_000}"),
    "a sum of 101": spec(f"delta = eta*g{'+g' * 101}"),
    "powers of powers": spec(f"delta = eta*g{'**2' * 20_000}"),
    "not after not": spec(f"delta = where({'not ' * 15_000} g > 0, eta*g, g)"),
    "a long `and`": spec(f"delta = eta*where(g > 0{' and g > 0' * 6000}, 1, 0)"),
    "`and` and `or` in turn":
        spec(f"delta = eta*where({'(' * 60}g > 0{(' and g > 0' * 20 + ' or g > 0)') * 60}, 1, 0)"),
    "calls in calls": spec(f"delta = eta*{'sqrt(' * 90}g{')' * 90} + {'abs(' * 150}g{')' * 150}"),
    "choices in choices": spec(f"delta = eta*({'g if f else ' * 5000}g)", flags="f = {}"),
    "dots": spec(f"delta = eta*g{'.a' * 20_000}"),
    "indices": spec(f"delta = eta*g{'[1]' * 20_000}"),
    "4500 unknown names": spec("\n".join(f"a{i} = b{i}" for i in range(4500))),
    "3000 unknown names in 64 variants": spec(
        "\n".join(f"a{i} = b{i}" for i in range(3000)) + "\ndelta = eta*g" + factors(6),
        flags=switches(6),
    ),
    "a formula of 1 MB": spec(f"delta = eta*g{'*(g + 1)' * 130_000}"),
}  # fmt: skip


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_a_spec_too_deep_or_too_large_is_refused_in_reasonable_time(text: str) -> None:
    start = time.process_time()
    assert faults(text)
    assert time.process_time() - start < 10


WIDE = {
    "100 terms": spec(f"delta = eta*(g{'+g' * 90})"),
    "powers of powers": spec("delta = eta*((((g**64)**64)**64)**64)**63"),
    "a bush": spec("a = " + "*".join([f"({'+'.join(['(g*eta + 1)'] * 50)})"] * 12) + "\ndelta = a"),
    "900 formulas": spec("a0 = eta*g\n" + "\n".join(f"a{i + 1} = a{i}*a{i}" for i in range(900)) + "\ndelta = a900"),
    "100 formulas in 64 variants": spec(
        "a0 = eta*g" + factors(6)
        + "".join(f"\na{i + 1} = a{i}*a{i}" for i in range(100)) + "\ndelta = a100",
        flags=switches(6),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("text", WIDE.values(), ids=WIDE)
def test_a_wide_spec_is_compiled_in_reasonable_time(text: str) -> None:
    start = time.process_time()
    assert driver.compile_text(text, "wide.toml").c_source
    assert time.process_time() - start < 20


# ---- All at once ----


def test_all_faults_of_a_spec_are_reported_at_once_in_the_order_of_their_places() -> None:
    text = """\
name = "ten faults"
sumary = "x"
[hyperparameters]
eta = { default = 2, range = "[0, 1]" }
rho = { default = 0.9, range = "[0, 1]" }
[flags]
f = { default = 1 }
[state]
m = { init = "0" }
v = { init = "g" }
[update]
formulas = '''
m = rho^m + g
v = v + gg*(1 if f else 2)
x = sqrt(v, 2)
delta = (m).real
'''
"""
    assert described(text) == [
        "1:8 'ten faults' cannot be the name of a rule",
        "2:1 unknown key 'sumary'",
        "4:1 the hyperparameter 'eta' is never used",
        "4:19 the default 2 of 'eta' is out of its range [0, 1]",
        "7:17 expected true or false as the default of a flag, got a number",
        "10:15 expected an initial value made of numbers, hyperparameters and p",
        "13:8 `^` is not a power here",
        "14:9 unknown name 'gg'",
        "15:1 'x' is computed, but never used",
        "15:5 sqrt(): expected 1 argument, got 2",
        "16:9 expected numbers, names, operators and functions; got an attribute (a dot)",
    ]


def test_a_fault_in_all_of_64_variants_is_reported_once() -> None:
    text = spec(f"delta = eta*q*g{factors(6)}", flags=switches(6))
    assert described(text) == ["13:13 unknown name 'q'"]


def test_a_fault_in_one_of_two_variants_is_reported() -> None:
    assert described(spec("delta = eta*(q if f else g)", flags="f = {}")) == ["8:14 unknown name 'q'"]


def test_no_fault_follows_from_another() -> None:
    """Names in what could not be read are neither unused nor unknown, and nothing is said twice."""
    hypers = f"{ETA}\nrho = {{ default = 0.9, range = '[0, 1]' }}"
    assert described(spec("m = rho*m + + * g\ndelta = eta*m", hypers=hypers, states=M)) == [
        "9:15 expected a formula, `name = expression`: invalid syntax"
    ]
    assert len(faults(spec("x = rho*q\ny = x + eta\ndelta = y*g", hypers=hypers))) == 1
    assert len(faults(spec("delta = eta*g*(rho if q else rho)", hypers=hypers))) == 1
    assert len(faults(spec("m = m + g\ndelta = eta*m", states="m = { init = 'rho +' }", hypers=hypers))) == 1
    assert len(faults("name = 'R'\n[hyperparameters]\n" + hypers)) == 1
    assert len(faults(spec("m = m + g\ndelta = eta*m", states="m = { init = 0, when = 'q' }"))) == 1


# ---- The caret ----


def caret(text: str) -> str:
    """The character over the caret of the only fault."""
    with pytest.raises(SpecError) as caught:
        rules(text)
    (fault,) = caught.value.diagnostics
    line, mark = str(caught.value).split("\n")[2:4]
    assert len(mark.expandtabs()) <= len(line.expandtabs()) + 1
    padding = mark.split("^")[0]
    assert [c for c in padding if c not in " |\t"] == []
    under = line[len(padding) : len(padding) + mark.count("^")]
    source = text.replace("\r\n", "\n").split("\n")[fault.span.line - 1]
    assert source[fault.span.column - 1 :].startswith(under)
    assert line[: len(padding)].count("\t") == padding.count("\t")
    return under


@pytest.mark.parametrize(
    ("text", "under"),
    [
        (spec("delta = η*qq*g"), "qq"),
        (spec("\tdelta\t=\tη *\tqq"), "qq"),
        (spec("β = η\nγ = β*β*(β + ω)*ϵ\nδ = γ*g", hypers=ETA), None),
        (spec("delta = eta*max(g,\n   η*\n\tqq)"), "qq"),
        (spec("delta = (eta +  # ( ] a remark\n  g*qq)"), "qq"),
        (spec("delta = η*g*(1 if ff\n  else 2)"), "ff"),
        (spec("delta = η*g + β(g)"), "β(g)"),
        (spec("delta = 'η' + eta*g"), "'η'"),
        (spec("delta = eta*(g * )"), ")"),
        (spec("delta = ηη*g*eta"), "ηη"),
        (spec(hypers=ETA.replace("eta =", '"η"\t=').replace("0.1", "-1")), "-1"),
        (spec("m = m + g\ndelta = η*m", states="m\t= { doc = 'µ', init = ' qq ' }"), "qq"),
        (spec("m = m + g\ndelta = η*m", states="m = { init = '''\n1 + qq''' }".replace("\n", "")), "qq"),
        (spec(name="name = 'R'\nsummary = '''\n a\n'''\nnane = 1"), "nane"),
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_the_caret_stands_under_what_is_wrong(text: str, under: str | None, ends: str) -> None:
    text = text.replace("\n", ends)
    if under is None:
        assert [(d.span, d.message) for d in faults(text)] == [
            (Span(7, 14, 1), "unknown name 'ω'"),
            (Span(7, 17, 1), "unknown name 'ϵ'"),
        ]
    else:
        assert caret(text) == under


def test_the_caret_stands_at_its_character_in_a_line_of_thousands() -> None:
    assert caret(spec("delta = " + "η*" * 40 + "qq * g  # " + "η" * 4000)) == "qq"


# ---- Names ----


def test_greek_and_ascii_are_one_spelling() -> None:
    greek = spec("μ = β[1]*μ + β[2]*g\nΔ = η*μ", hypers=f"'η'{ETA[3:]}\n\"β\"{BETA[4:]}", states='"µ" = { init = "0" }')
    ascii_ = spec("mu = beta[1]*mu + beta[2]*g\ndelta = eta*mu", hypers=f"{ETA}\n{BETA}", states='mu = { init = "0" }')
    assert rules(greek) == rules(ascii_)


@pytest.mark.parametrize("word", ["ε", "ϵ", "eps"])
def test_all_letters_epsilon_are_one_name(word: str) -> None:
    (rule,) = rules(spec(f"delta = {word}*g", hypers=f'"{word}"{ETA[3:]}'))
    assert [hyper.name for hyper in rule.hypers] == ["eps"]


# ---- What may be said ----


@pytest.mark.parametrize("extent", ["row", "column", "matrix", "tensor", "group"])
def test_a_state_of_lesser_extent_takes_what_has_no_more_values(extent: str) -> None:
    reduced = (f"max(abs(g), {extent})", f"where(k > t, k, sum(p, {extent}))")
    for value in ("1", "eta", "t", "norm(p, group)", "k + 1", *reduced):
        (rule,) = rules(kept(f"k = {value}", extent))
        assert [state.extent.name.lower() for state in rule.states] == [extent]
        assert rule.tiled == (extent in ("row", "column", "matrix"))
        assert rule.matrix is (True if rule.tiled else None)


def test_the_extent_of_a_reduction_is_what_it_is_told_and_rows_and_columns_make_elements() -> None:
    formulas = "r = mean(g, row)\nc = max(g, column)\nm = min(r, matrix)\nn = dot(g, p)\ns = norm(n, group)\ne = r*c"
    (rule,) = rules(spec(f"{formulas}\nx = sum(r*n) + sum(m + t, group)\ndelta = e*m*n*s*x*eta"))
    extents = {a.target: extent_of(a.value).name for a in rule.body}
    expected = {"r": "ROW", "c": "COLUMN", "m": "MATRIX", "n": "TENSOR", "s": "GROUP", "e": "ELEMENT", "x": "TENSOR"}
    assert {name: extents[name] for name in expected} == expected


def test_of_two_arguments_it_is_the_larger_and_of_one_the_largest() -> None:
    (rule,) = rules(spec("x = max(g, p)\ny = max(g)\nz = max(g, group)\ndelta = x*y*z*eta"))
    found = {a.target: (type(a.value), extent_of(a.value)) for a in rule.body}
    assert found["x"] == (Call, Extent.ELEMENT)
    assert found["y"] == (Reduce, Extent.TENSOR)
    assert found["z"] == (Reduce, Extent.GROUP)


def test_a_rule_may_assign_the_parameter_and_reads_what_it_has_assigned_from_there_on() -> None:
    (rule,) = rules(spec("p = p - eta*g\nq = p + q", states="q = { init = 'p' }"))
    assert [a.target for a in rule.body] == ["p", "q"]
    assert rule.body[1].value == Call("add", (Local("p", Extent.ELEMENT, Type.REAL), Load("q")))


@pytest.mark.parametrize("value", ["t > 1", "eta > 1", "norm(g) < 1", "sum(abs(g), group) < 1 and size > 1"])
@pytest.mark.parametrize("part", ["", "\npart = 'gradient'"])
def test_what_others_wait_for_is_a_condition_of_a_parameter_or_less(value: str, part: str) -> None:
    text = spec(f"proceed = {value}\ndelta = eta*g", name=f"name = 'R'{part}")
    (rule,) = check_open(parse(text, "rule.toml"))
    assert rule.body[0].target == "proceed"


def test_what_parts_are_given_is_free_for_names_of_a_rule() -> None:
    text = spec("grad = g + new\nnew = new + grad\ndelta = eta*new", states="new = { init = 0 }")
    (rule,) = rules(text)
    p, new = np.zeros(3), np.full(3, 2.0)
    interp.step(rule, {"eta": (1.0,)}, 1, {"p": p, "g": np.ones(3), "new": new})
    assert (new.tolist(), p.tolist()) == ([5.0] * 3, [-5.0] * 3)


def test_each_value_of_a_hyperparameter_may_have_a_range_of_its_own() -> None:
    for range_, expected in (('"[0, 1)"', "[0, 1)"), ('["[0, 1)", "(0.5, inf)"]', "[0, 1) and (0.5, inf)")):
        (rule,) = rules(spec("delta = beta[1]*beta[2]*g", hypers=BETA.replace('"[0, 1)"', range_)))
        (hyper,) = rule.hypers
        assert (hyper.range, len(hyper.ranges)) == (expected, 2)
    three = "h = { default = [1, 2, 3], range = ['[0, 1]', '[0, 2]', '[0, 3]'] }"
    (rule,) = rules(spec("delta = h[1]*h[2]*h[3]*g", hypers=three))
    assert rule.hypers[0].range == "[0, 1], [0, 2] and [0, 3]"


CHOICES = """
name = "Choices"
[hyperparameters]
rho = { default = 0, range = "[0, 1)" }
eta = { default = 0.1, range = "[0, 1)" }
[flags]
kept  = { default = "rho != 0" }
ahead = { requires = "kept" }
[state]
m = { init = 0, when = "kept" }
[update]
formulas = '''
m     = rho*m + g
d     = (g + rho*m if ahead else m) if kept else g
delta = eta*d*(1 if matrix else 2)
'''
"""


@pytest.mark.parametrize(
    ("rho", "defaults", "variants"),
    [("0", [False, False], ["", "kept", "kept_ahead"]), ("0.9", [True, False], ["kept", "kept_ahead", ""])],
)
def test_a_flag_may_be_decided_by_hyperparameters_and_require_others(
    rho: str, defaults: list[bool], variants: list[str]
) -> None:
    found = rules(CHOICES.replace("rho = { default = 0,", f"rho = {{ default = {rho},"))
    assert [flag.default for flag in found[0].flags] == defaults
    assert [rule.variant for rule in found] == [*(f"{v}_matrix".lstrip("_") for v in variants), *variants]
    assert found[0].flags[0].when == Call("ne", (Scalar("rho", 0), Const(0.0)))
    assert [flag.requires for flag in found[0].flags] == ["", "kept"]


def test_a_flag_of_hyperparameters_at_fault_is_not_decided() -> None:
    text = CHOICES.replace('rho = { default = 0, range = "[0, 1)" }', "rho = { default = 0, range = 'x' }")
    assert described(text) == ["4:30 expected a range, got 'x'"]
    text = CHOICES.replace("rho != 0", "rho != ").replace('requires = "kept"', 'default = true, requires = "kept"')
    assert [message.split(" ", 1)[1] for message in described(text)] == ["expected an expression: invalid syntax"]


def test_one_reduction_over_the_group_may_take_other_things_of_matrices() -> None:
    matrix, other = rules(kept("n = norm(g*mean(g, row) if matrix else p, group)\nk = max(k, n)*t", "group"))
    assert (matrix.matrix, other.matrix) == (True, False)
    assert matrix.body[0] != other.body[0]
    assert matrix.body[1] == other.body[1]


# ---- Text that goes no further than comments ----

EVIL = [
    '*/ int main(void) { system("sh"); } /*',
    '"""\nimport os\n"""',
    "\\",
    'ends in a quote "',
    'ends in quotes """',
    "ends in a backslash \\",
    "%} {% raw %} {{ 7*7 }} {# x #}",
    "\N{RIGHT-TO-LEFT OVERRIDE}\N{LEFT-TO-RIGHT ISOLATE}\N{LINE SEPARATOR}\N{NEXT LINE}\N{ZERO WIDTH SPACE}",
    "a\nb\r\n#define g 0\n",
    "??/\n??*/ // /* */",
    "ends in a trigraph ??/",
    "trigraphs " + "".join(f"what??{letter} ???{letter}" for letter in "=/'()!<>-") + " *??/",
    "*\\\n/",
    "{f} {0} {} {{f}}",
    "'); raise SystemExit #",
    "Ångström, 漢字, 🙂",
]  # fmt: skip


def evil_spec(text: str) -> str:
    """A spec with `text` wherever text may stand."""
    quoted = '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'
    return f"""\
name = "Evil"
summary = {quoted}
reference = {quoted}
[hyperparameters]
eta = {{ default = 0.1, range = "[0, inf)", doc = {quoted} }}
[flags]
fast = {{ doc = {quoted} }}
[state]
m = {{ init = "eta", doc = {quoted} }}
[update]
formulas = '''
m = m + g  # {"".join(c for c in text if c.isprintable()).replace("'''", "")}
delta = eta*m*(2 if fast else 1)
'''
"""


def complaints(path: Path) -> str:
    """What the compiler says of a C file, with all warnings."""
    flags = [*FLAGS, "-Wall", "-Wno-unused-function", "-fsyntax-only"]
    return subprocess.run([*find_compiler().command, *flags, str(path)], capture_output=True, text=True).stderr


def code_of_c(source: str) -> str:
    """C without its comments, as a compiler takes them out: trigraphs and line splices first."""
    return re.sub(r"/\*.*?\*/", " ", source.replace("??/", "\\").replace("\\\n", ""), flags=re.DOTALL)


@pytest.fixture(scope="module")
def plain() -> driver.Compilation:
    return driver.compile_text(evil_spec("plain words"), "evil.toml")


@pytest.mark.parametrize("text", EVIL)
def test_no_text_of_a_spec_gets_into_c_but_in_comments(text: str, plain: driver.Compilation, tmp_path: Path) -> None:
    compiled = driver.compile_text(evil_spec(text), "evil.toml")
    assert code_of_c(compiled.c_source) == code_of_c(plain.c_source)
    bad = {c for c in compiled.c_source if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    assert bad == {"\n"}
    path = tmp_path / "evil.c"
    path.write_text(compiled.c_source, "utf-8")
    assert complaints(path) == ""


def shape(tree: ast.AST) -> str:
    """A Python module without its docstrings and without the text of the spec."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef) and ast.get_docstring(node) is not None:
            del node.body[0]
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_TEXT":
            assert isinstance(node.value, ast.Constant)
            node.value = ast.Constant("")
    return ast.unparse(tree)


@pytest.mark.parametrize("text", EVIL)
def test_no_text_of_a_spec_gets_into_python_but_in_strings(text: str, plain: driver.Compilation) -> None:
    compiled = driver.compile_text(evil_spec(text), "evil.toml")
    assert shape(ast.parse(compiled.python_source)) == shape(ast.parse(plain.python_source))
    bad = {c for c in compiled.python_source if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    assert bad == {"\n"}
    cls = classes.module_class(compiled)
    assert cls.rule.fget(cls(backend="interpreter")).summary == text.strip()


@pytest.mark.parametrize(
    "first", ["m*1.5", "norm(m)", "mean(m, row)", "max(m, column)", "min(m, matrix)", "sum(m, group)"]
)
def test_no_name_that_a_spec_may_use_is_one_that_c_needs(first: str, tmp_path: Path) -> None:
    """Functions and types that the C uses, macros of its headers, names of the template: all may be names of locals, of
    whatever extent."""
    words = """i n at by given scalars kernels values rows abi memcpy fabs fabsf sqrtf expf logf powf signgam gamma y0
        j1 isnan int64_t size_t optgen_min optgen_maxf optgen_kernel OPTGEN_ABI OPTGEN_INLINE NULL INFINITY NAN
        HUGE_VAL INT8_MAX SIZE_MAX M_PI FP_NAN math_errhandling names_f32_element names_f64_row names_f32_baseline g_at
        p_new m_new m_at x1 k1 eta_ n_ i_ complex imaginary I bool_ linux unix errno main stdin std this class_ new_
        EOF A AB a_t of_tensor of_group of_step of_rows of_matrices of_columns of_reduced of_width of_partials of_panels
        columns line lane lanes panel panels tile total cells partials layout rank shape run_tensor optgen_row row_i
        optgen_take_sum optgen_layout optgen_tensor column_i matrix_i blocks units space tensor_i names"""
    names = [*words.split(), *(word for word in sorted(KEYWORDS) if not keyword.iskeyword(word)), "long_", "short__"]
    least = "-g*1e300" if first == "m*1.5" else "-1e300"
    chain = "\n".join(
        f"{new} = sqrt(abs({old})) + max({old}, {least})*1e-3 + sign({old})*2" for old, new in pairwise(names)
    )
    formulas = f"m = m + g\n{names[0]} = {first}\n{chain}\ndelta = eta*{names[-1]}*m"
    text = spec(formulas, name="name = 'names'", states=M)
    path = tmp_path / "names.c"
    path.write_text(driver.compile_text(text, "names.toml").c_source, "utf-8")
    assert complaints(path) == ""


def test_a_rule_may_have_the_words_of_a_paper_that_c_has_too():
    text = spec(
        "long = double*long + g\nlong_ = long*double_\nshort = norm(long_)\n"
        "delta = eta*long_*(short if register else 1)",
        hypers=f"{ETA}\ndouble = {{ default = 0.5 }}\ndouble_ = {{ default = 2 }}",
        flags="register = { default = true }",
        states="long = { init = 0 }",
    )
    cls = classes.module_class(driver.compile_text(text, "words.toml"))
    ends = []
    for backend in ("kernel", "interpreter"):
        opt, p = cls(double=0.25, register=True, backend=backend), np.arange(8.0)
        for _ in range(3):
            opt.step([p], [np.sin(p)])
        ends.append((p.tobytes(), opt.state(p)["long"].tobytes()))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("what", ["hyperparameter", "flag", "state"])
def test_no_name_that_a_spec_may_use_is_one_that_the_python_module_needs(what: str) -> None:
    names = ["int", "str", "float", "tuple", "Optimiser", "annotations", "print", "module", "text", "file", "object"]
    for name in sorted({*names, "opt", "params", "grads", "dtype", "name", "value", "hypers", "kernel"}):
        text = {
            "hyperparameter": spec(f"delta = {name}*g", hypers=ETA.replace("eta", name, 1)),
            "flag": spec(f"delta = eta*g*(1 if {name} else 2)", flags=f"{name} = {{ default = true }}"),
            "state": spec(f"{name} = {name} + g\ndelta = eta*{name}", states=f"{name} = {{ init = 1 }}"),
        }[what]
        opt = classes.module_class(driver.compile_text(text, "names.toml"))(backend="interpreter")
        p = np.zeros(3)
        opt.step([p], [np.ones(3)])
        assert p.tolist() == [-0.1 if what != "state" else -0.2] * 3
        if what != "state":
            assert getattr(opt, name) == (0.1 if what == "hyperparameter" else True)


# ---- No text whatsoever raises anything but SpecError ----

VALID = [
    (driver.SPECS / f"{stem}.toml").read_text("utf-8")
    for stem in ("adamw", "torch_sgd", "sm3", "lookahead", "aggmo", "adammini")
]
MARKS = (
    "= == + - * / ** ^ ( ) [ ] { } , . : := ; # ' ''' \" \"\"\" \\ \\n @ % ~ 0 1 2 1e400 1e-400 0x1 1_0 nan inf true"
)
WORDS = "β η Δ ε beta[1] beta[2] beta m v g p t delta step eta decay eps coupled if else not and or lambda in"
GIVEN = "is a.b group tensor matrix row column size grad new proceed slow k buffered momentum acc_row acc mean first"
KEYS = "where( max( sqrt( [state] [flags] [update] [hyperparameters] [[state]] init= when= default= range= formulas= {}"
MORE_KEYS = "norm( sum( dot( floor( , group) , row) , matrix) , block) extent= part= requires= matrices= block="
YET_MORE = "'p' 'tensor' length("
LOOPS = "for b in beta: range( len( each= m[1] [b] sum(m for"
BLANKS = ("", " ", "\t", "\n", "\r\n", "\r", "\x85", "2020-01-01")
TOKENS = (*" ".join((MARKS, WORDS, GIVEN, KEYS, MORE_KEYS, YET_MORE, LOOPS)).split(), *BLANKS)
PIECES = st.one_of(st.sampled_from(TOKENS), st.text(max_size=3))


def survives(text: str) -> None:
    """It is refused as a spec, or goes through all stages to C and Python."""
    found: tuple[Diagnostic, ...] = ()
    try:
        compiled = driver.compile_text(text, "fuzz.toml")
        assert compiled.c_source
        compile(compiled.python_source, "fuzz.py", "exec")
    except SpecError as error:
        found = error.diagnostics
    lines = text.replace("\r\n", "\n").split("\n")
    for fault in found:
        assert 1 <= fault.span.line <= len(lines)
        assert 1 <= fault.span.column <= len(lines[fault.span.line - 1]) + 1


@search(50, 200)
@given(st.text())
def test_no_text_raises_anything_but_spec_errors(text: str) -> None:
    survives(text)


@search(60, 300)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, max(map(len, VALID))), st.integers(0, 12), PIECES), min_size=1, max_size=4),
)
def test_no_edit_of_a_spec_raises_anything_but_spec_errors(text: str, edits: list[tuple[int, int, str]]) -> None:
    for at, gone, new in edits:
        text = text[:at] + new + text[at + gone :]
    survives(text)


@search(60, 300)
@given(st.lists(PIECES, max_size=12), st.lists(PIECES, max_size=8))
def test_no_formula_raises_anything_but_spec_errors(formula: list[str], init: list[str]) -> None:
    states = f"m = {{ init = '''{' '.join(init)}''' }}"
    survives(spec(f"x = {' '.join(formula)}\nm = m + x\ndelta = eta*m", hypers=f"{ETA}\n{BETA}", states=states))


@st.composite
def rowed_specs(draw: st.DrawFn) -> str:
    """Specs with states and reductions of all extents, for matrices only or for others too; many of them are right."""
    part, shaped = draw(st.sampled_from(["", "gradient", "parameter"])), draw(st.booleans())
    given = ["grad", "new"] if part else []
    leaves = st.sampled_from(["g", "p", "m", "k", "eta", "t", "size", "2", "beta[1]", *given])
    over = st.sampled_from(["", ", tensor", ", group"] if shaped else ["", ", row", ", column", ", matrix", ", group"])
    flag = st.sampled_from(["f", "not f", "matrix", "f or matrix"] if shaped else ["f", "not f"])

    def larger(e: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        fold, sign = st.sampled_from(["sum", "mean", "norm", "max", "min"]), st.sampled_from("+-*/")
        return st.one_of(
            st.builds("({} {} {})".format, e, sign, e),
            st.builds("{}({}*g{})".format, fold, e, over),
            st.builds("dot({}, p{})".format, e, over),
            st.builds("max({}, {})".format, e, e),
            st.builds("where({} > {}, {}, p)".format, e, e, e),
            st.builds("({} if {} else {})".format, e, flag, e),
        )

    values = st.recursive(leaves, larger, max_leaves=5)
    k = draw(st.sampled_from(["element", "tensor", "group"]))
    extent = draw(st.sampled_from(["row", "column", "matrix"]))
    when = draw(st.sampled_from(["matrix", "f and matrix"] if shaped else ["", "f"]))
    states = [M, f"k = {{ init = '{draw(st.sampled_from(['0', 'eta', 'p']))}', extent = '{k}' }}"]
    states.append(f"r = {{ init = 1, extent = '{extent}'" + (f", when = '{when}' }}" if when else " }"))
    reduced = {"element": "{}", "tensor": "norm(g*({}))", "group": "sum(g*({}), group)"}[k].format(draw(values))
    over_r = f"mean(g*({draw(values)}), {extent})" if draw(st.integers(0, 3)) else draw(values)
    read = f"(r if {when} else 1)" if when else "r"
    formulas = [
        f"m = m + {draw(values)}*({draw(values)})",
        f"k = k + {reduced}",
        f"r = r + ({over_r} if matrix else 1)" if shaped else f"r = r + {over_r}",
        f"out = {draw(values)} + m*k*eta*beta[1]*(1 if f else 2)*{read}",
        "p = out" if part == "parameter" else "delta = out",
    ]
    top = f"name = 'R'\npart = '{part}'"
    return spec("\n".join(formulas), name=top, hypers=f"{ETA}\n{BETA}", flags="f = {}", states="\n".join(states))


@search(40, 150)
@given(rowed_specs())
def test_no_spec_of_rows_and_groups_raises_anything_but_spec_errors(text: str) -> None:
    survives(text)
