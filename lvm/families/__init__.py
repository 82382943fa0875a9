"""Component families: one file each."""

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
