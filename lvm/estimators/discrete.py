"""What the estimators for discrete data share: equal rows are fitted as one; and those for counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lvm import _checks
from lvm._jit import Array
from lvm.collapse import Collapsed, collapse
from lvm.estimators.base import MixtureEstimator
from lvm.protocol import Rows


@dataclass(eq=False, repr=False, kw_only=True)
class DiscreteMixture(MixtureEstimator):
    """Base of the estimators whose rows repeat."""

    _is_discrete = True
    _smooths_start = True

    deduplicate: bool | str = "auto"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.deduplicate, (bool, np.bool_)) and self.deduplicate != "auto":
            raise _checks.ParameterError(f"deduplicate must be True, False or 'auto', got {self.deduplicate!r}.")

    def _collapsed(self, rows: Rows) -> Collapsed:
        return collapse(rows, self.deduplicate)


@dataclass(eq=False, repr=False, kw_only=True)
class CountMixture(DiscreteMixture):
    """Base of the estimators of independent whole counts."""

    _smooths_every_start = True  # a mean that starts at 0 would stay there

    def _validate(self, X: Any, reset: bool) -> Any:
        X = super()._validate(X, reset)
        names = getattr(self, "feature_names_in_", None)
        _checks.counts(X, names)
        _checks.whole(X, names)
        return X

    def _check_value(self, name: str, array: Array) -> None:
        # 1 is a value that every parameter may have.
        others = {other: np.ones_like(array) for other in self._parameters()}
        self._family_type().params(**{**others, name: np.where(np.isnan(array), 1.0, array)})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = tags.input_tags.allow_nan = True
        # scikit-learn's checks feed fractions, which are refused.
        tags._skip_test = True
        return tags
