"""Attention of one new query a row over a cache, as decoding needs it."""

import logging
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from headtohead.attention import eager, flash_attn, flex, reference, sdpa
from headtohead.attention.capability import BackendError, Capability, Job
from headtohead.attention.dispatch import LIBRARIES
from headtohead.attention.masks import bias_at
from headtohead.attention.spec import AttentionSpec
from headtohead.decoding.cache import Cache

log = logging.getLogger(__name__)


class Decoder(Protocol):
    """Attention of one new query a row over a cache; with `ring`, over one that keeps what can be seen alone."""

    name: str
    ring: bool

    def begin(self, cache: Cache, left_padding: Tensor | None) -> None:
        """Once for each prompt [rows]: what stays the same from token to token."""

    def prepare(self, cache: Cache, now: Tensor, left_padding: Tensor | None) -> Any:
        """What is the same for all layers, when `now` [1] is the new tokens' position."""

    def run(self, qkv: Tensor, layer: int, cache: Cache, now: Tensor, prepared: Any, scale: float) -> Tensor:
        """Append keys and values; qkv [rows, 3, heads, head_dim] of the new tokens -> [rows, heads, head_dim]."""


class Dense:
    """Over all slots by a backend that takes a dense bias; on the CPU only over those that are filled."""

    ring = True

    def __init__(self, name: str, attend: Callable[..., Tensor], spec: AttentionSpec, heads: int) -> None:
        self.name, self._attend, self._spec, self._heads = name, attend, spec, heads

    def begin(self, cache: Cache, left_padding: Tensor | None) -> None:
        """Nothing to keep."""

    def prepare(self, cache: Cache, now: Tensor, left_padding: Tensor | None) -> tuple[Tensor, int]:
        """The bias, and how many slots count."""
        used = min(int(now) + 1, cache.slots) if now.device.type == "cpu" else cache.slots
        key = cache.positions(now)[:used]
        return bias_at(self._spec, self._heads, now, key, left_padding), used

    def run(self, qkv: Tensor, layer: int, cache: Cache, now: Tensor, prepared: tuple[Tensor, int],
            scale: float) -> Tensor:
        bias, used = prepared
        query, key, value = qkv.unbind(1)
        keys, values = cache.append(layer, key, value, now)
        attended = self._attend(query[:, :, None], keys[:, :, :used], values[:, :, :used], self._spec, bias, scale)
        return attended[:, :, 0]


class OneQuery:
    """Our own kernel: appends and attends at once, and leaves out what is not filled."""

    name, ring = "one-query", True
    capability = Capability(kernels=frozenset({"flash"}),
                            dtypes={"cuda": (torch.float32, torch.bfloat16, torch.float16)}, backward=frozenset(),
                            head_dims=(16, 32, 64, 128, 256))

    def __init__(self, spec: AttentionSpec, heads: int) -> None:
        from headtohead.decoding.one_query import attend_one  # needs Triton, which is there with CUDA alone

        self._attend, self._spec, self._heads = attend_one, spec, heads

    def begin(self, cache: Cache, left_padding: Tensor | None) -> None:
        """The bias, where no token moves it; none where what is in the cache is just what can be seen.

        In a cache that holds everything a token's ALiBi differs from the last one's by the same number at each key,
        which softmax does not see; and the kernel stops at the token itself.
        """
        cache.bias = None
        if self._spec.pattern == "full" and (left_padding is not None or self._spec.positions == "alibi"):
            slot = torch.arange(cache.slots, device=cache.storage.device)
            cache.bias = bias_at(self._spec, self._heads, slot[-1:], slot, left_padding)

    def prepare(self, cache: Cache, now: Tensor, left_padding: Tensor | None) -> Tensor | None:
        plain = left_padding is None and self._spec.positions == "learned" and self._spec.pattern == "window"
        if self._spec.pattern == "full" or plain:
            return cache.bias
        return bias_at(self._spec, self._heads, now, cache.positions(now), left_padding)

    def run(self, qkv: Tensor, layer: int, cache: Cache, now: Tensor, prepared: Tensor | None, scale: float) -> Tensor:
        keys, values = cache.storage[layer]
        return self._attend(qkv.flatten(1), keys, values, now, prepared, scale).view(len(qkv), *qkv.shape[2:])


class FlashAttn:
    """flash-attn's own kernel for decoding; it knows no ring, so a window reads its part of a whole cache."""

    name, ring = "flash-attn", False

    def __init__(self, spec: AttentionSpec, heads: int) -> None:
        self._spec, self._heads = spec, heads

    def begin(self, cache: Cache, left_padding: Tensor | None) -> None:
        """Nothing to keep."""

    def prepare(self, cache: Cache, now: Tensor, left_padding: Tensor | None) -> dict[str, Any]:
        device = now.device
        shared = flash_attn.prepare(self._spec, self._heads, 1, cache.slots, None, device)
        padding = None if left_padding is None else left_padding.to(device, torch.int32)
        return {"run": shared.package.flash_attn_with_kvcache, "alibi_slopes": shared.slopes,
                "window_size": flash_attn.window_size(self._spec),
                "cache_leftpad": padding, "cache_seqlens": now.to(torch.int32).expand(cache.rows).contiguous()}

    def run(self, qkv: Tensor, layer: int, cache: Cache, now: Tensor, prepared: dict[str, Any],
            scale: float) -> Tensor:
        query, key, value = qkv[:, None].unbind(2)
        keys, values = (kept.transpose(1, 2) for kept in cache.storage[layer])
        options = {name: value for name, value in prepared.items() if name != "run"}
        return prepared["run"](query, keys, values, key, value, softmax_scale=scale, causal=True, **options)[:, 0]


DECODERS: dict[str, tuple[Capability, Callable[[AttentionSpec, int], Decoder]]] = {
    "one-query": (OneQuery.capability, OneQuery),
    "flash-attn": (flash_attn.capability, FlashAttn),
    "flex": (flex.capability, partial(Dense, "flex", flex.run_biased)),
    "sdpa": (sdpa.capability, partial(Dense, "sdpa", sdpa.run)),
    "eager": (eager.capability, partial(Dense, "eager", eager.run)),
    "reference": (reference.capability, partial(Dense, "reference", reference.run)),
}


def choose_decoder(job: Job, heads: int, backend: str | None = None) -> Decoder:
    """What computes one query a row over a cache: the backend asked for, else our own kernel or PyTorch's.

    Args:
        backend: a name in `DECODERS`; a library of fused kernels concerns variants with kernel flash alone.

    Raises:
        BackendError: the backend asked for is missing or cannot decode this; the message says why.
    """
    if job.spec.kernel == "eager" and (backend is None or backend in LIBRARIES):
        order, why = ["eager"], "kernel eager"
    elif backend is not None:
        order, why = [backend], "asked for by name"
    else:
        order, why = ["one-query", "sdpa"], "the best that can do it here"
    for name in order:
        reason = DECODERS[name][0].unsupported(job) if name in DECODERS else "has no kernel for decoding"
        if reason is None:
            _tell(job.spec, str(job.device), str(job.dtype), name, why)
            return DECODERS[name][1](job.spec, heads)
        why += f"; {name} {reason}"
    raise BackendError(f"nothing decodes {job.spec!r} in {job.dtype} on {job.device}: {why}")


@cache
def _tell(spec: AttentionSpec, device: str, dtype: str, name: str, why: str) -> None:
    """Once for every distinct choice of a process."""
    log.info("decoding %s in %s on %s by %s: %s", spec, dtype, device, name, why)
