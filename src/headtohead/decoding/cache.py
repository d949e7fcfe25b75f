"""A static cache of keys and values, and attention of one new query a row over it, as decoding needs it."""

from typing import Any, Protocol

import torch
from torch import Tensor

from headtohead.attention import eager, flash_attn, sdpa
from headtohead.attention.capability import BackendError, Capability, Job
from headtohead.attention.masks import bias_at
from headtohead.attention.spec import AttentionSpec


class Cache:
    """Keys and values of every layer, in memory that stays where it is, so that a CUDA graph can hold its address.

    The slots are a ring: position p lies in slot p % slots. A variant that looks back `reach` keys at most has no
    more slots than that, and so keeps only the keys it can still see.

    Attributes:
        storage: [layers, 2, rows, heads, slots, head_dim].
        bias: what a decoder keeps from one token to the next.
    """

    def __init__(self, spec: AttentionSpec, *, layers: int, rows: int, heads: int, length: int, head_dim: int,
                 device: torch.device, dtype: torch.dtype) -> None:
        slots = min(length, spec.reach or length)
        self.storage = torch.zeros(layers, 2, rows, heads, slots, head_dim, device=device, dtype=dtype)
        self.bias: Tensor | None = None
        self._whole = slots == length

    @property
    def rows(self) -> int:
        return self.storage.shape[2]

    @property
    def slots(self) -> int:
        return self.storage.shape[4]

    def fill(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Begin with a prompt's keys and values [prompts, heads, length, head_dim], each for rows / prompts rows."""
        length = keys.shape[2]
        for kept, given in zip(self.storage[layer], (keys, values), strict=True):
            rows = kept.unflatten(0, (len(given), -1))
            if length <= self.slots:
                rows[:, :, :, :length] = given[:, None]
            else:
                last = given[:, None, :, length - self.slots:]
                rows.copy_(last.roll(length % self.slots, dims=3).expand_as(rows))

    def positions(self, now: Tensor) -> Tensor:
        """Which position each slot holds when `now` [1] is the latest: int64 [slots], negative where it is empty."""
        slot = torch.arange(self.slots, device=now.device)
        return now - (now - slot) % self.slots

    def append(self, layer: int, key: Tensor, value: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        """Put in one key and value a row [rows, heads, head_dim] at position `now` [1]; the layer's keys and values."""
        keys, values = self.storage[layer]
        keys.index_copy_(2, now % self.slots, key[:, :, None])
        values.index_copy_(2, now % self.slots, value[:, :, None])
        return keys, values

    def reorder(self, rows: Tensor, beams: int, unchanged: int, count: Tensor) -> None:
        """Let row i go on from what row `rows[i]` of its prompt's `beams` holds.

        The first `unchanged` positions are the same in both, and `count` [1] have been written since.
        """
        first = unchanged if self._whole else 0
        if self.storage.device.type == "cuda":
            from headtohead.decoding.kernels import reorder  # Triton is there with CUDA alone

            reorder(self.storage, rows, beams, first, count if self._whole else count + self.slots)
        else:
            changed = self.storage[:, :, :, :, first:]
            changed.copy_(changed.index_select(2, rows))


class Decoder(Protocol):
    """Attention of one new query a row over a cache."""

    name: str

    def begin(self, cache: Cache, left_padding: Tensor | None) -> None:
        """Once for each prompt [rows]: what stays the same from token to token."""

    def prepare(self, cache: Cache, now: Tensor, left_padding: Tensor | None) -> Any:
        """What is the same for all layers, when `now` [1] is the new tokens' position."""

    def run(self, qkv: Tensor, layer: int, cache: Cache, now: Tensor, prepared: Any, scale: float) -> Tensor:
        """Append keys and values; qkv [rows, 3, heads, head_dim] of the new tokens -> [rows, heads, head_dim]."""


class Dense:
    """Over all slots by a backend that takes a dense bias; on the CPU only over those that are filled."""

    def __init__(self, backend: Any, spec: AttentionSpec, heads: int) -> None:
        self.name, self._backend, self._spec, self._heads = backend.name, backend, spec, heads

    def begin(self, cache: Cache, left_padding: Tensor | None) -> None:
        """Nothing stays."""

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
        attended = self._backend.run(query[:, :, None], keys[:, :, :used], values[:, :, :used], self._spec, bias, scale)
        return attended[:, :, 0]


class OneQuery:
    """Our own kernel: appends and attends at once, and leaves out what is not filled."""

    name = "one-query"
    capability = Capability(kernels=frozenset({"flash"}),
                            dtypes={"cuda": (torch.float32, torch.bfloat16, torch.float16)}, backward=frozenset(),
                            head_dims=range(16, 257))

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
    """flash-attn's own kernel for decoding; its cache is no ring, so it serves the pattern that sees all."""

    name = "flash-attn"
    capability = Capability(kernels=frozenset({"flash"}), dtypes=flash_attn.capability.dtypes, backward=frozenset(),
                            patterns=frozenset({"full"}), head_dims=flash_attn.capability.head_dims,
                            package=flash_attn.capability.package)

    def __init__(self, spec: AttentionSpec, heads: int) -> None:
        self._spec, self._heads = spec, heads

    def begin(self, cache: Cache, left_padding: Tensor | None) -> None:
        """Nothing stays."""

    def prepare(self, cache: Cache, now: Tensor, left_padding: Tensor | None) -> dict[str, Any]:
        device = now.device
        shared = flash_attn.prepare(self._spec, self._heads, 1, cache.slots, None, device)
        padding = None if left_padding is None else left_padding.to(device, torch.int32)
        return {"run": shared.package.flash_attn_with_kvcache, "alibi_slopes": shared.slopes,
                "cache_leftpad": padding, "cache_seqlens": now.to(torch.int32).expand(cache.rows).contiguous()}

    def run(self, qkv: Tensor, layer: int, cache: Cache, now: Tensor, prepared: dict[str, Any],
            scale: float) -> Tensor:
        query, key, value = qkv[:, None].unbind(2)
        keys, values = (kept.transpose(1, 2) for kept in cache.storage[layer])
        options = {name: value for name, value in prepared.items() if name != "run"}
        return prepared["run"](query, keys, values, key, value, softmax_scale=scale, causal=True, **options)[:, 0]


def choose_decoder(job: Job, heads: int, backend: str | None = None) -> Decoder:
    """What computes one query a row over a cache: the backend asked for, else our own kernel where there is a GPU.

    A backend that has no kernel for this (flex always, flash-attn where the pattern is no full one) leaves it to
    PyTorch's scaled_dot_product_attention, over all slots.

    Raises:
        BackendError: flash-attn is asked for and missing, or cannot do the job.
    """
    spec = job.spec
    if spec.kernel == "eager":
        return Dense(eager, spec, heads)
    if backend == "flash-attn" and spec.pattern == "full":
        if reason := FlashAttn.capability.unsupported(job):
            raise BackendError(f"flash-attn {reason}")
        return FlashAttn(spec, heads)
    whole = job.head_dim & (job.head_dim - 1) == 0
    if backend is None and whole and OneQuery.capability.unsupported(job) is None:
        return OneQuery(spec, heads)
    return Dense(sdpa, spec, heads)
