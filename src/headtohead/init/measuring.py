"""What is measured: the device, the articles in tokens, and what a training step and a summary take."""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import cycle, islice, pairwise
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, PreTrainedTokenizerBase, TrainerCallback

from headtohead.attention.spec import AttentionSpec
from headtohead.beside import beside
from headtohead.inference.engine import Engine
from headtohead.inference.generation import generate_tokens
from headtohead.init.deciding import SEPARATOR, VOCABULARY, Device, Lengths, Shape, Start, shape_of
from headtohead.init.fitting import Cost
from headtohead.inputs import pretrained_source
from headtohead.models.batches import Example
from headtohead.models.checkpoints import build
from headtohead.models.gpt2 import GPT2, best_device
from headtohead.models.pretrained import read_settings
from headtohead.models.processor import processor
from headtohead.models.sharing import share_cores
from headtohead.params import Params, Preset, Tokenizer
from headtohead.profiling.machine import cores, memory
from headtohead.profiling.timing import between, mark
from headtohead.profiling.timing import measure as timed
from headtohead.quality.language import detect
from headtohead.quality.scoring import score
from headtohead.records import Record
from headtohead.stage import keep_freed_memory
from headtohead.tokens.layout import Layout
from headtohead.tokens.tokenizer import encode, pretrained_tokenizer, separator_ids, train_tokenizer
from headtohead.training.step import compiles, prepare

WARMUP = 2  # steps: the first one gets memory, and compiles on a GPU
STEPS, SECONDS = 12, 8.0  # at most so many steps are timed, and none begins after so many seconds
SCORED = 100  # summaries
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
    """Time the real training of `standard`, and summaries by it, which take all the tokens they may.

    On a CPU small models are trained two at a time, each on half of the cores; here, too, another one runs beside that
    one. The profiles have the machine for themselves: what they repeat is timed once more without the other.

    Args:
        rows: articles to train on.
    """
    keep_freed_memory()
    on, cores_of_all = best_device(), torch.get_num_threads()
    sharing = share_cores(params.model_copy(update={"presets": {params.preset: preset}}), on)
    work = _Work(preset, tokenizer, rows, params.seed, on)
    with beside(lambda: (work.training(), work.summaries(preset.generate.batch_size))) if sharing else nullcontext():
        training = work.training()
        batch = work.summaries(preset.generate.batch_size)
    torch.set_num_threads(cores_of_all)
    alone = work.training(whole=False) if sharing else training
    return Cost(training.step, training.evaluation / work.validated, training.checkpoint,
                batch / preset.generate.batch_size, work.forward(), work.summaries(1),
                alone.step / preset.train.accumulation, _scoring_seconds(rows), at_once=2 if sharing else 1)


class _Work:
    """What a run does over and over, in seconds."""

    def __init__(self, preset: Preset, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Record], seed: int,
                 on: torch.device) -> None:
        self._preset, self._tokenizer, self._seed, self._on = preset, tokenizer, seed, on
        self._articles, summaries = ([text.ids for text in encode(tokenizer, [row[side] for row in rows])]
                                     for side in ("article", "summary"))
        self._layout = Layout(separator_ids(tokenizer), tokenizer.eos_token_id, preset.tokenizer.max_length,
                              preset.generate.max_new_tokens)
        self._examples: list[Example] = [
            self._layout.example(article, summary) for article, summary in zip(self._articles, summaries, strict=True)
            if len(summary) < self._layout.new_tokens]

    @cached_property
    def _model(self) -> GPT2:  # not before the first fork, which would have no OpenMP threads
        preset = self._preset
        return build(AttentionSpec(), preset.model, self._tokenizer, preset.tokenizer.max_length, self._seed)

    def _engine(self) -> Engine:
        self._model.zero_grad()
        return Engine(self._model.eval().to(self._on, getattr(torch, self._preset.generate.precision)))

    @property
    def validated(self) -> int:
        """How many articles a validation has here: a batch."""
        return 4 * self._preset.train.batch_size

    def training(self, whole: bool = True) -> "_Clock":
        """Steps of a training, and if it is `whole` a validation and a checkpoint."""
        train, on = self._preset.train, self._on
        clock, length = _Clock(on, whole), self._preset.tokenizer.max_length if compiles(on) else None
        some = list(islice(cycle(self._examples), BATCHES * train.batch_size * train.accumulation))
        endless = train.model_copy(update={"steps": 1_000_000, "evaluations": 1})
        with tempfile.TemporaryDirectory() as folder:
            prepare(self._model, some, some[:self.validated], endless, filler=self._tokenizer.pad_token_id, seed=1,
                    checkpoints=Path(folder), device=on, length=length, callbacks=[clock]).train()
        return clock

    def summaries(self, count: int) -> float:
        """A batch of so many, of all the tokens they may have."""
        engine = self._engine()
        prompts = [self._layout.prompt(article) for article in islice(cycle(self._articles), count)]
        if engine.graphs:
            generate_tokens(engine, self._tokenizer, prompts, self._preset.generate)  # records the graphs
        start = perf_counter()
        generate_tokens(engine, self._tokenizer, prompts, self._preset.generate).cpu()
        return perf_counter() - start

    def forward(self) -> float:
        """A pass over one sequence."""
        engine = self._engine()
        ids = torch.ones(1, self._preset.tokenizer.max_length, dtype=torch.long, device=self._on)
        with torch.no_grad():
            return mean(timed(lambda: engine.forward(ids), self._on, min_repeats=STEPS, min_seconds=0,
                              warmup=WARMUP)) / 1000


def _scoring_seconds(rows: Sequence[Record]) -> float:
    """The scores of one summary: here of the next article's."""
    some = rows[:SCORED]
    made = [{"id": str(number), "summary": other["summary"], "reference": row["summary"]}
            for number, (row, other) in enumerate(zip(some, [*some[1:], some[0]], strict=True))]
    start = perf_counter()
    score(made, [], {}, detect(row["article"] for row in some))
    return (perf_counter() - start) / len(made)


class _Clock(TrainerCallback):
    """Times steps after the first ones, then if asked a validation and a checkpoint, and ends the training."""

    def __init__(self, device: torch.device, whole: bool) -> None:
        self._device, self._whole = device, whole
        self._marks: list[Any] = []
        self._after: list[Any] = []  # marks behind the validation and the checkpoint
        self._began = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            self._began = perf_counter()
        if state.global_step >= WARMUP or perf_counter() - self._began > SECONDS:
            self._marks.append(mark(self._device))
        long = len(self._marks) > 1 and perf_counter() - self._began > SECONDS
        ends = len(self._marks) > STEPS or long
        control.should_training_stop = ends
        control.should_evaluate = control.should_save = ends and self._whole

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._after.append(mark(self._device))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._after.append(mark(self._device))

    @property
    def step(self) -> float:
        return mean(between(*ends) for ends in pairwise(self._marks)) / 1000

    @property
    def evaluation(self) -> float:
        return between(self._marks[-1], self._after[0]) / 1000

    @property
    def checkpoint(self) -> float:
        return between(*self._after) / 1000
