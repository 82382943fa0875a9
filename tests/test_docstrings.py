"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = (
    "lvm.bounds",
    "lvm.combining",
    "lvm.estimators.categorical",
    "lvm.estimators.conditionals",
    "lvm.estimators.evidence_regression",
    "lvm.estimators.gaussian",
    "lvm.estimators.generic",
    "lvm.estimators.latent_trait",
    "lvm.estimators.probabilities",
    "lvm.estimators.student_t",
    "lvm.selection",
)


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    outcome = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted > 0
    assert outcome.failed == 0
