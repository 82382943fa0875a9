"""The conformance suite over several cases of a test module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lvm.testing import model_checks


def each_check(cases: Mapping[str, tuple[Any, Any, Any]]) -> Any:
    """Return the decorator that runs a test with each check of each case, (model, params, rows) by name."""
    return pytest.mark.parametrize(
        "check",
        [pytest.param(check, id=f"{name}-{check}") for name, case in cases.items() for check in model_checks(*case)],
    )
