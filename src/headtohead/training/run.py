"""Fine-tuning or training from scratch, resumable after an interruption."""

import json
import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_model
from transformers import TrainerCallback

from headtohead.models.batches import Example
from headtohead.models.gpt2 import GPT2, best_device, mixed
from headtohead.models.processor import processor
from headtohead.params import Train
from headtohead.progress import Bar, console
from headtohead.training.checkpoints import Seal, best_checkpoint, last_whole_checkpoint, state_of
from headtohead.training.devices import from_first
from headtohead.training.step import WEIGHTS, compiles, prepare
from headtohead.training.trackers import trackers

log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training that has failed; the message says at which step and what to change."""


def train(model: GPT2, examples: list[Example], validation: list[Example], settings: Train, *,
          filler: int, seed: int, checkpoints: Path, title: str = "training") -> pd.DataFrame:
    """Train `model` in place, on one device, and leave it with the weights of its lowest validation loss.

    Args and errors are those of `take_steps`.

    Returns:
        The learning curves, as from `best`.
    """
    take_steps(model, examples, validation, settings, filler=filler, seed=seed, checkpoints=checkpoints, title=title)
    return best(model, settings, checkpoints)


def take_steps(model: GPT2, examples: list[Example], validation: list[Example], settings: Train, *,
               filler: int, seed: int, checkpoints: Path, title: str) -> None:
    """Take all steps of a training, or those that are left, and write its checkpoints.

    On CUDA it is compiled, and all batches have one shape: they are padded to the longest sequence, and a smaller last
    batch is left out. Called in each of several processes by `devices.launch`, it takes the steps of one training:
    each batch is shared out, and the first process writes the checkpoints.

    Args:
        examples, validation: from `make_examples`.
        filler: token id that pads batches.
        checkpoints: folder of this run's checkpoints; training resumes from the last complete one.
        title: of the progress bar and of messages.

    Raises:
        TrainingError: the loss is no longer a finite number.
        ValueError: a tracker that the environment names cannot be used.
    """
    followers = trackers()
    last = from_first(partial(last_whole_checkpoint, checkpoints))
    done = state_of(last)["global_step"] if last else 0
    if done:
        console.print(f"{title} resumes from step {done} of {settings.steps}" if done < settings.steps else
                      f"{title} has been done before")
    longest = max(len(sequence) for sequence, _ in examples + validation)
    with Bar(title, total=settings.steps, done=done) as bar:
        trainer = prepare(model, examples, validation, settings, filler=filler, seed=seed, checkpoints=checkpoints,
                          device=best_device(), length=longest if compiles(best_device()) else None,
                          callbacks=[Progress(bar), Finite(title), Seal(), *followers])
        trainer.args.run_name = title  # which only trackers read
        device = trainer.args.device  # a model that is to be sharded is on none yet
        with mixed(device, settings.precision):
            model.config.trained_on = _trained_on(device, model.backend_for(longest, training=True, device=device))
        log.info("%s parameters on %s; %s examples", f"{model.num_parameters():,}", model.config.trained_on,
                 f"{len(examples):,}")
        _tell_devices(title, device, trainer.args.world_size)
        if done < settings.steps:  # resumed at its end, Trainer would take one step more
            trainer.train(resume_from_checkpoint=last and str(last))


def _tell_devices(title: str, device: torch.device, processes: int) -> None:
    """Say which devices train, unless it is the only one."""
    visible = torch.cuda.device_count() if device.type == "cuda" else 0
    if processes > 1:
        console.print(f"{title} uses {processes} {f'of {visible} visible GPUs' if visible else 'processes'}")
    elif visible > 1:
        console.print(f"{title} uses {torch.cuda.get_device_name(device)} ({device}), one of {visible} visible GPUs")


def best(model: GPT2, settings: Train, checkpoints: Path) -> pd.DataFrame:
    """Give `model` the weights of a finished training's lowest validation loss, and what it was trained on.

    Returns:
        Its learning curves: columns step, training_loss, validation_loss (nats per token), learning_rate.
    """
    end = state_of(checkpoints / f"checkpoint-{settings.steps}")
    kept = best_checkpoint(checkpoints, end)
    load_model(model.to(WEIGHTS[settings.weights]), kept / "model.safetensors")
    model.config.trained_on = json.loads((kept / "config.json").read_text())["trained_on"]
    return learning_curves(end["log_history"])


def _trained_on(device: torch.device, backend: str) -> dict[str, str | int | None]:
    """What may decide a result besides parameters, data and code; alike on machines of one kind."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "threads": None, "backend": backend}
    return {"device": processor(), "threads": torch.get_num_threads(), "backend": backend}


def learning_curves(history: list[dict[str, float]]) -> pd.DataFrame:
    """Trainer's log as a table; its own summary of the training loss is wrong after a resume."""
    rows: dict[int, dict[str, float]] = {}
    names = {"loss": "training_loss", "eval_loss": "validation_loss", "learning_rate": "learning_rate"}
    for entry in history:
        rows.setdefault(int(entry["step"]), {}).update({names[k]: v for k, v in entry.items() if k in names})
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(names.values()))
    return table.rename_axis("step").reset_index().dropna(subset="validation_loss")


class Progress(TrainerCallback):
    """A rich progress bar in place of Trainer's own."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.advance()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        self._bar.note(f"validation loss {metrics['eval_loss']:.3f}")


class Finite(TrainerCallback):
    """Stops when a loss is not a finite number, before that step's checkpoint: Trainer logs before it saves.

    It checks where Trainer waits for the device anyway, so it adds no time to a step.
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
