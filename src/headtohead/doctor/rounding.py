"""One backend on one small random case, against the float32 reference, by the rule that its tests use, too."""

from dataclasses import dataclass, replace
from math import inf, isnan

import torch
from torch import Tensor

from headtohead.attention.decoding import STATES
from headtohead.attention.job import Job
from headtohead.attention.plan import plan
from headtohead.attention.spec import AttentionSpec

TIMES, FLOOR = 2, 1e-5  # the error allowed: so many times plain PyTorch's, and a share of the result's norm beside it
NEW = 5  # tokens that are decoded one by one


@dataclass(frozen=True)
class Errors:
    """The error of the result that is furthest beyond what is allowed, and what is allowed; shares of its norm."""

    error: float
    allowed: float

    @property
    def share(self) -> float:
        """The error in units of what is allowed."""
        return inf if isnan(self.error) else self.error / self.allowed

    @property
    def right(self) -> bool:
        return self.share <= 1

    @property
    def problem(self) -> str | None:
        """What is wrong, in words; None if it is right."""
        return None if self.right else (f"wrong results: error {self.error:.1e}, at most {self.allowed:.1e} is "
                                        "rounding")


def compare(job: Job, backend: str) -> Errors:
    """A pass over a whole sequence; with its gradients, if the job needs them."""
    inputs = _random(job)
    return _worst(_errors(_results(job, backend, inputs), _exact(job, inputs)), _usual(job, inputs))


def compare_decoding(job: Job, state: str) -> Errors:
    """The last tokens of a sequence, one by one over a cache.

    Args:
        job: one query over a cache.
        state: a name in `STATES`.
    """
    inputs, whole, start = _random(job), replace(job, queries=job.keys), max(1, job.keys - NEW)
    with torch.inference_mode():
        decoded = _decoded(job, state, inputs, start)
    exact = [out[:, :, start:] for out in _exact(whole, inputs)]
    return _worst(_errors([decoded], exact), _usual(whole, inputs))


def _random(job: Job) -> list[Tensor]:
    """Queries, keys and values."""
    shape = (3, job.batch, job.heads, job.keys, job.head_dim)
    return list(torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(job.device, job.dtype))


def _exact(job: Job, inputs: list[Tensor]) -> list[Tensor]:
    """By the float32 reference."""
    return _results(replace(job, dtype=torch.float32), "reference", [given.float() for given in inputs])


def _usual(job: Job, inputs: list[Tensor]) -> list[float]:
    """The errors of plain PyTorch, which materialises the scores; for Performer, those over softmax attention."""
    spec = job.spec.model_copy(update={"kernel": "eager"})
    if job.spec.kernel == "performer":
        spec = AttentionSpec(positions=job.spec.positions)
    plain = replace(job, spec=spec)
    return _errors(_results(plain, "eager", inputs), _exact(plain, inputs))


def _results(job: Job, backend: str, inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients if the job needs them."""
    with torch.set_grad_enabled(job.backward):
        inputs = [given.detach().requires_grad_(job.backward) for given in inputs]
        out = plan(job, backend=backend)(*inputs)
        gradients: tuple[Tensor, ...] = ()
        if job.backward:
            given = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
            gradients = torch.autograd.grad(out, inputs, given)
    return [out.detach(), *gradients]


def _decoded(job: Job, name: str, inputs: list[Tensor], start: int) -> Tensor:
    queries, keys, values = inputs
    state = STATES[name][1](job, 1, job.batch, job.keys, None)
    _, placed = plan(replace(job, queries=job.keys), backend="reference").placed(queries, keys)
    state.fill(0, placed[:, :, :start], values[:, :, :start], None)
    steps = []
    for position in range(start, job.keys):
        state.ready(torch.full((job.batch, 1), position, device=job.device))
        new = torch.stack([given[:, None, :, position] for given in inputs], dim=2)
        steps.append(state.step(0, new).transpose(1, 2).clone())
    return torch.cat(steps, dim=2)


def _errors(results: list[Tensor], exact: list[Tensor]) -> list[float]:
    """As shares of the exact result's norm."""
    return [float((result.float() - other).norm() / other.norm())
            for result, other in zip(results, exact, strict=True)]


def _worst(errors: list[float], usual: list[float]) -> Errors:
    return max((Errors(error, TIMES * plain + FLOOR) for error, plain in zip(errors, usual, strict=True)),
               key=lambda found: found.share)
