"""How sparse a variant is to kernels, which skip blocks of queries and keys and never single pairs."""

from functools import cache

import numpy as np

from headtohead.attention.patterns import Pattern
from headtohead.attention.spec import AttentionSpec

BLOCK = 128  # queries and keys


@cache
def touched(spec: AttentionSpec, length: int, block: int = BLOCK) -> float | None:
    """The share of blocks that a causal pass touches which the variant does, in the mean of its layers; 1 is full.

    None of kernel performer, which has no pairs of query and key.
    """
    layers = spec.depth(len(spec.layers) or 1)
    if any(layer.kernel == "performer" for layer in layers):
        return None
    blocks = -(-length // block)
    shares = [_count(layer.visibility, length, block) / (blocks * (blocks + 1) // 2) for layer in layers]
    return round(sum(shares) / len(shares), 5)


def _count(pattern: Pattern, length: int, block: int) -> int:
    """How many blocks hold a pair that is seen; a row of blocks at a time."""
    key, count = np.arange(length), 0
    for start in range(0, length, block):
        query = np.arange(start, min(start + block, length))[:, None]
        seen = ((key <= query) & pattern.sees(query, key)).any(0)
        count += int(np.count_nonzero(np.logical_or.reduceat(seen, np.arange(0, length, block))))
    return count
