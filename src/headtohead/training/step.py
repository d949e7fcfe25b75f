"""The one training step: transformers' Trainer with our loss. Training takes it, and profiling times it."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils.logging import disable_progress_bar

from headtohead.models.batches import IGNORED, Example, collate
from headtohead.models.gpt2 import GPT2, compile_for_training
from headtohead.params import Train


def prepare(model: GPT2, examples: list[Example], validation: list[Example], settings: Train, *, filler: int, seed: int,
            checkpoints: Path, device: torch.device, length: int | None, callbacks: list[TrainerCallback]) -> Trainer:
    """Trainer, ready to take the steps of a training; profiling times them.

    Args:
        length: to which all batches are padded; None pads each to its longest sequence.
    """
    disable_progress_bar()  # for each checkpoint
    compiled = compiles(device)
    trainer = FadingArticle(
        model, _arguments(settings, seed, checkpoints, device,
                          drop_last=compiled and len(examples) >= settings.batch_size,
                          evaluated=_even_batch_size(len(validation), 4 * settings.batch_size) if compiled else None),
        train_dataset=examples, eval_dataset=validation,
        data_collator=partial(_batch, filler=filler, article_weight=settings.article_weight, length=length),
        callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    if compiled:
        compile_for_training(model)
    return trainer


def compiles(device: torch.device) -> bool:
    """Whether training is compiled: only on CUDA, where it pays off and all batches have one shape."""
    return device.type == "cuda"


def _even_batch_size(count: int, most: int) -> int:
    """The size of batches that are as equal as possible, each at most `most`, because every size is compiled."""
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


def _batch(examples: list[Example], filler: int, article_weight: float, length: int | None) -> dict[str, Tensor]:
    """A batch as `collate` makes it, padded on to `length` if there is one, and each row's prompt [batch]."""
    batch = collate(examples, filler, article_weight)
    if length is not None:
        more = (0, length - batch["input_ids"].shape[1])
        fillers = {"input_ids": filler, "labels": IGNORED, "weights": 0.0}
        batch = {name: pad(batch[name], more, value=value) for name, value in fillers.items()}
    return batch | {"prompt": torch.tensor([prompt for _, prompt in examples])}


class FadingArticle(Trainer):
    """Trainer that learns language from the article first: the article's weight falls linearly to 0 over the steps.

    Validation only counts the summary, whatever that weight is. A loss is a sum over tokens divided by their total
    weight in the step or split: a mean of batch means would depend on how the rows are batched.
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
