"""The benchmark's figures, as SVG that is the same for the same rows. A contestant looks alike in all of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from headtohead.benchmark.curves import curves, name_of
from headtohead.benchmark.plan import OURS
from headtohead.benchmark.rows import Row, size_in_words
from headtohead.reporting.drawing import COLOURS, GREY, MARKERS, OUTLINE, WIDTH, bare, legend, numbered, save
from headtohead.reporting.sweeps import Curve
from headtohead.reporting.tables import short

OUTSIDE = {"transformers-eager": 4, "transformers-sdpa": 5}  # places in the palette; the variants have the first
WHO = {"standard": 0, OURS: 1, "flash-attn": 4, "flex": 5, "sdpa": 6}  # the same, where the variant has its own panel
BY_PARAMETERS = ("forward", "generate", "train_step", "peak_memory")  # works with a figure of models of several sizes
DASHES = ("-", "-", "-", "-", (0, (5, 2)), (0, (2, 1.5)), (0, (5, 2, 1, 2)))  # ours are solid


def draw_all(rows: Sequence[Row], folder: Path) -> list[str]:
    """Write every figure that there are rows for into `folder`; their names without suffix."""
    drawn: dict[str, Callable[[], Figure]] = {}
    for name, (work, label) in {"forward": ("forward", "forward pass, ms"),
                                "memory": ("peak_memory", "peak memory of a forward, MB")}.items():
        if own := [row for row in rows if row["work"] == work and row["batch"] == 1]:
            drawn[name] = partial(by_length, own, label)
    if own := [row for row in rows if row["work"] == "generate"]:
        drawn["generation"] = partial(generation, own)
    if own := [row for row in rows if row["work"] in ("attention", "attention_backward")]:
        drawn["attention"] = partial(attention, own)
    save(drawn, folder, **{"axes.grid.axis": "both"})
    return list(drawn)


def draw_family(rows: Sequence[Row], folder: Path) -> list[str]:
    """The same of the family: its one figure."""
    own = [row for row in rows if row["implementation"] == OURS and "share" in row and row["median"] is not None]
    drawn = {"shares": partial(shares, own)} if own else {}
    save(drawn, folder, **{"axes.grid.axis": "both"})
    return list(drawn)


def draw_sizes(rows: Sequence[Row], parameters: Mapping[str, int], folder: Path) -> list[str]:
    """The same of models of several sizes; `parameters` says how many each has."""
    found = {work: [row for row in rows if row["work"] == work] for work in BY_PARAMETERS}
    drawn = {work: partial(by_parameters, own, parameters) for work, own in found.items() if _drawable(own)}
    save(drawn, folder, **{"axes.grid.axis": "both"})
    return list(drawn)


def _drawable(rows: Sequence[Row]) -> list[str]:
    """The sizes of the work at which there was room for anything: logarithmic axes need a number."""
    return list(dict.fromkeys(size_in_words(row) for row in rows if row["median"] is not None))


def by_parameters(rows: Sequence[Row], parameters: Mapping[str, int]) -> Figure:
    """One work's variants against the number of parameters, all axes logarithmic; a panel for each size of the work."""
    sizes = _drawable(rows)
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    panels = figure.subplots(1, len(sizes), squeeze=False)[0]
    looks, counts = _looks(rows), sorted({parameters[row["model"]] for row in rows})
    for size, axes in zip(sizes, panels, strict=True):
        own = [row for row in rows if size_in_words(row) == size]
        for name, curve in curves(own, at=lambda row: parameters[row["model"]]).items():
            _draw(axes, curve, looks[name])
        axes.set(xscale="log", yscale="log", title=size, xlabel="parameters, M")
        axes.set_xticks(counts, [f"{count / 1e6:,.0f}" for count in counts])
        _plainly_numbered(axes.yaxis)
        axes.minorticks_off()
    panels[0].set_ylabel(rows[0]["unit"])
    legend(figure, max(panels, key=lambda axes: len(axes.lines)), columns=3)
    return figure


def shares(rows: Sequence[Row]) -> Figure:
    """Attention's time against the share of blocks, a panel for each direction; the line is flash's time by share."""
    works, variants = (list(dict.fromkeys(row[name] for row in rows)) for name in ("work", "variant"))
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, len(works), squeeze=False)[0]
    for work, axes in zip(works, panels, strict=True):
        own = [row for row in rows if row["work"] == work]
        for row in own:
            axes.plot(row["share"], row["median"], linestyle="none", **_dot(row["variant"], variants))
        if full := [row["median"] for row in own if row["variant"] == "flash"]:
            least = min(row["share"] for row in own)
            axes.plot([least, 1], [least * full[0], full[0]], color=GREY, linewidth=0.8, zorder=0)
        axes.set(xscale="log", yscale="log", title=work.replace("_", ", "), xlabel="share of blocks")
        _plainly_numbered(axes.xaxis, axes.yaxis)
        axes.minorticks_off()
    panels[0].set_ylabel("one layer, ms")
    legend(figure, max(panels, key=lambda axes: len(axes.lines)), columns=3)
    return figure


def _dot(variant: str, variants: Sequence[str]) -> dict[str, Any]:
    """A colour and a form for each variant."""
    place = variants.index(variant)
    return {"label": variant, "color": COLOURS[place], "marker": MARKERS[place]}


def _plainly_numbered(*logarithmic: Axis) -> None:
    for axis in logarithmic:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.5g}"))


def by_length(rows: Sequence[Row], label: str) -> Figure:
    """Every contestant against length, both axes logarithmic; a cross at the top where memory did not suffice."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    looks = _looks(rows)
    for name, curve in curves(rows).items():
        _draw(axes, curve, looks[name])
    _length_axis(axes, rows)
    axes.set(ylabel=label)
    legend(figure, axes, columns=3)
    return figure


def attention(rows: Sequence[Row]) -> Figure:
    """Attention alone: a column for each fused variant, a row for each direction; a line for each who computes it."""
    works = list(dict.fromkeys(row["work"] for row in rows))
    fused = list(dict.fromkeys(row["variant"] for row in rows if row["variant"] != "standard"))
    figure = Figure(figsize=(WIDTH, 0.7 + 2.1 * len(works)), layout="constrained")
    panels = figure.subplots(len(works), len(fused), sharex=True, sharey="row", squeeze=False)
    for (work, variant), axes in zip(product(works, fused), panels.flat, strict=True):
        own = [row for row in rows if row["work"] == work and row["variant"] in (variant, "standard")]
        _by_who(axes, own)
        axes.set(title=variant if work == works[0] else "", xlabel="tokens" if work == works[-1] else "")
    for axes, work in zip(panels[:, 0], works, strict=True):
        axes.set_ylabel(work.replace("_", ", ") + ", ms")
    legend(figure, max(panels.flat, key=lambda axes: len(axes.lines)), columns=3)
    return figure


def _by_who(axes: Axes, rows: Sequence[Row]) -> None:
    """One variant's lines, and standard's; `rows` are of these two."""
    for who, place in WHO.items():
        own = [row for row in rows if who == ("standard" if row["variant"] == "standard" else row["implementation"])]
        for curve in curves(own).values():
            _draw(axes, curve, _look(who, place))
    _length_axis(axes, rows)


def generation(rows: Sequence[Row]) -> Figure:
    """Tokens a second: a panel for each batch size and number of beams, a bar for each contestant."""
    points = list(dict.fromkeys((row["batch"], row["beams"]) for row in rows))
    names = list(dict.fromkeys(map(name_of, rows)))
    figure = Figure(figsize=(WIDTH, 0.7 + 0.34 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(points), sharey=True, squeeze=False)[0]
    for axes, (batch, beams) in zip(panels, points, strict=True):
        own = {name_of(row): row for row in rows if (row["batch"], row["beams"]) == (batch, beams)}
        _bars(axes, names, own, _looks(rows))
        axes.set_title(f"batch {batch}\n{f'{beams} beams' if beams > 1 else 'greedy'}")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    return figure


def tokens_per_second(row: Row) -> float:
    return float(row["batch"] * row["new_tokens"] / row["median"] * 1000)


def _bars(axes: Axes, names: Sequence[str], rows: dict[str, Row], looks: dict[str, dict[str, Any]]) -> None:
    for place, name in enumerate(names):
        row = rows.get(name)
        rate = None if row is None or row["median"] is None else tokens_per_second(row)
        axes.barh(place, rate or 0.0, 0.62, color=looks[name]["color"], **OUTLINE)
        numbered(axes, place, "" if row is None else "out of memory" if rate is None else short(rate))
    axes.margins(x=1.1)  # room for the numbers
    bare(axes)


def _draw(axes: Axes, curve: Curve, look: dict[str, Any]) -> None:
    """A line; and a cross at the top where there was no room, below those that are there already."""
    axes.plot([point.at for point in curve.points], [point.value for point in curve.points], markersize=5,
              linewidth=1.4, **look)
    for at in curve.no_room:
        there = [line for line in axes.lines if line.get_marker() == "x" and np.isin(at, line.get_xdata())]
        axes.plot([at], [1 - 0.07 * len(there)], "x", color=look["color"], markersize=9, markeredgewidth=2.2,
                  transform=axes.get_xaxis_transform(), clip_on=False)


def _length_axis(axes: Axes, rows: Sequence[Row]) -> None:
    lengths = sorted({row["length"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [f"{length // 1024}k" if length % 1024 == 0 else str(length) for length in lengths])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if rows[0]["work"] in ("forward", "peak_memory") else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.minorticks_off()
    axes.set_xlabel("tokens")


def _looks(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """A variant looks as in the report."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    return {name_of(row): _look(name_of(row), OUTSIDE.get(row["implementation"], variants.index(row["variant"])))
            for row in rows}


def _look(label: str, place: int) -> dict[str, Any]:
    return {"label": label, "color": COLOURS[place], "marker": MARKERS[place], "linestyle": DASHES[place]}
