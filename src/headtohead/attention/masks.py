"""The dense view of a variant: which query sees which key, as tensors. Every backend is tested against it."""

import torch
from torch import Tensor

from headtohead.attention.patterns import Pattern
from headtohead.attention.positions import alibi_bias
from headtohead.attention.spec import AttentionSpec


def visible_at(pattern: Pattern, query: Tensor, key: Tensor) -> Tensor:
    """Whether the query at one position may see the key at another. The one place where all variants become causal."""
    return (key <= query) & pattern.sees(query, key)


def visible(spec: AttentionSpec, length: int, layer: int = 0) -> Tensor:
    """Who sees whom in a sequence without padding, in one layer of a model.

    Returns:
        bool tensor [length, length]; `[i, j]` is true if query i may see key j.
    """
    position = torch.arange(length)
    return visible_at(spec.layer(layer).visibility, position[:, None], position[None, :])


def seen_blocks(pattern: Pattern, length: int, device: torch.device) -> Tensor:
    """Who sees whom of a pattern that has a grain, block by block: bool [blocks, blocks], own blocks among them."""
    assert pattern.grain is not None
    start = torch.arange(0, length, pattern.grain, device=device)
    return visible_at(pattern, start[:, None], start[None, :])


def dense_bias(spec: AttentionSpec, heads: int, queries: int, keys: int,
               left_padding: Tensor | None, device: torch.device) -> Tensor:
    """What to add to scaled scores of the last `queries` of `keys` positions, as in decoding with a cache.

    Args:
        spec: without `layers`.
        left_padding: int [batch], padding tokens before each sequence, or None.

    Returns:
        float32 [batch or 1, heads or 1, queries, keys].
    """
    key = torch.arange(keys, device=device)
    if left_padding is not None:
        key = key - left_padding.to(device)[:, None]  # a sequence's own positions begin after its padding
    return bias_at(spec, heads, key[..., keys - queries:], key)


def bias_at(spec: AttentionSpec, heads: int, query: Tensor, key: Tensor) -> Tensor:
    """What to add to scaled scores: 0 or ALiBi's bias where a key is visible, -inf elsewhere.

    A padding query sees only itself, so that its row is finite; no real query ever sees it.

    Args:
        spec: without `layers`.
        query, key: int [(rows,) queries] and [(rows,) keys], positions in each row's own sequence, in any order; a key
            at a negative position (padding, or an empty slot of a cache) is never visible.

    Returns:
        float32 [rows or 1, heads or 1, queries, keys].
    """
    query, key = query[..., :, None], key[..., None, :]
    seen = visible_at(spec.visibility, query, key) & (key >= 0) | (query == key)
    bias = alibi_bias(heads, query, key) if spec.positions == "alibi" else torch.zeros((), device=key.device)
    bias = bias.masked_fill(~seen.unsqueeze(-3), float("-inf"))
    return bias if bias.dim() == 4 else bias[None]
