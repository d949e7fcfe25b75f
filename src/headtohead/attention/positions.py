"""How queries and keys learn where they are: ALiBi's bias on the scores, and rotations (RoPE).

ALiBi: Press, Smith, Lewis 2022, "Train Short, Test Long", section 3. RoPE: Su et al. 2021, "RoFormer", section 3.4.2.
"""

from functools import cache

import torch
from torch import Tensor

BASE = 10_000.0  # of RoPE's wavelengths


def alibi_slopes(heads: int) -> Tensor:
    """The slopes of ALiBi's heads, steepest first within each geometric run.

    For a power of two the slopes are 2^(-8/heads), its square, its cube and so on. Other head counts take
    those of the next lower power of two, then every other slope of the next higher one, as in the paper's code.

    Args:
        heads: how many, at least 1.

    Returns:
        float32 tensor [heads].

    Raises:
        ValueError: fewer than one head.
    """
    if heads < 1:
        raise ValueError(f"heads must be at least 1, got {heads}")
    lower = 2 ** (heads.bit_length() - 1)
    slopes = _geometric(lower) + _geometric(2 * lower)[::2]
    return torch.tensor(slopes[:heads], dtype=torch.float32)


def _geometric(heads: int) -> list[float]:
    return [2 ** (-8 * (head + 1) / heads) for head in range(heads)]


def alibi_bias(heads: int, query: Tensor, key: Tensor) -> Tensor:
    """-slope * (query - key), added to scaled scores: float32 [..., heads, queries, keys].

    Args:
        query, key: [..., queries, 1] and [..., 1, keys].
    """
    distance = (query - key).to(torch.float32)
    return -slopes_on(heads, distance.device).view(-1, 1, 1) * distance.unsqueeze(-3)


@cache
def slopes_on(heads: int, device: torch.device) -> Tensor:
    """`alibi_slopes` on a device, moved there once: a copy from the CPU waits for the device, and no graph takes it."""
    with torch.inference_mode(False):  # or training could not use what inference left here
        return alibi_slopes(heads).to(device)


def rotations(length: int, head_dim: int, device: torch.device) -> Tensor:
    """Cosine and sine of the angles of `length` positions (Su et al. 2021, equation 15).

    Channel c and channel c + head_dim / 2 are a pair, which turns by base^(-2c / head_dim) a position: the paper's
    pairs of neighbours in another order, as transformers and most models have them.

    Returns:
        float32 [length, 2, head_dim / 2].
    """
    return _turns(1 << (length - 1).bit_length(), head_dim, device)[:length]


@cache
def _turns(length: int, head_dim: int, device: torch.device) -> Tensor:
    """Kept for good, as a CUDA graph holds its address; so lengths are few."""
    with torch.inference_mode(False):
        frequency = BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
        return torch.stack([angle.cos(), angle.sin()], 1).to(device, torch.float32)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """`x` [batch, heads, length, head_dim] turned by `turns` [(batch, 1,) length, 2, head_dim / 2], in x's dtype.

    Computed in float32. The product of a turned query and a turned key depends on their distance alone (Su et al. 2021,
    equation 16).
    """
    if x.device.type == "cuda" and x.dim() == 4:
        from headtohead.kernels.rotary import rotate as in_one_pass  # Triton is there with CUDA alone

        return in_one_pass(x, turns)
    first, second = x.float().chunk(2, -1)
    cosine, sine = turns.unbind(-2)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1).to(x.dtype)
