"""What a training step costs, by batch size."""

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headtohead.models.gpt2 import compile_for_training, mixed
from headtohead.profiling.passes import Passes, Work

if TYPE_CHECKING:
    from headtohead.models.gpt2 import GPT2

Loss = Callable[[Any, Tensor], Tensor]  # (model, input_ids [batch, length]) -> scalar

LEARNING_RATE = 1e-5  # so small that the weights, and with them the work, stay as they are


def measure_training(model: "GPT2", prompt: Tensor, passes: Passes, loss: Loss) -> float | None:
    """Training steps on a copy, from the smallest batch to the largest; the largest one's median in ms.

    Compiled where there is CUDA, as training itself is; None where there was no room for the largest.
    """
    passes.release()  # inference's copy is not to count
    learner = deepcopy(model).to(device=passes.device, dtype=torch.float32).train()
    if passes.device.type == "cuda":
        compile_for_training(learner)
    medians = [_train_step(learner, prompt.repeat(batch, 1), passes, loss)
               for batch in sorted(set(passes.settings.train_batch_sizes))]
    return None if medians[-1] is None else round(medians[-1], 4)


def _train_step(learner: "GPT2", ids: Tensor, passes: Passes, loss: Loss) -> float | None:
    """Memory, then time, with one fresh optimizer."""
    batch, length = ids.shape
    precision = passes.settings.precision
    with mixed(ids.device, precision):
        backend = learner.backend_for(length, training=True)
    work = Work("train_step", batch, length, 0, training_step(learner, ids, precision, loss), backend)
    taken = []
    for take in (passes.try_memory, passes.try_time):
        taken.append(take(work))
        learner.zero_grad()  # where there was no room, the gradients are still there
        passes.release()
    return taken[-1]


def training_step(model: torch.nn.Module, ids: Tensor, precision: str, loss: Loss) -> Callable[[], None]:
    """Forward, loss, backward and AdamW's step, fused as in Trainer."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step() -> None:
        with mixed(ids.device, precision):
            value = loss(model, ids)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step
