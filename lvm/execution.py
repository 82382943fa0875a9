"""Run an E-step over chunks of rows and add the statistics in chunk order.

The chunks depend on the shape of the data alone and are merged in their order, so that the result is the
same, bit for bit, for any number of threads or workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import pairwise, repeat
from threading import Condition
from types import TracebackType
from typing import Any

import joblib
import numpy as np

from lvm.protocol import SparseRows, ZeroDensityError, leaves, n_rows, protected, shortcut, slice_rows

MAX_CHUNKS = 64
# A chunk costs some 50 microseconds of Python and of hand-over between threads: it should take about a millisecond.
# Wide rows take longer each; but a chunk has statistics of its own, to be filled and added, so not too few of them.
MIN_CHUNK_ROWS = 8192
MIN_WIDE_CHUNK_ROWS = 1024
MIN_CHUNK_CELLS = 1 << 17
MIN_CHUNK_ENTRIES = 32  # of sparse rows, for each feature

OrderedMap = Callable[[Callable[[slice], Any], Iterable[slice]], Iterable[Any]]


def chunk_slices(n: int, width: int = 1, n_features: int = 0) -> list[slice]:
    """Cut n rows of so many values each into at most 64 contiguous chunks of nearly equal length.

    The number of chunks is a power of two: 2, 4 or 8 threads then have equal shares even of a few. Sparse rows, of
    so many features, make fewer: statistics have an entry for each feature, which each chunk clears and adds.
    """
    least = max(MIN_WIDE_CHUNK_ROWS, min(MIN_CHUNK_ROWS, MIN_CHUNK_CELLS // max(1, width)))
    least = max(least, MIN_CHUNK_ENTRIES * n_features // max(1, width))
    n_chunks = 1 << (max(1, min(MAX_CHUNKS, n // least)).bit_length() - 1)
    edges = [n * i // n_chunks for i in range(n_chunks + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def n_threads(n_jobs: int | None) -> int:
    """Return the number of threads that `n_jobs` asks for.

    None means every core that the process may use: its affinity and container limits, and
    `NUMBA_NUM_THREADS`, which joblib lowers inside its workers. Negative values count back from
    that, as in joblib: -1 is all, -2 all but one.
    """
    if n_jobs is not None:
        if isinstance(n_jobs, bool) or not isinstance(n_jobs, (int, np.integer)):
            raise TypeError(f"n_jobs must be None or an integer, got {n_jobs!r}.")
        if n_jobs == 0:
            raise ValueError("n_jobs=0 has no meaning; use None or -1 for every core, or a positive number.")
        if n_jobs > 0:
            return int(n_jobs)
    available = int(joblib.cpu_count())
    limit = os.environ.get("NUMBA_NUM_THREADS", "")
    if limit.isdecimal() and int(limit) > 0:
        available = min(available, int(limit))
    return available if n_jobs is None else max(1, available + 1 + int(n_jobs))


def add_stats(into: Any, more: Any) -> Any:
    """Return the sum of two statistics; the arrays of `into` are reused."""
    if isinstance(into, np.ndarray):
        return np.add(into, more, out=into)
    if isinstance(into, tuple):
        added = map(add_stats, into, more)
        return type(into)(*added) if hasattr(into, "_fields") else tuple(added)
    return None if into is None else into + more


def stats_at(model: Any) -> Callable[[Any], Callable[[Any], Any]]:
    """Return a function of parameters that returns the E-step at them as a function of rows."""

    def by_rows(params: Any) -> Callable[[Any], Any]:
        return lambda rows: model.estep_stats(rows, params)

    return shortcut(model, "estep_at", "estep_stats") or by_rows


class _Fold:
    """The sum, in chunk order, of statistics that several threads compute.

    Each thread takes the next chunk when it has done with one, and whoever closes a gap merges: fewer
    hand-overs between threads than a queue of tasks and a thread that waits for them.
    """

    def __init__(self, function: Callable[[int], Any], n_chunks: int, n_waiting: int) -> None:
        self.total: Any = None
        self.errors: dict[int, BaseException] = {}
        self._function = function
        self._n_chunks = n_chunks
        self._n_waiting = n_waiting  # results that wait for their turn: bounds the memory
        self._taken = 0
        self._merged = 0
        self._waiting: dict[int, Any] = {}
        self._changed = Condition()

    def work(self) -> None:
        """Compute chunks until none is left or one has failed."""
        with self._changed:
            index = self._take()
        while index >= 0:
            try:
                stats = self._function(index)
            except BaseException as error:
                with self._changed:
                    self.errors[index] = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._put(index, stats)
                index = self._take()

    def _take(self) -> int:
        if self.errors or self._taken == self._n_chunks:
            return -1
        self._taken += 1
        return self._taken - 1

    def _put(self, index: int, stats: Any) -> None:
        self._waiting[index] = stats
        while self._merged in self._waiting:
            stats = self._waiting.pop(self._merged)
            self.total = stats if self.total is None else add_stats(self.total, stats)
            self._merged += 1
        if len(self._waiting) > self._n_waiting:
            self._changed.wait_for(lambda: len(self._waiting) <= self._n_waiting or self.errors)
        else:
            self._changed.notify_all()


class Execution:
    """A model's E-step over all rows, by threads or by any ordered `map`.

    Parameters
    ----------
    model : LatentModel
        Whose `estep_stats` runs.
    rows : NamedTuple of row-aligned arrays
        Canonical rows.
    n_jobs : int, optional
        Number of threads, see `n_threads`.
    ordered_map : callable, optional
        `ordered_map(function, chunks)` yields `function(chunk)` in the order of `chunks`; replaces threads.
    """

    def __init__(self, model: Any, rows: Any, n_jobs: int | None = None, ordered_map: OrderedMap | None = None) -> None:
        self._stats_at = stats_at(model)
        self._rows = rows
        self._chunks = chunk_slices(n_rows(rows), _width(rows), _sparse_features(rows))
        self._map = ordered_map
        self._threads = 1
        if ordered_map is None and (len(self._chunks) > 1 or n_jobs is not None):  # counting cores takes a while
            self._threads = min(n_threads(n_jobs), len(self._chunks))
        single = len(self._chunks) == 1
        self._parts = [rows] if single else [slice_rows(rows, chunk) for chunk in self._chunks]
        self._pool = ThreadPoolExecutor(self._threads - 1, thread_name_prefix="lvm") if self._threads > 1 else None

    def __enter__(self) -> Execution:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def estep_stats(self, params: Any) -> Any:
        """Return the statistics of all rows at `params`.

        Raises
        ------
        ZeroDensityError
            Naming the first row in its chunk whose density is 0 under every component.
        """
        stats_of = self._stats_at(params)
        if self._pool is not None:
            return self._threaded(self._pool, stats_of)
        if self._map is None:
            return reduce(add_stats, map(self._stats, repeat(stats_of), self._parts, self._chunks))

        def run(chunk: slice) -> Any:
            return self._stats(stats_of, protected(slice_rows(self._rows, chunk)), chunk)

        return reduce(add_stats, self._map(run, self._chunks))

    def _threaded(self, pool: ThreadPoolExecutor, stats_of: Callable[[Any], Any]) -> Any:
        fold = _Fold(
            lambda index: self._stats(stats_of, self._parts[index], self._chunks[index]),
            len(self._chunks),
            2 * self._threads,
        )
        helpers = [pool.submit(fold.work) for _ in range(self._threads - 1)]
        fold.work()
        for helper in helpers:
            helper.result()
        if fold.errors:
            # Chunks are taken in order: the first that fails is the same for any number of threads.
            raise fold.errors[min(fold.errors)]
        return fold.total

    @staticmethod
    def _stats(stats_of: Callable[[Any], Any], part: Any, chunk: slice) -> Any:
        try:
            return stats_of(part)
        except ZeroDensityError as error:
            raise ZeroDensityError(error.row + chunk.start) from None


def _width(rows: Any) -> int:
    """Return the number of float64 values in a row, on average: a measure of the work that it takes."""
    n = max(1, n_rows(rows))
    return max(
        len(X.indices) // n
        if isinstance(X, SparseRows)
        else int(np.prod(X.shape[1:])) * getattr(X, "itemsize", 8) // 8  # bytes are quick
        for X in leaves(rows)
    )


def _sparse_features(rows: Any) -> int:
    """Return the number of columns of sparse rows, 0 where there are none."""
    return max((X.n_features for X in leaves(rows) if isinstance(X, SparseRows)), default=0)
