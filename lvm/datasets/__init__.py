"""Small real data sets: one shipped here, two from scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
from sklearn.datasets import load_digits as _load_digits
from sklearn.datasets import load_iris as _load_iris
from sklearn.utils import Bunch


def load_faithful() -> Any:
    """Return eruptions of the Old Faithful geyser: 272 rows, duration and waiting time in minutes.

    Returns
    -------
    Bunch
        `data` (272, 2), `feature_names`, `DESCR`.

    References
    ----------
    Azzalini & Bowman (1990), "A look at some data on the Old Faithful geyser".
    """
    text = resources.files(__package__).joinpath("data", "faithful.csv").read_text(encoding="utf-8")
    header, *lines = text.splitlines()
    return Bunch(
        data=np.array([line.split(",") for line in lines], np.float64),
        feature_names=header.split(","),
        DESCR="Old Faithful: duration of an eruption and waiting time to the next, in minutes (272 rows).",
    )


def load_iris() -> Any:
    """Return Fisher's iris: 150 rows, 4 lengths in cm, and the species as `target`."""
    return _load_iris()


def load_digits() -> Any:
    """Return 1,797 handwritten digits, 8 x 8 pixels of 0 to 16, and the digit as `target`."""
    return _load_digits()


LOADERS: dict[str, Callable[[], Any]] = {"faithful": load_faithful, "iris": load_iris, "digits": load_digits}


def load(name: str) -> Any:
    """Return a data set by name.

    Parameters
    ----------
    name : {"faithful", "iris", "digits"}
        Which one.

    Raises
    ------
    ValueError
        If there is no such data set.
    """
    if name not in LOADERS:
        raise ValueError(f"no data set is called {name!r}; choose one of {', '.join(LOADERS)}.")
    return LOADERS[name]()
