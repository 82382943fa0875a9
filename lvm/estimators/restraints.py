"""What restrains Gaussian components from collapse: priors, and bounds on the ratio of their eigenvalues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.base import FittingEstimator
from lvm.families.conjugate_prior import NormalInverseWishart, default_prior
from lvm.families.gaussian_bounded import BOUNDED, check_ratio

NAMES = ("shrinkage", "mean", "dof", "scale")


def check_prior(prior: Any) -> None:
    """Refuse what is neither None, "default", nor a dictionary of parameters of the prior."""
    if prior is None or (isinstance(prior, str) and prior == "default"):
        return
    if not isinstance(prior, Mapping):
        raise _checks.ParameterError(
            f"prior must be None, 'default' or a dictionary of {', '.join(map(repr, NAMES))}, got {prior!r}."
        )
    for name in prior:
        if name not in NAMES:
            raise _checks.ParameterError(f"prior may hold {', '.join(map(repr, NAMES))}, got {name!r}.")


def completed_prior(prior: Any, X: Any, weight: Array | None, n_components: int, structure: str) -> dict[str, Any]:
    """Return all parameters of a prior, from those given and the rows X (n, d).

    Raises
    ------
    ValueError
        If one has another shape than the structure needs, or is out of range.
    """
    given = {} if isinstance(prior, str) else {name: value for name, value in prior.items() if value is not None}
    found = {**default_prior(X, weight, n_components, structure), **given}
    d = X.shape[1]
    if np.shape(found["mean"]) != (d,):
        raise ValueError(f"prior['mean'] should have the shape {(d,)}, got {np.shape(found['mean'])}.")
    checked = NormalInverseWishart(**found)
    checked.check(structure)
    if "scale" in given:
        scale = checked.scale
        positive = bool(np.all(scale > 0)) if scale.ndim < 2 else _is_positive_definite(scale)
        if not positive:
            raise ValueError(
                f"prior['scale'] should be positive, or a positive definite matrix, got {given['scale']!r}."
            )
    return {"shrinkage": checked.shrinkage, "mean": checked.mean, "dof": checked.dof, "scale": checked.scale}


def _is_positive_definite(matrix: Array) -> bool:
    return bool(np.allclose(matrix, matrix.T) and np.linalg.eigvalsh(matrix).min() > 0)


class Restrained(FittingEstimator):
    """Base of estimators with the arguments `prior` and `max_eigenvalue_ratio`."""

    covariance_type: str
    prior: Any
    max_eigenvalue_ratio: float | None
    prior_: dict[str, Any]

    @property
    def _letters(self) -> str:
        """The covariance structure, by its three letters."""
        raise NotImplementedError

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_prior(self.prior)
        if self.max_eigenvalue_ratio is None:
            return
        try:
            check_ratio(self.max_eigenvalue_ratio)
        except (ValueError, TypeError):
            raise _checks.ParameterError(
                f"max_eigenvalue_ratio must be None or a finite number >= 1, got {self.max_eigenvalue_ratio!r}."
            ) from None
        if self._letters not in BOUNDED:
            raise _checks.ParameterError(
                "max_eigenvalue_ratio needs covariance_type 'full', 'diag' or 'spherical', got "
                f"{self.covariance_type!r}."
            )

    def _prepare(self, X: Any, weight: Array | None) -> None:
        super()._prepare(X, weight)
        if self.prior is not None:
            self.prior_ = completed_prior(self.prior, X, weight, self.n_components, self._letters)
        elif hasattr(self, "prior_"):
            del self.prior_

    def _conjugate(self) -> NormalInverseWishart | None:
        """Return the prior, where there is one and the rows have told all of it."""
        return NormalInverseWishart(**self.prior_) if self.prior is not None and hasattr(self, "prior_") else None

    def _bounded(self, *arguments: Any) -> Any:
        """Return the family whose eigenvalues the bound restrains, from the arguments of others; None without one."""
        if self.max_eigenvalue_ratio is None:
            return None
        return BOUNDED[self._letters](self.max_eigenvalue_ratio, *arguments)

    def _refuse_beyond_bound(self) -> None:
        if self.max_eigenvalue_ratio is not None:
            raise ValueError(
                f"the given covariances have eigenvalues further apart than max_eigenvalue_ratio="
                f"{self.max_eigenvalue_ratio:g}; give others, or raise it."
            )
