"""From a start recorded elsewhere, EM follows the recorded path to the recorded optimum.

`data/published.json` holds the cases that always run. The folder ../shared/reference, where there is one, holds the
same cases in the peers' own form and further ones (row weights, partly labelled rows).
"""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

import lvm

DATA = Path(__file__).parent / "data"
REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
STRUCTURES = {"VVV": "full", "EEE": "tied", "VVI": "diag", "VII": "spherical"}
ITERATIONS = (1, 2, 5, 10)

Array = NDArray[np.float64]


class Published(NamedTuple):
    """One recorded run of another program.

    `arguments` are the estimator's, start included; `row_arguments` go to `fit`. `offset` is the place in
    `objective_trace_` of the peer's iteration 1: 0 where the peer begins with an M-step on a partition (our start),
    1 where it begins with an E-step. `trajectory` maps the peer's iterations to log-likelihoods, `parameters` our
    attributes to values; `iterations` is where the peer stopped.
    """

    X: Array
    estimator: Any
    arguments: dict[str, Any]
    row_arguments: dict[str, Any]
    offset: int
    loglik: float
    n_parameters: int
    trajectory: dict[int, float]
    parameters: dict[str, Any]
    bic: float | None = None
    icl: float | None = None
    loglik_at_start: float | None = None
    iterations: int | None = None

    def fit(self, **arguments: Any) -> Any:
        estimator = self.estimator(**self.arguments, **arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of iterations is meant
            return estimator.fit(self.X, **self.row_arguments)


def read_csv(path: Path) -> Array:
    """Return a table of numbers, NaN where blank, as in the labels of partly labelled rows."""
    return np.genfromtxt(path, delimiter=",", skip_header=1)


def recorded(logliks: list[float]) -> dict[int, float]:
    return dict(zip(ITERATIONS, logliks, strict=True))


def flexmix_start(labels: list[int], K: int) -> Array:
    """Return the responsibilities that flexmix makes of a partition: 0.9 and 0.1, normalised."""
    resp = np.full((len(labels), K), 0.1)
    resp[np.arange(len(labels)), labels] = 0.9
    return resp / resp.sum(axis=1, keepdims=True)


def gaussian(structure: str, **arguments: Any) -> dict[str, Any]:
    return {"covariance_type": structure, "reg_covar": 0.0, **arguments}


# ----- the cases of the package's own suite -------------------------------------------------------------------


def own_case(record: dict[str, Any]) -> Published:
    table = read_csv(DATA / record["data"])
    if record["data"] == "lsat6.csv":  # answer patterns with their number of rows
        table = np.repeat(table[:, :-1], table[:, -1].astype(int), axis=0)
    estimators = {"lsat6.csv": lvm.BernoulliMixture, "waterdata.csv": lvm.MultinomialMixture}
    arguments: dict[str, Any] = {"n_components": record["n_components"]}
    if "covariance_type" in record:
        arguments = gaussian(record["covariance_type"], **arguments)
    if "start_labels" in record:
        labels = [int(digit) for digit in record["start_labels"]]
        soft = record["data"] == "lsat6.csv"
        arguments["init_params"] = flexmix_start(labels, record["n_components"]) if soft else labels
    else:
        arguments["weights_init"] = record["start_weights"]
        arguments["probabilities_init"] = record["start_probabilities"]
    return Published(
        X=table,
        estimator=estimators.get(record["data"], lvm.GaussianMixture),
        arguments=arguments,
        row_arguments={},
        offset=0 if "start_labels" in record else 1,
        loglik=record["loglik"],
        n_parameters=record["n_parameters"],
        trajectory=recorded(record["loglik_after_1_2_5_10"])
        if "loglik_after_1_2_5_10" in record
        else {record["iterations"]: record["loglik"]},
        parameters={f"{name}_": record[name] for name in ("weights", "means", "probabilities") if name in record},
        bic=record["bic"],
        icl=record.get("icl"),
        loglik_at_start=record.get("loglik_at_start"),
        iterations=record["iterations"],
    )


# ----- the cases of the reference folder ----------------------------------------------------------------------


def mclust_cases(folder: str) -> dict[str, Published]:
    record = json.loads((REFERENCE / folder / "result.json").read_text())
    table = read_csv(REFERENCE / folder / "data.csv")
    cases = {}
    for found in record["fits"]:
        if found["model"] not in STRUCTURES or found.get("equal_pro"):
            continue
        X, rows = table, {}
        if folder == "weighted_faithful_counts":
            X, rows = table[:, :-1], {"sample_weight": table[:, -1]}
        elif folder == "semi_supervised_iris":
            X, rows = table[:, :-1], {"labels": np.where(np.isnan(table[:, -1]), -1, table[:, -1]).astype(int)}
        starts = record.get("start_labels_0based", rows.get("labels"))
        start = starts[f"G{found['G']}"] if isinstance(starts, dict) else starts
        cases[f"{folder}-{found['model']}-{found['G']}"] = Published(
            X=X,
            estimator=lvm.GaussianMixture,
            arguments=gaussian(STRUCTURES[found["model"]], n_components=found["G"], init_params=np.array(start)),
            row_arguments=rows,
            offset=0,
            loglik=found["loglik"],
            n_parameters=found["n_parameters"],
            trajectory=recorded(found["loglik_after_iterations_1_2_5_10"]),
            parameters={"weights_": found["weights"], "means_": found["means"]},
            bic=found.get("bic_smaller_is_better"),
            icl=-found["icl_mclust"] if "icl_mclust" in found else None,
            iterations=found.get("iterations"),
        )
    return cases


def lsat6_cases() -> dict[str, Published]:
    record = json.loads((REFERENCE / "bernoulli_lsat6" / "result.json").read_text())
    X = read_csv(REFERENCE / "bernoulli_lsat6" / "data.csv") - 1  # coded 1, 2
    shared = partial(Published, X=X, estimator=lvm.BernoulliMixture, row_arguments={})
    cases = {}
    for found in record["fits_polca"]:
        arguments = {
            "n_components": found["G"],
            "weights_init": found["start_weights"],
            "probabilities_init": np.array(found["start_probs"])[:, :, 1].T,
        }
        cases[f"bernoulli_lsat6-{found['G']}-{found['start'].split()[0]}"] = shared(
            arguments=arguments,
            offset=1,
            loglik=found["loglik"],
            n_parameters=found["n_parameters"],
            trajectory=recorded(found["loglik_after_iterations_1_2_5_10"]),
            parameters={"weights_": found["weights"]},
            bic=found["bic"],
            iterations=found["iterations"],
        )
    for found in record["fits_flexmix_from_partition"]:
        cases[f"bernoulli_lsat6-{found['G']}-partition"] = shared(
            arguments={
                "n_components": found["G"],
                "init_params": flexmix_start(found["start_labels_0based"], found["G"]),
            },
            offset=0,
            loglik=found["loglik"],
            n_parameters=found["n_parameters"],
            trajectory={found["iterations"]: found["loglik"]},
            parameters={"weights_": found["weights"], "probabilities_": found["prob_of_code_2"]},
            bic=found["bic"],
            iterations=found["iterations"],
        )
    return cases


def waterdata_cases() -> dict[str, Published]:
    record = json.loads((REFERENCE / "multinomial_waterdata" / "result.json").read_text())
    X = read_csv(REFERENCE / "multinomial_waterdata" / "data.csv")
    return {
        f"multinomial_waterdata-{found['G']}": Published(
            X=X,
            estimator=lvm.MultinomialMixture,
            arguments={
                "n_components": found["G"],
                "weights_init": found["start_weights"],
                "probabilities_init": found["start_probs"],
            },
            row_arguments={},
            offset=1,
            loglik=found["loglik"],
            n_parameters=found["n_parameters"],
            trajectory=recorded(found["loglik_at_start_and_after_1_2_5_10"][1:]),
            loglik_at_start=found["loglik_at_start_and_after_1_2_5_10"][0],
            parameters={"weights_": found["weights"], "probabilities_": found["probs"]},
            bic=found["bic"],
            iterations=found["iterations"],
        )
        for found in record["fits"]
    }


def reference_cases() -> dict[str, Published]:
    if not REFERENCE.is_dir():
        return {}
    folders = ("gaussian_faithful", "gaussian_iris", "weighted_faithful_counts", "semi_supervised_iris")
    found = {name: case for folder in folders for name, case in mclust_cases(folder).items()}
    return {**found, **lsat6_cases(), **waterdata_cases()}


RECORDS = json.loads((DATA / "published.json").read_text())["cases"]
PUBLISHED = {**{record["id"]: own_case(record) for record in RECORDS}, **reference_cases()}
PARAMETERS = 1e-7  # flexmix prints weights one E-step ahead of the rest: 2e-8; all others agree to 1e-9
LOGLIK = 1e-8  # the convention; slow peers stop 1e-8 below their limit


@pytest.fixture(scope="module", params=sorted(PUBLISHED))
def published(request: pytest.FixtureRequest) -> Published:
    return PUBLISHED[request.param]


@pytest.fixture(scope="module")
def fitted(published: Published) -> Any:
    # 1e-14 per row is what the peers' tolerances come to; 0.1 of the last digit of a log-likelihood.
    return published.fit(tol=1e-14, max_iter=100_000)


def test_reference_folder_is_complete(reference_folder: Path) -> None:
    """With the folder there, all its foundation cases are run: 16 and 8 by mclust, 6 of lsat6, 3 of the water data."""
    assert reference_folder == REFERENCE
    assert len(reference_cases()) == 16 + 8 + 6 + 3
    assert all(case.X.shape[0] > 100 for case in reference_cases().values())


def test_reaches_recorded_loglik(published: Published, fitted: Any) -> None:
    assert fitted.converged_
    assert_allclose(fitted.loglik_, published.loglik, rtol=LOGLIK)


def test_reaches_recorded_parameters(published: Published, fitted: Any) -> None:
    """Where slow peers stopped, their parameters are still on the way: they are compared after as many steps.

    Without a number of steps, the last gain of 1e-11 leaves an error of about its root in the parameters.
    """
    mixture, tolerance = fitted, 2e-5
    if published.iterations is not None:
        mixture = published.fit(tol=0.0, max_iter=published.iterations - 1 + published.offset)
        tolerance = PARAMETERS
    for name, value in published.parameters.items():
        assert_allclose(getattr(mixture, name), value, rtol=tolerance, atol=tolerance, err_msg=name)


def test_follows_recorded_trajectory(published: Published) -> None:
    places = np.array(list(published.trajectory)) - 1 + published.offset
    trace = published.fit(tol=0.0, max_iter=int(places.max())).objective_trace_
    assert len(trace) == places.max() + 1
    # The same arithmetic in another order, and 15 recorded digits: EM contracts, so that iterations add no error.
    assert_allclose(trace[places], list(published.trajectory.values()), rtol=1e-12)
    if published.loglik_at_start is not None:
        assert_allclose(trace[0], published.loglik_at_start, rtol=1e-12)


def test_counts_parameters(published: Published, fitted: Any) -> None:
    assert fitted.n_parameters() == published.n_parameters


def test_criteria(published: Published, fitted: Any) -> None:
    """BIC and ICL are the peers', with the sign for which lower is better."""
    if published.bic is None:
        assert published.row_arguments
        pytest.skip("the peer reports no BIC for weighted or partly labelled rows")
    assert_allclose(fitted.bic(published.X), published.bic, rtol=LOGLIK)
    penalty = published.n_parameters * np.log(len(published.X))
    assert_allclose(fitted.bic(published.X) - penalty, fitted.aic(published.X) - 2 * published.n_parameters, rtol=1e-12)
    if published.icl is not None:
        # The entropy term is of first order in the parameters, which are known to about the root of LOGLIK.
        assert_allclose(fitted.icl(published.X), published.icl, rtol=1e-6)


def test_weighted_patterns_equal_rows() -> None:
    """Answer patterns weighted by their number of rows reach poLCA's optimum of the rows."""
    record = next(record for record in RECORDS if record["id"] == "lsat6-2-best")
    table = read_csv(DATA / "lsat6.csv")
    start = {"weights_init": record["start_weights"], "probabilities_init": record["start_probabilities"]}
    mixture = lvm.BernoulliMixture(2, tol=1e-14, max_iter=100_000, **start)
    mixture.fit(table[:, :-1], sample_weight=table[:, -1])
    # poLCA stopped 7e-9 below the limit.
    assert record["loglik"] <= mixture.loglik_ <= record["loglik"] + 2e-8
    assert_allclose(mixture.bic(table[:, :-1], table[:, -1]), record["bic"], rtol=LOGLIK)
    path = mixture.objective_trace_[list(ITERATIONS)]
    assert_allclose(path, record["loglik_after_1_2_5_10"], rtol=1e-12)


def test_printed_values(faithful: Array, iris: Array) -> None:
    """The values that publications print, from the library's own k-means start; the optimum is a plain one."""
    tight = {"reg_covar": 0.0, "tol": 1e-13, "max_iter": 100_000, "random_state": 0}
    waiting = lvm.GaussianMixture(2, covariance_type="tied", **tight).fit(faithful[:, 1:])
    assert waiting.loglik_ == pytest.approx(-1034.00176, abs=5e-6)
    by_id = {record["id"]: own_case(record) for record in RECORDS}
    shared = by_id["faithful-EEE-3"].fit(tol=1e-14, max_iter=100_000)
    assert shared.loglik_ == pytest.approx(-1126.31593, abs=5e-6)
    species = by_id["iris-VVV-2"].fit(tol=1e-14, max_iter=100_000)
    assert species.loglik_ == pytest.approx(-214.35470, abs=5e-6)
    assert -species.bic(iris) == pytest.approx(-574.0178, abs=5e-5)
