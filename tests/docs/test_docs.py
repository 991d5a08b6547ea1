"""The documentation: it is what the specs give now, and says all that a reader must know."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from optgen.cli import markdown
from optgen.compiler import catalogue, driver

DOCS = Path(__file__).parents[2] / "docs"
RULES = {name: driver.compile_file(path) for name, path in catalogue.shipped_names().items()}
COMMAND = "optgen list --as markdown > docs/rules.md"


@pytest.fixture(scope="module")
def page() -> str:
    """The page of all rules as it would be written now."""
    return markdown.rules_page(map(driver.compile_file, catalogue.shipped()))


def test_the_page_of_rules_is_what_the_specs_give_now(page: str) -> None:
    kept = (DOCS / "rules.md").read_text("utf-8")
    # Not compared by pytest, which would print the differences of three thousand lines.
    same = kept == page
    assert same, f"docs/rules.md is not what the specs give now; this writes it: {COMMAND}"


def test_the_page_says_how_it_is_made(page: str) -> None:
    assert f"<!-- Made by `{COMMAND}`; a change belongs into the specs. -->" in page


def test_every_rule_has_one_section_and_one_link_to_it(page: str) -> None:
    targets = re.findall(r'<a id="([^"]+)"></a>', page)
    assert len(set(targets)) == len(targets)
    assert sorted(re.findall(r"\]\(#([^)]+)\)", page)) == sorted(targets)
    sections = re.findall(r'<a id="rule-(\w+)"></a>\n\n### (\w+)\n', page)
    assert {name: stem for stem, name in sections} == {name: each.stem for name, each in RULES.items()}


def test_headings_and_fences_are_well_formed(page: str) -> None:
    outside = re.sub(r"```math\n.*?\n```\n", "", page, flags=re.DOTALL)
    assert "```" not in outside
    assert "aligned" not in outside
    levels = [len(line) - len(line.lstrip("#")) for line in outside.splitlines() if line.startswith("#")]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert levels.count(1) == 1
    assert r"\operatorname" not in page  # which GitHub does not allow
    for table in re.findall(r"(?:^\|.*\n)+", outside, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_summary_reference_and_docs(name: str) -> None:
    for rule in RULES[name].rules:
        assert re.fullmatch(r"\S.*[.]", rule.summary)
        assert "\n" not in rule.summary
        assert re.search(r"\b(19|20)\d\d\b", rule.reference), "with the year"
        for part in (*rule.hypers, *rule.flags, *rule.states):
            assert part.doc, part.name
        assert bool(rule.origin) != bool(rule.part), "a rule is somebody's; a part of chains is nobody's"


def test_a_name_that_two_communities_use_has_notes_that_say_so() -> None:
    alike = defaultdict(list)
    for name, compilation in RULES.items():
        alike[name.lower()].append(compilation.rules[0])
    shared = {name: rules for name, rules in alike.items() if len(rules) > 1}
    assert {"adam", "adamw", "rmsprop", "nadam", "radam"} <= shared.keys()
    for rules in shared.values():
        assert len({rule.origin for rule in rules}) == len(rules)
        for rule in rules:
            assert rule.notes, f"{rule.name} of {rule.origin}: what do others mean by that name?"
