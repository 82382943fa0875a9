"""Mixtures of regressions, with constant mixing weights or a gate: one model for both, whatever the experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.kernels.elementary import UNDERFLOW
from lvm.kernels.regressions import add_group_sums, spread_over_groups
from lvm.kernels.responsibilities import responsibilities
from lvm.models.expert_rows import ExpertsRows, RegressionRows
from lvm.protocol import ZeroDensityError

MAX_BLOCK_UNITS = 1 << 14
BLOCK_CELLS = 1 << 17  # covariates or responsibilities per block, 1 MB: they stay in the L2 cache
ONES = canonical(np.ones(MAX_BLOCK_UNITS))
UNKNOWN = canonical(np.full(MAX_BLOCK_UNITS, -1), np.int64)


class ExpertsParams(NamedTuple):
    """Parameters of the gate and of the experts."""

    gate: Any
    experts: Any


class ExpertsStats(NamedTuple):
    """Additive statistics of a mixture of regressions.

    Attributes
    ----------
    loglik : float
        Weighted log-likelihood of the units.
    weight : float
        Total weight of the units.
    gate : NamedTuple
        The gate's statistics; `counts` (K,) are the weighted responsibilities, summed over units.
    experts : NamedTuple
        The experts' statistics.
    """

    loglik: float
    weight: float
    gate: Any
    experts: Any


class _Block(NamedTuple):
    """Weighted responsibilities of the units (K, u) and of their rows (K, m), and log-likelihoods (u,)."""

    units: slice
    data: RegressionRows
    resp: Array
    row_resp: Array
    loglik: Array
    total: float


class GatedExperts:
    """Mixture of regressions: p(y | x, z) = sum_k p(k | z) p(y | x, k).

    A unit, a row or a group of rows, belongs to one component: the density of a group given its component is the
    product of those of its rows. Experts and gate without closed M-steps take one Newton step each, which never
    lowers the expected log-likelihood: a generalised EM.

    Parameters
    ----------
    experts : GaussianExperts, PoissonExperts, BinomialExperts or MultinomialExperts
        p(y | x, k). They offer the methods of `lvm.protocol.Family` on `RegressionRows` of single rows, and

        - `start(rows, weight, n_components) -> Params`: identical components that disregard the covariates;
        - `passes`: how often the M-step from given responsibilities is repeated, more than once if it is a Newton step;
        - `targets(rows) -> (n, c)`: the response on the scale of the linear predictors, to lay lines through;
        - `means(design, params)`: expected responses per unit of size (K, n), or class probabilities (K, n, C);
        - `sample(rows, params, components, rng) -> (n,)`: responses of rows whose components (n,) are given.
    gate : ConstantGate or SoftmaxGate
        p(k | z), see `lvm.models.gates`.

    References
    ----------
    Jacobs, Jordan, Nowlan & Hinton (1991), "Adaptive mixtures of local experts". Jordan & Jacobs (1994),
    "Hierarchical mixtures of experts and the EM algorithm", section 3. Gruen & Leisch (2008), "FlexMix version 2".
    """

    def __init__(self, experts: Any, gate: Any) -> None:
        self.experts = experts
        self.gate = gate

    def __repr__(self) -> str:
        return f"GatedExperts({self.experts!r}, {self.gate!r})"

    def canonical(self, rows: ExpertsRows) -> ExpertsRows:
        """Return the rows with their weights as kernels see them; the data are canonical by construction."""
        if rows.weight is None:
            return rows
        return ExpertsRows(rows.data, _checks.row_weights(rows.weight, len(rows.data), "rows.weight"))

    def estep_stats(self, rows: ExpertsRows, params: ExpertsParams) -> ExpertsStats:
        """Return the expected sufficient statistics of the rows, derivatives taken at these parameters.

        Raises
        ------
        ZeroDensityError
            If a unit of positive weight has density 0 under every component.
        """
        gate, experts = self._zero_stats(params)
        loglik = 0.0
        for block in self._posterior(rows, params, gate.counts):
            self._accumulate(block.data, block.resp, block.row_resp, params, (gate, experts))
            loglik += block.total
        weight = float(len(rows.data) if rows.weight is None else np.sum(rows.weight))
        return ExpertsStats(loglik, weight, gate, experts)

    def assigned_stats(self, rows: ExpertsRows, assignment: NDArray[Any], params: ExpertsParams) -> ExpertsStats:
        """Return the statistics under given responsibilities.

        Parameters
        ----------
        rows : ExpertsRows
            Canonical rows.
        assignment : ndarray of shape (n_units,) or (n_units, K)
            Component of each unit, -1 for equal responsibilities; or the responsibilities themselves.
        params : ExpertsParams
            Where derivatives are taken.
        """
        gate, experts = self._zero_stats(params)
        K = len(gate.counts)
        for part in _blocks(rows.data, K):
            given = assignment[part]
            if given.ndim == 2:
                resp = np.array(given.T, np.float64, order="C")
            else:
                resp = np.equal.outer(np.arange(K), given).astype(np.float64)
                resp[:, given < 0] = 1.0 / K
            if rows.weight is not None:
                resp *= rows.weight[part]
            data = rows.data[part]
            np.add(gate.counts, resp.sum(axis=1), out=gate.counts)
            self._accumulate(data, resp, _of_rows(data, resp), params, (gate, experts))
        return ExpertsStats(0.0, float(gate.counts.sum()), gate, experts)

    def from_assignment(self, rows: ExpertsRows, assignment: ArrayLike, n_components: int) -> ExpertsParams:
        """Return starting parameters: the experts fitted to given responsibilities, a gate without covariates.

        Parameters
        ----------
        rows : ExpertsRows
            Canonical rows.
        assignment : array-like of shape (n_units,) or (n_units, K)
            Component of each unit, -1 for equal responsibilities; or the responsibilities themselves.
        n_components : int
            Number of components K.

        Raises
        ------
        DegenerateError
            If an expert's likelihood has no maximum.
        """
        given = np.asarray(assignment)
        data, K = rows.data, n_components
        weight = np.ones(len(data)) if rows.weight is None else np.asarray(rows.weight)
        per_row = weight if data.indptr is None else np.repeat(weight, np.diff(data.indptr))
        start = self.experts.start(data.observations(), per_row, K)
        params = ExpertsParams(self.gate.start(np.full(K, 1 / K)), start)
        for _ in range(self.experts.passes):
            stats = self.assigned_stats(rows, given, params)
            experts = self.experts.mstep(stats.experts, params.experts)
            moved = max(np.max(np.abs(a - b)) for a, b in zip(experts, params.experts, strict=True))
            params = params._replace(experts=experts)
            if moved < 1e-6:  # of whitened covariates: closer is for EM
                break
        return ExpertsParams(self.gate.start(stats.gate.counts / stats.weight), params.experts)

    def mstep(self, stats: ExpertsStats, params: ExpertsParams) -> ExpertsParams:
        """Return parameters that maximise the expected log-likelihood plus log prior, or raise it."""
        return ExpertsParams(
            self.gate.mstep(stats.gate, params.gate), self.experts.mstep(stats.experts, params.experts)
        )

    def log_prior(self, params: ExpertsParams) -> float:
        """Return the log density of all priors, up to a constant."""
        return float(self.gate.log_prior(params.gate) + self.experts.log_prior(params.experts))

    def loglik(self, rows: ExpertsRows, params: ExpertsParams) -> Array:
        """Return the log-likelihood of each unit, shape (n_units,), unweighted; -inf where it is impossible."""
        out = np.empty(len(rows.data))
        for block in self._posterior(rows._replace(weight=None), params, strict=False):
            out[block.units] = block.loglik
        return out

    def joint_log_density(self, rows: ExpertsRows, params: ExpertsParams) -> Array:
        """Return log(p(k | z) p(y | x, k)) of each unit and component, shape (n_units, K), unweighted."""
        log_weights = self.gate.log_weights(params.gate)
        K = len(log_weights)
        out = np.empty((len(rows.data), K))
        for part in _blocks(rows.data, K):
            out[part] = self._log_densities(rows.data[part], params, K)[0].T + log_weights
        return out

    def responsibilities(self, rows: ExpertsRows, params: ExpertsParams) -> Array:
        """Return the posterior probability of each component for each unit, shape (n_units, K)."""
        out = np.empty((len(rows.data), len(self.gate.log_weights(params.gate))))
        for block in self._posterior(rows._replace(weight=None), params):
            out[block.units] = block.resp.T
        return out

    def n_parameters(self, params: ExpertsParams) -> int:
        """Return the number of free parameters of gate and experts."""
        return int(self.gate.n_parameters(params.gate) + self.experts.n_parameters(params.experts))

    def to_vector(self, params: ExpertsParams, origin: ExpertsParams) -> Array:
        """Return coordinates free of units."""
        return np.concatenate(
            [self.gate.to_vector(params.gate), self.experts.to_vector(params.experts, origin.experts)]
        )

    def from_vector(self, vector: Array, origin: ExpertsParams) -> ExpertsParams:
        """Return the parameters that have these coordinates."""
        size = len(self.gate.to_vector(origin.gate))
        return ExpertsParams(
            self.gate.from_vector(vector[:size], origin.gate),
            self.experts.from_vector(vector[size:], origin.experts),
        )

    def _zero_stats(self, params: ExpertsParams) -> tuple[Any, Any]:
        return self.gate.zero_stats(params.gate), self.experts.zero_stats(params.experts)

    def _accumulate(
        self, data: RegressionRows, resp: Array, row_resp: Array, params: ExpertsParams, stats: tuple[Any, Any]
    ) -> None:
        self.gate.accumulate(data.gate, resp, params.gate, stats[0])
        self.experts.accumulate(data.observations(), row_resp, params.experts, stats[1])

    def _log_densities(self, data: RegressionRows, params: ExpertsParams, K: int) -> tuple[Array, Array]:
        """Return log densities of units (K, u), but for the gate's log weights, and of their rows (K, m).

        Where each row is a unit, they are one array.
        """
        observed = data.observations()
        of_rows = np.zeros((K, len(observed)))
        self.experts.log_density(observed, params.experts, of_rows)
        of_units = of_rows
        if data.indptr is not None:
            of_units = np.zeros((K, len(data)))
            add_group_sums(of_rows, data.indptr, of_units)
        self.gate.log_density(data.gate, params.gate, of_units)
        return of_units, of_rows

    def _posterior(
        self, rows: ExpertsRows, params: ExpertsParams, counts: Array | None = None, *, strict: bool = True
    ) -> Iterator[_Block]:
        """Yield the responsibilities of one block of units after the other, and add their sums to counts (K,).

        Strict refuses impossible units. Arrays are reused by the next block.
        """
        log_weights = self.gate.log_weights(params.gate)
        K = len(log_weights)
        counts = np.zeros(K) if counts is None else counts
        no_penalty = np.zeros(K)
        for part in _blocks(rows.data, K):
            data = rows.data[part]
            resp, row_resp = self._log_densities(data, params, K)
            loglik = np.empty(len(data))
            total, _, impossible = responsibilities(
                resp,
                log_weights,
                no_penalty,
                ONES[: len(data)] if rows.weight is None else rows.weight[part],
                UNKNOWN[: len(data)],
                counts,
                loglik,
                UNDERFLOW,
            )
            if impossible >= 0 and strict:
                raise ZeroDensityError(part.start + impossible)
            if data.indptr is not None:
                spread_over_groups(resp, data.indptr, row_resp)
            yield _Block(part, data, resp, row_resp, loglik, total)


def _of_rows(data: RegressionRows, resp: Array) -> Array:
    """Return responsibilities of units (K, u) for each of their rows (K, m)."""
    if data.indptr is None:
        return resp
    out = np.empty((len(resp), int(data.indptr[-1] - data.indptr[0])))
    spread_over_groups(resp, data.indptr, out)
    return out


def _blocks(data: RegressionRows, K: int) -> list[slice]:
    """Cut the units into blocks of nearly equal length."""
    n = len(data)
    p = data.shape[1]  # of a unit, on average
    rows_per_unit = max(1, p // data.design.shape[1])
    most = max(256 // rows_per_unit, 1, min(MAX_BLOCK_UNITS, BLOCK_CELLS // max(p, K * rows_per_unit)))
    count = -(-n // most)
    return [slice(n * i // count, n * (i + 1) // count) for i in range(count)]
