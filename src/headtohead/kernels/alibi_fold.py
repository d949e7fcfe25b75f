"""A Triton kernel that puts ALiBi into further dimensions of queries and keys (see `attention/cudnn.py`).

Half precision has too few digits for slopes and positions, and so both are split into numbers that it holds exactly:
the slope into a sum of three, the position into its multiple of 256 and the rest. The kernels multiply such numbers
exactly and add them up in float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

EXTRA = 16  # dimensions: 3 x 2 products, and zeros up to a width that matrix units like
ROWS = 32  # positions that one program copies


def fold(q: Tensor, k: Tensor, slopes: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Queries and keys whose scaled products hold ALiBi's bias, but for what all keys of a query have in common.

    Args:
        q, k: bfloat16 or float16 [batch, heads, length, head_dim], length at most 65,536.
        slopes: float32 [heads].
        scale: of the scores to come.

    Returns:
        Two [batch, heads, length, head_dim + EXTRA], laid out as [batch, length, heads, head_dim + EXTRA].
    """
    batch, heads, length, dim = q.shape
    out = torch.empty(2, batch, length, heads, dim + EXTRA, dtype=q.dtype, device=q.device)
    _fold[(triton.cdiv(length, ROWS), heads, batch)](
        q, k, slopes, out[0], out[1], scale, length, heads, *q.stride(), *k.stride(),
        DIM=dim, WIDTH=triton.next_power_of_2(dim), EXTRA=EXTRA, ROWS=ROWS, num_warps=4)
    folded_q, folded_k = out.transpose(2, 3)
    return folded_q, folded_k


@triton.jit
def _fold(q_at, k_at, slopes_at, folded_q_at, folded_k_at, scale, length, heads,
          q_batch, q_head, q_row, q_column, k_batch, k_head, k_row, k_column,
          DIM: tl.constexpr, WIDTH: tl.constexpr, EXTRA: tl.constexpr, ROWS: tl.constexpr):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    column, extra = tl.arange(0, WIDTH)[None, :], tl.arange(0, EXTRA)[None, :]
    inside, real = row < length, (row < length) & (column < DIM)
    q = tl.load(q_at + batch * q_batch + head * q_head + row * q_row + column * q_column, real)
    k = tl.load(k_at + batch * k_batch + head * k_head + row * k_row + column * k_column, real)
    to = ((batch * length + row) * heads + head) * (DIM + EXTRA)
    tl.store(folded_q_at + to + column, q, real)
    tl.store(folded_k_at + to + column, k, real)

    kind = folded_q_at.dtype.element_ty
    slope = tl.load(slopes_at + head) / scale
    first = slope.to(kind).to(tl.float32)
    second = (slope - first).to(kind).to(tl.float32)
    term = extra // 2
    parts = tl.where(term == 0, first, tl.where(term == 1, second, tl.where(term == 2, slope - first - second, 0.0)))
    places = tl.where(extra % 2 == 0, row - row % 256, row % 256)
    tl.store(folded_q_at + to + DIM + extra, tl.broadcast_to(parts, (ROWS, EXTRA)).to(kind), inside)
    tl.store(folded_k_at + to + DIM + extra, places.to(tl.float32).to(kind), inside)
