"""Pictures of fits, by matplotlib: criteria, and a mixture's clusters, uncertainties and density over its data."""

from lvm.plotting.bounds import plot_bound
from lvm.plotting.canvas import COLOURS, MAX_POINTS
from lvm.plotting.clusters import plot_classification, plot_uncertainty
from lvm.plotting.criteria import plot_entropy, plot_selection
from lvm.plotting.densities import plot_density
from lvm.plotting.mixtures import plot_mixture

__all__ = [
    "COLOURS",
    "MAX_POINTS",
    "plot_bound",
    "plot_classification",
    "plot_density",
    "plot_entropy",
    "plot_mixture",
    "plot_selection",
    "plot_uncertainty",
]
