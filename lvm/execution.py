"""Run an E-step over chunks of rows and add the statistics in chunk order.

The chunks depend on the number of rows alone and are merged in their order, so that the result is the
same, bit for bit, for any number of threads or workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Condition
from types import TracebackType
from typing import Any

import joblib
import numpy as np

from lvm.protocol import ZeroDensityError, map_fields, n_rows, slice_rows

MAX_CHUNKS = 64
# Below about 2,000 rows a chunk costs more to hand out than a second thread saves.
MIN_CHUNK_ROWS = 2048

OrderedMap = Callable[[Callable[[slice], Any], Iterable[slice]], Iterable[Any]]


def chunk_slices(n: int) -> list[slice]:
    """Cut n rows into at most 64 contiguous chunks of nearly equal length."""
    n_chunks = max(1, min(MAX_CHUNKS, n // MIN_CHUNK_ROWS))
    edges = [n * i // n_chunks for i in range(n_chunks + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def n_threads(n_jobs: int | None) -> int:
    """Return the number of threads that `n_jobs` asks for.

    None means every core that the process may use: its affinity and container limits, and
    `NUMBA_NUM_THREADS`, which joblib lowers inside its workers. Negative values count back from
    that, as in joblib: -1 is all, -2 all but one.
    """
    available = int(joblib.cpu_count())
    limit = os.environ.get("NUMBA_NUM_THREADS", "")
    if limit.isdecimal() and int(limit) > 0:
        available = min(available, int(limit))
    if n_jobs is None:
        return available
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, (int, np.integer)):
        raise TypeError(f"n_jobs must be None or an integer, got {n_jobs!r}.")
    if n_jobs == 0:
        raise ValueError("n_jobs=0 has no meaning; use None or -1 for every core, or a positive number.")
    return int(n_jobs) if n_jobs > 0 else max(1, available + 1 + int(n_jobs))


def add_stats(into: Any, more: Any) -> Any:
    """Return the sum of two statistics; the arrays of `into` are reused."""

    def add(a: Any, b: Any) -> Any:
        return np.add(a, b, out=a) if isinstance(a, np.ndarray) else a + b

    return map_fields(add, into, more)


class _Fold:
    """The sum, in chunk order, of statistics that several threads compute.

    Each thread takes the next chunk when it has done with one, and whoever closes a gap merges: fewer
    hand-overs between threads than a queue of tasks and a thread that waits for them.
    """

    def __init__(self, function: Callable[[slice], Any], chunks: list[slice], n_waiting: int) -> None:
        self.total: Any = None
        self.errors: dict[int, BaseException] = {}
        self._function = function
        self._chunks = chunks
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
                stats = self._function(self._chunks[index])
            except BaseException as error:
                with self._changed:
                    self.errors[index] = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._put(index, stats)
                index = self._take()

    def _take(self) -> int:
        if self.errors or self._taken == len(self._chunks):
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
        self._model = model
        self._rows = rows
        self._chunks = chunk_slices(n_rows(rows))
        self._map = ordered_map or map
        self._threads = 1 if ordered_map else min(n_threads(n_jobs), len(self._chunks))
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
        if self._pool is not None:
            return self._threaded(self._pool, params)
        total = None
        for stats in self._map(lambda chunk: self._chunk_stats(chunk, params), self._chunks):
            total = stats if total is None else add_stats(total, stats)
        return total

    def _threaded(self, pool: ThreadPoolExecutor, params: Any) -> Any:
        fold = _Fold(lambda chunk: self._chunk_stats(chunk, params), self._chunks, 2 * self._threads)
        helpers = [pool.submit(fold.work) for _ in range(self._threads - 1)]
        fold.work()
        for helper in helpers:
            helper.result()
        if fold.errors:
            # Chunks are taken in order: the first that fails is the same for any number of threads.
            raise fold.errors[min(fold.errors)]
        return fold.total

    def _chunk_stats(self, chunk: slice, params: Any) -> Any:
        try:
            return self._model.estep_stats(slice_rows(self._rows, chunk), params)
        except ZeroDensityError as error:
            raise ZeroDensityError(error.row + chunk.start) from None
