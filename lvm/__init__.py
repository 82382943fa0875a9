"""Latent variable models by expectation-maximisation: fast, reproducible, easy to extend."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvm import datasets, families, plotting, testing
    from lvm.accelerate import fit_anderson
    from lvm.em import fit_em
    from lvm.estimators.gaussian import GaussianMixture
    from lvm.estimators.probabilities import BernoulliMixture, MultinomialMixture
    from lvm.models.mixture import Mixture, MixtureParams
    from lvm.persistence import load, save
    from lvm.protocol import Family, LatentModel, Rows
    from lvm.result import EMResult, Status
    from lvm.selection import Selection, select

__version__ = "0.1.0"

# Public names, and the modules that are imported when one is first asked for.
_HOMES = {
    "BernoulliMixture": "lvm.estimators.probabilities",
    "EMResult": "lvm.result",
    "Family": "lvm.protocol",
    "GaussianMixture": "lvm.estimators.gaussian",
    "LatentModel": "lvm.protocol",
    "Mixture": "lvm.models.mixture",
    "MixtureParams": "lvm.models.mixture",
    "MultinomialMixture": "lvm.estimators.probabilities",
    "Rows": "lvm.protocol",
    "Selection": "lvm.selection",
    "Status": "lvm.result",
    "fit_em": "lvm.em",
    "fit_anderson": "lvm.accelerate",
    "load": "lvm.persistence",
    "save": "lvm.persistence",
    "select": "lvm.selection",
}
_MODULES = ("datasets", "families", "plotting", "testing")

__all__ = [
    "BernoulliMixture",
    "EMResult",
    "Family",
    "GaussianMixture",
    "LatentModel",
    "Mixture",
    "MixtureParams",
    "MultinomialMixture",
    "Rows",
    "Selection",
    "Status",
    "datasets",
    "families",
    "fit_anderson",
    "fit_em",
    "load",
    "plotting",
    "save",
    "select",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"lvm.{name}")
    else:
        raise AttributeError(f"module 'lvm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
