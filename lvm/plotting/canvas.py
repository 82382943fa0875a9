"""What the pictures share: colours, markers, sizes, ticks, and figures that need no pyplot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# Okabe & Ito (2008), "Color universal design", with grey for the yellow and black, hard to see or to tell from axes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
INK = "#333333"
PALE = "#D9D9D9"
MAX_POINTS = 5000


def sized(figure: Figure | None, width: float, height: float) -> Figure:
    """Return a new figure, or the one given, of a size in inches."""
    if figure is None:
        try:
            from matplotlib import pyplot
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("plots need matplotlib: pip install 'lvm[plot]'", name=error.name) from error
        return pyplot.figure(figsize=(width, height), layout="constrained")
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained")
    return figure


def style(index: int) -> tuple[str, str]:
    """Return the colour and marker of component `index`; markers tell apart those that share a colour."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def darkened(colour: str) -> tuple[float, ...]:
    """Return a darker colour, for lines over points."""
    from matplotlib.colors import to_rgb

    return tuple(0.7 * part for part in to_rgb(colour))


def tidy(ax: Axes) -> None:
    """Remove the frame's upper and right sides, and make tick labels small."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize="small")


def thinned(ticks: list[int], most: int) -> list[int]:
    """Return every tick, or every second or third, so that there are at most `most`."""
    return ticks[:: -(-len(ticks) // most)]


def n_bins(x: Array) -> int:
    """Return a number of bins by Freedman & Diaconis (1981), within 10 to 60."""
    spread = np.subtract(*np.percentile(x, [75, 25]))
    if spread <= 0:
        return 10
    return int(np.clip(np.ceil(np.ptp(x) * len(x) ** (1 / 3) / (2 * spread)), 10, 60))


def bar_style(bins: int) -> dict[str, Any]:
    """Return how to draw a histogram: bars with white edges, or one shape where edges would hide narrow bars."""
    return {"edgecolor": "white", "linewidth": 0.5} if bins <= 25 else {"histtype": "stepfilled", "linewidth": 0}


def opacity(n: int) -> float:
    """Return how opaque each of n points is."""
    return 0.7 if n <= 500 else 0.4 if n <= 2000 else 0.2


def some_rows(n: int) -> NDArray[np.int64]:
    """Return the rows to draw of n: all, or a random `MAX_POINTS`, the same for the same n."""
    return np.arange(n) if n <= MAX_POINTS else np.random.RandomState(0).choice(n, MAX_POINTS, replace=False)


def write_note(figure: Figure, data: Array, n_features: int) -> None:
    """Say below the panels what of data (n, m), out of `n_features` columns, is not shown."""
    n, m = data.shape
    shown = []
    if m < n_features:
        shown.append(f"{m} of {n_features} columns")
    if n > MAX_POINTS:
        shown.append(f"{MAX_POINTS:,} of {n:,} rows")
    notes = ["shown: " + ", ".join(shown)] if shown else []
    holes = int(np.isnan(data).any(axis=1).sum())
    if holes:
        notes.append(f"{holes:,} row{'s' if holes > 1 else ''} with missing cells left out of the panels of those")
    if notes:
        figure.supxlabel("; ".join(notes), fontsize="small", color=INK)


def swatch(label: str, **properties: Any) -> Any:
    """Return a legend's entry without data: a line or, with linestyle "", a marker."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **properties)
