"""The documentation: it is what the specs give now, and says all that a reader must know."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from optgen.cli import markdown, pages
from optgen.compiler import catalogue, driver
from optgen.ir.rule import Family

DOCS = Path(__file__).parents[2] / "docs"
RULES = {name: driver.compile_file(path) for name, path in catalogue.shipped_names().items()}
FAMILIES = pages.groups(RULES.values())
#: By its path in the documentation, each page that is made of the specs.
PAGES = {"rules.md": markdown.rules_page(RULES.values())} | {
    f"rules/{family}.md": markdown.family_page(family, members) for family, members in FAMILIES.items()
}
#: The command that writes each of them.
COMMANDS = {"rules.md": "optgen list --as markdown > docs/rules.md"} | {
    f"rules/{family}.md": f"optgen list --as markdown --family {family} > docs/rules/{family}.md" for family in FAMILIES
}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_of_rules_is_what_the_specs_give_now(path: str) -> None:
    kept = (DOCS / path).read_text("utf-8")
    # Not compared by pytest, which would print the differences of a thousand lines.
    same = kept == PAGES[path]
    assert same, f"docs/{path} is not what the specs give now; this writes it: {COMMANDS[path]}"


def test_there_is_a_page_for_each_family_and_no_other() -> None:
    kept = {path.relative_to(DOCS).as_posix() for path in (DOCS / "rules").iterdir()}
    assert kept == set(PAGES) - {"rules.md"}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_says_how_it_is_made(path: str) -> None:
    assert f"<!-- Made by `{COMMANDS[path]}`" in PAGES[path]


def test_every_rule_has_one_section_and_one_link_to_it() -> None:
    links = re.findall(r"^\| \[(\w+)\]\(([\w/.-]+#[\w-]+)\)", PAGES["rules.md"], re.MULTILINE)
    assert len(set(links)) == len(links) == len(RULES)
    sections = [
        (name, f"{path}#{anchor}")
        for path, page in PAGES.items()
        for anchor, name in re.findall(r'<a id="([\w-]+)"></a>\n\n## (\w+)\n', page)
    ]
    assert sorted(sections) == sorted(links)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
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
        assert (rule.family == Family.PARTS) == bool(rule.part)
        assert rule.family


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
