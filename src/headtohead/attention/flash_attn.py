"""The library flash-attn (Dao 2023, "FlashAttention-2"): windows and ALiBi inside the kernel, on half precision."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from headtohead.attention.alibi import slopes_on
from headtohead.attention.capability import Capability
from headtohead.attention.spec import AttentionSpec

name = "flash-attn"
capability = Capability(
    kernels=frozenset({"flash"}), dtypes={"cuda": (torch.bfloat16, torch.float16)}, backward=frozenset({"cuda"}),
    patterns=frozenset({"full", "window"}), head_dims=range(1, 257),
    package=("flash_attn", "pip install --no-build-isolation flash-attn (docs/attention.md)"))


@dataclass(frozen=True)
class Prepared:
    package: Any  # flash-attn, imported before a compiler traces `run`
    slopes: Tensor | None  # ALiBi's, float32 [heads]
    segments: tuple[Tensor, Tensor] | None  # with padding: those of queries and of keys


def prepare(spec: AttentionSpec, heads: int, queries: int, keys: int,
            left_padding: Tensor | None, device: torch.device) -> Prepared:
    """What the kernels take beside q, k and v; nothing here waits for the device, so a CUDA graph can hold it."""
    package = import_module("flash_attn")
    slopes = slopes_on(heads, device) if spec.positions == "alibi" else None
    if left_padding is None:
        return Prepared(package, slopes, None)
    padding = left_padding.to(device)
    in_queries = (padding - (keys - queries)).clamp(min=0)
    return Prepared(package, slopes, (_segments(in_queries, queries), _segments(padding, keys)))


def _segments(padding: Tensor, length: int) -> Tensor:
    """Bounds of two sequences for each row [length], its padding and the rest, which do not see each other.

    Returns:
        int32 [2 * batch + 1], positions in the rows laid end to end.
    """
    start = length * torch.arange(len(padding) + 1, device=padding.device)
    ends = torch.stack([start[:-1] + padding, start[1:]], dim=1).flatten()
    return torch.cat([start[:1], ends]).to(torch.int32)


def run(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, prepared: Prepared, scale: float) -> Tensor:
    options = {"softmax_scale": scale, "causal": True, "alibi_slopes": prepared.slopes,
               "window_size": window_size(spec)}
    rows = [tensor.transpose(1, 2) for tensor in (q, k, v)]  # [batch, length, heads, head_dim]
    if prepared.segments is None:
        return prepared.package.flash_attn_func(*rows, **options).transpose(1, 2)
    flat = [tensor.flatten(0, 1) for tensor in rows]
    out = prepared.package.flash_attn_varlen_func(*flat, *prepared.segments, q.shape[2], k.shape[2], **options)
    return out.unflatten(0, (q.shape[0], q.shape[2])).transpose(1, 2)


def window_size(spec: AttentionSpec) -> tuple[int, int]:
    """As flash-attn has it: how many keys before and after the query are seen, -1 for all of them."""
    return (-1, -1) if spec.reach is None else (spec.reach - 1, 0)
