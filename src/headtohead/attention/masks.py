"""The dense view of a variant: which query sees which key, as tensors. Every backend is tested against it."""

import torch
from torch import Tensor

from headtohead.attention.alibi import alibi_bias
from headtohead.attention.patterns import PATTERNS
from headtohead.attention.spec import AttentionSpec


def visible_at(spec: AttentionSpec, query: Tensor, key: Tensor) -> Tensor:
    """Whether the query at one position may see the key at another; the one place that makes all variants causal."""
    return (key <= query) & PATTERNS[spec.pattern](query, key, **spec.numbers)


def visible(spec: AttentionSpec, length: int) -> Tensor:
    """Who sees whom in a sequence without padding.

    Returns:
        bool tensor [length, length]; `[i, j]` is true where query i may see key j.
    """
    position = torch.arange(length)
    return visible_at(spec, position[:, None], position[None, :])


def dense_bias(spec: AttentionSpec, heads: int, queries: int, keys: int,
               left_padding: Tensor | None, device: torch.device) -> Tensor:
    """`bias_at` of a whole sequence: the queries are the last of the keys, as in decoding with a cache.

    Returns:
        float32 [batch or 1, heads or 1, queries, keys].
    """
    key = torch.arange(keys, device=device)
    return bias_at(spec, heads, key[keys - queries:], key, left_padding)


def bias_at(spec: AttentionSpec, heads: int, query: Tensor, key: Tensor, left_padding: Tensor | None) -> Tensor:
    """What to add to scaled scores: 0 or ALiBi's bias where a key is visible, -inf elsewhere.

    A padding query sees itself alone, so that its row is finite; nothing real ever sees it.

    Args:
        query, key: int [queries] and [keys], positions in the padded sequence, in any order, on one device;
            a key at a negative one (a cache's empty place) is never visible.
        left_padding: int [batch], padding tokens before each sequence, or None.

    Returns:
        float32 [batch or 1, heads or 1, queries, keys].
    """
    query = query[:, None]
    bias = torch.zeros(1, 1, 1, 1, device=key.device)
    if spec.positions == "alibi":
        bias = alibi_bias(heads, query, key)[None]  # distances do not change with padding
    first = 0 if left_padding is None else left_padding.to(key.device).view(-1, 1, 1, 1)
    seen = visible_at(spec, query - first, key - first) & (key >= first) | (query == key)
    return bias.masked_fill(~seen, float("-inf"))
