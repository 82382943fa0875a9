"""What the estimators for discrete data share: equal rows are fitted as one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lvm import _checks
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
