"""The report's figures, as SVG that is the same for the same numbers. A variant looks alike in all of them."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from headtohead.reporting import sweeps
from headtohead.reporting.results import Results, System, Variant
from headtohead.reporting.tables import LABELS, short

# Okabe and Ito's palette, which colour-blind readers can tell apart, with a brown; dark before light, yellow last.
COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#552200", "#F0E442")
MARKERS = "osD^vPX*p"
DASHES = ("-", (0, (5, 2)), (0, (5, 2, 1, 2)), (0, (2, 1.5))) * 3  # curves that coincide show through each other
BASELINES = ("////", "")  # white bars, hatched and plain: no grey is unlike every colour to every eye
WIDTH = 5.2  # inches: a phone shows it at three quarters of its size, and the letters are still legible
STYLE: dict[Any, Any] = {
    "font.size": 10, "svg.hashsalt": "headtohead", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#E4E4E4", "axes.axisbelow": True,
    "legend.frameon": False, "axes.titlesize": 10, "errorbar.capsize": 3, "hatch.linewidth": 0.6}
MOST_TICKS = 9  # on a logarithmic axis
ERROR = {"elinewidth": 1.2, "ecolor": "#707070"}
OUTLINE: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.6}
Ends = Sequence[tuple[float, float]]


def draw_all(results: Results, folder: Path) -> None:
    """Write every figure into `folder`: always the same files, as `dvc.yaml` lists them."""
    figures = (overview, quality, inference_time, training_time, memory, time_by_length, memory_by_length, batch_sizes,
               fact_recall, learning_curves)
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        for draw in figures:
            draw(results).savefig(folder / f"{draw.__name__}.svg", format="svg", metadata={"Date": None})


def overview(results: Results) -> Figure:
    """Quality, speed and memory side by side, one row a variant."""
    figure, axes = _panels(results, 3)
    measure = results.main_measure
    ends = [(variant.details[f"{measure}_low"], variant.details[f"{measure}_high"]) for variant in results.variants]
    _rows(axes[0], results, LABELS[measure], [variant.details[measure] for variant in results.variants], ends)
    _rows(axes[1], results, "generation, ms", *_times(results, "generate"))
    _rows(axes[2], results, "peak MB", [variant.efficiency["peak_memory_mb"] for variant in results.variants])
    return figure


def quality(results: Results) -> Figure:
    """Figure 1: scores by measure, with 95 % intervals."""
    measures = ("rouge1", "rouge2", "rougeL", "bleu")
    figure, axes = _figure()
    systems = _styled(results)
    for place, (system, look) in enumerate(systems):
        values = [system.details[name] for name in measures]
        ends = [(system.details[f"{name}_low"], system.details[f"{name}_high"]) for name in measures]
        _bars(axes, place, len(systems), values, ends, look | {"label": system.name})
    axes.set_xticks(range(len(measures)), [LABELS[name] for name in measures])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("score, 0 to 1")
    _legend(figure, axes)
    return figure


def inference_time(results: Results) -> Figure:
    """Figure 2: medians of a forward pass and of generation, from the 10th to the 90th percentile."""
    figure, axes = _panels(results, 2)
    _rows(axes[0], results, "forward pass, ms", *_times(results, "forward"))
    _rows(axes[1], results, "generation, ms", *_times(results, "generate"))
    return figure


def training_time(results: Results) -> Figure:
    """Figure 3: time of a training step by batch size."""
    figure, axes = _figure()
    for place, variant in enumerate(results.variants):
        timings = sorted(variant.timings("train_step"), key=lambda timing: int(timing["batch"]))
        _line(axes, place, variant, [timing["batch"] for timing in timings], [timing["median"] for timing in timings],
              [(timing["p10"], timing["p90"]) for timing in timings])
    batches = results.params.chosen.profile.train_batch_sizes
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    axes.set(xlabel="batch size, sequences", ylabel="training step, ms", ylim=(0, None))
    _legend(figure, axes)
    return figure


def memory(results: Results) -> Figure:
    """Figure 4: peak memory."""
    figure, axes = _panels(results, 1)
    _rows(axes[0], results, "peak memory, MB", [variant.efficiency["peak_memory_mb"] for variant in results.variants])
    return figure


def time_by_length(results: Results) -> Figure:
    """A forward pass against length, on logarithmic axes."""
    return _sweep(results, sweeps.time_by_length, "length, tokens", "forward pass, ms")


def memory_by_length(results: Results) -> Figure:
    """Peak memory of a forward pass against length, on logarithmic axes."""
    return _sweep(results, sweeps.memory_by_length, "length, tokens", "peak memory, MB")


def batch_sizes(results: Results) -> Figure:
    """A forward pass's time for each of its sequences against batch size, on logarithmic axes."""
    return _sweep(results, sweeps.time_by_batch, "batch size, sequences", "forward pass, ms a sequence")


def fact_recall(results: Results) -> Figure:
    """Fact recall by distance; a dotted line where a window variant can no longer see the fact directly."""
    figure, axes = _figure()
    if not results.has_facts:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No facts are known of these articles.", ha="center")
        return figure
    groups = [group["distance"] for group in results.standard.details["fact_recall_by_distance"]]
    for place, variant in enumerate(results.variants):
        rows = variant.details["fact_recall_by_distance"]
        shift = 0.06 * (place - (len(results.variants) - 1) / 2)  # or the error bars hide each other
        _line(axes, place, variant, [x + shift for x in range(len(rows))], [row["fact_recall"] for row in rows],
              [(row["fact_recall_low"], row["fact_recall_high"]) for row in rows])
        if window := variant.spec.numbers.get("window"):
            at = _between(window, groups)
            axes.axvline(at, color=COLOURS[place], linestyle=":", linewidth=1.6)
            axes.text(at, 0.02, f" window {window}", color=COLOURS[place])
    axes.set_xticks(range(len(groups)), groups)
    axes.set(xlabel="tokens from the fact in the article to its mention in the summary", ylabel="share of facts stated",
             ylim=(0, 1.02))
    _legend(figure, axes)
    return figure


def learning_curves(results: Results) -> Figure:
    """Training loss (thin) and validation loss (with markers) by step."""
    figure, axes = _figure()
    for place, variant in enumerate(results.variants):
        for name, look in (("training_loss", {"alpha": 0.4, "linewidth": 1.0}),
                           ("validation_loss", {"marker": MARKERS[place], "label": variant.name})):
            points = [(row["step"], row[name]) for row in variant.curve if name in row]
            axes.plot(*zip(*points, strict=True), color=COLOURS[place], linestyle=DASHES[place], **look)
    axes.set(xlabel="training step", ylabel="loss, nats per token")
    _legend(figure, axes)
    return figure


def _sweep(results: Results, draw: sweeps.Draw, x: str, y: str) -> Figure:
    """A line for each variant; a cross at the top where there was no room."""
    figure, axes = _figure()
    curves = [draw(results, variant) for variant in results.variants]
    for place, (variant, curve) in enumerate(zip(results.variants, curves, strict=True)):
        _line(axes, place, variant, [point.at for point in curve.points], [point.value for point in curve.points],
              [(point.low, point.high) for point in curve.points])
        axes.plot(curve.no_room, [1 - 0.07 * place] * len(curve.no_room), "x", color=COLOURS[place], markersize=9,
                  markeredgewidth=2.2, transform=axes.get_xaxis_transform(), clip_on=False)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.grid(visible=True, axis="both")
    _label_plainly(axes, sorted({at for curve in curves for at in (*curve.no_room, *(p.at for p in curve.points))}))
    _legend(figure, axes)
    return figure


def _label_plainly(axes: Axes, places: Sequence[int]) -> None:
    """Numbers as people write them: the measured places, those left out that would run into each other."""
    apart, shown = max(1.3, (places[-1] / places[0]) ** (1 / MOST_TICKS)), [places[0]]
    for place in places:
        shown += [place] if place >= apart * shown[-1] else []
    axes.set_xticks(shown, [f"{place:,}" for place in shown])
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high / low > 5 else MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.minorticks_off()


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    return figure, figure.subplots()


def _panels(results: Results, count: int) -> tuple[Figure, Sequence[Axes]]:
    """Panels that share one row a variant, the first at the top."""
    names = [_wrapped(variant.name) for variant in results.variants]
    row = 0.2 + 0.17 * _lines(names)
    figure = Figure(figsize=(WIDTH, 0.45 + row * len(names)), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    return figure, list(panels)


def _rows(axes: Axes, results: Results, title: str, values: Sequence[float], ends: Ends | None = None) -> None:
    """A bar from zero for each variant, its number at the right; a line down from standard's."""
    errors = None if ends is None else _errors(values, ends)
    axes.barh(range(len(values)), values, 0.62, color=COLOURS, xerr=errors, error_kw=ERROR, **OUTLINE)
    axes.axvline(values[results.variants.index(results.standard)], color="#707070", linewidth=0.8, linestyle="--")
    axes.margins(x=0.2 * len(axes.figure.axes))  # room for the numbers
    for place, value in enumerate(values):
        axes.text(1, place, short(value), transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.set_title(title)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _times(results: Results, work: str) -> tuple[list[float], list[tuple[float, float]]]:
    timings = [variant.timing(work) for variant in results.variants]
    return [timing["median"] for timing in timings], [(timing["p10"], timing["p90"]) for timing in timings]


def _legend(figure: Figure, axes: Axes) -> None:
    """Above the axes, from which it takes no room: the figure grows."""
    handles, names = axes.get_legend_handles_labels()
    labels = [_wrapped(name) for name in names]
    columns = min(len(labels), 3 if max(map(len, labels)) > 12 else 4)
    figure.set_figheight(figure.get_figheight() + 0.2 * ceil(len(labels) / columns) * _lines(labels))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def _lines(texts: Sequence[str]) -> int:
    return max(1 + text.count("\n") for text in texts)


def _wrapped(name: str) -> str:
    """A long name on several lines, broken after underscores."""
    return "\n".join(line.replace("_ ", "_") for line in wrap(name.replace("_", "_ "), 16))


def _styled(results: Results) -> list[tuple[System, dict[str, Any]]]:
    return [*((variant, {"color": colour}) for variant, colour in zip(results.variants, COLOURS, strict=False)),
            *((system, {"color": "white", "hatch": hatch})
              for system, hatch in zip(results.baselines, BASELINES, strict=True))]


def _bars(axes: Axes, place: int, of: int, values: Sequence[float], ends: Ends, look: dict[str, Any]) -> None:
    """One system's bar in every group of `of` bars."""
    width = 0.84 / of
    at = [group + (place - (of - 1) / 2) * width for group in range(len(values))]
    axes.bar(at, values, width * 0.92, yerr=_errors(values, ends), error_kw={**ERROR, "capsize": 2}, **OUTLINE, **look)


def _line(axes: Axes, place: int, variant: Variant, x: Sequence[float], y: Sequence[float], ends: Ends) -> None:
    axes.errorbar(x, y, yerr=_errors(y, ends), color=COLOURS[place], marker=MARKERS[place], linestyle=DASHES[place],
                  label=variant.name)


def _errors(values: Sequence[float], ends: Ends) -> list[list[float]]:
    """Lengths of the error bars below and above; an interval need not hold its own estimate, but a bar must."""
    return [[max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)],
            [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)]]


def _between(tokens: int, groups: Sequence[str]) -> float:
    """Where `tokens` falls on an axis that gives every group of distances the same width, centred on 0, 1, 2 …"""
    begins = [int(group.rstrip("+").split("-")[0]) for group in groups]
    place = max(i for i, begin in enumerate(begins) if begin <= tokens)
    ends = [*begins[1:], int(groups[-1].split("-")[-1].rstrip("+")) + 1]
    width = max(1, ends[place] - begins[place])
    return place - 0.5 + min(1.0, (tokens - begins[place]) / width)
