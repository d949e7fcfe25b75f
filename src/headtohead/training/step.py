"""The one training step: transformers' Trainer with our loss. Training takes it, and profiling times it."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, distributed
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils.logging import disable_progress_bar

from headtohead.models.batches import IGNORED, Example, collate
from headtohead.models.gpt2 import GPT2, compile_for_training
from headtohead.params import Train

OPTIMIZERS = {"adamw": "adamw_torch_fused", "adafactor": "adafactor"}
WEIGHTS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def prepare(model: GPT2, examples: list[Example], validation: list[Example], settings: Train, *, filler: int, seed: int,
            checkpoints: Path, device: torch.device, length: int | None, callbacks: list[TrainerCallback]) -> Trainer:
    """Trainer, ready to take the steps of a training; profiling times them.

    Args:
        length: to which all batches are padded; None pads each to its longest sequence.
    """
    disable_progress_bar()  # for each checkpoint
    compiled = compiles(device)
    arguments = _arguments(settings, seed, checkpoints, device,
                           drop_last=compiled and len(examples) >= settings.batch_size,
                           evaluated=_even_batch_size(len(validation), 4 * settings.batch_size) if compiled else None)
    rank, ranks = arguments.process_index, arguments.world_size
    trainer = FadingArticle(
        model.to(WEIGHTS[settings.weights]), arguments, train_dataset=examples, eval_dataset=validation,
        data_collator=partial(_batch, filler=filler, article_weight=settings.article_weight, length=length, rank=rank,
                              ranks=ranks),
        callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    if rank:
        set_seed(seed + rank)  # for dropout; the order of articles has a seed of its own
    if arguments.fsdp:
        # Autocast alone decides what is computed in bfloat16, as on one device; this would round the loss's weights.
        trainer.accelerator.state.fsdp_plugin.mixed_precision_policy = None
    elif compiled:
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
    sharded = settings.sharding == "full" and distributed.is_initialized()
    arguments = TrainingArguments(
        output_dir=str(checkpoints), seed=seed, data_seed=seed, max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=evaluated or 4 * settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        bf16=settings.precision == "bfloat16" and settings.weights == "float32",  # or nothing needs to be cast
        use_cpu=device.type == "cpu",
        learning_rate=settings.learning_rate, lr_scheduler_type="cosine", warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay, logging_steps=every, eval_strategy="steps", eval_steps=every,
        save_strategy="steps", save_steps=every, metric_for_best_model="eval_loss",
        greater_is_better=False, prediction_loss_only=True, logging_nan_inf_filter=False,
        remove_unused_columns=False, report_to=[], disable_tqdm=True, log_level="error",
        dataloader_pin_memory=device.type == "cuda", dataloader_drop_last=drop_last,
        optim=OPTIMIZERS[settings.optimizer], gradient_checkpointing=settings.gradient_checkpointing and not sharded,
        fsdp=sharded, fsdp_config={"activation_checkpointing": settings.gradient_checkpointing} if sharded else None,
        log_level_replica="error", ddp_find_unused_parameters=False)
    if arguments.n_gpu > 1:  # Trainer would give each a batch of its own, through nn.DataParallel
        arguments._n_gpu = 1
    return arguments


def _batch(examples: list[Example], filler: int, article_weight: float, length: int | None, rank: int, ranks: int
           ) -> dict[str, Tensor]:
    """This process's rows of a batch as `collate` makes it, and their prompts.

    The processes share out a batch row by row. One that is left without gets a row in which nothing counts.
    """
    examples = examples[rank::ranks] or [([filler], 1)]
    batch = collate(examples, filler, article_weight, length)
    return batch | {"prompt": torch.tensor([prompt for _, prompt in examples])}


class FadingArticle(Trainer):
    """Trainer that learns language from the article first: the article's weight falls linearly to 0 over the steps.

    Validation only counts the summary, whatever that weight is. A loss is a sum over tokens divided by their total
    weight in the step or split: a mean of batch means would depend on how the rows are batched, and a mean of the
    processes' means on who has which.
    """

    def get_train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._whole_batches(self.train_dataset, self.args.train_batch_size, RandomSampler(self.train_dataset),
                                   self.args.dataloader_drop_last)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[dict[str, Tensor]]:
        """Keep the last batch in evaluation."""
        return self._whole_batches(self.eval_dataset, self.args.eval_batch_size, SequentialSampler(self.eval_dataset),
                                   drop_last=False)

    def _whole_batches(self, dataset: Any, size: int, sampler: Sampler[int], drop_last: bool
                       ) -> DataLoader[dict[str, Tensor]]:
        """The same batches in each process as on one device: Trainer's would give a process batches of its own."""
        loader: DataLoader[dict[str, Tensor]] = DataLoader(
            dataset, size, sampler=sampler, drop_last=drop_last, collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory)
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True,
                                   use_seedable_sampler=True, data_seed=self.args.data_seed)

    def get_batch_samples(self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
                          ) -> tuple[list[dict[str, Tensor]], Any]:
        """The batches of one step, and the weight of all their tokens, on average over the processes.

        Each divides its loss by that average, and the average of their gradients is that of the whole step's loss.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        weight = sum(self._weights(batch, training=True)[:, 1:].sum() for batch in batches)
        return batches, self.accelerator.reduce(weight, "mean")

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[Any]:
        """Autocast for a sharded model: accelerate has it around the forward pass of every other one.

        It keeps no cast weights, which would be those of the whole model.
        """
        if not self.args.fsdp:
            return super().autocast_smart_context_manager(cache_enabled)
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16, cache_enabled=False)

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
        loss, tokens = self.accelerator.reduce(torch.stack((loss, tokens)), "sum")
        metrics = {f"{metric_key_prefix}_loss": (loss / tokens).item()}
        return EvalLoopOutput(None, None, metrics, len(self.eval_dataset))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Leave out the head's copy of a tied embedding, which the whole state of a sharded model has."""
        if state_dict and self.model.config.tie_word_embeddings:
            del state_dict["lm_head.weight"]
        super()._save(output_dir, state_dict)

    def _weights(self, inputs: dict[str, Tensor], training: bool) -> Tensor:
        """Each label's weight [batch, length] at this step."""
        left = 1 - self.state.global_step / self.state.max_steps if training else 0.0
        positions = torch.arange(inputs["input_ids"].shape[1], device=inputs["input_ids"].device)
        return inputs["weights"] * torch.where(positions < inputs["prompt"][:, None], left, 1.0)
