"""Families by name: those of the library, and those that installed packages announce."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lvm.families.bernoulli import Bernoulli
from lvm.families.exponential import Exponential
from lvm.families.gamma import Gamma
from lvm.families.gaussian_diag import DiagGaussian, SphericalGaussian
from lvm.families.gaussian_full import FullGaussian
from lvm.families.gaussian_tied import TiedGaussian
from lvm.families.multinomial import Multinomial
from lvm.families.negative_binomial import NegativeBinomial
from lvm.families.poisson import Poisson
from lvm.families.student_t_diag import DiagStudentT
from lvm.families.student_t_full import FullStudentT
from lvm.families.von_mises_fisher import VonMisesFisher

# A package announces families in its pyproject.toml: [project.entry-points."lvm.families"], name = "module:Class".
GROUP = "lvm.families"
REG_COVAR = 1e-6  # as in GaussianMixture

NAMED: dict[str, Callable[[], Any]] = {
    "bernoulli": Bernoulli,
    "exponential": Exponential,
    "gamma": Gamma,
    "gaussian_diag": partial(DiagGaussian, REG_COVAR),
    "gaussian_full": partial(FullGaussian, REG_COVAR),
    "gaussian_spherical": partial(SphericalGaussian, REG_COVAR),
    "gaussian_tied": partial(TiedGaussian, REG_COVAR),
    "multinomial": Multinomial,
    "negative_binomial": NegativeBinomial,
    "poisson": Poisson,
    "student_t_diag": DiagStudentT,
    "student_t_full": FullStudentT,
    "von_mises_fisher": VonMisesFisher,
}


class UnknownFamilyError(ValueError):
    """No family has this name: the package that announces it is not installed."""


def announced() -> dict[str, EntryPoint]:
    """Return the families of installed packages by name, less those whose name the library has.

    Of two with one name, the first on Python's path counts, as it does for modules.
    """
    points = reversed(list(entry_points(group=GROUP)))
    return {point.name: point for point in points if point.name not in NAMED}


def package_of(point: EntryPoint) -> str:
    """Return name and version of the package that announces a family."""
    return "an unnamed package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def family_by_name(name: str) -> Any:
    """Return a family with its default arguments.

    Parameters
    ----------
    name : str
        Of the library's families, or of those announced in the entry-point group "lvm.families".

    Raises
    ------
    UnknownFamilyError
        If there is no such family.
    ImportError
        If a package announces it, but it cannot be imported or made without arguments.
    """
    if name in NAMED:
        return NAMED[name]()
    others = announced()
    if name not in others:
        raise UnknownFamilyError(
            f"family {name!r} is not installed: it is none of {', '.join([*NAMED, *others])}; correct the name, or "
            f"install the package that announces it in the entry-point group {GROUP!r}."
        )
    try:
        found = others[name].load()
        return found() if callable(found) else found
    except Exception as error:  # whatever another package raises
        raise ImportError(
            f"family {name!r} of {package_of(others[name])} cannot be used, {others[name].value} raises "
            f"{type(error).__name__}: {error}"
        ) from error
