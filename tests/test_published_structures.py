"""From starts recorded elsewhere, the fourteen covariance structures follow mclust's path to its optimum, or beyond.

mclust stops the M-step of VEE sooner than at its maximum, and that of EVE and VVE at a point that is none. Its path is
another there. Ends of VEE agree, as the maximum of the likelihood is one of the M-step; those of EVE and VVE are
compared with the best that is known, one-sided.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

import lvm
from lvm.estimators.gaussian import FOURTEEN

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
PLACES = np.array([0, 1, 4, 9])  # of mclust's iterations 1, 2, 5, 10: it begins with an M-step, as our start does
# As relative differences of log-likelihoods. mclust's alternations stop at 1e-13 of theirs.
LOGLIK, PATH = 1e-8, 1e-9
EARLY = {"VEE": 1e-7, "EVE": 1e-7}  # the path where mclust's M-step stops sooner; VVE's leads elsewhere

Array = NDArray[np.float64]


class Recorded(NamedTuple):
    """A data set with a recorded run of mclust; the start is a partition, or responsibilities (n, K)."""

    X: Array
    start: Any
    rows: dict[str, Any]
    found: dict[str, Any]
    best: float | None

    def fit(self, **arguments: Any) -> Any:
        settings = {"covariance_type": self.found["model"], "reg_covar": 0.0, "init_params": self.start, **arguments}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of iterations is meant
            return lvm.GaussianMixture(self.found["G"], **settings).fit(self.X, **self.rows)


def read(folder: str) -> tuple[dict[str, Any], Array]:
    table = np.genfromtxt(REFERENCE / folder / "data.csv", delimiter=",", skip_header=1)
    return json.loads((REFERENCE / folder / "result.json").read_text()), table


def recorded() -> dict[str, Recorded]:
    if not REFERENCE.is_dir():
        return {}
    cases = {}
    for name in ("faithful", "iris"):
        record, X = read(f"gaussian_{name}")
        beyond = json.loads((REFERENCE / f"gaussian_eve_vve_{name}" / "result.json").read_text())
        best = {(fit["model"], fit["G"]): fit["best_known_loglik"] for fit in beyond["fits"]}
        for found in record["fits"]:
            if not found["equal_pro"]:
                start = np.array(record["start_labels_0based"][f"G{found['G']}"])
                key = (found["model"], found["G"])
                cases[f"{name} {key[0]} {key[1]}"] = Recorded(X, start, {}, found, best.get(key))
    record, table = read("semi_supervised_iris")
    labels = np.where(np.isnan(table[:, -1]), -1, table[:, -1]).astype(int)
    for found in record["fits"]:
        cases[f"labels {found['model']}"] = Recorded(table[:, :-1], labels, {"labels": labels}, found, None)
    return cases


CASES = recorded()
pytestmark = pytest.mark.usefixtures("reference_folder")
each = pytest.mark.parametrize("name", CASES or ["none"])


def test_all_structures_are_there() -> None:
    assert len(CASES) == 2 * 2 * 14 + 12
    assert {name.split()[1] for name in CASES} == set(FOURTEEN)
    assert sum(case.best is not None for case in CASES.values()) == 8


@each
def test_recorded_optimum_is_reached(name: str) -> None:
    case = CASES[name]
    fitted = case.fit(tol=1e-14, max_iter=100_000)
    assert fitted.converged_
    assert fitted.n_parameters() == case.found["n_parameters"]
    if case.best is None:
        assert_allclose(fitted.loglik_, case.found["loglik"], rtol=LOGLIK)
        assert_allclose(fitted.weights_, case.found["weights"], atol=1e-4)
    else:
        assert fitted.loglik_ >= max(case.best, case.found["loglik"]) - LOGLIK * abs(case.best)
    assert np.diff(fitted.objective_trace_).min() > -1e-11 * abs(fitted.loglik_)


@each
def test_recorded_path_is_followed(name: str) -> None:
    case = CASES[name]
    if case.found["model"] == "VVE":
        pytest.skip("mclust's M-step of VVE ends elsewhere")
    trace = case.fit(tol=0.0, max_iter=10).objective_trace_
    path = case.found["loglik_after_iterations_1_2_5_10"]
    assert_allclose(trace[PLACES], path, rtol=EARLY.get(case.found["model"], PATH))
