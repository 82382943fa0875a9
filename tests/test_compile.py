"""Compile discipline: one signature per kernel whatever a user hands in, and nothing compiled twice.

The work runs in processes of its own (this file as a script), since other tests call kernels with arrays of every kind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Functions of numbers, and of vectors of them.
SIGNATURES = {f"lvm.kernels.elementary.{name}": 2 for name in ("_exp", "log")}

# The E-step is compiled for what it is given to work with: full, tied, diagonal and spherical components, the two of
# heavy tails, and moments without parameters to be.
SIGNATURES["lvm.kernels.estep.run_estep"] = 7
# Heavy tails leave hardly a responsibility at 0, so that their rows are seldom listed.
SIGNATURES["lvm.kernels.listed_rows.run_listed_estep"] = 4

# Kernels that compute in float32 where the rows are float32: as many signatures more.
SINGLE = {
    f"lvm.kernels.{name}": 1
    for name in (
        "components.add_density",
        "components.count_used",
        "elementary._exp_single",
        "elementary.log_single",
        "guesses.sort_by_guess",
        "guesses.write_bounds",
        "moments.column_moments",
        "panels.load_rows",
        "shared._add_between",
        "whitened.add_products",
        "whitened.pack_factor",
    )
} | {"lvm.kernels.estep.run_estep": 4, "lvm.kernels.listed_rows.run_listed_estep": 4}


# ----- in the process of its own ------------------------------------------------------------------------------


def kernels() -> dict[str, Any]:
    """Return every compiled function of the library by its full name."""
    from numba.core.registry import CPUDispatcher

    modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "lvm"}
    found = {}
    for module in modules.values():
        for value in vars(module).values():
            # Parts of kernels are never compiled by themselves.
            if isinstance(value, CPUDispatcher) and value.targetoptions.get("inline") != "always":
                found[f"{value.py_func.__module__}.{value.py_func.__name__}"] = value
    return found


def forms(X: Any, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield X in every form in which users hold tables."""
    import joblib
    import numpy as np
    import pandas as pd

    yield "float64", X
    yield "list", X.tolist()
    yield "float32", X.astype(np.float32)
    yield "integers", np.round(X).astype(np.int64)
    yield "small integers", np.abs(np.round(X)).astype(np.uint8)
    yield "fortran", np.asfortranarray(X)
    yield "strided", np.repeat(X, 2, axis=0)[::2]
    yield "reversed", X[::-1]
    yield "columns of a wider table", np.hstack([X, X])[:, : X.shape[1]]
    yield "big-endian", X.astype(">f8")
    yield "objects", X.astype(object)
    yield "data frame", pd.DataFrame(X)
    frozen = X.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    path = folder / f"{X.shape[1]}.joblib"
    joblib.dump(X, path)
    yield "memory map", joblib.load(path, mmap_mode="r")


def estimators() -> Iterator[tuple[str, Callable[..., Any], Any]]:
    """Yield each estimator with data: several chunks' worth of rows for one thread's block."""
    import numpy as np

    import lvm

    rng = np.random.RandomState(0)
    X = rng.normal(size=(600, 3)) * 3 + 10 * rng.randint(0, 2, (600, 1))
    for kind in ("full", "tied", "diag", "spherical"):
        yield kind, lambda k, kind=kind: lvm.GaussianMixture(k, covariance_type=kind, **ARGUMENTS), X
    for kind in ("full", "diag"):
        yield f"t {kind}", lambda k, kind=kind: lvm.StudentTMixture(k, covariance_type=kind, **ARGUMENTS), X
    yield "bernoulli", lambda k: lvm.BernoulliMixture(k, alpha=1.1, **ARGUMENTS), (X > 3).astype(float)
    yield "exponential", lambda k: lvm.ExponentialMixture(k, rates_prior=(1.0, 0.1), **ARGUMENTS), np.abs(X)
    yield "gamma", lambda k: lvm.GammaMixture(k, **ARGUMENTS), 0.6 + np.abs(X)
    directions = {"normalize": True, "max_concentration": 1e6, **ARGUMENTS}
    for name, rows in (("directions", 0.6 + np.abs(X)), ("close directions", 100 + 0.1 * X)):
        yield name, lambda k: lvm.VonMisesFisherMixture(k, **directions), rows
    yield "multinomial", lambda k: lvm.MultinomialMixture(k, alpha=1.1, **ARGUMENTS), np.abs(np.round(X))
    yield "poisson", lambda k: lvm.PoissonMixture(k, **ARGUMENTS), np.abs(np.round(X))
    yield "negative binomial", lambda k: lvm.NegativeBinomialMixture(k, **ARGUMENTS), np.abs(np.round(X))
    yield "categorical", lambda k: lvm.CategoricalMixture(k, alpha=1.1, **ARGUMENTS), np.abs(np.round(X))


WITHOUT_HOLES = ("multinomial", "t full", "t diag", "directions", "close directions")
ROTATED = ("VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "EII", "EEI", "VEI", "EVI")
ARGUMENTS: dict[str, Any] = {"max_iter": 3, "random_state": 0, "init_params": "random_from_data", "n_jobs": 1}


def use(make: Callable[..., Any], X: Any, K: int, **rows: Any) -> None:
    """Fit and call every method that computes."""
    import numpy as np

    fitted = make(K).fit(X, **rows)
    for method in ("predict", "predict_proba", "score_samples", "score", "bic", "icl"):
        getattr(fitted, method)(X)
    fitted.set_params(warm_start=True).fit(X)
    fitted.sample(5)
    make(K).set_params(init_params=np.arange(len(fitted.predict(X))) % K).fit(X)


def estimators_data() -> Any:
    """Return the real numbers of `estimators`."""
    return next(estimators())[2]


def use_options(X: Any) -> None:
    """Fit every covariance structure, and with each option that has kernels of its own; fill and draw missing cells."""
    import numpy as np

    import lvm

    holes = np.where(np.arange(X.size).reshape(X.shape) % 7 == 0, np.nan, X)
    for kind in ROTATED:
        lvm.GaussianMixture(2, covariance_type=kind, **ARGUMENTS).fit(X)
    for kind in ("full", "tied", "diag", "spherical"):
        fitted = lvm.GaussianMixture(2, covariance_type=kind, **ARGUMENTS).fit(holes)
        fitted.impute(holes)
        fitted.sample_missing(holes)
    for options in ({"max_eigenvalue_ratio": 5.0}, {"prior": "default"}, {"noise": True}):
        lvm.GaussianMixture(2, **options, **ARGUMENTS).fit(X)
    lvm.MixtureOfFactorAnalyzers(2, n_factors=1, max_iter=3, random_state=0).fit(X)
    lvm.FactorAnalysis(1, max_iter=3).fit(np.hstack([X, X[::-1]]))


def fit_listed_rows(dtype: Any, K: int) -> None:
    """Fit well separated components, many enough for rows to be listed, and sorted by their likeliest one."""
    import numpy as np

    import lvm

    means = 10 * np.random.RandomState(0).normal(size=(K, 6))
    X = (np.repeat(means, 33_000 // K, axis=0) + np.random.RandomState(1).normal(size=(33_000 // K * K, 6))).astype(
        dtype
    )
    settings = {"max_iter": 2, "tol": 0, "n_jobs": 1}
    for kind in ("full", "tied", "diag", "spherical"):
        lvm.GaussianMixture(K, covariance_type=kind, means_init=means, **settings).fit(X)


def exercise(folder: Path) -> dict[str, Any]:
    """Fit everything in every form; report how much was compiled when."""
    import numpy as np
    from numba.core import event
    from scipy import sparse

    warnings.simplefilter("ignore")
    compiled: dict[str, int] = {}
    rng = np.random.RandomState(1)
    for name, make, X in estimators():
        for K in (2, 1):  # with K = 1 or d = 1, arrays are contiguous in both orders
            with event.install_recorder("numba:compile") as first:
                use(make, X, K)
                use(make, X, K, labels=np.ones((len(X), K), np.bool_))
                other = sparse.csr_matrix(X) if name in ("bernoulli", "multinomial") else X.astype(np.float32)
                use(make, other, K)
                if name not in WITHOUT_HOLES:
                    use(make, np.where(np.arange(X.size).reshape(X.shape) % 7 == 0, np.nan, X), K)
            compiled[f"first fit of {name}, K={K}"] = len(first.buffer)
        with event.install_recorder("numba:compile") as second:
            use(make, X[:300, :2], 3)
            use(make, X[:, : 2 if "directions" in name else 1], 2)
            for form, data in forms(X, folder):
                if not (name == "bernoulli" and "integers" in form and np.max(data) > 1):
                    use(make, data, 2)
            n = len(X)
            weights = [rng.uniform(size=n), rng.randint(1, 3, n), [1.0] * n, rng.uniform(size=2 * n)[::2]]
            for weight in weights:
                use(make, X, 2, sample_weight=weight)
            for labels in (
                rng.randint(-1, 2, n),
                [-1] * n,
                rng.randint(-1, 2, n).astype(np.int8),
                np.zeros(2 * n)[::2],
                np.ones((n, 2), np.bool_),
                np.ones((2, n)).T,
            ):
                use(make, X, 2, labels=labels)
            if name in ("bernoulli", "multinomial"):
                for matrix in (sparse.csc_matrix(X), sparse.coo_array(X), sparse.csr_matrix(X.astype(np.float32))):
                    use(make, matrix, 2)
        compiled[f"later fits of {name}"] = len(second.buffer)
    with event.install_recorder("numba:compile") as others:
        use_options(X=estimators_data())
    compiled["first fits with other structures and options"] = len(others.buffer)
    for dtype in (np.float64, np.float32):
        fit_listed_rows(dtype, 20)
        with event.install_recorder("numba:compile") as second:
            fit_listed_rows(dtype, 30)
        compiled[f"later fits of listed rows in {np.dtype(dtype).name}"] = len(second.buffer)
    return compiled


def warm_up(_folder: Path) -> dict[str, Any]:
    """Do what `python -m lvm warmup` does; report as `exercise`."""
    from lvm.warmup import fill_cache

    return {"the warm-up": fill_cache().n_compiled}


if __name__ == "__main__":
    of_work = {work.__name__: work for work in (exercise, warm_up)}[sys.argv[1]](Path(sys.argv[2]))
    of_kernels = {name: [str(s) for s in kernel.signatures] for name, kernel in kernels().items()}
    sys.stdout.write(json.dumps({"signatures": of_kernels, "compiled": of_work}))
    sys.exit()


# ----- the tests ----------------------------------------------------------------------------------------------

import pytest  # noqa: E402 - a script needs none of it


def run(work: Callable[[Path], Any], folder: Path, cache: Path) -> dict[str, Any]:
    """Return what was compiled, and the signatures of all kernels in use, of work in a process of its own."""
    command = [sys.executable, __file__, work.__name__, str(folder)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty cache: everything is compiled once more, so that inner calls show their signatures too."""
    return tmp_path_factory.mktemp("numba")


@pytest.fixture(scope="module")
def fresh(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(exercise, tmp_path_factory.mktemp("data"), cache)


@pytest.fixture(scope="module")
def later(fresh: dict[str, Any], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:  # noqa: ARG001
    return run(exercise, tmp_path_factory.mktemp("data"), cache)


def test_every_kernel_is_used(fresh: dict[str, Any]) -> None:
    unused = [name for name, signatures in fresh["signatures"].items() if not signatures]
    assert len(fresh["signatures"]) > 10
    assert unused == []


def test_one_signature_per_kernel(fresh: dict[str, Any]) -> None:
    extra = {}
    for name, found in fresh["signatures"].items():
        single = [signature for signature in found if "float32" in signature]
        if len(found) - len(single) > SIGNATURES.get(name, 1) or len(single) > SINGLE.get(name, 0):
            extra[name] = found
    assert extra == {}
    for name in ("lvm.kernels.estep.run_estep", "lvm.kernels.listed_rows.run_listed_estep"):  # none is passed over
        assert len(fresh["signatures"][name]) == SIGNATURES[name] + SINGLE[name]


def test_float32_has_kernels_of_its_own(fresh: dict[str, Any]) -> None:
    names = [name for name, found in fresh["signatures"].items() if any("float32" in each for each in found)]
    assert set(names) == set(SINGLE)


def test_later_fits_compile_nothing(fresh: dict[str, Any]) -> None:
    compiled = fresh["compiled"]
    assert compiled["first fit of full, K=2"] > 0  # else the count would see nothing at all
    assert {name: n for name, n in compiled.items() if n and (name.startswith("later") or name.endswith("K=1"))} == {}


def test_later_processes_compile_nothing(fresh: dict[str, Any], later: dict[str, Any]) -> None:
    """The cache on disk serves the next process whole."""
    assert sum(fresh["compiled"].values()) > 0
    assert sum(later["compiled"].values()) == 0


def test_the_warmup_leaves_nothing_to_compile(later: dict[str, Any], cache: Path, tmp_path: Path) -> None:
    """All that the other process loaded, it loads too; from an empty cache, it would compile the same."""
    warmed = run(warm_up, tmp_path, cache)["signatures"]
    missing = {name: set(found) - set(warmed[name]) for name, found in later["signatures"].items()}
    assert sum(map(len, later["signatures"].values())) > 50
    assert {name: found for name, found in missing.items() if found} == {}
