"""Component families: one file each, loaded when its name is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvm.families.bernoulli import Bernoulli
    from lvm.families.categorical import Categorical
    from lvm.families.conjugate_prior import NormalInverseWishart
    from lvm.families.exponential import Exponential
    from lvm.families.gamma import Gamma
    from lvm.families.gaussian_bounded import BoundedDiagGaussian, BoundedFullGaussian, BoundedSphericalGaussian
    from lvm.families.gaussian_diag import DiagGaussian, SphericalGaussian
    from lvm.families.gaussian_factor import FactorGaussian
    from lvm.families.gaussian_full import FullGaussian
    from lvm.families.gaussian_orientations import (
        EEVGaussian,
        EVEGaussian,
        EVVGaussian,
        VEEGaussian,
        VEVGaussian,
        VVEGaussian,
    )
    from lvm.families.gaussian_structures import EEIGaussian, EIIGaussian, EVIGaussian, VEIGaussian
    from lvm.families.gaussian_tied import TiedGaussian
    from lvm.families.multinomial import Multinomial
    from lvm.families.negative_binomial import NegativeBinomial
    from lvm.families.noise import WithNoise
    from lvm.families.poisson import Poisson
    from lvm.families.product import Product
    from lvm.families.student_t_diag import DiagStudentT
    from lvm.families.student_t_full import FullStudentT
    from lvm.families.von_mises_fisher import VonMisesFisher

_HOMES = {
    "Bernoulli": "lvm.families.bernoulli",
    "BoundedDiagGaussian": "lvm.families.gaussian_bounded",
    "BoundedFullGaussian": "lvm.families.gaussian_bounded",
    "BoundedSphericalGaussian": "lvm.families.gaussian_bounded",
    "Categorical": "lvm.families.categorical",
    "DiagGaussian": "lvm.families.gaussian_diag",
    "DiagStudentT": "lvm.families.student_t_diag",
    "EEIGaussian": "lvm.families.gaussian_structures",
    "EEVGaussian": "lvm.families.gaussian_orientations",
    "EIIGaussian": "lvm.families.gaussian_structures",
    "EVEGaussian": "lvm.families.gaussian_orientations",
    "EVIGaussian": "lvm.families.gaussian_structures",
    "EVVGaussian": "lvm.families.gaussian_orientations",
    "Exponential": "lvm.families.exponential",
    "FactorGaussian": "lvm.families.gaussian_factor",
    "FullGaussian": "lvm.families.gaussian_full",
    "FullStudentT": "lvm.families.student_t_full",
    "Gamma": "lvm.families.gamma",
    "Multinomial": "lvm.families.multinomial",
    "NegativeBinomial": "lvm.families.negative_binomial",
    "NormalInverseWishart": "lvm.families.conjugate_prior",
    "Poisson": "lvm.families.poisson",
    "Product": "lvm.families.product",
    "SphericalGaussian": "lvm.families.gaussian_diag",
    "TiedGaussian": "lvm.families.gaussian_tied",
    "VEEGaussian": "lvm.families.gaussian_orientations",
    "VEIGaussian": "lvm.families.gaussian_structures",
    "VEVGaussian": "lvm.families.gaussian_orientations",
    "VVEGaussian": "lvm.families.gaussian_orientations",
    "VonMisesFisher": "lvm.families.von_mises_fisher",
    "WithNoise": "lvm.families.noise",
}

__all__ = [
    "Bernoulli",
    "BoundedDiagGaussian",
    "BoundedFullGaussian",
    "BoundedSphericalGaussian",
    "Categorical",
    "DiagGaussian",
    "DiagStudentT",
    "EEIGaussian",
    "EEVGaussian",
    "EIIGaussian",
    "EVEGaussian",
    "EVIGaussian",
    "EVVGaussian",
    "Exponential",
    "FactorGaussian",
    "FullGaussian",
    "FullStudentT",
    "Gamma",
    "Multinomial",
    "NegativeBinomial",
    "NormalInverseWishart",
    "Poisson",
    "Product",
    "SphericalGaussian",
    "TiedGaussian",
    "VEEGaussian",
    "VEIGaussian",
    "VEVGaussian",
    "VVEGaussian",
    "VonMisesFisher",
    "WithNoise",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lvm.families' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
