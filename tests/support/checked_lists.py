"""Which lists of parameters a step checks anew."""

from __future__ import annotations

from typing import Any

import pytest

from optgen.runtime.acceptance import Acceptance

__all__ = ["sizes_of_checked_lists"]


def sizes_of_checked_lists(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parameters each list has that is checked anew from now on."""
    found: list[int] = []
    accept = Acceptance.of

    def noted(self: Acceptance, chosen: Any, *, by_kernel: bool) -> Any:
        found.append(len(chosen))
        return accept(self, chosen, by_kernel=by_kernel)

    monkeypatch.setattr(Acceptance, "of", noted)
    return found
