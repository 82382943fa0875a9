"""The promises of `lvm.protocol`, one check each; `lvm.testing` hands them out.

A check raises `AssertionError` where the promise is broken, and `unittest.SkipTest` where the model or the rows leave
it open. What is decided by chance has a fixed seed: a check gives the same verdict every time.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any
from unittest import SkipTest

import numpy as np
from numpy.typing import NDArray

from lvm._jit import compilations
from lvm.em import fit_em, rounding
from lvm.execution import MIN_CHUNK_ROWS, add_stats
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import SparseRows, leaves, map_fields, n_rows, row_parts, shortcut, slice_rows, take_rows
from lvm.result import Status

# Sums over the same rows in another order agree to about n * eps; 1e-9 leaves room for cancellation.
ORDER = 1e-9
# Weight by which a group of rows is varied. The parameters move by STEP / groups, about 5e-6 of their spread, which
# leaves some 1e-10 of curvature and of rounding in the central difference.
STEP = 2e-4
# Shares of the longest direction, in columns of equal length: CLEAR ones are no rounding, those below NOISE are.
CLEAR, NOISE = 1e-6, 1e-8


@dataclass(frozen=True)
class Case:
    """What every check is given: a model, valid parameters, and canonical rows."""

    model: Any
    params: Any
    rows: Any

    def objective(self, params: Any) -> float:
        """Return what EM climbs."""
        return float(fit_em(self.model, self.rows, params, max_iter=0).objective_trace[0])

    def rows_with(self, **fields: Any) -> Any:
        """Return the rows with other fields, canonical."""
        rows = self.rows._replace(**fields)
        return self.model.canonical(rows) if hasattr(self.model, "canonical") else rows

    def family(self) -> tuple[Any, Any]:
        """Return the family of a mixture, and its parameters."""
        if not (isinstance(self.model, Mixture) and isinstance(self.params, MixtureParams)):
            raise SkipTest("only a mixture has a family")
        return self.model.family, self.params.components

    def random_labels(self) -> NDArray[np.int64]:
        """Return a random component or -1 for each row, of those that are possible."""
        if "labels" not in self.rows._fields or not hasattr(self.params, "weights"):
            raise SkipTest("the rows have no labels")
        n, K = n_rows(self.rows), len(self.params.weights)
        labels = np.random.RandomState(0).randint(-1, K, n)
        for k in range(K):
            loglik = self.model.loglik(self.rows_with(labels=np.full(n, k)), self.params)
            labels[(labels == k) & ~np.isfinite(loglik)] = -1
        return np.asarray(labels, np.int64)


def require(condition: Any, message: str) -> None:
    """Raise `AssertionError` unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def close(a: Any, b: Any, tolerance: float = ORDER) -> bool:
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
    return map_fields(lambda field: take_rows(field, index), rows)


# ----- the promises ---------------------------------------------------------------------------------------------


def _methods_and_tuples(case: Case) -> None:
    """The three methods exist; statistics and parameters are NamedTuples of finite float64."""
    stats = case.model.estep_stats(case.rows, case.params)
    for name, tree in (("params", case.params), ("stats", stats), ("mstep", case.model.mstep(stats, case.params))):
        require(hasattr(tree, "_fields"), f"{name} must be a NamedTuple, got {type(tree).__name__}")
        for leaf in leaves(tree):
            require(np.asarray(leaf).dtype == np.float64, f"{name} must hold float64, got {np.asarray(leaf).dtype}")
            require(not np.any(np.isnan(leaf)), f"{name} holds NaN")
    for field in ("loglik", "weight"):
        require(hasattr(stats, field), f"the statistics must have the field {field!r}")


def _loglik_belongs_to_statistics(case: Case) -> None:
    """`stats.loglik` is the weighted sum of the rows' `loglik`, also for random weights and labels."""
    n = n_rows(case.rows)
    fields: dict[str, Any] = {}
    if "weight" in case.rows._fields:
        fields["weight"] = np.random.RandomState(0).uniform(0.2, 2.0, n)
    if "labels" in case.rows._fields and hasattr(case.params, "weights"):
        fields["labels"] = case.random_labels()
    for rows in (case.rows, case.rows_with(**fields)):
        each = np.asarray(case.model.loglik(rows, case.params))
        require(each.shape == (n,), f"loglik has shape {each.shape}, expected ({n},)")
        given = getattr(rows, "weight", None)
        weight = np.ones(n) if given is None else given
        stats = case.model.estep_stats(rows, case.params)
        total = weight @ each
        require(close(stats.loglik, total), f"stats.loglik is {stats.loglik}, the rows' weighted sum is {total}")
        require(close(stats.weight, weight.sum()), f"stats.weight is {stats.weight}, expected {weight.sum()}")


def _log_density_adds(case: Case) -> None:
    """A family's `log_density` adds to what `out` holds."""
    family, components = case.family()
    before = np.random.RandomState(0).uniform(1.0, 2.0, (len(case.params.weights), n_rows(case.rows)))
    from_zero, out = np.zeros_like(before), before.copy()
    family.log_density(case.rows.X, components, from_zero)
    family.log_density(case.rows.X, components, out)
    require(close(out, before + from_zero), "log_density must add to what out holds, not replace it")


def _accumulate_adds(case: Case) -> None:
    """A family's `accumulate` adds to what `stats` holds: two halves give the statistics of the whole."""
    family, components = case.family()
    X, n = case.rows.X, n_rows(case.rows)
    resp = np.random.RandomState(0).dirichlet(np.ones(len(case.params.weights)), n).T.copy()
    whole, halves = family.zero_stats(components), family.zero_stats(components)
    family.accumulate(X, resp.copy(), components, whole)
    for part in (slice(0, n // 2), slice(n // 2, n)):
        family.accumulate(X[part], resp[:, part].copy(), components, halves)
    require(close(whole, halves), "accumulate must add to what stats holds: two halves do not give the whole")


def _estep_is_its_steps(case: Case) -> None:
    """A family's `estep`, where it has one, gives what its `log_density` and `accumulate` do."""
    family, _ = case.family()
    if shortcut(family, "estep", "log_density", "accumulate") is None:
        return
    at_once, stepwise = (one(case.rows, case.params) for one in (case.model.estep_stats, case.model.stepwise_stats))
    require(close(at_once, stepwise), "estep differs from log_density and accumulate")


def _statistics_add_up(case: Case) -> None:
    """The sum of the parts' statistics is the statistics of the whole, for any split."""
    n = n_rows(case.rows)
    whole = case.model.estep_stats(case.rows, case.params)
    for cut in {1, n // 3, n - 1} - {0, n}:
        first = case.model.estep_stats(slice_rows(case.rows, slice(0, cut)), case.params)
        rest = case.model.estep_stats(slice_rows(case.rows, slice(cut, n)), case.params)
        require(close(whole, add_stats(first, rest)), f"statistics split at row {cut} do not add up")


def _row_order_is_irrelevant(case: Case) -> None:
    """Statistics do not depend on the order of rows, nor a row's log-likelihood on its neighbours."""
    order = np.random.RandomState(0).permutation(n_rows(case.rows))
    shuffled = _take(case.rows, order)
    whole, other = (case.model.estep_stats(rows, case.params) for rows in (case.rows, shuffled))
    require(close(whole, other), "statistics change with the order of the rows")
    each = case.model.loglik(case.rows, case.params)
    require(close(each[order], case.model.loglik(shuffled, case.params)), "loglik changes with the row order")


def _inputs_are_unchanged(case: Case) -> None:
    """No method modifies the rows, the parameters or the statistics that it is given."""
    rows, params = _copy(case.rows), _copy(case.params)
    stats = case.model.estep_stats(rows, params)
    kept = _copy(stats)
    case.model.mstep(stats, params)
    case.model.loglik(rows, params)
    require(_same_bits(kept, stats), "mstep modifies the statistics")
    require(_same_bits(_copy(case.params), params), "a method modifies the parameters")
    require(_same_bits(_copy(case.rows), rows), "a method modifies the rows")


def _calls_repeat(case: Case) -> None:
    """The same call gives the same bits, and compiles nothing the second time."""
    first = case.model.estep_stats(case.rows, case.params)
    case.model.mstep(first, case.params)
    case.model.loglik(case.rows, case.params)
    with compilations() as events:
        again = case.model.estep_stats(case.rows, case.params)
        case.model.mstep(again, case.params)
        case.model.loglik(case.rows, case.params)
    require(_same_bits(first, again), "two E-steps on the same rows differ")
    require(not events, "a second call compiles again: arguments must keep one dtype and layout")


def _objective_never_falls(case: Case, rows: Any = None) -> None:
    """Twelve iterations, none of which lowers the objective."""
    rows = case.rows if rows is None else rows
    trace = fit_em(case.model, rows, case.params, tol=0.0, max_iter=12).objective_trace
    worst = float(np.min(np.diff(trace), initial=0.0))
    require(worst >= -rounding(rows) * max(n_rows(rows), np.abs(trace).max()), f"an iteration lowers it by {-worst}")


def _fixed_point_is_a_maximum(case: Case) -> None:
    """EM converges, and no M-step on rows reweighted by a few per cent leads to better parameters.

    An M-step that does not maximise converges to a point where the objective still has a slope: of the
    parameters for weights 1 + t on half of the rows and 1 - t on the others, those for t or for -t lie higher.
    """
    end = fit_em(case.model, case.rows, case.params, tol=1e-13, max_iter=20_000)
    n = n_rows(case.rows)
    best = end.objective_trace[-1]
    slack = 1e-8 * max(n, abs(best))  # what convergence to a gain of 1e-13 per row can leave
    if end.status is Status.MAX_ITER and end.objective_trace[-1] - end.objective_trace[-2] < 0.01 * slack:
        raise SkipTest("EM creeps on these rows, as towards the edge of the parameters; give others")
    require(end.converged, f"EM must converge from params, on these rows it ended thus: {end.status}")
    rng = np.random.RandomState(0)
    for _ in range(8):
        order = rng.permutation(n)
        halves = [
            case.model.estep_stats(_take(case.rows, np.sort(part)), end.params) for part in (order[::2], order[1::2])
        ]
        for t in (-0.2, -0.02, 0.02, 0.2):
            stats = map_fields(lambda one, other, t=t: (1 + t) * one + (1 - t) * other, *halves)
            gain = case.objective(case.model.mstep(stats, end.params)) - best
            require(not gain > slack, f"parameters near the fixed point are better by {gain}: mstep does not maximise")


def _weights_are_repetitions(case: Case) -> None:
    """A row of weight 2 counts as two rows, a row of weight 0 not at all."""
    if "weight" not in case.rows._fields:
        raise SkipTest("the rows have no weight")
    n = n_rows(case.rows)
    times = np.random.RandomState(0).randint(0, 4, size=n)
    times[0] = 1
    bare = case.rows._replace(weight=None)
    repeated = case.model.estep_stats(_take(bare, np.repeat(np.arange(n), times)), case.params)
    weighted = case.model.estep_stats(bare._replace(weight=times.astype(np.float64)), case.params)
    require(close(repeated, weighted), "integer weights and repeated rows give different statistics")


def _mstep_needs_no_number_of_rows(case: Case) -> None:
    """Without a prior, all rows taken twice lead to the same parameters."""
    stats = case.model.estep_stats(case.rows, case.params)
    once = case.model.mstep(stats, case.params)
    owner, part = (case.model.family, "components") if isinstance(case.model, Mixture) else (case.model, None)
    for params in (case.params, once):
        if hasattr(owner, "log_prior") and owner.log_prior(getattr(params, part) if part else params) != 0:
            raise SkipTest("with a prior, the number of rows counts")
    twice = case.model.mstep(map_fields(lambda leaf: 2 * leaf, stats), case.params)
    require(close(once, twice), "mstep of doubled statistics differs: it must divide by their own weight")


def _known_labels_count(case: Case) -> None:
    """The labelled densities add up to the free one, and EM climbs the likelihood of labelled rows."""
    labels = case.random_labels()
    free = case.model.loglik(case.rows_with(labels=None), case.params)
    joint = [
        case.model.loglik(case.rows_with(labels=np.full(len(free), k, np.int64)), case.params)
        for k in range(len(case.params.weights))
    ]
    require(close(free, np.logaddexp.reduce(joint, axis=0)), "the labelled densities do not add up")
    _objective_never_falls(case, case.rows_with(labels=labels))


def _threads_change_no_bit(case: Case) -> None:
    """Two threads and one give the same fit, bit for bit."""
    times = -(-3 * MIN_CHUNK_ROWS // n_rows(case.rows))
    rows = _take(case.rows, np.tile(np.arange(n_rows(case.rows)), times))
    one, two = (fit_em(case.model, rows, case.params, tol=0.0, max_iter=2, n_jobs=jobs) for jobs in (1, 2))
    require(_same_bits(one.params, two.params), "the fit depends on the number of threads")


def _parameters_are_counted(case: Case) -> None:
    """`n_parameters` is the number of directions in which the M-step moves the parameters as row weights vary.

    Where the parameters have more freedom than the density, as rotations of factors, n_parameters may leave it out.
    """
    if not hasattr(case.model, "n_parameters"):
        raise SkipTest("the model has no n_parameters")
    count = case.model.n_parameters(case.params)
    require(isinstance(count, Integral) and int(count) >= 0, f"n_parameters returns {count!r}")
    n = n_rows(case.rows)
    distinct = len(np.unique(np.round(case.model.loglik(case.rows, case.params), 9)))
    if n < count + 20 or distinct <= count:
        raise SkipTest(f"{n} rows, {distinct} distinct, are too few for {count} parameters; give {count + 20} or more")
    pairs = list(_reweighted_msteps(case, min(n, int(count) + min(int(count), 100) + 20)))
    ends = [[np.concatenate([np.ravel(leaf) for leaf in leaves(end)]) for end in pair] for pair in pairs]
    clear, rank = _rank(ends, CLEAR), _rank(ends, NOISE)
    if rank < count and _has_constant_column(case.rows):
        raise SkipTest(f"a column of X is constant, which may hide {count - rank} of {count} parameters")
    require(rank >= count, f"n_parameters is {count}, but mstep moves the parameters in {rank} directions only")
    if clear < count:
        raise SkipTest(f"components are so alike that only {clear} to {rank} parameters can be told apart")
    if clear > count:
        clear = _rank([[case.model.loglik(case.rows, end) for end in pair] for pair in pairs], CLEAR)
        require(clear <= count, f"n_parameters is {count}, but mstep moves the density in {clear} directions")


def _reweighted_msteps(case: Case, n_groups: int) -> Iterator[tuple[Any, Any]]:
    """Yield the M-steps after one random group of rows after the other has gained, and has lost, some weight."""
    whole = case.model.estep_stats(case.rows, case.params)
    for part in np.array_split(np.random.RandomState(0).permutation(n_rows(case.rows)), n_groups):
        group = case.model.estep_stats(_take(case.rows, np.sort(part)), case.params)
        more, less = (map_fields(lambda a, b, t=t: a + t * b, whole, group) for t in (STEP, -STEP))
        yield case.model.mstep(more, case.params), case.model.mstep(less, case.params)


def _rank(pairs: Any, smallest: float) -> int:
    """Return the number of dimensions of the differences of pairs, shape (n_pairs, 2, m)."""
    more, less = np.moveaxis(np.array(pairs), 1, 0)
    finite = np.all(np.isfinite(more) & np.isfinite(less), axis=0)
    more, less = more[:, finite], less[:, finite]
    length = np.linalg.norm(more - less, axis=0)
    moved = length > 1e4 * np.finfo(np.float64).eps * np.abs(more).max(axis=0, initial=0.0)  # the others' is rounding
    if not moved.any():
        return 0
    singular = np.linalg.svd((more - less)[:, moved] / length[moved], compute_uv=False)
    return int(np.sum(singular > smallest * singular[0]))


def _has_constant_column(rows: Any) -> bool:
    X = getattr(rows, "X", None)
    if isinstance(X, SparseRows):
        entries = np.bincount(X.indices[X.indptr[0] : X.indptr[-1]], minlength=X.n_features)
        return bool(np.any((entries == 0) | (entries == len(X))))
    arrays = [] if X is None else [part for part in row_parts(X) if not isinstance(part, SparseRows)]
    return any(np.any(~(np.fmin.reduce(part) < np.fmax.reduce(part))) for part in arrays)  # whatever is NaN


def _models_pickle(case: Case) -> None:
    """A pickled model works as before: what process pools and clusters need."""
    twin = pickle.loads(pickle.dumps(case.model))
    require(
        _same_bits(case.model.estep_stats(case.rows, case.params), twin.estep_stats(case.rows, case.params)),
        "a pickled and loaded model gives other statistics",
    )


PROMISES: tuple[Callable[[Case], None], ...] = (
    _methods_and_tuples,
    _loglik_belongs_to_statistics,
    _log_density_adds,
    _accumulate_adds,
    _estep_is_its_steps,
    _statistics_add_up,
    _row_order_is_irrelevant,
    _inputs_are_unchanged,
    _calls_repeat,
    _objective_never_falls,
    _fixed_point_is_a_maximum,
    _weights_are_repetitions,
    _mstep_needs_no_number_of_rows,
    _known_labels_count,
    _threads_change_no_bit,
    _parameters_are_counted,
    _models_pickle,
)
