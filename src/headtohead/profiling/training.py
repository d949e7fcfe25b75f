"""What a training step costs: Trainer's own step, as in training, on one device."""

import tempfile
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from headtohead.models.batches import Example
from headtohead.models.gpt2 import mixed
from headtohead.params import Precision, Train
from headtohead.profiling.measurement import Measurement, Row, Unit
from headtohead.profiling.memory import peak_since, reset_peak
from headtohead.profiling.passes import WARMUP, Passes, if_room
from headtohead.profiling.timing import between, garbage_collector_paused, mark
from headtohead.training.step import prepare

if TYPE_CHECKING:
    from headtohead.models.gpt2 import GPT2

# No step is the last one, and none changes the weights, and so the work.
STEPS, LEARNING_RATE = 1_000_000, 1e-9
EPOCH = 64  # steps
TURNS = 7  # at most, because a step takes longer than other works


@dataclass(frozen=True)
class Lesson:
    """What a training step works on.

    Args:
        examples: real ones; batches are padded to `length` tokens.
        filler: token id that pads them.
        train: the preset's training, whose steps these are.
    """

    examples: list[Example]
    filler: int
    length: int
    train: Train

    @property
    def counted(self) -> float:
        """How many tokens of a sequence the loss counts, on average."""
        return sum(len(sequence) - (1 if self.train.article_weight else prompt)
                   for sequence, prompt in self.examples) / len(self.examples)

    def settings(self, batch: int) -> Train:
        """A training without an end in batches of `batch`."""
        return Train(steps=STEPS, batch_size=batch, accumulation=1, learning_rate=LEARNING_RATE, warmup_steps=0,
                     weight_decay=0.0, evaluations=1, **self.train.step)

    @property
    def timed(self) -> Row:
        """What a timed step is, beside its batch."""
        return self.train.step | {"devices": 1}

    @property
    def dtype(self) -> Precision:
        """What a step computes in."""
        return self.train.precision if self.train.weights == "float32" else self.train.weights


def measure_training(model: "GPT2", lesson: Lesson, batch: int, passes: Passes) -> None:
    """Memory and time of the steps of one short training in batches of `batch`, from new optimizer moments.

    Args:
        model: float32; it is moved to the device, and takes the dtype that its weights are trained in.
    """
    passes.announce(f"memory and time, train_step, batch {batch}, {lesson.length} tokens")
    watched = if_room(lambda: _train(model, lesson, batch, passes))
    model.zero_grad()  # if there was no room, the gradients are still there
    passes.release()
    with mixed(passes.device, lesson.train.precision):
        backend = model.backend_for(lesson.length, training=True)
    taken: dict[Unit, tuple[float, ...]] = watched.taken if watched else {"MB": (), "ms": ()}
    passes.taken += [Measurement("train_step", batch, lesson.length, 0, lesson.dtype, unit, samples, backend)
                     for unit, samples in taken.items()]


def _train(model: "GPT2", lesson: Lesson, batch: int, passes: Passes) -> "Watch":
    watch, examples = Watch(passes), list(islice(cycle(lesson.examples), EPOCH * batch))
    with tempfile.TemporaryDirectory() as folder, garbage_collector_paused():
        prepare(model, examples, examples[:1], lesson.settings(batch), filler=lesson.filler, seed=1,
                checkpoints=Path(folder), device=passes.device, length=lesson.length, callbacks=[watch]).train()
    return watch


class Watch(TrainerCallback):
    """Reads the second step's memory, times those after the fourth, and ends the training."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._peak_mb = 0.0
        self._turns: list[list[Any]] = []  # marks at the steps' ends, in each turn
        self._began = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        passes = self._passes
        if state.global_step == 1:
            reset_peak(passes.device)
        elif state.global_step == 2:
            self._peak_mb = peak_since(passes.device)
        elif state.global_step == 1 + WARMUP:
            self._begin_turn()
        elif state.global_step > 1 + WARMUP:
            self._turns[-1].append(mark(passes.device))
            turns = max(1, min(passes.turns, TURNS))
            repeats, seconds = passes.share(turns)
            if len(self._turns[-1]) > repeats and perf_counter() - self._began >= seconds:
                control.should_training_stop = len(self._turns) == turns
                if not control.should_training_stop:
                    self._begin_turn()

    def _begin_turn(self) -> None:
        self._passes.turn()
        self._began = perf_counter()
        self._turns.append([mark(self._passes.device)])

    @property
    def taken(self) -> dict[Unit, tuple[float, ...]]:
        """Peak memory; the times from one step's end to the next one's, or each turn's median of them."""
        turns = [[between(*ends) for ends in pairwise(marks)] for marks in self._turns]
        samples = [median(one) for one in turns] if self._passes.turns else turns[0]
        return {"MB": (self._peak_mb,), "ms": tuple(samples)}
