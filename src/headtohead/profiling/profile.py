"""One variant's cost on this machine: `profile` runs every pass and gives what the efficiency files hold."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headtohead import params
from headtohead.profiling import machine
from headtohead.profiling.inference import lengths_of, measure_inference, swept
from headtohead.profiling.memory import process_peak_mb
from headtohead.profiling.passes import Passes, Row, what_is_there_set_aside
from headtohead.profiling.peak import Peaks, measure_peaks
from headtohead.profiling.steps import Loss, measure_training
from headtohead.profiling.timing import Timing
from headtohead.profiling.work import Cost, Shape, shape_of

if TYPE_CHECKING:
    from headtohead.models.gpt2 import GPT2

YARDSTICK = 512  # rows and columns of the matrices whose product tells how fast the machine is just now


def profile(model: "GPT2", *, prompt: Tensor, length: int, settings: params.Profile, loss: Loss, device: torch.device,
            trace: Path, on_progress: Callable[[str], object] = lambda what: None) -> tuple[Row, Row]:
    """Measure inference, then training; of each first memory, then time.

    Args:
        model: float32, best on the CPU: it stays as it is, and copies on `device` are measured. (Inference in
            float32 on the CPU runs on the model itself, so that a copy does not count as its memory.)
        prompt: [1, longest] real token ids, longest being at least `length` and all of `settings.lengths`.
        length: the preset's own, in tokens; generation gets all but the last `settings.new_tokens` of them.
        settings: precision bfloat16 means bfloat16 weights in inference, autocast over float32 ones in training.
        loss: (model, input_ids [batch, length]) -> scalar, for the training steps.
        trace: where the Chrome trace goes; the suffix .json.gz compresses it.
        on_progress: told what comes next, `passes_of(settings, length, model.length_limit)` times in all.

    Returns:
        What metrics/variants/V/efficiency.json and data/details/V/efficiency.json hold. The times are medians;
        tokens_per_s is new_tokens over generate_ms, so the prompt's pass counts; peak_memory_mb is the highest of
        forward and generation; train_step_ms is the largest batch's, None if the device has no room for it.
        Of other sizes, what there is no room for becomes a row that says `out_of_memory`.

    Raises:
        ValueError: a prompt of another shape or too short, or a device other than cpu and cuda.
        torch.OutOfMemoryError: no room for inference at the preset's own length.
    """
    _check(prompt, length, settings, device)
    at_start = process_peak_mb()
    passes = Passes(settings, device, on_progress)
    yardstick = _yardstick(passes)
    with what_is_there_set_aside():
        flat, details = measure_inference(model, prompt.to(device), length, passes, trace)
        flat["train_step_ms"] = measure_training(model, prompt[:, :length].to(device), passes, loss)
    yardstick += _yardstick(passes)  # at both ends, so that a drift meanwhile shows
    process_peak = round(_highest(at_start, passes), 2)
    peaks = _peaks(passes)
    shape = shape_of(model, getattr(torch, settings.precision).itemsize)
    timings = [row | _achieved(row, shape, peaks) for row in passes.timings]
    timings.append(Timing("yardstick", 1, YARDSTICK, 0, "float32", yardstick).row())
    flat["backend"] = details["backend"]
    details |= {"device": _device_name(device), "dtype": settings.precision, "threads": torch.get_num_threads(),
                "versions": machine.versions(), "timings": timings, "memory": passes.memory,
                "process_peak_mb": process_peak, "peaks": _significant(asdict(peaks)),
                "attention_share": _attention_share(timings, shape.layers), "length_limit": model.length_limit,
                "lengths_left_out": sorted(set(settings.lengths) - set(_lengths(model, length, settings)))}
    return flat, details


def passes_of(settings: params.Profile, length: int, limit: int | None) -> int:
    """How often `profile` reports progress: memory and time of each work, attention alone at each length, operations,
    counters, the device's peaks, and the yardstick twice."""
    works = (len(("forward", "generate", "first_token")) + len(swept(settings, length, limit))
             + len(set(settings.train_batch_sizes)))
    return 2 * works + len(lengths_of(settings, length, limit)) + 5


def _check(prompt: Tensor, length: int, settings: params.Profile, device: torch.device) -> None:
    if length <= settings.new_tokens:
        raise ValueError(f"length {length}: must be longer than new_tokens {settings.new_tokens}")
    longest = max(length, *settings.lengths)
    if prompt.dim() != 2 or prompt.shape[0] != 1 or prompt.shape[1] < longest:
        raise ValueError(f"prompt {tuple(prompt.shape)}: need [1, {longest}] or more, the longest length")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device}: only cpu and cuda can be profiled")


def _lengths(model: "GPT2", length: int, settings: params.Profile) -> list[int]:
    return lengths_of(settings, length, model.length_limit)


def _yardstick(passes: Passes) -> list[float]:
    """Milliseconds of work that is the same for all variants: how far it differs between them is the machine's."""
    passes.on_progress("time, yardstick")
    matrix = torch.ones(YARDSTICK, YARDSTICK, device=passes.device)
    return passes.samples(lambda: matrix @ matrix)


def _peaks(passes: Passes) -> Peaks:
    """At the end, when no model is left on the device."""
    passes.on_progress("the device's peaks")
    passes.release()
    return measure_peaks(passes.device, getattr(torch, passes.settings.precision))


def _achieved(row: Row, shape: Shape, peaks: Peaks) -> Row:
    """What a timing comes to, a second and as a share of the device's peaks; nothing where there is no arithmetic."""
    cost = _cost(row, shape)
    if cost is None or "median" not in row:
        return {}
    tflops, gb_per_s = cost.operations / row["median"] / 1e9, cost.bytes / row["median"] / 1e6
    return _significant({"tflops": tflops, "tflops_share": tflops / peaks.tflops,
                         "gb_per_s": gb_per_s, "gb_per_s_share": gb_per_s / peaks.gb_per_s})


def _cost(row: Row, shape: Shape) -> Cost | None:
    batch, length = row["batch"], row["length"]
    match row["work"]:
        case "forward":
            return shape.forward(batch, length)
        case "generate":
            return shape.generate(length, row["new_tokens"])
        case "train_step":
            return shape.train_step(batch, length)
        case "attention":
            return shape.attention(length)
    return None


def _attention_share(timings: list[Row], layers: int) -> list[Row]:
    """All layers' attention over the forward pass, at each length at which both are timed."""
    medians = {(row["work"], row["length"]): row["median"] for row in timings if row["batch"] == 1 and "median" in row}
    return [{"length": length, "share": round(layers * medians["attention", length] / forward, 4)}
            for (work, length), forward in sorted(medians.items())
            if work == "forward" and ("attention", length) in medians]


def _significant(values: Row) -> Row:
    """To four digits: a tiny model's numbers are small."""
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{machine.processor()}, {machine.cores()} cores"


def _highest(at_start: float, passes: Passes) -> float:
    """Peak resident size of the whole process in MB, over the resets that each memory pass on the CPU makes."""
    resident: list[float] = ([row["peak_mb"] for row in passes.memory if "peak_mb" in row]
                             if passes.device.type == "cpu" else [])
    return max(at_start, process_peak_mb(), *resident)
