"""Sequences of different lengths in one batch, for training and for generation."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100  # a label that never counts
Tokens = list[int] | NDArray[np.int32]
Example = tuple[Tokens, int]  # a sequence and how many of its tokens are prompt


def pad_right(sequences: list[Tokens], filler: int) -> Tensor:
    """Token ids [batch, longest], for training: causality hides the padding from every real token."""
    return pad_sequence([torch.as_tensor(s) for s in sequences], batch_first=True, padding_value=filler).long()


def pad_left(sequences: list[list[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask [batch, longest], for generation: all prompts end at the same place."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[filler] * (longest - len(s)) + s for s in sequences])
    mask = torch.tensor([[0] * (longest - len(s)) + [1] * len(s) for s in sequences])
    return ids, mask


def collate(examples: list[Example], filler: int, article_weight: float) -> dict[str, Tensor]:
    """A training batch from (sequence, prompt length) pairs.

    Returns:
        input_ids [batch, longest]; labels [batch, longest], the ids themselves or `IGNORED` where the weight is 0;
        weights float32 [batch, longest]: 1 on the summary and end-of-text, `article_weight` on the prompt,
        0 on padding. Labels are at their own positions: the loss shifts them.
    """
    ids = pad_right([sequence for sequence, _ in examples], filler)
    weights = torch.zeros(ids.shape)
    for row, (sequence, prompt) in enumerate(examples):
        weights[row, :prompt] = article_weight
        weights[row, prompt:len(sequence)] = 1.0
    return {"input_ids": ids, "labels": ids.masked_fill(weights == 0, IGNORED), "weights": weights}
