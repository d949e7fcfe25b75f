"""What one process measures: a freshly built model's headline figures, or everything else, once."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headtohead.measured import read_table
from headtohead.models.checkpoints import build, named_variant
from headtohead.models.gpt2 import GPT2, best_device
from headtohead.models.processor import processor
from headtohead.params import Params, Profile
from headtohead.paths import BACKENDS
from headtohead.profiling import machine
from headtohead.profiling.cost import shape_of
from headtohead.profiling.inference import lengths_of, measure_headline, measure_sweep
from headtohead.profiling.measurement import Measurement
from headtohead.profiling.passes import Passes
from headtohead.profiling.peaks import measure_peaks
from headtohead.profiling.training import Lesson, measure_training
from headtohead.stage import keep_freed_memory
from headtohead.tokens.layout import Layout
from headtohead.tokens.splits import load_split, load_tokenizer
from headtohead.tokens.tokenizer import separator_ids
from headtohead.training.examples import make_examples
from headtohead.training.step import compiles

EXAMPLES = 512  # real ones, for training steps
TURNS = 15  # of each process; an odd number has a middle one
# Imported before the processes are forked, or each of them would spend seconds on it.
FOR_CUDA = ("torch._inductor.compile_fx", "headtohead.inference.fused")

if compiles(best_device()):
    for module in FOR_CUDA:
        import_module(module)

Announce = Callable[[str], object]


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Args:
        model: float32, on the CPU, and this process's own: it moves to the device, and steps train it.
        prompt: [1, longest] real token ids, longest being at least `length` and all of `settings.lengths`.
        length: the preset's own, in tokens; generation gets all but the last `settings.new_tokens` of them.
        lesson: what training steps work on.
        settings: precision bfloat16 means bfloat16 weights in inference.

    Raises:
        ValueError: a prompt of another shape or too short.
    """

    model: GPT2
    prompt: Tensor
    length: int
    lesson: Lesson
    settings: Profile

    def __post_init__(self) -> None:
        longest = max(self.length, *self.settings.lengths)
        if self.length <= self.settings.new_tokens:
            raise ValueError(f"length {self.length}: must be longer than new_tokens {self.settings.new_tokens}")
        if self.prompt.dim() != 2 or self.prompt.shape[0] != 1 or self.prompt.shape[1] < longest:
            raise ValueError(f"prompt {tuple(self.prompt.shape)}: need [1, {longest}] or more, the longest length")

    @property
    def batches(self) -> list[int]:
        """Of training steps, the largest last: that is the headline's."""
        return sorted(set(self.settings.train_batch_sizes))


def subject(params: Params, variant: str) -> Subject:
    """A variant's fresh model, and real tokens from what `tokenize` wrote, in a process that is this model's alone."""
    keep_freed_memory()
    gc.freeze()  # garbage is collected before every pass, and going through all of transformers would take longer
    preset, tokenizer = params.chosen, load_tokenizer()
    length = preset.tokenizer.max_length
    model = build(named_variant(params, variant), preset.model, tokenizer, length, params.seed, params.asked_backend)
    model.config.attention_table = read_table(BACKENDS / f"{variant}.json")
    layout = Layout(separator_ids(tokenizer), tokenizer.eos_token_id, length, preset.generate.max_new_tokens)
    rows = load_split("train")
    lesson = Lesson(make_examples(rows.select(range(min(EXAMPLES, len(rows)))), layout), tokenizer.pad_token_id, length,
                    preset.train)
    return Subject(model, real_tokens(max(length, *preset.profile.lengths)), length, lesson, preset.profile)


def real_tokens(length: int) -> Tensor:
    """[1, length] tokens of test articles, one after another, and over again if they are few."""
    tokens = list(islice(chain.from_iterable(load_split("test")["article"]), length))
    return torch.tensor([list(islice(cycle(tokens), length))])


def headline(subject: Subject, device: torch.device, announce: Announce, turn: Callable[[], object]
             ) -> list[Measurement]:
    """Memory and time of a forward pass, generation, the first token, and a training step in the largest batch.

    Args:
        turn: lets the process beside which this one measures go on. On a GPU it is not called: two may not have room,
            and nobody else computes there.
    """
    passes = (Passes(subject.settings, device, announce, TURNS, turn) if device.type == "cpu" else
              Passes(subject.settings, device, announce, turns=1))
    measure_headline(subject.model, subject.prompt[:, :subject.length].to(device), passes)
    measure_training(subject.model, subject.lesson, subject.batches[-1], passes)
    return passes.taken


def sweep(subject: Subject, device: torch.device, trace: Path, announce: Announce
          ) -> tuple[list[Measurement], dict[str, Any]]:
    """Everything that is measured once: other lengths and batch sizes, operations, counters, the device's peaks.

    Args:
        trace: where the Chrome trace goes; the suffix .json.gz compresses it.

    Returns:
        Measurements, and what data/details/V/efficiency.json holds beside them.
    """
    model, settings = subject.model, subject.settings
    shape = shape_of(model, getattr(torch, settings.precision).itemsize)
    passes = Passes(settings, device, announce)
    rest = measure_sweep(model, subject.prompt.to(device), subject.length, passes, trace)
    for batch in subject.batches[:-1]:
        measure_training(model, subject.lesson, batch, passes)
    announce("the device's peaks")
    peaks = measure_peaks(device, getattr(torch, settings.precision))
    return passes.taken, rest | {
        "shape": shape, "peaks": peaks, "counted": subject.lesson.counted, "layers": len(shape.layers),
        "train_step": subject.lesson.timed,
        "seen_share": round(shape.seen_share(subject.length), 6),
        "cache_mb": round(shape.kept_bytes(subject.length) / 2**20, 6),
        "device": _name(device), "threads": torch.get_num_threads(), "length_limit": model.length_limit,
        "lengths_left_out": sorted({*settings.lengths}
                                   - {*lengths_of(settings, subject.length, model.length_limit)})}


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {machine.cores()} cores"
