"""Strided attention with its far keys brought together, by FlexAttention.

An element-wise stride has no empty block of queries and keys, so no kernel could skip any. But what lies a multiple of
the stride apart has one remainder: sorted by it, the far keys of a query are its own group's earlier ones, which is
causal attention over sequences that are `stride` times shorter. The last keys are a window, and both parts are put
together by their log-sum-exp, as softmax is split elsewhere (Dao et al. 2022, section 3.1). Without gradients one
kernel does so while it reads the far keys.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from headtohead.attention.backends.compiled import run_compiled
from headtohead.attention.backends.flex import FLOATS, IEEE, biased_by, block_mask
from headtohead.attention.job import BackendError, Capability, Job
from headtohead.attention.patterns import Pattern, Window
from headtohead.attention.positions import slopes_on

name = "regrouped"
STRIDED = frozenset({"window", "stride"})
capability = Capability(kernels=frozenset({"flash"}), dtypes={"cuda": FLOATS}, backward=frozenset({"cuda"}),
                        forms=STRIDED, needs=STRIDED, padding=False, cache=False, head_dims=range(16, 257))
Part = tuple[BlockMask, Tensor | None]  # who sees whom, and ALiBi's slopes


@dataclass(frozen=True)
class InOnePass:
    """One pass without gradients: over the window by FlexAttention, and on over the far keys by a kernel of our own."""

    stride: int
    near: Part
    scale: float

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from headtohead.kernels.far_keys import add_far  # Triton is there with CUDA alone

        near, weight = run_compiled(_attention, q, k, v, *self.near, self.scale, IEEE)
        return add_far(q, k, v, near, weight, self.stride, self.scale, self.near[1])


@dataclass(frozen=True)
class Regrouped:
    """One pass with gradients: over the window, and over the groups, `stride` of them for each head."""

    stride: int
    near: Part
    far: Part
    scale: float
    far_options: Any

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        near = run_compiled(_attention, q, k, v, *self.near, self.scale, IEEE)
        grouped = (_grouped(x, self.stride) for x in (q, k, v))
        far = run_compiled(_attention, *grouped, *self.far, self.scale, self.far_options)
        out: Tensor = run_compiled(_together, *near, *far, self.stride)
        return out


def build(job: Job, left_padding: Tensor | None) -> Regrouped | InOnePass:
    """The masks of both parts, and ALiBi's bias for both."""
    form, slopes = job.form, slopes_on(job.heads, job.device) if job.spec.positions == "alibi" else None
    if form is None or form.stride is None or form.window is None:
        raise BackendError(f"regrouped is for strides alone, not for pattern {job.spec.pattern!r}")
    near = (block_mask(Window(window=form.window), job.keys, job.keys, job.device), slopes)
    if not job.backward:
        return InOnePass(form.stride, near, job.scaling)
    groups = -(-job.keys // form.stride)
    return Regrouped(form.stride, near,
                     (block_mask(Earlier(), groups, groups, job.device),
                      None if slopes is None else (form.stride * slopes).repeat(form.stride)), job.scaling,
                     _for_short(job, groups))


def _for_short(job: Job, groups: int) -> Any:
    """Options of the kernels for sequences of `groups`: tiles of 128 over 32 are mostly empty. Measured on an H100."""
    if groups > 32 or job.dtype == torch.float32 or job.head_dim > 128:
        return IEEE
    tiles = ("BLOCK_M", "BLOCK_N", "BLOCK_M1", "BLOCK_N1", "BLOCK_M2", "BLOCK_N2")
    return IEEE | dict.fromkeys(tiles, 32) | {"num_warps": 4}


class Earlier(Pattern, named=False):
    """What comes before the query: of its own group, that is what the window does not hold."""

    def sees(self, query: Any, key: Any) -> Any:
        return key < query


def _attention(q: Tensor, k: Tensor, v: Tensor, blocks: BlockMask, slopes: Tensor | None, scale: float,
               options: Any) -> tuple[Tensor, Tensor]:
    """With the log-sum-exp of each query's scores."""
    bias = None if slopes is None else biased_by(slopes, 0)
    return flex_attention(q, k, v, score_mod=bias, block_mask=blocks, scale=scale, return_lse=True,
                          kernel_options=options)


def _together(near: Tensor, near_weight: Tensor, far: Tensor, far_weight: Tensor, stride: int) -> Tensor:
    """Each part by its share of the weight, which is 0 where nothing is far: its log is -inf."""
    far, far_weight = (_in_order(x, stride)[:, :, :near.shape[2]] for x in (far, far_weight[..., None]))
    share = torch.sigmoid(far_weight - near_weight[..., None])
    return torch.lerp(near.float(), far.float(), share).to(near.dtype)


def _grouped(x: Tensor, stride: int) -> Tensor:
    """[batch, heads, length, dim] -> [batch, stride * heads, length / stride, dim], with zeros where it is longer."""
    rows, rest = x.transpose(1, 2), -x.shape[2] % stride  # [batch, length, heads, dim]
    if rest:
        rows = pad(rows, (0, 0, 0, 0, 0, rest))
    return rows.reshape(x.shape[0], -1, stride * x.shape[1], x.shape[3]).transpose(1, 2)


def _in_order(x: Tensor, stride: int) -> Tensor:
    """`_grouped` undone, but for the zeros."""
    batch, groups, _, dim = x.shape
    return x.transpose(1, 2).reshape(batch, -1, groups // stride, dim).transpose(1, 2)
