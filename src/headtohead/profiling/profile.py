"""One variant's cost on this machine: `profile` runs every pass and gives what the efficiency files hold."""

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headtohead import params
from headtohead.profiling import machine, nvml
from headtohead.profiling.memory import peak_memory, process_peak_mb
from headtohead.profiling.operations import top_operations
from headtohead.profiling.timing import Timing, measure

if TYPE_CHECKING:
    from headtohead.model import GPT2

Row = dict[str, Any]
Loss = Callable[["GPT2", Tensor], Tensor]  # (model, input_ids [batch, length]) -> scalar

WARMUP = 3  # untimed runs of each work: kernels get compiled and chosen, caches filled
TRACED_TOKENS = 4  # generated under the profiler: enough to see decoding, few enough for a small trace
YARDSTICK = 512  # rows and columns of the matrices whose product tells how fast the machine is just now
COUNTED_SECONDS = 1.0  # under NVML, whose counters are slow
LEARNING_RATE = 1e-5  # so small that the weights, and with them the work, stay as they are


@dataclass(frozen=True)
class Work:
    """Something to run again and again. length: tokens that go in; new_tokens: 0 where none are generated."""

    name: str
    batch: int
    length: int
    new_tokens: int
    run: Callable[[], object]


@dataclass
class Passes:
    """Takes memory and time in passes of their own, and keeps a row of each."""

    settings: params.Profile
    device: torch.device
    on_progress: Callable[[str], object]
    timings: list[Row] = field(default_factory=list)
    memory: list[Row] = field(default_factory=list)

    def read_memory(self, work: Work) -> float:
        """One row of `memory`; its peak in MB."""
        self.on_progress(f"memory, {work.name}, batch {work.batch}")
        peak = peak_memory(work.run, self.device)
        self.memory.append({"work": work.name, "batch": work.batch, "length": work.length,
                            "peak_mb": round(peak.mb, 2), "reset": peak.reset})
        return peak.mb

    def time(self, work: Work) -> float:
        """One row of `timings`; its median in ms."""
        self.on_progress(f"time, {work.name}, batch {work.batch}")
        timing = Timing(work.name, work.batch, work.length, work.new_tokens, self.settings.precision,
                        self.samples(work.run))
        self.timings.append(timing.row())
        return timing.median

    def samples(self, run: Callable[[], object]) -> list[float]:
        """Milliseconds of each repeat."""
        return measure(run, self.device, min_repeats=self.settings.min_repeats,
                       min_seconds=self.settings.min_seconds, warmup=WARMUP)

    def yardstick(self) -> list[float]:
        """Milliseconds of work that is the same for all variants: how far it differs between them is the machine's."""
        self.on_progress("time, yardstick")
        matrix = torch.ones(YARDSTICK, YARDSTICK, device=self.device)
        return self.samples(lambda: matrix @ matrix)


def profile(model: "GPT2", *, prompt: Tensor, settings: params.Profile, loss: Loss, device: torch.device,
            trace: Path, on_progress: Callable[[str], object] = lambda what: None) -> tuple[Row, Row]:
    """Measure inference, then training; of each first memory, then time.

    Args:
        model: float32, best on the CPU: it stays as it is, and copies on `device` are measured. (Inference in
            float32 on the CPU runs on the model itself, so that a copy does not count as its memory.)
        prompt: [1, length] real token ids, length being the preset's; generation gets all but the last
            `settings.new_tokens` of them.
        settings: precision bfloat16 means bfloat16 weights in inference, autocast over float32 ones in training.
        loss: (model, input_ids [batch, length]) -> scalar, for the training steps.
        trace: where the Chrome trace goes; the suffix .json.gz compresses it.
        on_progress: told what comes next, `passes_of(settings)` times in all.

    Returns:
        What metrics/variants/V/efficiency.json and data/details/V/efficiency.json hold. The times are medians;
        tokens_per_s is new_tokens over generate_ms, so the prompt's pass counts; peak_memory_mb is the highest of
        forward and generation; train_step_ms is the largest batch's, None if the device has no room for it.

    Raises:
        ValueError: a prompt of another shape or without room to generate, or a device other than cpu and cuda.
    """
    _check(prompt, settings, device)
    at_start = process_peak_mb()
    passes = Passes(settings, device, on_progress)
    yardstick = passes.yardstick()
    with _what_is_there_set_aside():
        flat, details = _inference(model, prompt.to(device), passes, trace)
        flat["train_step_ms"] = _training(model, prompt.to(device), passes, loss)
    yardstick += passes.yardstick()  # at both ends, so that a drift meanwhile shows
    passes.timings.append(Timing("yardstick", 1, YARDSTICK, 0, "float32", yardstick).row())
    flat["backend"] = details["backend"]
    details |= {"device": _device_name(device), "dtype": settings.precision, "threads": torch.get_num_threads(),
                "versions": machine.versions(), "timings": passes.timings, "memory": passes.memory,
                "process_peak_mb": round(_highest(at_start, passes), 2)}
    return flat, details


def passes_of(settings: params.Profile) -> int:
    """How often `profile` reports progress: memory and time of each work, operations, counters, yardstick twice."""
    return 2 * (len(("forward", "generate", "first_token")) + len(set(settings.train_batch_sizes))) + 4


def _check(prompt: Tensor, settings: params.Profile, device: torch.device) -> None:
    if prompt.dim() != 2 or prompt.shape[0] != 1 or prompt.shape[1] <= settings.new_tokens:
        raise ValueError(f"prompt {tuple(prompt.shape)}: need [1, length], longer than new_tokens "
                         f"{settings.new_tokens}")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device}: only cpu and cuda can be profiled")


def _inference(model: "GPT2", prompt: Tensor, passes: Passes, trace: Path) -> tuple[Row, Row]:
    """Everything at batch 1 without gradients: the flat numbers, and backend, operations and counters."""
    settings = passes.settings
    ready = _for_inference(model, passes.device, getattr(torch, settings.precision))
    works = _inference_works(ready, prompt, settings.new_tokens)
    with torch.no_grad(), _evaluating(ready):
        peaks = [passes.read_memory(work) for work in works]
        forward, generate, first_token = [passes.time(work) for work in works]
        passes.on_progress("operations")
        operations = top_operations(_glimpse(ready, prompt, settings.new_tokens), passes.device, trace=trace)
        passes.on_progress("the GPU's counters")
        counters = _counters(works[1], passes.device)
    flat = {"forward_ms": round(forward, 4), "generate_ms": round(generate, 4), "first_token_ms": round(first_token, 4),
            "tokens_per_s": round(settings.new_tokens / generate * 1000, 2), "peak_memory_mb": round(max(peaks), 2)}
    return flat, {"backend": ready.backend, "operations": operations, "nvml": counters}


def _for_inference(model: "GPT2", device: torch.device, dtype: torch.dtype) -> "GPT2":
    if model.device == device and model.dtype == dtype:
        return model
    ready: GPT2 = copy.deepcopy(model).to(device=device, dtype=dtype)
    return ready


def _inference_works(model: "GPT2", prompt: Tensor, new_tokens: int) -> list[Work]:
    """forward over the whole prompt; generation, and its first token alone, from a prompt that leaves room for it."""
    length, start = prompt.shape[1], prompt[:, :-new_tokens]
    return [Work("forward", 1, length, 0, lambda: _forward(model, prompt)),
            Work("generate", 1, start.shape[1], new_tokens, lambda: _generate(model, start, new_tokens)),
            Work("first_token", 1, start.shape[1], 1, lambda: _generate(model, start, 1))]


def _glimpse(model: "GPT2", prompt: Tensor, new_tokens: int) -> Callable[[], object]:
    """One forward and a few generated tokens."""
    def run() -> None:
        _forward(model, prompt)
        _generate(model, prompt[:, :-new_tokens], min(new_tokens, TRACED_TOKENS))

    return run


def _forward(model: "GPT2", prompt: Tensor) -> None:
    """The logits of every position, as the study timed it."""
    model(input_ids=prompt, use_cache=False)


def _generate(model: "GPT2", start: Tensor, new_tokens: int) -> None:
    """Greedy; exactly `new_tokens`, so that every variant is timed at the same work.

    Raises:
        RuntimeError: generation stopped at another number.
    """
    tokens = model.generate(
        start, attention_mask=torch.ones_like(start), do_sample=False, num_beams=1, min_new_tokens=new_tokens,
        max_new_tokens=new_tokens, pad_token_id=0)  # never used: one sequence needs no padding
    if tokens.shape[1] != start.shape[1] + new_tokens:
        raise RuntimeError(f"generated {tokens.shape[1] - start.shape[1]} tokens instead of {new_tokens}")


def _counters(work: Work, device: torch.device) -> Row | None:
    """NVML while `work` runs over and over, in a pass of its own; None on the CPU."""
    if device.type != "cuda":
        return None
    runs: list[float] = []
    counted = nvml.watch(
        lambda: runs.extend(measure(work.run, device, min_repeats=1, min_seconds=COUNTED_SECONDS, warmup=0)),
        uuid=f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    return counted and {"work": work.name, "runs": len(runs)} | counted


def _training(model: "GPT2", prompt: Tensor, passes: Passes, loss: Loss) -> float | None:
    """Training steps on a copy, from the smallest batch to the largest; the largest one's median in ms."""
    _release(passes.device)  # inference's copy is not to count
    learner = copy.deepcopy(model).to(device=passes.device, dtype=torch.float32).train()
    medians = [_train_step(learner, prompt.repeat(batch, 1), passes, loss)
               for batch in sorted(set(passes.settings.train_batch_sizes))]
    return medians[-1]


def _train_step(learner: "GPT2", ids: Tensor, passes: Passes, loss: Loss) -> float | None:
    """Memory and time with a fresh optimizer: the median in ms, or None where a row says `out_of_memory`."""
    batch, length = ids.shape
    try:
        work = Work("train_step", batch, length, 0, _stepper(learner, ids, passes.settings.precision, loss))
        passes.read_memory(work)
        return round(passes.time(work), 4)
    except torch.OutOfMemoryError:
        passes.timings.append({"work": "train_step", "batch": batch, "length": length, "out_of_memory": True})
        return None
    finally:
        learner.zero_grad()
        _release(passes.device)


def _stepper(learner: "GPT2", ids: Tensor, precision: str, loss: Loss) -> Callable[[], None]:
    """Forward, loss, backward and AdamW's step, fused as in Trainer."""
    optimizer = torch.optim.AdamW(learner.parameters(), lr=LEARNING_RATE, fused=True)

    def step() -> None:
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            value = loss(learner, ids)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


@contextmanager
def _evaluating(model: "GPT2") -> Iterator[None]:
    """Without dropout; afterwards as before."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


@contextmanager
def _what_is_there_set_aside() -> Iterator[None]:
    """Garbage is collected before every pass, and would take longer than most, going through all of transformers."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _release(device: torch.device) -> None:
    """Give back what nothing refers to any more, so that the next pass has room and starts alike."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{machine.processor()}, {machine.cores()} cores"


def _highest(at_start: float, passes: Passes) -> float:
    """Peak resident size of the whole process in MB, over the resets that each memory pass on the CPU makes."""
    resident: list[float] = [row["peak_mb"] for row in passes.memory] if passes.device.type == "cpu" else []
    return max(at_start, process_peak_mb(), *resident)
