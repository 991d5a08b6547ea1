"""Which line takes which parameter: by patterns of names, then by shape; and what no line takes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from optgen.errors import ArgumentError
from optgen.optimiser.division import Named, SplitLine, chosen, divided, lines_of, listed_names, patterns_of

MODEL = {
    "embed.weight": 2, "blocks.0.norm.scale": 1, "blocks.0.fc.weight": 2, "blocks.0.fc.bias": 1,
    "blocks.1.norm.scale": 1, "blocks.1.fc.weight": 2, "blocks.1.fc.bias": 1, "head.weight": 2, "bias": 1,
}  # fmt: skip


def named(names: dict[str, int] = MODEL) -> list[Named]:
    return [Named(None, rank, (name,)) for name, rank in names.items()]


def taken(params: Any = None, /, **lines: Any) -> dict[str, list[str]]:
    found = divided(lines_of(lines), named() if params is None else params)
    return {line: [p.name for p in own] for line, own in found.items()}


def test_matrices_go_to_one_line_and_the_rest_to_another() -> None:
    found = taken(matrices=1, rest=2, rest_names=("embed", "head"))
    assert found["matrices"] == ["blocks.0.fc.weight", "blocks.1.fc.weight"]
    assert set(found["rest"]) == MODEL.keys() - set(found["matrices"])


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("embed", 1), ("fc", 4), ("bias", 3), ("*.bias", 2), ("blocks.1", 3), ("1.fc", 2), ("blocks.?.fc.*", 4),
        ("[eh]*.weight", 2), (lambda name, p: name.endswith("scale"), 2),
    ],
)  # fmt: skip
def test_a_pattern_is_one_of_whole_names_or_of_words(pattern: Any, count: int) -> None:
    found = taken(some=1, some_names=pattern, rest=2)
    assert len(found["some"]) == count
    assert len(found["rest"]) == len(MODEL) - count


@pytest.mark.parametrize("pattern", ["emb", "*.BIAS", "eight", "weight.bias"])
def test_a_pattern_is_not_one_of_parts_of_words_or_of_other_letters(pattern: str) -> None:
    with pytest.raises(ArgumentError, match="expected a parameter for the pattern"):
        taken(some=1, some_names=pattern, rest=2)


def test_the_first_line_with_a_pattern_takes_a_parameter_whatever_its_shape() -> None:
    found = taken(rest=1, matrices=2, first=3, first_names="0", second=4, second_names=("fc", "bias"))
    assert found["first"] == [name for name in MODEL if ".0." in name]
    assert found["second"] == ["blocks.1.fc.weight", "blocks.1.fc.bias", "bias"]
    assert found["matrices"] == ["embed.weight", "head.weight"]
    assert found["rest"] == ["blocks.1.norm.scale"]


def test_a_parameter_with_several_names_goes_by_any_of_them() -> None:
    tied = [Named(None, 2, ("embed.weight", "head.weight")), Named(None, 2, ("fc.weight",))]
    assert taken(tied, matrices=1, rest=2, rest_names="head") == {"matrices": ["fc.weight"], "rest": ["embed.weight"]}


def test_a_line_by_shape_may_take_nothing() -> None:
    assert taken(named({"a": 1}), matrices=1, rest=2) == {"matrices": [], "rest": ["a"]}


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        ({}, "expected lines, got none", "matrices=..., rest=..."),
        ({"matrices": 1}, r"none for blocks\.\*\.norm\.scale \(2\), blocks\.\*\.fc\.bias \(2\), bias", "add rest="),
        ({"other": 1, "rest": 1}, "patterns of the names that the line other takes, got none", "other_names="),
        ({"rest": 1, "rets_names": "a"}, "names of a line, got rets_names", "did you mean rest_names"),
        ({"rest": 1, "rest_names": 3}, "rest_names: expected patterns of names, got 3", "a function"),
        ({"rest": 1, "rest_names": ("", "a")}, "expected patterns of names, got ''", "a function"),
        ({"rest": 1, "rest_names": "embde"}, "pattern 'embde', got none", "did you mean 'embed'"),
        ({"rest": 1, "rest_names": "*.bais"}, "pattern '*.bais', got none", "did you mean 'bias'?"),
        ({"rest": 1, "rest_names": lambda name, p: False}, "got none", "names are embed.weight"),
        (
            {"a": 1, "a_names": "*", "rest": 2, "rest_names": "embed"},
            "pattern 'embed', got none: 'embed.weight' goes to the line a", "put it first",
        ),
    ],
)  # fmt: skip
def test_what_is_no_division_is_refused_with_what_to_do(lines: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ArgumentError) as error:
        taken(**lines)
    assert re.search(message.replace("*.bais", r"\*\.bais"), error.value.message)
    assert hint in (error.value.hint or "")


def test_no_parameters_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"expected named parameters, got none\n.*a generator gives"):
        divided([SplitLine("rest", 1)], [])


def test_patterns_alone_give_what_each_takes_and_the_rest() -> None:
    found = chosen({"embed": {}, ("head", "*.bias"): {}}, named(), "groups")
    assert [len(own) for own in found] == [1, 3, 5]
    with pytest.raises(ArgumentError, match=r"'embed.weight' goes to a pattern before it"):
        chosen({"embed*": {}, "embed": {}}, named(), "groups")


def test_patterns_are_kept_as_a_tuple() -> None:
    assert patterns_of("a", "") == ("a",)
    assert patterns_of(iter(["a", "b"]), "") == ("a", "b")


def test_names_are_listed_in_short() -> None:
    assert listed_names([]) == "none"
    assert listed_names(["a1.b", "layers.0.w", "layers.11.w", "layers.0.b"]) == "a1.b, layers.*.w (2), layers.0.b"
    assert listed_names(map(str, "abcdefgh")) == "a, b, c, d, e, f, and 2 more"
