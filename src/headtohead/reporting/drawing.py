"""What figures are drawn with, here and in the benchmark: SVG that is the same for the same numbers."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from headtohead.reporting.tables import short

# Okabe and Ito's palette, which colour-blind readers can distinguish, with a brown; then the colours that are furthest
# from those for any reader. With 15 colours and 14 markers no two of 210 variants look alike.
COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#552200", "#F0E442", "#0000FF",
           "#77DDBB", "#883355", "#5588FF", "#5511AA", "#AA3300") * 14
MARKERS = "osD^vPX*p<>hd8" * 15
DASHES = ("-", (0, (5, 2)), (0, (5, 2, 1, 2)), (0, (2, 1.5))) * 53  # curves that coincide show through each other
WIDTH = 5.2  # inches: a phone shows it at three quarters of its size, and the letters are still legible
STYLE: dict[Any, Any] = {
    "font.size": 10, "svg.hashsalt": "headtohead", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#E4E4E4", "axes.axisbelow": True,
    "legend.frameon": False, "axes.titlesize": 10, "errorbar.capsize": 3, "hatch.linewidth": 0.6}
MOST_TICKS = 9  # on a logarithmic axis
GREY = "#707070"
ERROR = {"elinewidth": 1.2, "ecolor": GREY}
OUTLINE: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.6}
Ends = Sequence[tuple[float, float]]


def save(figures: Mapping[str, Callable[[], Figure]], folder: Path, **style: Any) -> None:
    """Draw each figure and write it as `folder`/NAME.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE | style):
        for name, draw in figures.items():
            draw().savefig(folder / f"{name}.svg", format="svg", metadata={"Date": None})


def one(height: float = 3.1) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def beside(count: int, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side that share the vertical one; height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, count, sharey=True, squeeze=False)[0])


def grid(titles: Sequence[str], columns: int = 4) -> tuple[Figure, list[Axes]]:
    """A panel under each of `titles`, in rows of `columns`; all panels have the same axes."""
    rows = ceil(len(titles) / columns)
    figure = Figure(figsize=(WIDTH, 0.4 + 1.35 * rows), layout="constrained")
    found = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes, title in zip(found, titles, strict=False):
        axes.set_title(wrapped(title), fontsize="small")
    for axes in found[len(titles):]:
        axes.remove()
    for axes in found[max(0, len(titles) - columns):len(titles)]:  # the lowest ones of each column
        axes.tick_params(labelbottom=True)
    return figure, found[:len(titles)]


def panels(names: Sequence[str], count: int) -> tuple[Figure, list[Axes]]:
    """Panels side by side that share one row for each of `names`, the first at the top."""
    labels = [wrapped(name) for name in names]
    figure = Figure(figsize=(WIDTH, 0.45 + (0.2 + 0.17 * lines(labels)) * len(labels)), layout="constrained")
    found = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    found[0].set_yticks(range(len(labels)), labels)
    found[0].invert_yaxis()
    return figure, list(found)


def bare(axes: Axes) -> None:
    """No grid, ticks and bottom line: for bars with their numbers beside them."""
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def set_log_ticks(axes: Axes, places: Sequence[int]) -> None:
    """Plain numbers on logarithmic axes, at those of the measured `places` whose labels do not overlap."""
    apart, shown = max(1.3, (places[-1] / places[0]) ** (1 / MOST_TICKS)), [places[0]]
    for place in places:
        shown += [place] if place >= apart * shown[-1] else []
    axes.set_xticks(shown, [f"{place:,}" for place in shown])
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high / low > 5 else MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.minorticks_off()


def numbered(axes: Axes, place: int, text: str) -> None:
    """A row's number, at its right end."""
    axes.text(1, place, text, transform=axes.get_yaxis_transform(), ha="right", va="center")


def rows(axes: Axes, title: str, values: Sequence[float | None], ends: Ends | None, line: float | None) -> None:
    """A bar from zero for each value, its number at the right; None is a gap. A dashed line goes down at `line`."""
    lengths = [value or 0.0 for value in values]
    axes.barh(range(len(values)), lengths, 0.62, color=COLOURS, xerr=errors(lengths, ends) if ends else None,
              error_kw=ERROR, **OUTLINE)
    if line is not None:
        axes.axvline(line, color=GREY, linewidth=0.8, linestyle="--")
    axes.margins(x=0.2 * len(axes.figure.axes))  # room for the numbers
    for place, value in enumerate(values):
        numbered(axes, place, short(value))
    axes.set_title(title)
    bare(axes)


def errors(values: Sequence[float], ends: Ends) -> list[list[float]]:
    """Lengths of the error bars below and above; never negative, though an interval may exclude its own estimate."""
    return [[max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)],
            [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)]]


def legend(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """Above the axes, taking no room from them: the figure grows."""
    handles, names = axes.get_legend_handles_labels()
    labels = [wrapped(name) for name in names]
    columns = min(len(labels), 3 if max(map(len, labels)) > 12 else columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * ceil(len(labels) / columns) * lines(labels))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def lines(texts: Sequence[str]) -> int:
    """The number of lines of the longest text."""
    return max(1 + text.count("\n") for text in texts)


def wrapped(name: str) -> str:
    """A long name on several lines, broken after underscores."""
    return "\n".join(line.replace("_ ", "_") for line in wrap(name.replace("_", "_ "), 16))
