"""The picture of the pipeline: it is what its script draws now, and names every wing of the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def structure(file: Path) -> tuple[list[str], list[str]]:
    """The names of boxes and arrows, and the texts. Outlines differ from one matplotlib to another."""
    text = file.read_text("utf-8")
    names = [name for name in re.findall(r'<g id="([^"]+)"', text) if re.fullmatch(r"[a-z]+(-[a-z]+)?", name)]
    return names, re.findall(r"<!-- (.*?) -->", text, re.DOTALL)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_kept_picture_is_what_the_script_draws(theme: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(DOCS / "pipeline.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept, drawn = (structure(folder / f"pipeline-{theme}.svg") for folder in (DOCS, tmp_path))
    assert kept == drawn, "this draws it: python docs/pipeline.py"


def test_the_picture_has_every_wing() -> None:
    names, texts = structure(DOCS / "pipeline-light.svg")
    wings = {path.parent.name for path in (ROOT / "optgen").glob("*/__init__.py")} - {"build"}
    assert wings | {"interpreter", "spec"} == {name for name in names if "-" not in name} - {"figure", "text", "axes"}
    assert wings <= set(texts)
