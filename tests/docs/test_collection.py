"""The page on pytorch-optimizer: it names all that the collection has, and what it says of optgen is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import optgen

PAGE = (Path(__file__).parents[2] / "docs" / "collection.md").read_text("utf-8")
SAME, PARTS, MISSING = re.split(r"^## .*$", PAGE, flags=re.MULTILINE)[1:]
NAMES = re.findall(r"\w+", max(re.findall(r"`([^`]*)`", SAME), key=len))
OTHERS = dict(re.findall(r"^\| (\w+) \| `(.*?)` \|", PARTS, re.MULTILINE))
ABSENT = re.findall(r"^\| (\w+) \| \w", MISSING, re.MULTILINE)[1:]
OURS = {name.lower() for name in optgen.__all__}
#: The functions of the collection that change gradients, and where they are.
FILTERS = {"agc", "centralize_gradient", "gradfilter_ema", "gradfilter_ma"}


def test_all_of_the_collection_is_named_once() -> None:
    torch = pytest.importorskip("torch")
    collection = pytest.importorskip("pytorch_optimizer")
    classes = {
        name
        for name, found in vars(collection).items()
        if inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)
    }
    listed = [*NAMES, *OTHERS, *ABSENT]
    assert sorted(listed) == sorted(classes | FILTERS)


def test_the_page_counts_right() -> None:
    counts = len(NAMES), len(OTHERS), len(ABSENT)
    said = [int(re.match(r"\s*(\d+)", section)[1]) for section in (SAME, PARTS, MISSING)]  # type: ignore[index]
    assert tuple(said) == counts
    assert f"optgen has {len(NAMES) + len(OTHERS)}" in " ".join(PAGE.split())
    assert "139 classes" in PAGE
    assert sum(counts) == 139 + len(FILTERS)


def test_what_has_the_same_name_is_there_and_what_is_missing_is_not() -> None:
    assert {name for name in NAMES if name.lower() not in OURS} == set()
    assert {name for name in ABSENT if name.lower() in OURS} == set()


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_made_of_parts_steps(name: str) -> None:
    text = OTHERS[name]
    opt = eval(text, {each: getattr(optgen, each) for each in optgen.__all__})
    if "(" in text and not text.startswith("chain") and opt.rule.part:
        opt = optgen.chain(opt, optgen.Descent())
    p = np.ones((4, 3), np.float32)
    inputs = {each.name: [np.ones_like(p)] for each in getattr(opt.rule, "inputs", ())}
    opt.step([p], [np.ones_like(p)], **inputs)
    assert np.isfinite(p).all()
