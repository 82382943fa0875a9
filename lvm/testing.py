"""The public conformance suite: it tells whether a model or family keeps the contract of `lvm.protocol`.

In a test module, for a model or a family of your own::

    from lvm.testing import model_checks

    @pytest.mark.parametrize("check", model_checks(model, params, rows), ids=str)
    def test_conformance(check):
        check()
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm._jit import compilations
from lvm.em import ROUNDING, fit_em
from lvm.execution import MIN_CHUNK_ROWS, add_stats
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows, SparseRows, leaves, map_fields, n_rows, slice_rows

# Sums over the same rows in another order agree to about n * eps; 1e-9 leaves room for cancellation.
ORDER = 1e-9
# A correct sampler is refused once in 3 million runs.
SIGMAS = 5.0
N_SAMPLES = 20_000


class ConformanceError(AssertionError):
    """A model breaks the contract; the message lists every broken promise."""


@dataclass(frozen=True)
class Case:
    """What every check is given: a model, valid parameters, and canonical rows."""

    model: Any
    params: Any
    rows: Any

    def objective(self, params: Any, rows: Any = None) -> float:
        """Return what EM climbs."""
        return float(fit_em(self.model, self.rows if rows is None else rows, params, max_iter=0).objective_trace[0])


@dataclass(frozen=True)
class Check:
    """One promise of the contract, ready to be called; raises `AssertionError` where it is broken."""

    function: Callable[[Case], None]
    case: Case

    def __call__(self) -> None:
        """Run the check."""
        self.function(self.case)

    def __str__(self) -> str:
        return self.function.__name__.lstrip("_")


def model_checks(model: Any, params: Any, rows: Any) -> list[Check]:
    """Return the checks of a model, for `pytest.mark.parametrize`.

    Parameters
    ----------
    model : LatentModel or Family
        A family is checked inside a mixture.
    params : NamedTuple
        Valid parameters, not yet at an optimum; for a family, its own or a mixture's. At least two
        components make the checks sharper.
    rows : NamedTuple of row-aligned arrays, or array of shape (n, d)
        Some 50 to 1,000 rows of data, in general position.

    Returns
    -------
    list of Check
        Each is called without arguments; its `str` is its name.
    """
    if not callable(getattr(model, "estep_stats", None)):
        model = Mixture(model)
    if isinstance(model, Mixture) and not isinstance(params, MixtureParams):
        K = len(params[0])
        params = MixtureParams(np.full(K, 1 / K), params)
    if not (isinstance(rows, tuple) and hasattr(rows, "_fields")):
        rows = Rows(rows)
    if hasattr(model, "canonical"):
        rows = model.canonical(rows)
    return [Check(function, Case(model, params, rows)) for function in CHECKS]


def check_model(model: Any, params: Any, rows: Any) -> None:
    """Run every check on a model.

    Parameters
    ----------
    model : LatentModel or Family
        A family is checked inside a mixture.
    params : NamedTuple
        Valid parameters, not yet at an optimum.
    rows : NamedTuple of row-aligned arrays, or array of shape (n, d)
        Data.

    Raises
    ------
    ConformanceError
        Listing each broken promise.
    TypeError
        If the model or family lacks a method.
    """
    broken = []
    for check in model_checks(model, params, rows):
        try:
            check()
        except Exception as error:  # whatever a broken model raises belongs into the list
            broken.append(f"{check}: {error or type(error).__name__}")
    if broken:
        raise ConformanceError(f"{model!r} breaks the contract:\n- " + "\n- ".join(broken))


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _close(a: Any, b: Any, tolerance: float) -> bool:
    """Return whether two trees agree, each array relative to its largest entry."""

    def same(x: Any, y: Any) -> bool:
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        finite = np.isfinite(x)
        if not np.array_equal(finite, np.isfinite(y)) or not np.array_equal(x[~finite], y[~finite]):
            return False
        scale = max(1.0, float(np.max(np.abs(x[finite]), initial=0.0)))
        return bool(np.max(np.abs(x[finite] - y[finite]), initial=0.0) <= tolerance * scale)

    return all(leaves(map_fields(same, a, b)))


def _copy(tree: Any) -> Any:
    return map_fields(lambda leaf: pickle.loads(pickle.dumps(leaf)), tree)


def _same_bits(a: Any, b: Any) -> bool:
    return all(pickle.dumps(x) == pickle.dumps(y) for x, y in zip(leaves(a), leaves(b), strict=True))


def _take(rows: Any, index: NDArray[np.int64]) -> Any:
    """Return the rows at `index`, in that order."""
    return map_fields(lambda field: _take_field(field, index), rows)


def _take_field(field: Any, index: NDArray[np.int64]) -> Any:
    if not isinstance(field, SparseRows):
        return field[index]
    lengths = np.diff(field.indptr)[index]
    entries = np.concatenate([np.arange(field.indptr[i], field.indptr[i + 1]) for i in index])
    data = field.data[entries] if len(field.data) else field.data
    return SparseRows(np.concatenate([[0], np.cumsum(lengths)]), field.indices[entries], data, field.n_features)


# ----- the promises ---------------------------------------------------------------------------------------------


def _methods_and_tuples(case: Case) -> None:
    """The three methods exist; statistics and parameters are NamedTuples of finite float64."""
    stats = case.model.estep_stats(case.rows, case.params)
    for name, tree in (("params", case.params), ("stats", stats), ("mstep", case.model.mstep(stats, case.params))):
        _require(hasattr(tree, "_fields"), f"{name} must be a NamedTuple, got {type(tree).__name__}")
        for leaf in leaves(tree):
            _require(np.asarray(leaf).dtype == np.float64, f"{name} must hold float64, got {np.asarray(leaf).dtype}")
            _require(not np.any(np.isnan(leaf)), f"{name} holds NaN")
    for field in ("loglik", "weight"):
        _require(hasattr(stats, field), f"the statistics must have the field {field!r}")


def _loglik_belongs_to_statistics(case: Case) -> None:
    """`stats.loglik` is the weighted sum of the rows' `loglik`."""
    each = np.asarray(case.model.loglik(case.rows, case.params))
    n = n_rows(case.rows)
    _require(each.shape == (n,), f"loglik has shape {each.shape}, expected ({n},)")
    given = getattr(case.rows, "weight", None)
    weight = np.ones(n) if given is None else given
    stats = case.model.estep_stats(case.rows, case.params)
    _require(
        _close(stats.loglik, weight @ each, ORDER), f"stats.loglik is {stats.loglik}, the rows' sum is {weight @ each}"
    )
    _require(_close(stats.weight, weight.sum(), ORDER), f"stats.weight is {stats.weight}, expected {weight.sum()}")


def _statistics_add_up(case: Case) -> None:
    """The sum of the parts' statistics is the statistics of the whole, for any split."""
    n = n_rows(case.rows)
    whole = case.model.estep_stats(case.rows, case.params)
    for cut in {1, n // 3, n - 1} - {0, n}:
        first = case.model.estep_stats(slice_rows(case.rows, slice(0, cut)), case.params)
        rest = case.model.estep_stats(slice_rows(case.rows, slice(cut, n)), case.params)
        _require(_close(whole, add_stats(first, rest), ORDER), f"statistics split at row {cut} do not add up")


def _row_order_is_irrelevant(case: Case) -> None:
    """Statistics do not depend on the order of rows, nor a row's log-likelihood on its neighbours."""
    order = np.random.RandomState(0).permutation(n_rows(case.rows))
    shuffled = _take(case.rows, order)
    whole, other = (case.model.estep_stats(rows, case.params) for rows in (case.rows, shuffled))
    _require(_close(whole, other, ORDER), "statistics change with the order of the rows")
    each = case.model.loglik(case.rows, case.params)
    _require(_close(each[order], case.model.loglik(shuffled, case.params), ORDER), "loglik changes with the row order")


def _inputs_are_unchanged(case: Case) -> None:
    """No method modifies the rows, the parameters or the statistics that it is given."""
    rows, params = _copy(case.rows), _copy(case.params)
    stats = case.model.estep_stats(rows, params)
    kept = _copy(stats)
    case.model.mstep(stats, params)
    case.model.loglik(rows, params)
    _require(_same_bits(kept, stats), "mstep modifies the statistics")
    _require(_same_bits(_copy(case.params), params), "a method modifies the parameters")
    _require(_same_bits(_copy(case.rows), rows), "a method modifies the rows")


def _calls_repeat(case: Case) -> None:
    """The same call gives the same bits, and compiles nothing the second time."""
    first = case.model.estep_stats(case.rows, case.params)
    case.model.mstep(first, case.params)
    case.model.loglik(case.rows, case.params)
    with compilations() as events:
        again = case.model.estep_stats(case.rows, case.params)
        case.model.mstep(again, case.params)
        case.model.loglik(case.rows, case.params)
    _require(_same_bits(first, again), "two E-steps on the same rows differ")
    _require(not events, "a second call compiles again: arguments must keep one dtype and layout")


def _objective_never_falls(case: Case) -> None:
    """Twelve iterations, none of which lowers the objective."""
    trace = fit_em(case.model, case.rows, case.params, tol=0.0, max_iter=12).objective_trace
    worst = float(np.min(np.diff(trace), initial=0.0))
    _require(worst >= -ROUNDING * max(n_rows(case.rows), np.abs(trace).max()), f"an iteration lowers it by {-worst}")


def _fixed_point_is_a_maximum(case: Case) -> None:
    """No M-step on rows reweighted by a few per cent leads to parameters better than those at convergence.

    An M-step that does not maximise converges to a point where the objective still has a slope: of the
    parameters for weights 1 + t on half of the rows and 1 - t on the others, those for t or for -t lie higher.
    """
    end = fit_em(case.model, case.rows, case.params, tol=1e-13, max_iter=20_000)
    n = n_rows(case.rows)
    rng = np.random.RandomState(0)
    best = end.objective_trace[-1]
    slack = 1e-8 * max(n, abs(best))  # what convergence to a gain of 1e-13 per row can leave
    for _ in range(8):
        order = rng.permutation(n)
        halves = [
            case.model.estep_stats(_take(case.rows, np.sort(part)), end.params) for part in (order[::2], order[1::2])
        ]
        for t in (-0.2, -0.02, 0.02, 0.2):
            stats = map_fields(lambda one, other, t=t: (1 + t) * one + (1 - t) * other, *halves)
            gain = case.objective(case.model.mstep(stats, end.params)) - best
            _require(not gain > slack, f"parameters near the fixed point are better by {gain}: mstep does not maximise")


def _weights_are_repetitions(case: Case) -> None:
    """A row of weight 2 counts as two rows, a row of weight 0 not at all."""
    if not hasattr(case.rows, "weight"):
        return
    n = n_rows(case.rows)
    times = np.random.RandomState(0).randint(0, 4, size=n)
    times[0] = 1
    bare = case.rows._replace(weight=None)
    repeated = case.model.estep_stats(_take(bare, np.repeat(np.arange(n), times)), case.params)
    weighted = case.model.estep_stats(bare._replace(weight=times.astype(np.float64)), case.params)
    _require(_close(repeated, weighted, ORDER), "integer weights and repeated rows give different statistics")


def _known_labels_count(case: Case) -> None:
    """Where all labels are known, the log-likelihood is at most that without them."""
    if not hasattr(case.rows, "labels") or not hasattr(case.params, "weights"):
        return
    free = case.model.loglik(case.rows._replace(labels=None), case.params)
    joint = [
        case.model.loglik(case.rows._replace(labels=np.full(len(free), k, np.int64)), case.params)
        for k in range(len(case.params.weights))
    ]
    _require(_close(free, np.logaddexp.reduce(joint, axis=0), ORDER), "the labelled densities do not add up")


def _threads_change_no_bit(case: Case) -> None:
    """Two threads and one give the same fit, bit for bit."""
    times = -(-3 * MIN_CHUNK_ROWS // n_rows(case.rows))
    rows = _take(case.rows, np.tile(np.arange(n_rows(case.rows)), times))
    one, two = (fit_em(case.model, rows, case.params, tol=0.0, max_iter=2, n_jobs=jobs) for jobs in (1, 2))
    _require(_same_bits(one.params, two.params), "the fit depends on the number of threads")


def _density_fits_sampler(case: Case) -> None:
    """Drawn rows x satisfy E[1{x in A} / p(x)] = size of A: the density is normalised, and it is the sampler's.

    A is a box around the middle of the draws, and its halves, for continuous rows; the set of frequent rows, and
    each of them, for discrete ones.
    """
    if not hasattr(case.model, "sample"):
        return
    X = np.asarray(case.model.sample(case.params, 2 * N_SAMPLES, np.random.RandomState(0))[0])
    _require(X.ndim == 2 and len(X) == 2 * N_SAMPLES, f"sample returns shape {X.shape}")
    X = X[np.random.RandomState(1).permutation(len(X))]
    pilot, fresh = X[:N_SAMPLES], X[N_SAMPLES:]
    rows = case.rows._replace(**{field: None for field in case.rows._fields if field != "X"}, X=fresh)
    inverse = np.exp(-np.asarray(case.model.loglik(rows, case.params)))
    for inside, size in (_frequent_sets if X.dtype.kind in "biu" else _middle_boxes)(pilot, fresh):
        each = np.where(inside, inverse, 0.0)
        error = each.std() / np.sqrt(N_SAMPLES)
        _require(
            abs(each.mean() - size) <= SIGMAS * error + ORDER * size,
            f"the density does not fit the sampler: {each.mean():.6g} +- {error:.2g} instead of {size:.6g}",
        )


def _frequent_sets(pilot: Any, fresh: Any) -> Iterator[tuple[NDArray[np.bool_], float]]:
    """Yield which fresh rows lie in a set, and its size: the rows frequent in the pilot, then one by one."""
    kinds, counts = np.unique(pilot, axis=0, return_counts=True)
    frequent = kinds[np.argsort(-counts)[:20]]
    members = [np.all(fresh == kind, axis=1) for kind in frequent]
    yield np.logical_or.reduce(members), float(len(frequent))
    for member in members[:5]:
        yield member, 1.0


def _middle_boxes(pilot: Any, fresh: Any) -> Iterator[tuple[NDArray[np.bool_], float]]:
    """Yield which fresh rows lie in a box, and its volume: the middle of the pilot, then its halves by each axis."""
    low, middle, high = np.quantile(pilot, [0.2, 0.5, 0.8], axis=0)
    inside = np.all((fresh >= low) & (fresh <= high), axis=1)
    volume = float(np.prod(high - low))
    yield inside, volume
    for j, cut in enumerate(middle):
        share = (cut - low[j]) / (high[j] - low[j])
        yield inside & (fresh[:, j] < cut), volume * share
        yield inside & (fresh[:, j] >= cut), volume * (1 - share)


def _parameters_are_counted(case: Case) -> None:
    """`n_parameters` is an integer >= 0."""
    if hasattr(case.model, "n_parameters"):
        count = case.model.n_parameters(case.params)
        _require(isinstance(count, Integral) and int(count) >= 0, f"n_parameters returns {count!r}")


def _models_pickle(case: Case) -> None:
    """A pickled model works as before: what process pools and clusters need."""
    twin = pickle.loads(pickle.dumps(case.model))
    _require(
        _same_bits(case.model.estep_stats(case.rows, case.params), twin.estep_stats(case.rows, case.params)),
        "a pickled and loaded model gives other statistics",
    )


CHECKS: tuple[Callable[[Case], None], ...] = (
    _methods_and_tuples,
    _loglik_belongs_to_statistics,
    _statistics_add_up,
    _row_order_is_irrelevant,
    _inputs_are_unchanged,
    _calls_repeat,
    _objective_never_falls,
    _fixed_point_is_a_maximum,
    _weights_are_repetitions,
    _known_labels_count,
    _threads_change_no_bit,
    _density_fits_sampler,
    _parameters_are_counted,
    _models_pickle,
)
