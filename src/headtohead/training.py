"""Fine-tuning or training from scratch with transformers' Trainer, resumable after an interruption."""

import hashlib
import json
import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from headtohead.data.prompts import Layout, collate
from headtohead.data.records import DataError, Record
from headtohead.model import GPT2
from headtohead.params import Train
from headtohead.progress import Bar

log = logging.getLogger(__name__)
CHECKPOINTS = Path(".checkpoints")
Example = tuple[list[int], int]  # a sequence and how many of its tokens are prompt


def train(model: GPT2, examples: list[Example], validation: list[Example], settings: Train, *,
          filler: int, seed: int, checkpoints: Path) -> pd.DataFrame:
    """Train `model` in place and leave it with the weights of its lowest validation loss.

    Args:
        examples, validation: from `make_examples`.
        filler: token id that pads batches.
        checkpoints: folder of this very training's checkpoints; training goes on from the last whole one there.

    Returns:
        The learning curves: columns step, training_loss, validation_loss (nats a token), learning_rate.
    """
    trainer = Trainer(
        model, _arguments(settings, seed, checkpoints), train_dataset=examples, eval_dataset=validation,
        data_collator=partial(collate, filler=filler, article_weight=settings.article_weight),
        callbacks=[Progress()])
    trainer.remove_callback(PrinterCallback)
    log.info("%s parameters on %s, attention by %s; %s examples", f"{model.num_parameters():,}", model.device,
             model.backend, f"{len(examples):,}")
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
    return learning_curves(trainer.state.log_history)


def make_examples(rows: Any, layout: Layout) -> list[Example]:
    """Training sequences from tokenised rows (columns id, article, summary).

    Raises:
        DataError: a summary does not fit; the message names the row.
    """
    return [_example(row, layout) for row in rows]


def _example(row: Record, layout: Layout) -> Example:
    try:
        return layout.example(row["article"], row["summary"])
    except ValueError as error:
        raise DataError(f"article {row['id']}: {error}; raise tokenizer.max_length or drop the row") from error


def _arguments(settings: Train, seed: int, checkpoints: Path) -> TrainingArguments:
    every = settings.steps // settings.evaluations
    return TrainingArguments(
        output_dir=str(checkpoints), seed=seed, data_seed=seed, max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size, per_device_eval_batch_size=4 * settings.batch_size,
        gradient_accumulation_steps=settings.accumulation, bf16=settings.precision == "bfloat16",
        learning_rate=settings.learning_rate, lr_scheduler_type="cosine", warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay, logging_steps=every, eval_strategy="steps", eval_steps=every,
        save_strategy="steps", save_steps=every, save_total_limit=2, load_best_model_at_end=True,
        metric_for_best_model="eval_loss", greater_is_better=False, prediction_loss_only=True,
        remove_unused_columns=False, report_to=[], disable_tqdm=True, log_level="error",
        dataloader_pin_memory=torch.cuda.is_available())


def last_whole_checkpoint(folder: Path) -> str | None:
    """The latest checkpoint that was written to its end; later ones, cut off, are removed."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
        if _whole(checkpoint):
            log.info("going on from %s", checkpoint)
            return str(checkpoint)
        shutil.rmtree(checkpoint)
    return None


def _whole(checkpoint: Path) -> bool:
    """Whether Trainer finished it: the state is the last file that it writes."""
    try:
        return bool(json.loads((checkpoint / "trainer_state.json").read_text()))
    except (OSError, ValueError):
        return False


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
        settings: all that the result depends on; what differs in any gets a folder of its own.
    """
    versions = (torch.__version__, transformers.__version__)
    digest = hashlib.blake2b(repr((settings, versions)).encode(), digest_size=8).hexdigest()
    return CHECKPOINTS / f"{variant}-{digest}"


class Progress(TrainerCallback):
    """A rich progress bar in place of Trainer's own."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = Bar("training", total=state.max_steps, done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.advance()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        self.bar.note(f"validation loss {metrics['eval_loss']:.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()
