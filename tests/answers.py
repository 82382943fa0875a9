"""Answers of two latent classes, for tests of latent class analysis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import lvm

NAMES = ["colour", "size", "sold"]
CATEGORIES: list[Any] = [["blue", "green", "red"], [1, 2, 5, 9], [False, True]]
PROBABILITIES = [
    np.array([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7]]),
    np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6]]),
    np.array([[0.9, 0.1], [0.2, 0.8]]),
]


def answers(n: int, missing: float = 0.0, seed: int = 0) -> tuple[pd.DataFrame, Any]:
    """Return a table of two classes of 40 % and 60 % of the rows, and the class of each row."""
    rng = np.random.RandomState(seed)
    z = (rng.uniform(size=n) > 0.4).astype(int)
    table = {}
    for name, categories, p in zip(NAMES, CATEGORIES, PROBABILITIES, strict=True):
        code = (rng.uniform(size=(n, 1)) > np.cumsum(p, axis=1)[z][:, :-1]).sum(axis=1)
        column = pd.Series(np.array(categories, dtype=object)[code], dtype=object)
        table[name] = column.mask(rng.uniform(size=n) < missing, None)
    return pd.DataFrame(table), z


def started(**arguments: Any) -> Any:
    return lvm.CategoricalMixture(2, weights_init=[0.5, 0.5], probabilities_init=PROBABILITIES, **arguments)
