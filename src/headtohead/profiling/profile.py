"""One variant's cost on this machine: what the efficiency files hold.

Every measurement is taken in a fresh process; this one imports neither torch nor transformers, which takes seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from headtohead.params import Params
from headtohead.profiling import fresh, machine
from headtohead.profiling.cost import Cost, Peaks, Shape
from headtohead.profiling.measurement import Measurement, Row
from headtohead.profiling.pairs import MEMORY, Process, in_pairs, of_ours, side_by_side

CONTROL = "standard"
HEAVY = "headtohead.profiling.process"  # what the fresh processes run; the server that forks them imports it once


def profile(params: Params, variant: str, trace: Path, announce: Callable[[str], object]) -> tuple[Row, Row]:
    """Measure the headline figures of `variant` and of the control in turn, then everything else of `variant` once.

    Args:
        trace: where the Chrome trace goes; the suffix .json.gz compresses it.
        announce: told what comes next.

    Returns:
        What metrics/variants/V/efficiency.json and data/details/V/efficiency.json hold. The flat numbers are medians
        over the variant's processes; tokens_per_s is new_tokens over generate_ms, so the prompt's pass counts;
        peak_memory_mb is the highest of forward, generation and first token; train_step_ms is the largest batch's.
        A number for which memory did not suffice is None.

    Raises:
        ProcessError: a process failed.
    """
    processes = side_by_side(lambda names: headlines(params, names, announce), variant, CONTROL,
                             params.chosen.profile.pairs)
    (swept, rest), = fresh.in_turns(measure_sweep, [(params, variant, trace)], announce)
    return arranged(processes, swept, rest, params.chosen.profile.new_tokens)


def headlines(params: Params, variants: list[str], announce: Callable[[str], object]) -> list[list[Measurement]]:
    """The headline figures of each of `variants`, in fresh processes that take turns."""
    return fresh.in_turns(measure_headline, [(params, variant) for variant in variants], announce)


def measure_headline(params: Params, variant: str, line: fresh.Line) -> list[Measurement]:
    """In a fresh process."""
    from headtohead.models.gpt2 import best_device
    from headtohead.profiling.process import headline, subject

    return headline(subject(params, variant), best_device(), line.announce, line.turn)


def measure_sweep(params: Params, variant: str, trace: Path, line: fresh.Line) -> tuple[list[Measurement], Row]:
    """In a fresh process."""
    from headtohead.models.gpt2 import best_device
    from headtohead.profiling.process import subject, sweep

    return sweep(subject(params, variant), best_device(), trace, line.announce)


def arranged(processes: Sequence[Process], swept: Sequence[Measurement], rest: Row, new_tokens: int) -> tuple[Row, Row]:
    """Both files' contents; `swept` and `rest` from `process.sweep`."""
    *inferred, step_mb, step_ms = of_ours(processes)
    everything = [*inferred, *swept, step_mb, step_ms]  # the largest batch of training steps last
    rest = dict(rest)
    shape, peaks, counted = rest.pop("shape"), rest.pop("peaks"), rest.pop("counted")
    timings = [one.row() | _achieved(one, shape, peaks, counted) for one in everything if one.unit == "ms"]
    figures = {name: _over(name, processes) for name in in_pairs(processes)}
    backend = next(one.backend for one in inferred if one.work == "forward")
    generate_ms = figures["generate"]
    flat = {"forward_ms": figures["forward"], "generate_ms": generate_ms, "first_token_ms": figures["first_token"],
            "tokens_per_s": generate_ms and round(new_tokens / generate_ms * 1000, 2),
            "peak_memory_mb": figures[MEMORY], "train_step_ms": figures["train_step"], "backend": backend}
    return flat, rest | {
        "backend": backend, "dtype": inferred[0].dtype, "versions": machine.versions(),
        "timings": timings, "memory": [one.row() for one in everything if one.unit == "MB"],
        "pairs": in_pairs(processes), "processes": [one.row() for one in processes],
        "peaks": _significant(asdict(peaks)), "attention_share": _attention_share(everything, len(shape.layers))}


def _over(name: str, processes: Sequence[Process]) -> float | None:
    """A figure's median over the variant's own processes."""
    values = [one.figure(name) for one in processes if one.side == "ours"]
    return round(median(map(median, values)), 4) if all(values) else None


def _achieved(one: Measurement, shape: Shape, peaks: Peaks, counted: float) -> Row:
    """The throughput of a timing, per second and as a share of the device's peaks; empty if no cost is defined."""
    cost = _cost(one, shape, counted)
    if cost is None or one.median is None:
        return {}
    tflops, gb_per_s = cost.operations / one.median / 1e9, cost.bytes / one.median / 1e6
    return _significant({"tflops": tflops, "tflops_share": tflops / peaks.tflops,
                         "gb_per_s": gb_per_s, "gb_per_s_share": gb_per_s / peaks.gb_per_s})


def _cost(one: Measurement, shape: Shape, counted: float) -> Cost | None:
    match one.work:
        case "forward":
            return shape.forward(one.batch, one.length)
        case "generate" if one.batch == 1:
            return shape.generate(one.length, one.new_tokens)
        case "train_step":
            return shape.train_step(one.batch, one.length, round(one.batch * counted))
        case "attention":
            return shape.attention(one.length)
    return None


def _attention_share(measurements: Sequence[Measurement], layers: int) -> list[Row]:
    """All layers' attention over the forward pass, at each length at which both are timed."""
    medians = {(one.work, one.length): one.median for one in measurements
               if one.unit == "ms" and one.batch == 1 and one.median is not None}
    return [{"length": length, "share": round(layers * medians["attention", length] / forward, 4)}
            for (work, length), forward in sorted(medians.items())
            if work == "forward" and ("attention", length) in medians]


def _significant(values: dict[str, Any]) -> Row:
    """Rounded to four significant digits, because a tiny model's numbers are small."""
    return {name: float(f"{value:.4g}") for name, value in values.items()}
