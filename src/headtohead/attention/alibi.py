"""Attention with linear biases (Press, Smith, Lewis 2022, "Train Short, Test Long", section 3)."""

from functools import cache

import torch
from torch import Tensor


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
    """-slope * (query - key), added to scaled scores: float32 [heads, *broadcast(query, key)]."""
    distance = (query - key).to(torch.float32)
    return -slopes_on(heads, distance.device).view(-1, *[1] * distance.dim()) * distance


@cache
def slopes_on(heads: int, device: torch.device) -> Tensor:
    """`alibi_slopes` on a device, moved there once: a copy from the CPU waits for the device, and no graph takes it."""
    with torch.inference_mode(False):  # or training could not use what inference left here
        return alibi_slopes(heads).to(device)
