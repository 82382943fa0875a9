"""Latent variable models by expectation-maximisation: fast, reproducible, easy to extend."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvm import datasets, families, plotting, testing
    from lvm.accelerate import fit_anderson
    from lvm.bounds import Decomposition, decompose, elbo
    from lvm.combining import Combination, combine
    from lvm.em import fit_em
    from lvm.estimators.categorical import CategoricalMixture
    from lvm.estimators.counts import NegativeBinomialMixture, PoissonMixture
    from lvm.estimators.directional import VonMisesFisherMixture
    from lvm.estimators.evidence_regression import BayesianLinearRegression
    from lvm.estimators.experts import MixtureOfExperts
    from lvm.estimators.factor_analysis import FactorAnalysis, ProbabilisticPCA
    from lvm.estimators.factor_mixture import MixtureOfFactorAnalyzers
    from lvm.estimators.gaussian import GaussianMixture
    from lvm.estimators.generic import MixtureModel
    from lvm.estimators.hidden_markov import HiddenMarkov
    from lvm.estimators.latent_trait import LatentTrait
    from lvm.estimators.mixed import MixedMixture
    from lvm.estimators.positive import ExponentialMixture, GammaMixture
    from lvm.estimators.probabilities import BernoulliMixture, MultinomialMixture
    from lvm.estimators.student_t import StudentTMixture
    from lvm.models.mixture import Mixture, MixtureParams
    from lvm.persistence import load, save
    from lvm.protocol import Family, LatentModel, Rows
    from lvm.result import EMResult, Status
    from lvm.selection import Selection, select

__version__ = "0.1.0"

# Public names, and the modules that are imported when one is first asked for.
_HOMES = {
    "BayesianLinearRegression": "lvm.estimators.evidence_regression",
    "BernoulliMixture": "lvm.estimators.probabilities",
    "CategoricalMixture": "lvm.estimators.categorical",
    "Combination": "lvm.combining",
    "Decomposition": "lvm.bounds",
    "EMResult": "lvm.result",
    "ExponentialMixture": "lvm.estimators.positive",
    "FactorAnalysis": "lvm.estimators.factor_analysis",
    "Family": "lvm.protocol",
    "GammaMixture": "lvm.estimators.positive",
    "GaussianMixture": "lvm.estimators.gaussian",
    "HiddenMarkov": "lvm.estimators.hidden_markov",
    "LatentModel": "lvm.protocol",
    "LatentTrait": "lvm.estimators.latent_trait",
    "MixedMixture": "lvm.estimators.mixed",
    "Mixture": "lvm.models.mixture",
    "MixtureModel": "lvm.estimators.generic",
    "MixtureOfExperts": "lvm.estimators.experts",
    "MixtureOfFactorAnalyzers": "lvm.estimators.factor_mixture",
    "MixtureParams": "lvm.models.mixture",
    "MultinomialMixture": "lvm.estimators.probabilities",
    "NegativeBinomialMixture": "lvm.estimators.counts",
    "PoissonMixture": "lvm.estimators.counts",
    "ProbabilisticPCA": "lvm.estimators.factor_analysis",
    "Rows": "lvm.protocol",
    "Selection": "lvm.selection",
    "Status": "lvm.result",
    "StudentTMixture": "lvm.estimators.student_t",
    "VonMisesFisherMixture": "lvm.estimators.directional",
    "combine": "lvm.combining",
    "decompose": "lvm.bounds",
    "elbo": "lvm.bounds",
    "fit_anderson": "lvm.accelerate",
    "fit_em": "lvm.em",
    "load": "lvm.persistence",
    "save": "lvm.persistence",
    "select": "lvm.selection",
}
_MODULES = ("datasets", "families", "plotting", "testing")

__all__ = [
    "BayesianLinearRegression",
    "BernoulliMixture",
    "CategoricalMixture",
    "Combination",
    "Decomposition",
    "EMResult",
    "ExponentialMixture",
    "FactorAnalysis",
    "Family",
    "GammaMixture",
    "GaussianMixture",
    "HiddenMarkov",
    "LatentModel",
    "LatentTrait",
    "MixedMixture",
    "Mixture",
    "MixtureModel",
    "MixtureOfExperts",
    "MixtureOfFactorAnalyzers",
    "MixtureParams",
    "MultinomialMixture",
    "NegativeBinomialMixture",
    "PoissonMixture",
    "ProbabilisticPCA",
    "Rows",
    "Selection",
    "Status",
    "StudentTMixture",
    "VonMisesFisherMixture",
    "combine",
    "datasets",
    "decompose",
    "elbo",
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
