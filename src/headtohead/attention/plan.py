"""The one way from a variant to what computes it, here and now."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast

import torch
from torch import Tensor

from headtohead.attention.backends import cudnn, eager, flash_attn, flex, performer, reference, regrouped, sdpa
from headtohead.attention.job import BackendError, Capability, Job
from headtohead.attention.patterns import Form
from headtohead.attention.positions import rotate, rotations
from headtohead.attention.spec import AttentionSpec
from headtohead.attention.table import COMPILED, Table

log = logging.getLogger(__name__)

Kernel = Callable[..., Tensor]  # q, k, v, and Performer's features


class Backend(Protocol):
    """One way to compute attention: a module with these three names (see `backends`)."""

    name: str
    capability: Capability

    def build(self, job: Job, left_padding: Tensor | None) -> Kernel: ...


BACKENDS: dict[str, Backend] = {module.name: cast(Backend, module) for module in (
    flash_attn, flex, sdpa, cudnn, regrouped, performer, eager, reference)}
LIBRARIES = ("flash-attn", "flex", "sdpa")  # what runs fused kernels
LONG = 2048  # keys from which on FlexAttention outruns flash-attn, measured on an H200


@dataclass(frozen=True)
class Choice:
    """A backend, and in a sentence why this one."""

    backend: Backend
    why: str


@dataclass(frozen=True)
class Plan:
    """One layer's attention, ready to run.

    Args:
        backend: the name of what runs it.
        turns: RoPE's, of queries and of keys; None for other positions.
    """

    backend: str
    kernel: Kernel
    turns: tuple[Tensor, Tensor] | None

    def placed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys with what of their positions is put into them."""
        return (q, k) if self.turns is None else (rotate(q, self.turns[0]), rotate(k, self.turns[1]))

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *features: Tensor) -> Tensor:
        """q [batch, heads, queries, head_dim], k and v [batch, heads, keys, head_dim] -> as q.

        Args:
            features: Performer's, float32 [features, head_dim]; by default those of seed 0.
        """
        return self.kernel(*self.placed(q, k), v, *features)


def preferred(job: Job) -> tuple[str, ...]:
    """The backends to try for a job, best first. (The reference runs only by name.)"""
    spec, form = job.spec, job.form
    if spec.kernel != "flash":
        return (spec.kernel,)
    if job.device.type != "cuda":
        return ("sdpa",)
    exact = ("cudnn",) if form == Form() and not (job.backward or job.padded) else ()
    if job.queries < job.keys or ((job.padded or job.varied) and job.keys < LONG):
        return (*exact, "flash-attn", "sdpa", "flex")  # in many shapes, for each of which flex would compile
    if job.padded:
        return ("flash-attn", "flex", "sdpa")
    if form is not None and form.stride:
        return ("regrouped", "flex", "sdpa")
    if form == Form() and spec.positions != "alibi":
        fused = ("sdpa", "flash-attn", "flex")  # to sdpa all else is a dense mask
    elif job.keys >= LONG and (form == Form() or not job.backward) and not (form and form.block):
        fused = ("flex", "flash-attn", "sdpa")
    else:
        fused = ("flash-attn", "flex", "sdpa")
    return (*exact, *fused)


def alternatives(job: Job) -> list[str]:
    """Those of `preferred` that can do the whole job and need not compile for each of many shapes."""
    return [name for name in preferred(job) if not BACKENDS[name].capability.unsupported(job)
            and not (job.varied and name in COMPILED)]


def choose(job: Job, backend: str | None = None, table: Table | None = None) -> Choice:
    """The backend to use: the named one, else a faster one by the table, else the first that can do the whole job.

    Args:
        backend: a name in `BACKENDS`; a library of fused kernels concerns variants with kernel flash alone.
        table: what was measured on this machine, if anything; without it, `preferred` alone decides.

    Raises:
        BackendError: it is unknown or cannot do the job, or there is none; the message says why and how to get it.
    """
    if backend is not None and backend not in BACKENDS:
        raise BackendError(f"unknown attention backend {backend!r}; there are {', '.join(BACKENDS)}")
    if backend in LIBRARIES and job.spec.kernel != "flash":
        backend = None
    lacking: list[str] = []
    for name in preferred(job) if backend is None else (backend,):
        reason = BACKENDS[name].capability.unsupported(job)
        if reason is None:
            why = "asked for by name" if backend else "; ".join(["the best that can do it here", *lacking])
            if backend is None and table and (faster := table.faster(job, name, alternatives(job))):
                name, why = faster
            _tell(job.spec, str(job.device), str(job.dtype), name, why)
            return Choice(BACKENDS[name], why)
        lacking.append(f"{name} {reason}")
    raise BackendError(f"no attention backend for {job.spec!r} in {job.dtype} on {job.device}: {'; '.join(lacking)}")


@cache
def _tell(spec: AttentionSpec, device: str, dtype: str, name: str, why: str) -> None:
    """Once for every distinct choice of a process."""
    log.info("attention %s in %s on %s by %s: %s", spec, dtype, device, name, why)


def named(jobs: Iterable[Job], backend: str | None = None, table: Table | None = None) -> str:
    """What runs the jobs, by name, each once; see `choose`."""
    return " + ".join(dict.fromkeys(choose(job, backend, table).backend.name for job in jobs))


def plan(job: Job, left_padding: Tensor | None = None, backend: str | None = None, table: Table | None = None) -> Plan:
    """What computes the job: chosen, and with all that is the same from call to call (masks, biases, slopes) made.

    Args:
        left_padding: int [batch], padding tokens before each sequence, if the job is padded; rows of padding queries
            mean nothing.
        backend, table: see `choose`.

    Raises:
        BackendError: see `choose`.
    """
    chosen = choose(job, backend, table).backend
    return Plan(chosen.name, chosen.build(job, left_padding), _turns(job, left_padding))


def _turns(job: Job, left_padding: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """RoPE's for queries and for keys, [(batch, 1,) length, 2, head_dim / 2]; None for other positions."""
    if job.spec.positions != "rope":
        return None
    turns = rotations(job.keys, job.head_dim, job.device)
    if left_padding is not None:  # a sequence's own positions begin after its padding
        position = torch.arange(job.keys, device=job.device) - left_padding.to(job.device)[:, None]
        turns = turns[position.clamp(min=0)][:, None]
    return turns[..., job.keys - job.queries:, :, :], turns


def attend(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, backend: str | None = None, *,
           left_padding: Tensor | None = None, scale: float | None = None, layer: int = 0) -> Tensor:
    """Attention of one layer of a variant.

    Args:
        q: [batch, heads, queries, head_dim]; with fewer queries than keys, the queries are the last positions.
        k, v: [batch, heads, keys, head_dim].
        backend: a name in `BACKENDS`; None is what dispatch runs here; "reference" is the float32 oracle.
        left_padding: int [batch], padding tokens before each sequence; rows of padding queries mean nothing.
        scale: of the scores; 1 / sqrt(head_dim) by default.
        layer: which one of a model's.

    Returns:
        [batch, heads, queries, head_dim], in q's dtype.

    Raises:
        BackendError: see `choose`.
        ValueError: shapes that do not belong together.
    """
    if k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[-1] != k.shape[-1] or q.shape[-2] > k.shape[-2]:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}: need [batch, heads, length, "
                         "head_dim] with equal k and v and at most as many queries as keys")
    (batch, heads, queries, dim), keys = q.shape, k.shape[2]
    backward = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v))
    job = Job(spec.layer(layer), q.device, q.dtype, heads, dim, queries, keys, padded=left_padding is not None,
              backward=backward, scale=scale, batch=batch)
    return plan(job, left_padding, backend)(q, k, v)
