"""Rotary positions (Su et al. 2021) of a whole prompt in one pass; PyTorch's operators read and write it six times.

To torch.compile it is one operator, and so is its gradient, which turns the other way.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 64  # positions that one program turns


@torch.library.custom_op("headtohead::rotate", mutates_args=())
def rotate(x: Tensor, turns: Tensor, back: bool = False) -> Tensor:
    """Each position's pairs of channels, c and c + head_dim / 2, turned in float32.

    Args:
        x: [batch, heads, length, head_dim], head_dim even.
        turns: float32 [length, 2, head_dim / 2] or [batch, 1, length, 2, head_dim / 2], cosine and sine of each
            position's angles; contiguous in the last two dimensions.

    Returns:
        As x, laid out as [batch, length, heads, head_dim].
    """
    (batch, heads, length, dim), out = x.shape, _like(x)
    by_row = turns.dim() == 5
    _rotate[(triton.cdiv(length, ROWS), heads, batch)](
        x, turns, out, length, heads, -1.0 if back else 1.0, *x.stride(), turns.stride(0) if by_row else 0,
        turns.stride(-3), HALF=dim // 2, WIDTH=triton.next_power_of_2(dim // 2), ROWS=ROWS, num_warps=4)
    return out.transpose(1, 2)


@rotate.register_fake
def _(x: Tensor, turns: Tensor, back: bool = False) -> Tensor:
    return _like(x).transpose(1, 2)


def _like(x: Tensor) -> Tensor:
    batch, heads, length, dim = x.shape
    return torch.empty(batch, length, heads, dim, dtype=x.dtype, device=x.device)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.back = inputs[2]


def _gradient(context: Any, towards: Tensor) -> tuple[Tensor, None, None]:
    return rotate(towards, *context.saved_tensors, not context.back), None, None


rotate.register_autograd(_gradient, setup_context=_remember)


@triton.jit
def _rotate(x_at, turns_at, out_at, length, heads, way, x_batch, x_head, x_row, x_channel, turns_batch, turns_row,
            HALF: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    channel = tl.arange(0, WIDTH)[None, :]
    there = (row < length) & (channel < HALF)
    x_at += batch * x_batch + head * x_head + row * x_row + channel * x_channel
    first = tl.load(x_at, there, 0.0).to(tl.float32)
    second = tl.load(x_at + HALF * x_channel, there, 0.0).to(tl.float32)
    turns_at += batch * turns_batch + row * turns_row + channel
    cosine, sine = tl.load(turns_at, there, 0.0), way * tl.load(turns_at + HALF, there, 0.0)
    to = out_at + ((batch * length + row) * heads + head) * (2 * HALF) + channel
    tl.store(to, (first * cosine - second * sine).to(out_at.dtype.element_ty), there)
    tl.store(to + HALF, (second * cosine + first * sine).to(out_at.dtype.element_ty), there)
