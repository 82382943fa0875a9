"""The public conformance suite: it tells whether a model or family keeps the contract of `lvm.protocol`.

In a test module, for a model or a family of your own::

    from lvm.testing import model_checks

    @pytest.mark.parametrize("check", model_checks(model, params, rows), ids=str)
    def test_conformance(check):
        check()

What rows decide is in `lvm.promises`; here are the checks of `sample`, on rows drawn from the parameters. Their seeds
are fixed. Over seeds, a comparison at five standard errors fails for one correct model in 2 million; a check holds
some 2 d + K of them, hence fails for about one in 2 million / (2 d + K).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import SkipTest

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import expit, gammaln, logsumexp
from scipy.stats import binom, chi2
from sklearn.cluster import KMeans

from lvm.em import fit_em
from lvm.models.mixture import Mixture, MixtureParams
from lvm.promises import ORDER, PROMISES, Case, require
from lvm.protocol import Array, Rows, leaves

__all__ = ["Case", "Check", "ConformanceError", "check_model", "model_checks"]

N_DRAWS = 20_000
# Level of a single test whose distribution is known; five standard errors elsewhere.
LEVEL = 1e-7
SIGMAS = 5.0
EVERYWHERE = "over all rows"
DEGREES = 5.0  # of freedom of the t distribution that proposes rows: tails heavier than most, moments that exist


class ConformanceError(AssertionError):
    """A model breaks the contract; the message lists every broken promise."""


@dataclass(frozen=True)
class Check:
    """One promise of the contract, ready to be called.

    A call raises `AssertionError` where the promise is broken, and `unittest.SkipTest`, which pytest reports as
    skipped, where this model or these rows leave it open.
    """

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
        Valid parameters, not yet at an optimum, from which EM converges; for a family, its own or a mixture's.
        At least two components, which differ, make the checks sharper.
    rows : NamedTuple of row-aligned arrays, or array of shape (n, d)
        Some 50 to 1,000 rows of data, in general position: more rows than parameters, no constant column.

    Returns
    -------
    list of Check
        Each is called without arguments; its `str` is its name.
    """
    if not callable(getattr(model, "estep_stats", None)):
        model = Mixture(model)
    if isinstance(model, Mixture) and not isinstance(params, MixtureParams):
        K = len(next(leaves(params)))
        params = MixtureParams(np.full(K, 1 / K), params)
    if not (isinstance(rows, tuple) and hasattr(rows, "_fields")):
        rows = Rows(rows)
    if hasattr(model, "canonical"):
        rows = model.canonical(rows)
    return [Check(function, Case(model, params, rows)) for function in (*PROMISES, *OF_DRAWS)]


def check_model(model: Any, params: Any, rows: Any) -> list[str]:
    """Run every check on a model.

    Parameters
    ----------
    model : LatentModel or Family
        A family is checked inside a mixture.
    params : NamedTuple
        Valid parameters, not yet at an optimum, from which EM converges.
    rows : NamedTuple of row-aligned arrays, or array of shape (n, d)
        Data.

    Returns
    -------
    list of str
        The checks that this model or these rows leave open, each with the reason.

    Raises
    ------
    ConformanceError
        Listing each broken promise.
    TypeError
        If the model or family lacks a method.
    """
    broken, undecided = [], []
    for check in model_checks(model, params, rows):
        try:
            check()
        except SkipTest as reason:
            undecided.append(f"{check}: {reason}")
        except Exception as error:  # whatever a broken model raises belongs into the list
            broken.append(f"{check}: {error or type(error).__name__}")
    if broken:
        raise ConformanceError(f"{model!r} breaks the contract:\n- " + "\n- ".join(broken))
    return undecided


# ----- drawn rows -----------------------------------------------------------------------------------------------


def _spread(case: Case) -> Any:
    """Return the parameters, in a mixture with weights half-way to equal ones, so that each component is drawn."""
    if not isinstance(case.params, MixtureParams):
        return case.params
    weights = case.params.weights
    return case.params._replace(weights=(weights + 1 / len(weights)) / 2)


def _draw(case: Case, n: int, seed: int) -> tuple[Array, Any]:
    """Return drawn rows (n, d) in random order, and their components (n,) or None."""
    if not hasattr(case.model, "sample"):
        raise SkipTest("the model has no sample")
    if "X" not in case.rows._fields or not set(case.rows._fields) <= set(Rows._fields):
        raise SkipTest("only rows of X alone can be drawn")
    rng = np.random.RandomState(seed)
    drawn = case.model.sample(_spread(case), n, rng)
    X, components = (np.asarray(drawn[0]), np.asarray(drawn[1])) if isinstance(drawn, tuple) else (drawn, None)
    require(np.ndim(X) == 2 and len(X) == n, f"sample returns shape {np.shape(X)}, expected {n} rows")
    order = rng.permutation(n)
    return X[order], None if components is None or components.shape != (n,) else components[order]


def _rows(case: Case, X: Any) -> Any:
    """Return canonical rows of nothing but X."""
    dtype = getattr(case.rows.X, "dtype", None)
    fields = dict.fromkeys(case.rows._fields)
    return case.rows_with(**{**fields, "X": np.ascontiguousarray(X, dtype)})


def _sampler_follows_its_seed(case: Case) -> None:
    """The same seed gives the same rows; another seed, and the next call, give others."""
    if not hasattr(case.model, "sample"):
        raise SkipTest("the model has no sample")

    def draw(k: int, rng: np.random.RandomState) -> Any:
        if isinstance(case.model, Mixture):
            return np.asarray(case.model.family.sample(case.params.components, k, 100, rng))
        drawn = case.model.sample(case.params, 100, rng)
        return np.asarray(drawn[0] if isinstance(drawn, tuple) else drawn)

    for k in range(len(case.params.weights) if isinstance(case.model, Mixture) else 1):
        rng = np.random.RandomState(0)
        first, following = draw(k, rng), draw(k, rng)
        require(np.array_equal(first, draw(k, np.random.RandomState(0))), "sample differs for the same seed")
        if np.all(first == first[0]):
            continue  # there may be nothing else to draw
        require(not np.array_equal(first, following), "a second call of sample with the same rng draws the same rows")
        require(not np.array_equal(first, draw(k, np.random.RandomState(1))), "sample ignores the seed of rng")


def _sampler_fits_density(case: Case) -> None:
    """EM from `params` on rows drawn from them finds no better ones than chance allows.

    Twice the gain of log-likelihood is at most chi-squared with n_parameters degrees of freedom (Wilks, 1938). A
    fifth is left for parameters near an edge.
    """
    X, _ = _draw(case, N_DRAWS, 2)
    rows, params = _rows(case, X), _spread(case)
    count = sum(np.size(leaf) for leaf in leaves(params))
    if hasattr(case.model, "n_parameters"):
        count = int(case.model.n_parameters(params))
    found = fit_em(case.model, rows, params, tol=1e-6, max_iter=100)
    gain = 2 * (found.loglik - float(np.sum(case.model.loglik(rows, params))))
    limit = 1.2 * float(chi2.isf(LEVEL, max(count, 1)))
    require(
        gain <= limit,
        f"the density does not fit the sampler: on {N_DRAWS} rows drawn from params, other parameters have a "
        f"likelihood ratio of {gain:.5g}, where chance allows {limit:.5g}",
    )


def _frequent_rows_have_their_density(case: Case) -> None:
    """Rows that are drawn often are drawn as often as their density says, each and together."""
    X, _ = _draw(case, 2 * N_DRAWS, 0)
    kinds, counts = np.unique(X[:N_DRAWS], axis=0, return_counts=True)
    frequent = kinds[np.argsort(-counts)[:20]][np.sort(counts)[::-1][:20] >= 50]
    if len(frequent) == 0:
        raise SkipTest("no row is drawn often enough")
    density = np.exp(case.model.loglik(_rows(case, frequent), _spread(case)))
    hits = [int(np.sum(np.all(X[N_DRAWS:] == kind, axis=1))) for kind in frequent]
    for probability, hit in ((float(density.sum()), sum(hits)), *zip(density, hits, strict=True)):
        expected = min(probability, 1.0)
        tail = min(binom.cdf(hit, N_DRAWS, expected), binom.sf(hit - 1, N_DRAWS, expected))
        require(
            probability <= 1 + ORDER and tail > LEVEL,
            f"the density does not fit the sampler: rows of probability {probability:.5g} are {hit} of {N_DRAWS} draws",
        )


def _density_integrates_to_one(case: Case) -> None:
    """The density is that of the drawn rows, in height too: over a box, and where a column is low or central.

    For any density q and event A, with rows y drawn from q and x from the density p of the model,
    E[1{y in A} p / (p + q)] = E[1{x in A} q / (p + q)]; were p times too large by a factor, so would be their ratio.
    Unlike p / q, these terms are bounded, hence the standard errors can be trusted: 30 / N_DRAWS covers rare ones.

    References
    ----------
    Meng & Wong (1996), "Simulating ratios of normalizing constants via a simple identity", Statistica Sinica 6.
    Maurer & Pontil (2009), "Empirical Bernstein bounds and sample variance penalization", theorem 4.
    """
    X, components = _draw(case, 2 * N_DRAWS, 0)
    pilot, drawn = np.asarray(X[:N_DRAWS], np.float64), np.asarray(X[N_DRAWS:], np.float64)
    proposal = _Proposal(pilot, None if components is None else components[:N_DRAWS])
    sides = []
    for rows, sign in ((proposal.sample(N_DRAWS, np.random.RandomState(1)), 1), (drawn, -1)):
        rows = rows[proposal.covers(rows)]
        p = np.asarray(case.model.loglik(_rows(case, rows), _spread(case)))
        require(not np.any(np.isnan(p)), "loglik is NaN")
        q = proposal.log_density(rows)
        columns = np.column_stack([rows, q.argmax(axis=0)])
        sides.append((columns, expit(sign * (p - logsumexp(q, axis=0)))))
    for name, column, low, high in proposal.events():
        terms = [np.where((x[:, column] >= low) & (x[:, column] <= high), term, 0.0) for x, term in sides]
        of_density, of_draws = (float(each.sum()) / N_DRAWS for each in terms)
        variance = sum(float(each @ each) / N_DRAWS - (float(each.sum()) / N_DRAWS) ** 2 for each in terms)
        slack = SIGMAS * np.sqrt(variance / N_DRAWS) + 30 / N_DRAWS
        require(
            abs(of_density - of_draws) <= slack,
            f"the density does not fit the sampler: {name}, it is {of_density / max(of_draws, 1e-300):.5g} times that "
            "of the drawn rows",
        )
        if name == EVERYWHERE and not slack < 0.5 * of_draws:
            raise SkipTest("no known density is near enough to that of the drawn rows: a factor would go unnoticed")


class _Proposal:
    """A density near that of the pilot draws (n, d), whose integral is known.

    A mixture over groups of draws, of which the last is all of them. In each, columns with repeated values are
    independent with smoothed frequencies, the others follow a multivariate t distribution.
    """

    def __init__(self, pilot: Array, components: Any) -> None:
        n, d = pilot.shape
        self.pilot = pilot
        self.values = [np.unique(column) for column in pilot.T]
        self.discrete = np.array([len(v) < n / 2 or np.array_equal(v, np.rint(v)) for v in self.values], np.bool_)
        if components is None:
            components = KMeans(4, n_init=1, random_state=0).fit_predict(pilot / np.maximum(pilot.std(axis=0), 1e-300))
        kinds, counts = np.unique(components, return_counts=True)
        self.groups = [pilot[components == kind] for kind in kinds[counts >= 20 * (d + 1)]] + [pilot]
        shares = np.array([len(group) for group in self.groups], np.float64)
        shares[-1] *= 0.1
        self.shares = shares / shares.sum()
        norms = np.linalg.norm(pilot, axis=1)
        if not self.discrete.any() and np.ptp(norms) <= 1e-9 * norms.max():
            raise SkipTest("the drawn rows lie on a sphere")
        try:
            self.t = [self._location_and_factor(group[:, ~self.discrete]) for group in self.groups]
        except np.linalg.LinAlgError:
            raise SkipTest("the drawn rows lie in a subspace") from None
        self.frequencies: list[dict[Any, Array]] = [
            {j: _frequencies(group[:, j], self.values[j]) for j in np.flatnonzero(self.discrete)}
            for group in self.groups
        ]

    @staticmethod
    def _location_and_factor(rows: Array) -> tuple[Array, Array]:
        """Return mean and Cholesky factor of a scatter matrix that heavy tails do not inflate."""
        if rows.shape[1] == 0:
            return np.zeros(0), np.zeros((0, 0))
        clipped = np.clip(rows, *np.quantile(rows, [0.01, 0.99], axis=0))
        scatter = np.atleast_2d(np.cov(clipped.T))
        scale = np.sqrt(np.diag(scatter))
        factor = np.linalg.cholesky(scatter / np.outer(scale, scale))
        if not np.linalg.eigvalsh(np.atleast_2d(np.corrcoef(rows.T)))[0] > 1e-12:  # clipped rows may leave a subspace
            raise np.linalg.LinAlgError
        return clipped.mean(axis=0), 1.05 * scale[:, None] * factor

    def sample(self, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows."""
        parts = []
        for g, count in enumerate(rng.multinomial(n, self.shares)):
            rows = np.empty((count, len(self.values)))
            for j in np.flatnonzero(self.discrete):
                rows[:, j] = rng.choice(self.values[j], count, p=self.frequencies[g][j])
            location, factor = self.t[g]
            stretch = np.sqrt(DEGREES / rng.chisquare(DEGREES, (count, 1)))
            rows[:, ~self.discrete] = location + rng.standard_normal((count, len(location))) @ factor.T * stretch
            parts.append(rows)
        return np.concatenate(parts)

    def log_density(self, rows: Array) -> Array:
        """Return the log joint densities of groups and rows, shape (n_groups, n)."""
        out = np.empty((len(self.groups), len(rows)))
        for g, (location, factor) in enumerate(self.t):
            d = len(location)
            out[g] = np.log(self.shares[g]) + gammaln((DEGREES + d) / 2) - gammaln(DEGREES / 2)
            out[g] -= d / 2 * np.log(DEGREES * np.pi) + np.log(np.diag(factor)).sum()
            if d:
                z = solve_triangular(factor, (rows[:, ~self.discrete] - location).T, lower=True)
                out[g] -= (DEGREES + d) / 2 * np.log1p(np.square(z).sum(axis=0) / DEGREES)
        for j in np.flatnonzero(self.discrete):
            place = np.searchsorted(self.values[j], rows[:, j])
            for g, frequencies in enumerate(self.frequencies):
                out[g] += np.log(frequencies[j])[place]
        return out

    def covers(self, rows: Array) -> NDArray[np.bool_]:
        """Return which rows lie in the box of the pilot draws; discrete ones have known values and a known total.

        Beyond, the density of the model may be undefined, and where the total is fixed, it is one given the total.
        """
        inside = np.all((rows >= self.pilot.min(axis=0)) & (rows <= self.pilot.max(axis=0)), axis=1)
        for j in np.flatnonzero(self.discrete):
            inside &= np.isin(rows[:, j], self.values[j])
        if self.discrete.any():
            totals = self.pilot[:, self.discrete].sum(axis=1)
            inside &= np.isin(rows[:, self.discrete].sum(axis=1), totals)
        return np.asarray(inside, np.bool_)

    def events(self) -> Iterator[tuple[str, int, float, float]]:
        """Yield events: a name, and the column that lies between two bounds; behind those of rows is their group."""
        d = self.pilot.shape[1]
        yield EVERYWHERE, 0, -np.inf, np.inf
        for g in range(len(self.groups) - 1):
            yield f"near component {g}", d, g, g
        for j, (low, middle, high) in enumerate(np.quantile(self.pilot, [0.25, 0.5, 0.75], axis=0).T):
            yield f"where column {j} is at most {middle:.5g}", j, -np.inf, middle
            yield f"where column {j} lies between {low:.5g} and {high:.5g}", j, low, high


def _frequencies(column: Array, values: Array) -> Array:
    """Return smoothed frequencies of sorted values, all > 0."""
    counts = np.bincount(np.searchsorted(values, column), minlength=len(values)) + 0.5
    return np.asarray(counts / counts.sum())


OF_DRAWS: tuple[Callable[[Case], None], ...] = (
    _sampler_follows_its_seed,
    _sampler_fits_density,
    _frequent_rows_have_their_density,
    _density_integrates_to_one,
)
