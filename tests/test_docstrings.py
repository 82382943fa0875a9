"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = ("lvm.estimators.gaussian", "lvm.estimators.probabilities", "lvm.selection")


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    outcome = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted > 0
    assert outcome.failed == 0
