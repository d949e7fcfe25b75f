"""Which backend runs a variant, here and now."""

from typing import Any, Protocol, cast

import torch
from torch import Tensor

from headtohead.attention import eager, reference, sdpa
from headtohead.attention.spec import AttentionSpec


class Backend(Protocol):
    """One way to compute attention: a module with these four names."""

    name: str

    def unsupported(self, spec: AttentionSpec, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot do the job, or None if it can."""

    def prepare(self, spec: AttentionSpec, heads: int, queries: int, keys: int,
                left_padding: Tensor | None, device: torch.device) -> Any:
        """What is the same for all layers of a forward pass: a mask, a bias, or nothing."""

    def run(self, q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, prepared: Any, scale: float) -> Tensor:
        """The attention itself: q [batch, heads, queries, head_dim], k and v [batch, heads, keys, head_dim]."""


BACKENDS: dict[str, Backend] = {module.name: cast(Backend, module) for module in (eager, sdpa, reference)}
PREFERRED = ("eager", "sdpa")  # the reference runs only by name


class BackendError(RuntimeError):
    """The backend asked for does not exist or cannot do the job, or none can."""


def choose(spec: AttentionSpec, device: torch.device, dtype: torch.dtype, backend: str | None = None) -> Backend:
    """The backend to use: the named one, or the first of `PREFERRED` that can do the whole job.

    Raises:
        BackendError: it is unknown or cannot do the job, or there is none; the message says why.
    """
    if backend is not None and backend not in BACKENDS:
        raise BackendError(f"unknown attention backend {backend!r}; there are {', '.join(BACKENDS)}")
    candidates = PREFERRED if backend is None else (backend,)
    reasons = {name: BACKENDS[name].unsupported(spec, device, dtype) for name in candidates}
    for name, reason in reasons.items():
        if reason is None:
            return BACKENDS[name]
    raise BackendError(f"no attention backend for {spec} in {dtype} on {device}: "
                       + "; ".join(f"{name}: {reason}" for name, reason in reasons.items()))


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
    chosen = choose(spec, q.device, q.dtype, backend)
    prepared = chosen.prepare(spec, q.shape[1], q.shape[2], k.shape[2], left_padding, q.device)
    return chosen.run(q, k, v, spec, prepared, q.shape[-1] ** -0.5 if scale is None else scale)
