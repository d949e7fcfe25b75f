"""The report's figures, as SVG that is the same for the same numbers. A variant looks alike in all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headtohead.reporting.results import Results, System, Variant
from headtohead.reporting.tables import LABELS

# Okabe and Ito's palette, which colour-blind readers can tell apart; dark before light, yellow last.
COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F6000", "#F0E442")
MARKERS = "osD^vPX*p"
BASELINES = ("#A8A8A8", "#D8D8D8")
STYLE: dict[Any, Any] = {
    "font.size": 11, "svg.hashsalt": "headtohead", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#E4E4E4", "axes.axisbelow": True,
    "legend.frameon": False, "axes.titlesize": 11, "errorbar.capsize": 3}
ERROR = {"elinewidth": 1.2, "ecolor": "#707070"}


def draw_all(results: Results, folder: Path) -> None:
    """Write every figure into `folder`: always the same files, as `dvc.yaml` lists them."""
    figures = (quality, inference_time, training_time, memory, fact_recall, learning_curves)
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        for draw in figures:
            draw(results).savefig(folder / f"{draw.__name__}.svg", format="svg", metadata={"Date": None})


def quality(results: Results) -> Figure:
    """Figure 1: scores by measure, with 95 % intervals."""
    measures = ("rouge1", "rouge2", "rougeL", "bleu")
    figure, axes = _figure()
    systems = _styled(results)
    for place, (system, colour) in enumerate(systems):
        values = [system.details[name] for name in measures]
        ends = [(system.details[f"{name}_low"], system.details[f"{name}_high"]) for name in measures]
        _bars(axes, place, len(systems), values, ends, colour, system.name)
    _groups(axes, [LABELS[name] for name in measures])
    axes.set_ylabel("score, 0 to 1")
    _legend(figure, axes)
    return figure


def inference_time(results: Results) -> Figure:
    """Figure 2: medians of a forward pass and of generation, from the 10th to the 90th percentile."""
    figure = _canvas()
    for axes, work, title in zip(figure.subplots(1, 2), ("forward", "generate"),
                                 ("forward pass", "generation"), strict=True):
        _one_bar_each(axes, results, [variant.timing(work) for variant in results.variants])
        axes.set(title=title, ylabel="ms")
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
    figure, axes = _figure()
    peaks = [variant.efficiency["peak_memory_mb"] for variant in results.variants]
    bars = axes.bar([variant.name for variant in results.variants], peaks, color=COLOURS, width=0.6)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set_ylabel("peak memory, MB")
    axes.margins(y=0.12)
    return figure


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
            axes.plot(*zip(*points, strict=True), color=COLOURS[place], **look)
    axes.set(xlabel="training step", ylabel="loss, nats per token")
    _legend(figure, axes)
    return figure


def _canvas() -> Figure:
    return Figure(figsize=(7.6, 4.0), layout="constrained")


def _figure() -> tuple[Figure, Axes]:
    figure = _canvas()
    return figure, figure.subplots()


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))


def _styled(results: Results) -> list[tuple[System, str]]:
    return [*zip(results.variants, COLOURS, strict=False), *zip(results.baselines, BASELINES, strict=True)]


def _bars(axes: Axes, place: int, of: int, values: Sequence[float], ends: Sequence[tuple[float, float]],
          colour: str, label: str) -> None:
    """One system's bar in every group of `of` bars."""
    width = 0.84 / of
    at = [group + (place - (of - 1) / 2) * width for group in range(len(values))]
    axes.bar(at, values, width * 0.92, color=colour, label=label, yerr=_errors(values, ends),
             error_kw={**ERROR, "capsize": 2})


def _groups(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_xticks(range(len(labels)), labels)
    axes.tick_params(axis="x", length=0)


def _one_bar_each(axes: Axes, results: Results, timings: Sequence[dict[str, Any]]) -> None:
    medians = [timing["median"] for timing in timings]
    axes.bar([variant.name for variant in results.variants], medians, color=COLOURS, width=0.65, error_kw=ERROR,
             yerr=_errors(medians, [(timing["p10"], timing["p90"]) for timing in timings]))
    axes.tick_params(axis="x", rotation=30)


def _line(axes: Axes, place: int, variant: Variant, x: Sequence[float], y: Sequence[float],
          ends: Sequence[tuple[float, float]]) -> None:
    axes.errorbar(x, y, yerr=_errors(y, ends), color=COLOURS[place], marker=MARKERS[place], label=variant.name)


def _errors(values: Sequence[float], ends: Sequence[tuple[float, float]]) -> list[list[float]]:
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
