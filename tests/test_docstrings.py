"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import lvm

PACKAGE = Path(lvm.__file__).parent
SOURCES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = [name for name, path in SOURCES.items() if ">>> " in path.read_text(encoding="utf-8")]
ESTIMATORS = [name for name in lvm.__all__ if hasattr(getattr(lvm, name), "fit")]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    outcome = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_has_an_example(estimator: str) -> None:
    example = getattr(lvm, estimator)
    assert ">>> " in example.__doc__
    assert example.__module__ in MODULES
