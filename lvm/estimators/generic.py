"""The mixture of any family: the estimator of those that have none of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import numpy as np
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.base import NO_MAXIMUM, FittingEstimator
from lvm.estimators.documentation import documented
from lvm.families.registry import announced, family_by_name, package_of
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows, holding, leaves

AXES = frozenset("Kd1")  # of parameters that have fitted attributes of their own
# What a fit sets besides: no parameter may be called so, with an underscore.
TAKEN = (
    *("weights", "components", "loglik", "objective_trace", "status", "converged", "n_iter", "restarts"),
    *("dropped", "degeneracy", "lower_bound", "lower_bounds", "n_features_in", "feature_names_in"),
)


def check_family(family: Any) -> None:
    """Refuse a family that no estimator can be made of: TypeError where a method is missing, ValueError for names."""
    Mixture(family)
    name, parameters = type(family).__name__, getattr(family, "parameters", {})
    if not isinstance(parameters, Mapping):
        raise TypeError(f"{name}.parameters must map names to axes, as {{'rates': 'Kd'}}, got {parameters!r}.")
    if parameters and not callable(getattr(family, "params", None)):
        arguments = ", ".join(parameters)
        raise TypeError(
            f"{name} has the attribute parameters, so it must implement params({arguments}); missing params."
        )
    for parameter in parameters:
        if parameter in TAKEN:
            raise ValueError(f"{name} has a parameter {parameter!r}, but {parameter}_ means another thing; rename it.")


class Announcement(NamedTuple):
    """What is known of a family that an installed package announces.

    Attributes
    ----------
    package : str
        Name and version of the package.
    summary : str
        The first line of the family's docstring.
    parameters : str
        Names of its parameters.
    problem : str or None
        Why it cannot be used.
    """

    package: str
    summary: str = ""
    parameters: str = ""
    problem: str | None = None


def announcements() -> dict[str, Announcement]:
    """Return the families that installed packages announce, those that cannot be used too, by name."""
    found = {}
    for name, point in sorted(announced().items()):
        package = package_of(point)
        try:
            family = family_by_name(name)
            check_family(family)
        except (ImportError, TypeError, ValueError) as error:
            cause = error.__cause__ or error
            found[name] = Announcement(package, problem=f"{type(cause).__name__}: {cause}")
            continue
        first, *_ = (type(family).__doc__ or "").strip().splitlines() or [""]
        found[name] = Announcement(package, first.strip(), ", ".join(getattr(family, "parameters", ())))
    return found


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class MixtureModel(FittingEstimator):
    """Mixture of any family of component densities, fitted by expectation-maximisation.

    Parameters
    ----------
    family : Family or str
        The component density, see `lvm.Family`; or the name of one of the library's, or of one that an installed
        package announces in the entry-point group "lvm.families".
    n_components : int
        Number of components.
    components_init : NamedTuple, optional
        Starting parameters of the family, as its M-step returns them. A family without a method `start` needs them.
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    components_ : NamedTuple
        The family's parameters. Those that it names in `parameters` are attributes of their own too, such as `rates_`,
        if their axes are K, d and 1.
    <fitted attributes>

    Examples
    --------
    >>> import lvm
    >>> counts = [[0, 1], [1, 0], [0, 0], [9, 7], [8, 11], [7, 9]]
    >>> mixture = lvm.MixtureModel(lvm.families.Poisson(), 2, random_state=0).fit(counts)
    >>> mixture.predict(counts).tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    True
    """

    _failed = NO_MAXIMUM
    # A family of which nothing is known may have parameters that stay where they are at the end of their range.
    _smooths_start = _smooths_every_start = True

    family: Any = field(kw_only=False)
    n_components: int = field(default=2, kw_only=False)
    components_init: Any = None

    @property
    def _family_type(self) -> Any:
        """The family itself: what its class says, its instances say too."""
        if isinstance(self.family, str):
            return family_by_name(self.family)
        if isinstance(self.family, type):
            name = self.family.__name__
            raise _checks.ParameterError(
                f"MixtureModel expects a family object, got the class {name}; call it: {name}()."
            )
        return self.family

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_family(self._family_type)

    def _family(self, X: Any = None, weight: Array | None = None) -> Any:
        return holding(self._family_type, self._held())

    def _parameters(self) -> Mapping[str, str]:
        parameters: Mapping[str, str] = getattr(self._family_type, "parameters", {})
        return parameters if all(AXES.issuperset(axes) for axes in parameters.values()) else {}

    def _features(self, X: Any) -> Any:
        return np.asarray(X, np.float64)

    @property
    def components_(self) -> Any:
        """The family's parameters, as its M-step returns them."""
        check_is_fitted(self)
        return self._get_components()

    def _set_components(self, components: Any) -> None:
        super()._set_components(components)
        if not self._parameters():
            self._components = components

    def _get_components(self) -> Any:
        return super()._get_components() if self._parameters() else self._components

    def _start(
        self, model: Mixture[Any], X: Any, rows: Rows, rng: np.random.RandomState, given: dict[str, Array]
    ) -> MixtureParams:
        if not callable(getattr(model.family, "start", None)):
            raise TypeError(
                f"{type(model.family).__name__} must implement start(X, weight, n_components), or be given "
                "components_init; missing start."
            )
        return super()._start(model, X, rows, rng, given)

    def _merged(self, given: dict[str, Array], params: MixtureParams | None) -> MixtureParams | None:
        if params is None and self.components_init is not None:
            if not hasattr(self.components_init, "_fields"):
                raise _checks.ParameterError(
                    "components_init must be the family's parameters, a NamedTuple of arrays as its mstep returns, "
                    f"got {self.components_init!r}."
                )
            lengths = sorted({len(leaf) for leaf in leaves(self.components_init)})
            if self.n_components not in lengths:
                raise ValueError(
                    f"components_init has arrays of length {', '.join(map(str, lengths))}, expected n_components = "
                    f"{self.n_components}."
                )
            params = MixtureParams(np.full(self.n_components, 1 / self.n_components), self.components_init)
        return super()._merged(given, params)

    def _check_savable(self) -> None:
        """Refuse a model of which `lvm.save` would lose a part."""
        name = type(self._family_type).__name__
        if not isinstance(self.family, str):
            raise _checks.ParameterError(
                f"cannot save the family object {name}: models hold numbers and text alone. Let a package announce "
                'the family in the entry-point group "lvm.families", and give MixtureModel its name; or use pickle.'
            )
        if not self._parameters():
            raise _checks.ParameterError(
                f"cannot save a mixture of {name}, whose parameters have no names: let its attribute `parameters` "
                "name them, with axes of K, d and 1; or use pickle."
            )
