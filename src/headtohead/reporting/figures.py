"""The report's figures. A variant looks the same in all of them."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headtohead.attention.patterns import Window
from headtohead.quality.measures import BLEU, ROUGE
from headtohead.reporting import choice, drawing, patterns, sweeps, windows
from headtohead.reporting.claims import CONTROL, Claims, margin_of
from headtohead.reporting.drawing import COLOURS, DASHES, ERROR, GREY, MARKERS, OUTLINE, Ends, errors, legend
from headtohead.reporting.publish import record
from headtohead.reporting.results import Results, System, Variant
from headtohead.reporting.tables import LABELS

BASELINES = ("////", "")  # white bars, hatched and plain: any grey looks like some colour to some readers


def draw_all(claims: Claims, folder: Path) -> None:
    """Write every figure into `folder`: always the same files, as `dvc.yaml` lists them."""
    of_claims = (differences, quality_and_time, quality_and_reach, window_width, choices)
    of_results = (quality, inference_time, training_time, memory, who_sees_whom, time_by_length, memory_by_length,
                  batch_sizes, fact_recall, learning_curves)
    drawing.save({**{draw.__name__: partial(draw, claims) for draw in of_claims},
          **{draw.__name__: partial(draw, claims.results) for draw in of_results}}, folder)


def differences(claims: Claims) -> Figure:
    """The primary measure's difference to full attention: an interval for each function, a dot for each training."""
    results, measure = claims.results, claims.results.primary
    figure, [axes] = drawing.panels([variant.name for variant in results.variants], 1)
    kernels = [variant for variant in results.variants if variant.name not in claims.quality]
    centre = float(np.mean([kernel.quality[measure] for kernel in kernels]))
    margin = margin_of(measure, results.params.margins)
    axes.axvspan(-margin, margin, color="#EEEEEE", zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle="--")
    for place, variant in enumerate(results.variants):
        dots = [training.details[measure] - centre for training in variant.trainings]
        axes.plot(dots, [place + 0.22] * len(dots), "o", color=COLOURS[place], markersize=4, alpha=0.75)
        found = claims.difference(measure, variant.name)
        if found and np.isfinite(found.low):
            at, ends = [found.difference], [(found.low, found.high)]
            axes.errorbar(at, [place - 0.12], xerr=errors(at, ends), color=COLOURS[place], marker="D", markersize=6,
                          elinewidth=1.6)
    axes.set_ylim(len(results.variants) - 0.5, -0.5)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{claims.primary}, difference to {CONTROL}")
    return figure


def quality_and_time(claims: Claims) -> Figure:
    """The primary measure against the time of generation over standard's; Lead-3, which takes none, as a line.

    Milliseconds would mislead: each variant was timed beside standard, and minutes apart from the others.
    """
    results, measure = claims.results, claims.results.primary
    figure, axes = drawing.one(3.3)
    for place, variant in enumerate(results.variants):
        if ratio := claims.costs[variant.name]["generate"].ratio:
            _points(axes, place, variant, [ratio.value], [variant.details[measure]],
                    [(variant.details[f"{measure}_low"], variant.details[f"{measure}_high"])], linestyle="none",
                    xerr=errors([ratio.value], [(ratio.low, ratio.high)]))
    axes.axvline(1, color=GREY, linewidth=0.8, linestyle="--")
    lead = results.lead3.quality[measure]
    axes.axhline(lead, color=GREY, linestyle=":", linewidth=1.4)
    axes.text(0.01, lead, "Lead-3", transform=axes.get_yaxis_transform(), va="bottom", color=GREY)
    axes.margins(x=0.15)
    axes.set(xlabel="generation of one summary, over standard's", ylabel=claims.primary)
    legend(figure, axes)
    return figure


def quality_and_reach(claims: Claims) -> Figure:
    """The primary measure against the share of pairs that a variant sees, and against what its decoder keeps."""
    results, measure = claims.results, claims.results.primary
    figure, panels = drawing.beside(2)
    seen, kept = ([scale * variant.profile[key] for variant in results.variants]
                  for key, scale in (("seen_share", 100), ("cache_mb", 1)))
    for axes, values, title in zip(panels, (seen, kept), ("pairs seen, %", "cache of a sequence, MB"), strict=True):
        for place, (variant, x) in enumerate(zip(results.variants, _separated(values), strict=True)):
            _points(axes, place, variant, [x], [variant.details[measure]],
                    [(variant.details[f"{measure}_low"], variant.details[f"{measure}_high"])], linestyle="none")
        axes.set(xlabel=title, xlim=(0, 1.12 * max(values)))
    panels[0].set_ylabel(claims.primary)
    legend(figure, panels[0])
    return figure


def window_width(claims: Claims) -> Figure:
    """The primary measure against the width of the window, full attention at the right end."""
    figure, axes = drawing.one()
    found, measure = windows.curves(claims.results), claims.results.primary
    if not found:
        return _empty(figure, axes, "No three variants differ in the width of their window alone.")
    widths = sorted({width for curve in found for width, _ in curve.points})
    for place, curve in enumerate(found):
        at, variants = zip(*curve.points, *[(2 * widths[-1], curve.full)] * (curve.full is not None), strict=True)
        values = [variant.details[measure] for variant in variants]
        ends = [(variant.details[f"{measure}_low"], variant.details[f"{measure}_high"]) for variant in variants]
        axes.errorbar(at, values, yerr=errors(values, ends), color=COLOURS[place], marker=MARKERS[place],
                      linestyle=DASHES[place], label=curve.label)
    axes.set_xscale("log", base=2)
    axes.set_xticks([*widths, 2 * widths[-1]], [*map(str, widths), "all"])
    axes.minorticks_off()
    axes.set(xlabel="keys that a window sees", ylabel=claims.primary)
    legend(figure, axes)
    return figure


def _empty(figure: Figure, axes: Axes, why: str) -> Figure:
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center")
    return figure


def _separated(values: Sequence[float]) -> list[float]:
    """Equal values moved slightly apart, so that their marks do not hide each other."""
    step = 0.035 * max(values)
    return [value + step * (values[:place].count(value) - (values.count(value) - 1) / 2)
            for place, value in enumerate(values)]


def quality(results: Results) -> Figure:
    """The study's Figure 1: scores by measure, with 95 % intervals."""
    measures = (*ROUGE[:3], BLEU)
    figure, axes = drawing.one()
    systems = _styled(results)
    for place, (system, look) in enumerate(systems):
        values = [system.details[name] for name in measures]
        ends = [(system.details[f"{name}_low"], system.details[f"{name}_high"]) for name in measures]
        _bars(axes, place, len(systems), values, ends, look | {"label": system.name})
    axes.set_xticks(range(len(measures)), [LABELS[name] for name in measures])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("score, 0 to 1")
    legend(figure, axes)
    return figure


def inference_time(results: Results) -> Figure:
    """The study's Figure 2: a forward pass and generation, medians over processes with their range."""
    figure, axes = drawing.panels([variant.name for variant in results.variants], 2)
    for panel, work, title in zip(axes, ("forward", "generate"), ("forward pass, ms", "generation, ms"), strict=True):
        key = f"{work}_ms"
        ours = [[ours for ours, _ in variant.pairs(work) or [(0.0, 0.0)]] for variant in results.variants]
        drawing.rows(panel, title, [variant.efficiency[key] for variant in results.variants],
                     [(min(own), max(own)) for own in ours], results.standard.efficiency[key])
    return figure


def training_time(results: Results) -> Figure:
    """The study's Figure 3: time of a training step by batch size."""
    figure, axes = drawing.one()
    for place, variant in enumerate(results.variants):
        timings = sorted(variant.timings("train_step"), key=lambda timing: int(timing["batch"]))
        _points(axes, place, variant, [timing["batch"] for timing in timings], [timing["median"] for timing in timings],
                [(timing["p10"], timing["p90"]) for timing in timings])
    batches = results.params.chosen.profile.train_batch_sizes
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    axes.set(xlabel="batch size, sequences", ylabel="training step, ms", ylim=(0, None))
    legend(figure, axes)
    return figure


def memory(results: Results) -> Figure:
    """The study's Figure 4: peak memory."""
    figure, [axes] = drawing.panels([variant.name for variant in results.variants], 1)
    drawing.rows(axes, "peak memory, MB", [variant.efficiency["peak_memory_mb"] for variant in results.variants], None,
         results.standard.efficiency["peak_memory_mb"])
    return figure


def who_sees_whom(results: Results) -> Figure:
    """A picture of every function's pattern."""
    return patterns.who_sees_whom({variant.name: variant.spec for variant in results.variants}, results.layers)


def time_by_length(results: Results) -> Figure:
    """A forward pass against length, on logarithmic axes."""
    return _sweep(results, sweeps.time_by_length, "length, tokens", "forward pass, ms")


def memory_by_length(results: Results) -> Figure:
    """Peak memory of a forward pass against length, on logarithmic axes."""
    return _sweep(results, sweeps.memory_by_length, "length, tokens", "peak memory, MB")


def batch_sizes(results: Results) -> Figure:
    """A forward pass's time for each of its sequences against batch size, on logarithmic axes."""
    return _sweep(results, sweeps.time_by_batch, "batch size, sequences", "forward pass, ms a sequence")


def choices(claims: Claims) -> Figure:
    """The variant to take at each measured length and batch size, at the margin's loss."""
    found, names = record(claims, {}), [variant.name for variant in claims.results.variants]
    maps = {work: choice.by_size(found, work) for work in choice.WORKS}
    shown = {work: taken for work, taken in maps.items() if len(taken) > 1 or work == "forward"}
    batches = sorted({batch for taken in shown.values() for batch, _ in taken})
    figure, panels = drawing.beside(len(shown), 1.4 + 0.24 * len(batches))
    for axes, (work, taken) in zip(panels, shown.items(), strict=True):
        _choices(axes, taken, batches, names)
        axes.set(title=choice.WORKS[work].removeprefix("a "), xlabel="length, tokens")
    panels[0].set_ylabel("batch size")
    ever = {name for taken in shown.values() for name in taken.values()}
    for place, name in enumerate(names):
        if name in ever:
            panels[0].plot([], [], MARKERS[place], color=COLOURS[place], label=name)
    if ever - {None}:
        legend(figure, panels[0])
    return figure


def _choices(axes: Axes, taken: Mapping[tuple[int, int], str | None], batches: list[int], names: list[str]) -> None:
    """A cell for each batch size and length: the variant's colour and marker, or "none"."""
    lengths = sorted({length for _, length in taken})
    for (batch, length), name in taken.items():
        x, y = lengths.index(length), batches.index(batch)
        if name is None:
            axes.text(x, y, "none", ha="center", va="center", color=GREY, fontsize="small")
        else:
            axes.barh(y, 0.94, 0.94, x - 0.47, color=COLOURS[names.index(name)])
            axes.plot(x, y, MARKERS[names.index(name)], color="white", markersize=4,
                      markeredgecolor="black", markeredgewidth=0.4)
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], rotation=45)
    axes.set_yticks(range(len(batches)), map(str, batches))
    axes.set(xlim=(-0.5, len(lengths) - 0.5), ylim=(-0.5, len(batches) - 0.5))
    axes.grid(visible=False)


def fact_recall(results: Results) -> Figure:
    """Fact recall by distance: a panel for each variant, with standard in grey; dotted where its windows end."""
    if not results.has_facts:
        return _empty(*drawing.one(), "No facts are known of these articles.")
    figure, panels = drawing.grid([variant.name for variant in results.variants])
    for place, (axes, variant) in enumerate(zip(panels, results.variants, strict=True)):
        axes.plot(*_recall(results.standard), color=GREY, linewidth=1.0)
        rows = variant.details["fact_recall_by_distance"]
        ends = [(row["fact_recall_low"], row["fact_recall_high"]) for row in rows]
        _points(axes, place, variant, *_recall(variant), ends, linestyle="-")
        if (window := _window(variant, results.layers)) is not None:
            axes.axvline(window, color=GREY, linestyle=":", linewidth=1.6)
        axes.set(xlim=(0, 1.1 * rows[-1]["tokens"]), ylim=(0, 1.02))
    figure.supxlabel("tokens from the fact in the article to its mention in the summary", fontsize="medium")
    figure.supylabel("share of facts stated", fontsize="medium")
    return figure


def _recall(variant: Variant) -> tuple[list[float], list[float]]:
    """Mean distance and recall of each group of facts."""
    rows = variant.details["fact_recall_by_distance"]
    return [row["tokens"] for row in rows], [row["fact_recall"] for row in rows]


def _window(variant: Variant, layers: int) -> int | None:
    """The widest window of a variant that has one in every layer."""
    patterns = [layer.visibility for layer in variant.spec.depth(layers)]
    windows = [pattern.window for pattern in patterns if isinstance(pattern, Window)]
    return max(windows) if len(windows) == layers else None


def learning_curves(results: Results) -> Figure:
    """Validation loss by step: a line for every training; if there are many, thin ones, and each variant's median."""
    figure, axes = drawing.one()
    for place, variant in enumerate(results.variants):
        curves = [training.validation for training in variant.trainings]
        if results.many:
            for curve in curves:
                axes.plot(*zip(*curve, strict=True), color=COLOURS[place], linewidth=0.3, alpha=0.4)
            curves = [_median(curves)]
        for number, curve in enumerate(curves):
            axes.plot(*zip(*curve, strict=True), color=COLOURS[place], linestyle=DASHES[place], marker=MARKERS[place],
                      markersize=3.5, linewidth=1.0, label=None if number else variant.name)
    axes.set(xlabel="training step", ylabel="validation loss, nats per token")
    legend(figure, axes)
    return figure


def _median(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Of the losses at each step."""
    losses: dict[float, list[float]] = {}
    for step, loss in chain.from_iterable(curves):
        losses.setdefault(step, []).append(loss)
    return [(step, median(losses[step])) for step in sorted(losses)]


def _sweep(results: Results, draw: sweeps.Draw, x: str, y: str) -> Figure:
    """A line for each variant; a cross at the top where there was no room."""
    figure, axes = drawing.one()
    curves = [draw(results, variant) for variant in results.variants]
    for place, (variant, curve) in enumerate(zip(results.variants, curves, strict=True)):
        _points(axes, place, variant, [point.at for point in curve.points], [point.value for point in curve.points],
                [(point.low, point.high) for point in curve.points])
        axes.plot(curve.no_room, [1 - 0.07 * place] * len(curve.no_room), "x", color=COLOURS[place], markersize=9,
                  markeredgewidth=2.2, transform=axes.get_xaxis_transform(), clip_on=False)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.grid(visible=True, axis="both")
    drawing.set_log_ticks(axes, sorted({at for curve in curves for at in curve.measured_at}))
    legend(figure, axes)
    return figure


def _points(axes: Axes, place: int, variant: Variant, x: Sequence[float], y: Sequence[float], ends: Ends,
            **look: Any) -> None:
    axes.errorbar(x, y, yerr=errors(y, ends), color=COLOURS[place], marker=MARKERS[place], label=variant.name,
                  **{"linestyle": DASHES[place], **look})


def _styled(results: Results) -> list[tuple[System, dict[str, Any]]]:
    return [*((variant, {"color": colour}) for variant, colour in zip(results.variants, COLOURS, strict=False)),
            *((system, {"color": "white", "hatch": hatch})
              for system, hatch in zip(results.baselines, BASELINES, strict=True))]


def _bars(axes: Axes, place: int, of: int, values: Sequence[float], ends: Ends, look: dict[str, Any]) -> None:
    """One system's bar in every group of `of` bars."""
    width = 0.84 / of
    at = [group + (place - (of - 1) / 2) * width for group in range(len(values))]
    axes.bar(at, values, width * 0.92, yerr=errors(values, ends), error_kw={**ERROR, "capsize": 2}, **OUTLINE, **look)
