"""The fused layers of the inference engine.

At batch 1 a pass over GPT-2 is a hundred small pieces of work, and their number counts more than their size:
these kernels put a layer's small pieces into its large ones. All of them compute in float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from headtohead.kernels.dependent import early, wait_for_inputs

FEW = 16  # tokens that `linear` takes at most: the least that a matrix unit multiplies at once
# Of each kernel the sizes that were fastest on an H200 or, for several tokens, an H100.
ROW_BLOCK, WIDTH_BLOCK, LINEAR_WARPS = 4, 512, 4  # of the weights that one program of `linear` reads at once
SHARES = 4  # of the width, side by side, in `linear` of several tokens
NARROW, WIDE = (8, 128), (16, 64)  # weights' rows, and columns of a share, that one of its programs reads at once
LOGIT_BLOCK, LOGIT_WARPS = 16_384, 16  # logits that `likeliest` reads at once


def embed(ids: Tensor, positions: Tensor, tokens: Tensor, places: Tensor | None) -> Tensor:
    """tokens[ids] + places[positions]: [ids, width] from int64 [ids] and tables [vocabulary or positions, width].

    Positions beyond the table have its last place. PyTorch's gathering takes 9 microseconds for a few tokens.
    """
    width = tokens.shape[1]
    out = torch.empty(len(ids), width, dtype=tokens.dtype, device=tokens.device)
    _embed[(len(ids),)](ids, positions, tokens, tokens if places is None else places, out, width,
                        0 if places is None else len(places), PLACED=places is not None,
                        BLOCK=triton.next_power_of_2(width), num_warps=4, **early(tokens.device))
    return out


@triton.jit
def _embed(ids_at, positions_at, tokens_at, places_at, out_at, width, places, PLACED: tl.constexpr,
           BLOCK: tl.constexpr, EARLY: tl.constexpr):
    wait_for_inputs(EARLY)
    which = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(tokens_at + tl.load(ids_at + which) * width + column, inside, 0.0).to(tl.float32)
    if PLACED:
        position = tl.minimum(tl.load(positions_at + which), places - 1)
        x += tl.load(places_at + position * width + column, inside, 0.0).to(tl.float32)
    tl.store(out_at + which * width + column, x, inside)


def add_norm(x: Tensor, bias: Tensor | None, norm: Any) -> Tensor:
    """Add `bias` [width] to `x` [tokens, width] in place and return its layer norm (Ba et al. 2016, equation 4)."""
    out = torch.empty_like(x)
    tokens, width = x.shape
    _add_norm[(tokens,)](x, norm.bias if bias is None else bias, norm.weight, norm.bias, out, width, norm.eps,
                         BIASED=bias is not None, BLOCK=triton.next_power_of_2(width), num_warps=4, **early(x.device))
    return out


@triton.jit
def _add_norm(x_at, added_at, weight_at, bias_at, out_at, width, eps, BIASED: tl.constexpr, BLOCK: tl.constexpr,
              EARLY: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, BLOCK)
    inside = column < width
    weight = tl.load(weight_at + column, inside, 0.0).to(tl.float32)
    bias = tl.load(bias_at + column, inside, 0.0).to(tl.float32)
    wait_for_inputs(EARLY)
    x = tl.load(x_at + row + column, inside, 0.0).to(tl.float32)
    if BIASED:
        x += tl.load(added_at + column, inside, 0.0).to(tl.float32)
        tl.store(x_at + row + column, x, inside)
    mean = tl.sum(x, 0) / width
    centred = tl.where(inside, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    tl.store(out_at + row + column, centred * scale * weight + bias, inside)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, norm: Any = None, gelu: bool = False,
           residual: Tensor | None = None) -> Tensor:
    """gelu(norm(x) @ weight.T + bias) + residual for one token or a few.

    Few tokens read every weight for few multiplications: memory decides, and how soon the reading begins.

    Args:
        x: [tokens, width], at most `FEW` tokens.
        weight: [out, width].
        residual: [tokens, out].

    Returns:
        [tokens, out].

    Raises:
        ValueError: there are more tokens.
    """
    tokens, width = x.shape
    rows = len(weight)
    if tokens > FEW:
        raise ValueError(f"{tokens} tokens; at most {FEW} are taken at once")
    out = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    if tokens == 1:
        _linear[(triton.cdiv(rows, ROW_BLOCK),)](
            x, weight, weight if bias is None else bias, weight if norm is None else norm.weight,
            weight if norm is None else norm.bias, x if residual is None else residual, out, rows, width,
            0.0 if norm is None else norm.eps, BIASED=bias is not None, NORMED=norm is not None, GELU=gelu,
            ADDED=residual is not None, ROWS=ROW_BLOCK, BLOCK=WIDTH_BLOCK, WHOLE=triton.next_power_of_2(width),
            num_warps=LINEAR_WARPS, **early(x.device))
        return out
    if norm is not None:  # once, and not in each program for all tokens
        x = add_norm(x, None, norm)
    row_block, block = NARROW if rows <= NARROW[0] * _multiprocessors(x.device) else WIDE
    _linear_few[(triton.cdiv(rows, row_block),)](
        x, weight, weight if bias is None else bias, x if residual is None else residual, out, tokens, rows, width,
        BIASED=bias is not None, GELU=gelu, ADDED=residual is not None, TOKENS=FEW, ROWS=row_block, SHARES=SHARES,
        BLOCK=block, num_warps=SHARES, **early(x.device))
    return out


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@triton.jit
def _linear(x_at, weight_at, bias_at, norm_weight_at, norm_bias_at, residual_at, out_at, rows, width, eps,
            BIASED: tl.constexpr, NORMED: tl.constexpr, GELU: tl.constexpr, ADDED: tl.constexpr,
            ROWS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr, EARLY: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    # Always one block ahead: the first weights are on their way while the norm is summed up.
    weight = tl.load(weight_at + at, (row < rows)[:, None] & (column < width)[None, :], 0.0)
    wait_for_inputs(EARLY)
    mean, scale = 0.0, 1.0
    if NORMED:
        whole = tl.arange(0, WHOLE)
        entire = tl.load(x_at + whole, whole < width, 0.0).to(tl.float32)
        mean = tl.sum(entire, 0) / width
        centred = tl.where(whole < width, entire - mean, 0.0)
        scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    products = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, width, BLOCK):
        inside = start + column < width
        x = tl.load(x_at + start + column, inside, 0.0).to(tl.float32)
        if NORMED:
            x = (x - mean) * scale * tl.load(norm_weight_at + start + column, inside, 0.0).to(tl.float32)
            x += tl.load(norm_bias_at + start + column, inside, 0.0).to(tl.float32)
        following = start + BLOCK + column < width
        after = tl.load(weight_at + at + start + BLOCK, (row < rows)[:, None] & following[None, :], 0.0)
        products += weight.to(tl.float32) * x[None, :]
        weight = after
    y = tl.sum(products, 1)
    if BIASED:
        y += tl.load(bias_at + row, row < rows, 0.0).to(tl.float32)
    if GELU:
        y = _gelu(y)
    if ADDED:
        y += tl.load(residual_at + row, row < rows, 0.0).to(tl.float32)
    tl.store(out_at + row, y, row < rows)


@triton.jit
def _linear_few(x_at, weight_at, bias_at, residual_at, out_at, tokens, rows, width, BIASED: tl.constexpr,
                GELU: tl.constexpr, ADDED: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr,
                SHARES: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token = tl.arange(0, TOKENS)
    column = tl.arange(0, SHARES)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]  # a share for each warp
    at = row.to(tl.int64)[None, None, :] * width + column[:, :, None]
    weight = tl.load(weight_at + at, (row < rows)[None, None, :] & (column < width)[:, :, None], 0.0)
    wait_for_inputs(EARLY)
    products = tl.zeros((SHARES, TOKENS, ROWS), tl.float32)
    for start in range(0, width, SHARES * BLOCK):
        inside = (start + column < width)[:, None, :] & (token < tokens)[None, :, None]
        x = tl.load(x_at + token[None, :, None] * width + (start + column)[:, None, :], inside, 0.0)
        following = start + SHARES * BLOCK + column < width
        after = tl.load(weight_at + at + start + SHARES * BLOCK, (row < rows)[None, None, :] & following[:, :, None],
                        0.0)
        products += tl.dot(x, weight, input_precision="ieee")
        weight = after
    y = tl.sum(products, 0)
    if BIASED:
        y += tl.load(bias_at + row, row < rows, 0.0).to(tl.float32)[None, :]
    if GELU:
        y = _gelu(y)
    to = token[:, None] * rows + row[None, :]
    there = (token < tokens)[:, None] & (row < rows)[None, :]
    if ADDED:
        y += tl.load(residual_at + to, there, 0.0).to(tl.float32)
    tl.store(out_at + to, y, there)


@triton.jit
def _gelu(x):
    """By tanh (Hendrycks, Gimpel 2016), as GPT-2 has it; tanh(z) = 2 sigmoid(2 z) - 1."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


def likeliest(logits: Tensor) -> Tensor:
    """The first of each row's highest logits [rows, vocabulary]: int64 [rows].

    For a single row PyTorch's argmax takes 15 microseconds.
    """
    out = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    _likeliest[(len(logits),)](logits, out, logits.shape[1], logits.stride(0), BLOCK=LOGIT_BLOCK,
                               num_warps=LOGIT_WARPS, **early(logits.device))
    return out


@triton.jit
def _likeliest(logits_at, out_at, vocabulary, stride, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    wait_for_inputs(EARLY)
    row = tl.program_id(0).to(tl.int64)
    highest = tl.full((BLOCK,), -float("inf"), tl.float32)
    where = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, vocabulary, BLOCK):
        token = start + tl.arange(0, BLOCK)
        logit = tl.load(logits_at + row * stride + token, token < vocabulary, -float("inf")).to(tl.float32)
        where = tl.where(logit > highest, token, where)
        highest = tl.maximum(logit, highest)
    top = tl.max(highest, 0)
    tl.store(out_at + row, tl.min(tl.where(highest == top, where, vocabulary), 0).to(tl.int64))
