"""Sequences of different lengths in one batch, for training and for generation."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = -100  # a label that never counts
Tokens = list[int] | NDArray[np.int32]
Example = tuple[Tokens, int]  # a sequence and how many of its tokens are prompt


def pad_left(sequences: list[list[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask [batch, longest], for generation: all prompts end at the same place."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[filler] * (longest - len(s)) + s for s in sequences])
    mask = torch.tensor([[0] * (longest - len(s)) + [1] * len(s) for s in sequences])
    return ids, mask


def collate(examples: list[Example], filler: int, article_weight: float, length: int | None = None
            ) -> dict[str, Tensor]:
    """A training batch from (sequence, prompt length) pairs, padded on the right to `length` or to the longest.

    In NumPy: PyTorch would wake a thread on each core for such small arrays, which takes longer than the work.

    Returns:
        input_ids [batch, length]; labels [batch, length], the ids themselves or `IGNORED` where the weight is 0;
        weights float32 [batch, length]: 1 on the summary and end-of-text, `article_weight` on the prompt,
        0 on padding. Labels are at their own positions: the loss shifts them. Causality hides the padding from every
        real token.
    """
    ends = np.array([[len(sequence)] for sequence, _ in examples])
    prompts = np.array([[prompt] for _, prompt in examples])
    positions = np.arange(length or ends.max())
    ids = np.full((len(examples), len(positions)), filler, np.int64)
    ids[positions < ends] = np.concatenate([sequence for sequence, _ in examples])
    weights = np.where(positions < prompts, article_weight, positions < ends).astype(np.float32)
    labels = np.where(weights == 0, IGNORED, ids)
    return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels),
            "weights": torch.from_numpy(weights)}
