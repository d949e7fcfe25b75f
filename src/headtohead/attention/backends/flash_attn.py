"""The library flash-attn (Dao 2023, "FlashAttention-2"): windows, blocks and ALiBi in the kernel, on half precision."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from headtohead.attention.job import Capability, Job
from headtohead.attention.patterns import Form
from headtohead.attention.positions import slopes_on

name = "flash-attn"
capability = Capability(
    kernels=frozenset({"flash"}), dtypes={"cuda": (torch.bfloat16, torch.float16)}, backward=frozenset({"cuda"}),
    forms=frozenset({"window", "block"}), head_dims=range(1, 257),
    package=("flash_attn", "pip install --no-build-isolation flash-attn (docs/attention.md)"))


@dataclass(frozen=True)
class FlashAttn:
    """One pass.

    Args:
        package: flash-attn, imported before a compiler traces the call.
        segments: of queries and of keys, where a row is more than one sequence; None if it is one.
        longest: the longest segment of queries, and of keys.
    """

    package: Any
    options: dict[str, Any]
    segments: tuple[Tensor, Tensor] | None
    longest: tuple[int, int]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = [tensor.transpose(1, 2) for tensor in (q, k, v)]  # [batch, length, heads, head_dim]
        if self.segments is None:
            out: Tensor = self.package.flash_attn_func(*rows, **self.options)
            return out.transpose(1, 2)
        flat = [tensor.flatten(0, 1) for tensor in rows]
        out = self.package.flash_attn_varlen_func(*flat, *self.segments, *self.longest, **self.options)
        return out.view(rows[0].shape).transpose(1, 2)


def build(job: Job, left_padding: Tensor | None) -> FlashAttn:
    """What the kernels take beside q, k and v; nothing here waits for the device, so a CUDA graph can hold it."""
    form = job.form or Form()
    slopes = slopes_on(job.heads, job.device) if job.spec.positions == "alibi" else None
    options = {"softmax_scale": job.scaling, "causal": True, "alibi_slopes": slopes, "window_size": window_size(form)}
    segments, longest = None, (job.queries, job.keys)
    if left_padding is not None or form.block is not None:
        size = form.block or job.keys
        most = size if left_padding is None else job.keys  # padding is one segment
        segments, longest = _segments(job, left_padding, size), (min(job.queries, most), min(job.keys, most))
    return FlashAttn(import_module("flash_attn"), options, segments, longest)


def _segments(job: Job, left_padding: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """Where sequences that do not see each other begin and end: in each row its padding, then blocks of `size`.

    Returns:
        Of queries and of keys, int32 [batch * segments + 1], positions in the rows laid end to end.
    """
    padding = torch.zeros(job.batch, dtype=torch.int64, device=job.device) if left_padding is None else left_padding
    starts = padding.to(job.device)[:, None] + torch.arange(0, job.keys, size, device=job.device)
    return _end_to_end(starts - (job.keys - job.queries), job.queries), _end_to_end(starts, job.keys)


def _end_to_end(starts: Tensor, length: int) -> Tensor:
    """Bounds of segments that begin at `starts` [batch, segments] in rows of `length`, the first ones before them."""
    rows = length * torch.arange(len(starts) + 1, device=starts.device)
    inside = rows[:-1, None] + starts.clamp(0, length)
    return torch.cat([torch.cat([rows[:-1, None], inside], 1).flatten(), rows[-1:]]).to(torch.int32)


def window_size(form: Form) -> tuple[int, int]:
    """As flash-attn has it: how many keys before and after the query are seen, -1 for all of them."""
    return (-1, -1) if form.window is None else (form.window - 1, 0)
