"""How long property tests search: a little in every run, a lot where `make test-slow` and CI ask for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

__all__ = ["LONG", "search"]

LONG = os.environ.get("OPTGEN_SEARCH") == "long"


def search(short: int, long: int) -> Callable[[Any], Any]:
    """Mark a test by Hypothesis that tries so many examples: `short` in each run, `long` with OPTGEN_SEARCH=long."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
    tries = settings(max_examples=long if LONG else short, deadline=None, suppress_health_check=quiet)
    return lambda test: pytest.mark.searches(tries(test))
