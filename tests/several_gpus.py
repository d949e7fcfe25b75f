"""Tokens a second and memory of one training on so many GPUs, on made-up tokens; nothing is saved.

    python tests/several_gpus.py [--devices 2] [--sharding full] [--layers 12 --width 768 --heads 12] [--sequences 64]

GPT-2 from scratch, flash, AdamW, bfloat16, no dropout, so many sequences of 512 tokens in a step of a GPU. On one GPU,
--accumulation 2 makes the steps those of two.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import torch
from transformers import TrainerCallback

from headtohead.attention import AttentionSpec
from headtohead.models.gpt2 import from_scratch
from headtohead.params import Model, Train
from headtohead.training.devices import launch
from headtohead.training.step import prepare

LENGTH, VOCABULARY = 512, 50_257
WARM = 5  # steps before those that count: the first ones compile
LOSSES = 4  # that are shown
FAR = 10_000  # steps of the schedule, which ends long before, so that nothing is evaluated or saved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("devices", 1), ("layers", 12), ("width", 768), ("heads", 12), ("sequences", 64),
                          ("accumulation", 1), ("steps", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sharding", choices=["none", "full"], default="none")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations again in the backward pass")
    given = parser.parse_args()
    if given.devices > 1:
        launch(measure, given, devices=given.devices)
    else:
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """In a process on each device."""
    size = Model(pretrained=None, layers=given.layers, width=given.width, heads=given.heads, init_std=0.02,
                 position_init_std=0.02, dropout=0.0)
    settings = Train(steps=FAR, batch_size=given.sequences * given.devices, accumulation=given.accumulation,
                     learning_rate=3e-4, warmup_steps=20, weight_decay=0.1, article_weight=1.0, precision="bfloat16",
                     evaluations=1, devices=given.devices, sharding=given.sharding,
                     gradient_checkpointing=given.checkpointing)
    model = from_scratch(AttentionSpec(kernel="flash", positions="learned", pattern="full"), size,
                         vocab_size=VOCABULARY, max_length=LENGTH, end_of_text=0, seed=1)
    weights, clock = model.num_parameters(), Clock(given.steps)
    with TemporaryDirectory() as folder:
        trainer = prepare(model, made_up(), made_up()[:1], settings, filler=0, seed=1, checkpoints=Path(folder),
                          device=torch.device("cuda"), length=LENGTH, callbacks=[clock])
        trainer.args.logging_steps = given.steps // LOSSES
        trainer.train()
    if trainer.args.process_index == 0:
        tokens = settings.batch_size * given.accumulation * LENGTH
        losses = " ".join(f"{entry['loss']:.3f}" for entry in trainer.state.log_history if "loss" in entry)
        print(f"{weights / 1e9:.2f} G weights, {given.devices} x {torch.cuda.get_device_name()}, sharding "
              f"{given.sharding}: {tokens / clock.step:,.0f} tokens a second, {clock.step * 1000:,.0f} ms a step of "
              f"{tokens:,} tokens, {torch.cuda.max_memory_allocated() / 1e9:.1f} GB on the first GPU, losses {losses}")


def made_up() -> list[tuple[list[int], int]]:
    """Sequences of tokens of which some are frequent, half of each a prompt."""
    drawn = torch.rand(2048, LENGTH, generator=torch.Generator().manual_seed(1))
    return [(row, LENGTH // 2) for row in (drawn ** 4 * VOCABULARY).long().tolist()]


class Clock(TrainerCallback):
    """Seconds of a step, the median; ends the training after `steps`."""

    def __init__(self, steps: int) -> None:
        self._steps, self._ends = steps, [perf_counter()]

    @property
    def step(self) -> float:
        return median(after - before for before, after in pairwise(self._ends[WARM:]))

    def on_step_end(self, args, state, control, **_):
        torch.cuda.synchronize()
        self._ends.append(perf_counter())
        control.should_training_stop = state.global_step == self._steps


if __name__ == "__main__":
    main()
