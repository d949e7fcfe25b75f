"""Which backend runs a variant, here and now."""

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from headtohead.attention import cudnn, eager, flash_attn, flex, reference, sdpa
from headtohead.attention.capability import BackendError, Capability, Job
from headtohead.attention.spec import AttentionSpec

__all__ = ["BACKENDS", "Backend", "BackendError", "Choice", "Job", "attend", "choose", "preferred"]

log = logging.getLogger(__name__)


class Backend(Protocol):
    """One way to compute attention: a module with these four names."""

    name: str
    capability: Capability

    def prepare(self, spec: AttentionSpec, heads: int, queries: int, keys: int,
                left_padding: Tensor | None, device: torch.device) -> Any:
        """What is the same for all layers of a forward pass: a mask, a bias, or nothing."""

    def run(self, q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, prepared: Any, scale: float) -> Tensor:
        """The attention itself: q [batch, heads, queries, head_dim], k and v [batch, heads, keys, head_dim]."""


BACKENDS: dict[str, Backend] = {module.name: cast(Backend, module)
                                for module in (flash_attn, flex, sdpa, cudnn, eager, reference)}
LIBRARIES = ("flash-attn", "flex", "sdpa")  # what runs fused kernels
LONG = 2048  # keys from which on FlexAttention outruns flash-attn, measured on an H200


@dataclass(frozen=True)
class Choice:
    """A backend, and in a sentence why this one."""

    backend: Backend
    why: str


def preferred(job: Job) -> tuple[str, ...]:
    """The backends to try for a job, best first. (The reference runs only by name.)"""
    spec = job.spec
    if spec.kernel == "eager":
        return ("eager",)
    if job.device.type != "cuda":
        return ("sdpa",)
    if job.queries < job.keys or (job.padded and job.keys < LONG):
        return ("flash-attn", "sdpa", "flex")  # in many shapes, for each of which flex would compile
    full = spec.pattern == "full"
    if job.padded:
        return ("flash-attn", "flex", "sdpa")
    if full and spec.positions == "learned":
        fused = ("sdpa", "flash-attn", "flex")  # to sdpa all else is a dense mask
    elif job.keys >= LONG and (full or not job.backward):
        fused = ("flex", "flash-attn", "sdpa")
    else:
        fused = ("flash-attn", "flex", "sdpa")
    return ("cudnn", *fused) if full and not job.backward else fused


def choose(job: Job, backend: str | None = None) -> Choice:
    """The backend to use: the named one, or the first of `preferred` that can do the whole job.

    Args:
        backend: a name in `BACKENDS`; a library of fused kernels concerns variants with kernel flash alone.

    Raises:
        BackendError: it is unknown or cannot do the job, or there is none; the message says why and how to get it.
    """
    if backend is not None and backend not in BACKENDS:
        raise BackendError(f"unknown attention backend {backend!r}; there are {', '.join(BACKENDS)}")
    if backend in LIBRARIES and job.spec.kernel == "eager":
        backend = None
    lacking: list[str] = []
    for name in preferred(job) if backend is None else (backend,):
        reason = BACKENDS[name].capability.unsupported(job)
        if reason is None:
            why = "asked for by name" if backend else "; ".join(["the best that can do it here", *lacking])
            _tell(job.spec, str(job.device), str(job.dtype), name, why)
            return Choice(BACKENDS[name], why)
        lacking.append(f"{name} {reason}")
    raise BackendError(f"no attention backend for {job.spec!r} in {job.dtype} on {job.device}: {'; '.join(lacking)}")


@cache
def _tell(spec: AttentionSpec, device: str, dtype: str, name: str, why: str) -> None:
    """Once for every distinct choice of a process."""
    log.info("attention %s in %s on %s by %s: %s", spec, dtype, device, name, why)


def attend(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, backend: str | None = None, *,
           left_padding: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Attention of one variant.

    Args:
        q: [batch, heads, queries, head_dim]; with fewer queries than keys, the queries are the last positions.
        k, v: [batch, heads, keys, head_dim].
        backend: a name in `BACKENDS`; None is what dispatch runs here; "reference" is the float32 oracle.
        left_padding: int [batch], padding tokens before each sequence; rows of padding queries mean nothing.
        scale: of the scores; 1 / sqrt(head_dim) by default.

    Returns:
        [batch, heads, queries, head_dim], in q's dtype.

    Raises:
        BackendError: see `choose`.
        ValueError: shapes that do not belong together.
    """
    if k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[-1] != k.shape[-1] or q.shape[-2] > k.shape[-2]:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}: need [batch, heads, length, "
                         "head_dim] with equal k and v and at most as many queries as keys")
    heads, (queries, dim), keys = q.shape[1], q.shape[2:], k.shape[2]
    backward = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v))
    job = Job(spec, q.device, q.dtype, dim, queries, keys, padded=left_padding is not None, backward=backward)
    chosen = choose(job, backend).backend
    prepared = chosen.prepare(spec, heads, queries, keys, left_padding, q.device)
    return chosen.run(q, k, v, spec, prepared, dim ** -0.5 if scale is None else scale)
