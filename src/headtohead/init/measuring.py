"""What is measured: the device, the articles in tokens, and what a training step and a summary take."""

import tempfile
from collections.abc import Sequence
from itertools import cycle, islice, pairwise
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, PreTrainedTokenizerBase, TrainerCallback

from headtohead.attention.spec import AttentionSpec
from headtohead.inference.engine import Engine
from headtohead.inference.generation import generate_tokens
from headtohead.init.deciding import SEPARATOR, VOCABULARY, Cost, Device, Lengths, Shape, Start, shape_of
from headtohead.inputs import pretrained_source
from headtohead.models.batches import Example
from headtohead.models.checkpoints import build
from headtohead.models.gpt2 import GPT2, best_device
from headtohead.models.pretrained import read_settings
from headtohead.models.sharing import share_cores
from headtohead.params import Params, Preset, Tokenizer
from headtohead.profiling.machine import cores, memory, processor
from headtohead.profiling.timing import between, mark
from headtohead.quality.language import detect
from headtohead.records import Record
from headtohead.stage import keep_freed_memory
from headtohead.tokens.layout import Layout
from headtohead.tokens.tokenizer import encode, pretrained_tokenizer, separator_ids, train_tokenizer
from headtohead.training.step import compiles, prepare

WARMUP = 2  # steps: the first one gets memory, and compiles on a GPU
STEPS, SECONDS = 12, 8.0  # at most so many steps are timed, and none begins after so many seconds
BATCHES = 64  # of examples, so that no step is the last of an epoch


def device() -> Device:
    """The device that everything runs on, as it is now."""
    if best_device().type == "cuda":
        return Device(torch.cuda.get_device_name(), gpu=True, memory=torch.cuda.mem_get_info()[0],
                      bfloat16=torch.cuda.is_bf16_supported())
    free, _ = memory()
    return Device(f"{cores()} cores of {processor()}", gpu=False, bfloat16=False, memory=free)


def language(rows: Sequence[Record]) -> str:
    """The code of the language that most of the articles are in."""
    return detect(row["article"] for row in rows)


def tokens(rows: Sequence[Record], start: Start, pretrained: str | None, end_of_text: str | None
           ) -> tuple[PreTrainedTokenizerBase, Lengths, Shape]:
    """The pretrained model's tokenizer, or one trained on these articles, how long they are in its tokens, and the
    model's shape.

    Raises:
        DataError: the pretrained tokenizer does not suit them.
    """
    settings = Tokenizer(vocab_size=VOCABULARY.get(start), separator=SEPARATOR[start], end_of_text=end_of_text,
                         max_length=1024)
    texts = {side: [row[side] for row in rows] for side in ("article", "summary")}
    if pretrained is None:
        tokenizer, shape = train_tokenizer(settings, texts["article"] + texts["summary"]), shape_of(start)
    else:
        folder = pretrained_source(pretrained)
        tokenizer = pretrained_tokenizer(settings, folder, texts["article"][:200])
        config = GPT2Config(**read_settings(Path(folder))[0])
        shape = Shape(config.n_layer, config.n_embd, config.n_head, config.vocab_size, config.n_positions)
    articles, summaries = (np.array([len(text.ids) for text in encode(tokenizer, side)]) for side in texts.values())
    return tokenizer, Lengths(articles, summaries, len(separator_ids(tokenizer))), shape


def measure(params: Params, preset: Preset, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Record]) -> Cost:
    """Time steps of the real training of `standard`, and summaries by it, which take all the tokens they may.

    On a CPU small models are trained two at a time, each on half of the cores; the steps are timed on half, too.

    Args:
        rows: articles to train on.
    """
    keep_freed_memory()
    on = best_device()
    sharing = share_cores(params, on)
    articles, summaries = ([text.ids for text in encode(tokenizer, [row[side] for row in rows])]
                           for side in ("article", "summary"))
    layout = Layout(separator_ids(tokenizer), tokenizer.eos_token_id, preset.tokenizer.max_length,
                    preset.generate.max_new_tokens)
    examples: list[Example] = [layout.example(article, summary)
                               for article, summary in zip(articles, summaries, strict=True)
                               if len(summary) < layout.new_tokens]
    model = build(AttentionSpec(), preset.model, tokenizer, preset.tokenizer.max_length, params.seed)
    step = _step_seconds(model, examples, preset, tokenizer.pad_token_id, on)
    model.zero_grad()
    model.eval().to(on, getattr(torch, preset.generate.precision))
    engine = Engine(model)
    prompts = [layout.prompt(article) for article in islice(cycle(articles), preset.generate.batch_size)]
    batch, one = (_generation_seconds(engine, tokenizer, some, preset) for some in (prompts, prompts[:1]))
    return Cost(step, batch / len(prompts), one, at_once=2 if sharing else 1)


def _step_seconds(model: GPT2, examples: list[Example], preset: Preset, filler: int, on: torch.device) -> float:
    clock, length = _Clock(on), preset.tokenizer.max_length if compiles(on) else None
    some = list(islice(cycle(examples), BATCHES * preset.train.batch_size * preset.train.accumulation))
    with tempfile.TemporaryDirectory() as folder:
        prepare(model, some, some[:1], preset.train.model_copy(update={"steps": 1_000_000, "evaluations": 1}),
                filler=filler, seed=1, checkpoints=Path(folder), device=on, length=length, callbacks=[clock]).train()
    return clock.seconds


def _generation_seconds(engine: Engine, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], preset: Preset
                        ) -> float:
    if engine.graphs:
        generate_tokens(engine, tokenizer, prompts, preset.generate)  # records the graphs
    start = perf_counter()
    generate_tokens(engine, tokenizer, prompts, preset.generate).cpu()
    return perf_counter() - start


class _Clock(TrainerCallback):
    """Times steps after the first ones, and ends the training."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []
        self._began = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            self._began = perf_counter()
        if state.global_step >= WARMUP or perf_counter() - self._began > SECONDS:
            self._marks.append(mark(self._device))
        long = len(self._marks) > 1 and perf_counter() - self._began > SECONDS
        control.should_training_stop = len(self._marks) > STEPS or long

    @property
    def seconds(self) -> float:
        return mean(between(*ends) for ends in pairwise(self._marks)) / 1000
