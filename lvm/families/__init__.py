"""Component families: one file each."""

from lvm.families.bernoulli import Bernoulli
from lvm.families.gaussian_diag import DiagGaussian, SphericalGaussian
from lvm.families.gaussian_full import FullGaussian
from lvm.families.gaussian_tied import TiedGaussian
from lvm.families.multinomial import Multinomial

__all__ = ["Bernoulli", "DiagGaussian", "FullGaussian", "Multinomial", "SphericalGaussian", "TiedGaussian"]
