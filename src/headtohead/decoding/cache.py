"""A static cache of keys and values, as decoding needs it."""

import torch
from torch import Tensor


class Cache:
    """Keys and values of every layer, in memory that stays where it is, so that a CUDA graph can hold its address.

    The slots are a ring: position p lies in slot p % slots. With a `reach`, how many keys back a variant looks at
    most, there are no more slots than that, and only the keys that can still be seen are kept.

    Attributes:
        storage: [layers, 2, rows, heads, slots, head_dim].
        bias: what a decoder keeps from one token to the next.
    """

    def __init__(self, reach: int | None, *, layers: int, rows: int, heads: int, length: int, head_dim: int,
                 device: torch.device, dtype: torch.dtype) -> None:
        slots = min(length, reach or length)
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
