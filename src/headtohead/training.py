"""Fine-tuning or training from scratch with transformers' Trainer, resumable after an interruption."""

import hashlib
import json
import logging
import math
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from safetensors.torch import load_model
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, rotate_checkpoints

from headtohead.inputs import identity
from headtohead.models.batches import IGNORED, Example, collate
from headtohead.models.gpt2 import GPT2, best_device, compile_for_training, mixed
from headtohead.params import Train
from headtohead.progress import Bar, console
from headtohead.records import DataError
from headtohead.tokens.layout import Layout

log = logging.getLogger(__name__)
CHECKPOINTS = Path(".checkpoints")
SEAL = "sealed.json"  # the last file of a checkpoint: what identifies all others


class TrainingError(RuntimeError):
    """Training that leads nowhere; the message says at which step and what to change."""


def train(model: GPT2, examples: list[Example], validation: list[Example], settings: Train, *,
          filler: int, seed: int, checkpoints: Path, title: str = "training") -> pd.DataFrame:
    """Train `model` in place and leave it with the weights of its lowest validation loss.

    It runs on one device. On CUDA it is compiled, and all batches have one shape: the longest sequence's length, and
    no smaller last batch.

    Args:
        examples, validation: from `make_examples`.
        filler: token id that pads batches.
        checkpoints: folder of this very training's checkpoints; training goes on from the last whole one there.
        title: of the progress bar and of messages.

    Returns:
        The learning curves: columns step, training_loss, validation_loss (nats a token), learning_rate.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    last = last_whole_checkpoint(checkpoints)
    done = _state(last)["global_step"] if last else 0
    if done:
        console.print(f"{title} goes on from step {done} of {settings.steps}")
    longest = max(len(sequence) for sequence, _ in examples + validation)
    with Bar(title, total=settings.steps, done=done) as bar:
        trainer = prepare(model, examples, validation, settings, filler=filler, seed=seed, checkpoints=checkpoints,
                          device=best_device(), length=longest if _compiles(best_device()) else None,
                          callbacks=[Progress(bar), Finite(title), Seal()])
        with mixed(model.device, settings.precision):
            log.info("%s parameters on %s, attention by %s; %s examples", f"{model.num_parameters():,}", model.device,
                     model.backend_for(longest, training=True), f"{len(examples):,}")
        if model.device.type == "cuda" and (visible := torch.cuda.device_count()) > 1:
            console.print(f"{title} uses {torch.cuda.get_device_name(model.device)} ({model.device}), one of {visible} "
                          "visible GPUs")
        if done < settings.steps:  # resumed at its end, Trainer would take one step more
            trainer.train(resume_from_checkpoint=last and str(last))
    end = _state(checkpoints / f"checkpoint-{settings.steps}")
    load_model(model, _best(checkpoints, end) / "model.safetensors")
    return learning_curves(end["log_history"])


def prepare(model: GPT2, examples: list[Example], validation: list[Example], settings: Train, *, filler: int, seed: int,
            checkpoints: Path, device: torch.device, length: int | None, callbacks: list[TrainerCallback]) -> Trainer:
    """Trainer, ready to take the steps of a training; profiling times them.

    Args:
        length: that all batches are padded to; None pads each to its longest sequence.
    """
    compiled = _compiles(device)
    trainer = FadingArticle(
        model, _arguments(settings, seed, checkpoints, device,
                          drop_last=compiled and len(examples) >= settings.batch_size,
                          evaluated=_alike(len(validation), 4 * settings.batch_size) if compiled else None),
        train_dataset=examples, eval_dataset=validation,
        data_collator=partial(_batch, filler=filler, article_weight=settings.article_weight, length=length),
        callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    if compiled:
        compile_for_training(model)
    return trainer


def make_examples(rows: Any, layout: Layout) -> list[Example]:
    """Training sequences from tokenised rows (columns id, article, summary), without those that do not fit.

    Raises:
        DataError: none fits.
    """
    examples: list[Example] = []
    for row in rows:
        sequence, prompt = layout.example(row["article"], row["summary"])
        if layout.fits(sequence):
            examples.append((np.array(sequence, np.int32), prompt))  # a ninth of a list's memory
    if not examples:
        raise DataError(f"no summary fits: tokenizer.max_length {layout.max_length} and generate.max_new_tokens "
                        f"{layout.new_tokens} are too small for all {len(rows):,}; raise both")
    if left_out := len(rows) - len(examples):
        log.warning("%d of %d rows are left out: their summaries do not fit in tokenizer.max_length", left_out,
                    len(rows))
    return examples


def _compiles(device: torch.device) -> bool:
    """On CUDA alone: there it pays, and there the shapes are kept the same."""
    return device.type == "cuda"


def _alike(count: int, most: int) -> int:
    """The size of batches that are as alike as can be, each at most `most`: every size is compiled for."""
    return math.ceil(count / math.ceil(count / most))


def _arguments(settings: Train, seed: int, checkpoints: Path, device: torch.device, drop_last: bool,
               evaluated: int | None) -> TrainingArguments:
    every = settings.steps // settings.evaluations
    arguments = TrainingArguments(
        output_dir=str(checkpoints), seed=seed, data_seed=seed, max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=evaluated or 4 * settings.batch_size,
        gradient_accumulation_steps=settings.accumulation, bf16=settings.precision == "bfloat16",
        use_cpu=device.type == "cpu",
        learning_rate=settings.learning_rate, lr_scheduler_type="cosine", warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay, logging_steps=every, eval_strategy="steps", eval_steps=every,
        save_strategy="steps", save_steps=every, metric_for_best_model="eval_loss",
        greater_is_better=False, prediction_loss_only=True, logging_nan_inf_filter=False,
        remove_unused_columns=False, report_to=[], disable_tqdm=True, log_level="error",
        dataloader_pin_memory=device.type == "cuda", dataloader_drop_last=drop_last)
    if arguments.n_gpu > 1:  # Trainer would give each a batch of its own, through nn.DataParallel
        arguments._n_gpu = 1
    return arguments


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that can be gone on from; later ones, cut off or damaged, are removed."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
        if _sealed(checkpoint) and _sealed(_best(folder, _state(checkpoint))):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _sealed(checkpoint: Path) -> bool:
    """Whether its files are those that training wrote, whole and no others."""
    try:
        return bool(json.loads((checkpoint / SEAL).read_text()) == _contents(checkpoint))
    except (OSError, ValueError):
        return False


def _contents(checkpoint: Path) -> dict[str, dict[str, str | int]]:
    return identity({file.name: file for file in checkpoint.iterdir() if file.name != SEAL})


def _state(checkpoint: Path) -> dict[str, Any]:
    """Trainer's own account of a whole checkpoint."""
    return json.loads((checkpoint / "trainer_state.json").read_text())


def _best(folder: Path, state: dict[str, Any]) -> Path:
    """The checkpoint with the lowest validation loss so far."""
    return folder / f"checkpoint-{state['best_global_step']}"


def learning_curves(history: list[dict[str, float]]) -> pd.DataFrame:
    """Trainer's log as a table; its own summary of the training loss is wrong after a resume."""
    rows: dict[int, dict[str, float]] = {}
    names = {"loss": "training_loss", "eval_loss": "validation_loss", "learning_rate": "learning_rate"}
    for entry in history:
        rows.setdefault(int(entry["step"]), {}).update({names[k]: v for k, v in entry.items() if k in names})
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(names.values()))
    return table.rename_axis("step").reset_index().dropna(subset="validation_loss")


def checkpoint_folder(variant: str, *settings: object) -> Path:
    """Where one training's checkpoints live: outside DVC's outputs, which it deletes before a stage runs.

    Args:
        variant: its name.
        settings: all that the result depends on beside the code; what differs in any gets a folder of its own.
    """
    versions = (torch.__version__, transformers.__version__)
    digest = hashlib.blake2b(repr((settings, versions, _code())).encode(), digest_size=8).hexdigest()
    return CHECKPOINTS / f"{variant}-{digest}"


def _code() -> list[str]:
    """The source of all our modules that are loaded: no training goes on with other code than it began with."""
    files = {module.__file__ for name, module in sys.modules.items() if name.startswith("headtohead.")}
    return [Path(file).read_text(encoding="utf-8") for file in sorted(filter(None, files))]


def forget_finished(but: Path) -> None:
    """Remove the checkpoints of trainings that came to their end, except those in `but`.

    They stay until another training begins, for DVC may be killed or find the disk full before it has the model.
    """
    for folder in CHECKPOINTS.glob("*"):
        if folder != but and any(_finished(checkpoint) for checkpoint in folder.glob("checkpoint-*")):
            shutil.rmtree(folder)


def _finished(checkpoint: Path) -> bool:
    return _sealed(checkpoint) and _state(checkpoint)["global_step"] == _state(checkpoint)["max_steps"]


def _batch(examples: list[Example], filler: int, article_weight: float, length: int | None) -> dict[str, Tensor]:
    """A batch as `collate` makes it, padded on to `length` if there is one, and each row's prompt [batch]."""
    batch = collate(examples, filler, article_weight)
    if length is not None:
        more = (0, length - batch["input_ids"].shape[1])
        fillers = {"input_ids": filler, "labels": IGNORED, "weights": 0.0}
        batch = {name: pad(batch[name], more, value=value) for name, value in fillers.items()}
    return batch | {"prompt": torch.tensor([prompt for _, prompt in examples])}


class FadingArticle(Trainer):
    """Trainer that learns language from the article first: its weight falls from step to step, linearly to 0.

    Validation counts the summary alone, whatever that weight is. A loss is a sum over tokens divided by their weight
    in the whole step or split: a mean of batches' means would depend on how the rows are put into batches.
    """

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[dict[str, Tensor]]:
        """Keep the last batch in evaluation."""
        dropped, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        loader = super().get_eval_dataloader(eval_dataset)
        self.args.dataloader_drop_last = dropped
        return loader

    def get_batch_samples(self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
                          ) -> tuple[list[dict[str, Tensor]], Any]:
        """The batches of one step, and the weight of all their tokens."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(self._weights(batch, training=True)[:, 1:].sum() for batch in batches)

    def compute_loss(self, model: GPT2, inputs: dict[str, Tensor], return_outputs: bool = False,
                     num_items_in_batch: Tensor | float | None = None) -> Any:
        weights = self._weights(inputs, model.training)
        outputs = model(input_ids=inputs["input_ids"], labels=inputs["labels"].masked_fill(weights == 0, IGNORED),
                        weights=weights, total=num_items_in_batch)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def evaluation_loop(self, dataloader: DataLoader[dict[str, Tensor]], *_: Any, metric_key_prefix: str = "eval",
                        **rest: Any) -> EvalLoopOutput:
        """The loss over the whole split, in nats a token."""
        self.model.eval()
        loss, tokens = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in dataloader:
                loss += self.compute_loss(self.model, batch, num_items_in_batch=1)
                tokens += self._weights(batch, training=False)[:, 1:].sum()
        metrics = {f"{metric_key_prefix}_loss": (loss / tokens).item()}
        return EvalLoopOutput(None, None, metrics, len(self.eval_dataset))

    def _weights(self, inputs: dict[str, Tensor], training: bool) -> Tensor:
        """Each label's weight [batch, length] at this step."""
        left = 1 - self.state.global_step / self.state.max_steps if training else 0.0
        positions = torch.arange(inputs["input_ids"].shape[1], device=inputs["input_ids"].device)
        return inputs["weights"] * torch.where(positions < inputs["prompt"][:, None], left, 1.0)


class Progress(TrainerCallback):
    """A rich progress bar in place of Trainer's own."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.advance()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        self._bar.note(f"validation loss {metrics['eval_loss']:.3f}")


class Finite(TrainerCallback):
    """Stops when a loss is not a finite number: before that step's checkpoint, for Trainer logs before it saves.

    It looks where Trainer waits for the device anyway, so a step costs nothing.
    """

    def __init__(self, title: str) -> None:
        self._title = title

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        for name in logs.keys() & {"loss", "eval_loss"}:
            if not math.isfinite(logs[name]):
                raise TrainingError(
                    f"{self._title}: the loss is {logs[name]} at step {state.global_step} of {state.max_steps}, with "
                    f"a learning rate of {args.learning_rate:g} at most; lower train.learning_rate or raise "
                    "train.warmup_steps of the preset in params.yaml")


class Seal(TrainerCallback):
    """Marks a checkpoint as whole, and only then removes older ones, so that a whole one is always there."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (checkpoint / SEAL).write_text(json.dumps(_contents(checkpoint)))
        rotate_checkpoints(args.output_dir, save_total_limit=2, best_model_checkpoint=state.best_model_checkpoint)
