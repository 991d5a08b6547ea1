"""One concept has one name: no two public classes of the package share theirs."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from pathlib import Path

from optgen.paths import BUILD, PACKAGE


def test_no_two_public_classes_share_a_name() -> None:
    modules: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        if BUILD in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(path.relative_to(PACKAGE).as_posix())
    assert len(modules) > 80
    assert not {name: found for name, found in modules.items() if len(found) > 1}


def test_no_two_files_of_tests_share_a_name() -> None:
    """pytest imports each by its bare name."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert len(names) > 100
    assert not {name for name, count in names.items() if count > 1}
