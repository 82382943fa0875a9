"""What the command line prints about fits: rich tables and lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lvm.marginals import feature_names
from lvm.result import Status
from lvm.selection import Candidate, Selection

SHORT_NAMES = {"n_components": "K", "covariance_type": "covariance"}
CRITERION_NAMES = {"bic": "BIC", "aic": "AIC", "icl": "ICL", "heldout": "held-out/row (error)"}
MAX_COLUMNS = 6
MAX_NAME = 24
FILE_WIDTH = 120


def console(stderr: bool = False) -> Console:
    """Return a console for stdout or stderr; where that is no terminal, of a fixed and ample width."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=FILE_WIDTH)


@contextmanager
def progress(hidden: bool) -> Iterator[Callable[[int, int, Candidate], None]]:
    """Show a progress bar on stderr, if that is a terminal; yields the callback that `lvm.select` takes."""
    screen = console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen, transient=True, disable=hidden or not screen.is_terminal) as bar:
        task = bar.add_task("fitting", total=None)

        def report(done: int, total: int, candidate: Candidate) -> None:
            last = f"fitted K = {candidate.arguments['n_components']}"
            bar.update(task, completed=done, total=total, description=last)

        yield report


def print_selection(screen: Console, selection: Selection) -> None:
    """Print one line per fit, the best one marked, and the reasons of fits that did not converge."""
    varied = list(selection.table[0].arguments)
    criteria = [name for name in CRITERION_NAMES if name != "heldout" or selection.criterion == "heldout"]
    table = _table()
    for name in varied:
        table.add_column(SHORT_NAMES.get(name, name), justify="right" if name == "n_components" else "left")
    for title in ("params", "log-lik", *(CRITERION_NAMES[name] for name in criteria), "iterations"):
        table.add_column(title, justify="right")
    table.add_column("ended")
    table.add_column("")
    notes = []
    for candidate in selection.table:
        best = candidate.estimator is selection.best
        ended = "failed" if candidate.estimator is None else _short(candidate.estimator.status_)
        table.add_row(
            *(str(candidate.arguments[name]) for name in varied),
            str(candidate.n_parameters) if candidate.n_parameters else "-",
            _fixed(candidate.loglik),
            *(_criterion(candidate, name) for name in criteria),
            str(candidate.n_iter),
            ended,
            "best" if best else "",
            style="bold" if best else None,
        )
        if ended != "converged":
            which = ", ".join(f"{SHORT_NAMES.get(name, name)} {value}" for name, value in candidate.arguments.items())
            notes.append(f"{which}: {candidate.status}")
    _print_whole(screen, table)
    for note in notes:
        screen.print(note, markup=False, style="yellow")


def print_mixture(screen: Console, estimator: Any, counts: Any, rows: int) -> None:
    """Print a fitted mixture: weight, rows and parameters of each component, and how EM ended.

    Parameters
    ----------
    screen : Console
        Where to print.
    estimator : estimator
        A fitted mixture.
    counts : array of shape (K,) or (K + 1,)
        Number of rows assigned to each component, and last to noise.
    rows : int
        Number of rows.
    """
    names = feature_names(estimator)
    shown = list(range(min(len(names), MAX_COLUMNS)))
    what, cells = estimator._described(shown)
    kind = getattr(estimator, "covariance_type", None)
    noise = ["noise"] if getattr(estimator, "noise", False) else []
    K = len(estimator.weights_) - len(noise)
    title = f"{type(estimator).__name__}, K = {K}" + (f", covariance {kind}" if kind else "")
    screen.print(title, style="bold")
    table = _table()
    for heading in ("component", "weight", "rows", *(names[j] for j in shown)):
        table.add_column(_plain(heading), justify="right")
    for k, row in enumerate(cells):
        table.add_row(str(k), f"{estimator.weights_[k]:.4f}", str(counts[k]), *map(Text, row))
    for name in noise:
        table.add_row(name, f"{estimator.weights_[-1]:.4f}", str(counts[-1]))
    _print_whole(screen, table)
    if hasattr(estimator, "degrees_of_freedom_"):
        screen.print("degrees of freedom: " + ", ".join(f"{nu:.4g}" for nu in estimator.degrees_of_freedom_))
    some = f", the first {len(shown)} of {len(names)} columns" if len(shown) < len(names) else ""
    if what:
        screen.print(f"per column: {what}{some}", markup=False)
    per_weight = estimator.lower_bound_
    screen.print(f"log-likelihood {estimator.loglik_:.4f}, {per_weight:.6f} per unit of row weight ({rows} rows)")
    screen.print(f"EM after {estimator.n_iter_} iterations: {estimator.status_}", markup=False)


def print_table(screen: Console, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a plain table of text."""
    table = _table(*headings)
    for row in rows:
        table.add_row(*row)
    _print_whole(screen, table)


def _table(*headings: str) -> Table:
    return Table(*headings, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _print_whole(screen: Console, table: Table) -> None:
    """Print a table at its own width: on a narrow screen its lines wrap, but no number is cut short."""
    width = screen.width
    needed = Measurement.get(screen, screen.options.update(max_width=10_000), table).maximum
    screen.width = max(width, needed)
    screen.print(table)
    screen.width = width


def _plain(name: str) -> Text:
    """Return a name as it is, cut where long: "length [cm]" is no markup."""
    return Text(name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "...")


def _short(status: Status) -> str:
    return status.name.lower().replace("_", " ")


def _criterion(candidate: Candidate, name: str) -> str:
    if name != "heldout":
        return _fixed(getattr(candidate, name))
    return f"{_fixed(candidate.heldout, 4)} ({_fixed(candidate.heldout_error, 4)})"


def _fixed(value: float, digits: int = 2) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"
