"""What summaries go on with after each token: drafts for prompt lookup where the article offers none.

A frequent pair of tokens is a model of language that costs one read of a table (n-gram drafts: Ou et al. 2024).
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from headtohead.records import DataError

NAME = "continuations"
STEPS = 4  # tokens of a continuation
SURE = 0.5  # the share from which on a pair counts for more than one earlier token in the article


def count_continuations(tokens: NDArray[np.int64], starts: NDArray[np.int64], end: int, vocabulary: int) -> Tensor:
    """The most frequent continuation of each token, pair by pair.

    Args:
        tokens: [tokens] of all summaries, one after the other.
        starts: [summaries + 1], where each begins, and where the last one ends.
        end: the token that follows each summary.

    Returns:
        int32 [vocabulary, 1 + `STEPS`]: how many tokens an earlier occurrence has to share with the latest ones to be
        the better draft (0 if the token has no continuation), and the tokens that follow, -1 where none is known.
    """
    following = np.append(tokens[1:], end)
    following[starts[1:][np.diff(starts) > 0] - 1] = end
    pairs, counts = np.unique(tokens * vocabulary + following, return_counts=True)
    first, second = pairs // vocabulary, pairs % vocabulary
    total, most, likeliest = np.bincount(first, counts, vocabulary), np.zeros(vocabulary), np.full(vocabulary, -1)
    order = np.lexsort((-second, counts))  # the most frequent last; of equals, the lowest token
    most[first[order]], likeliest[first[order]] = counts[order], second[order]
    table = np.full((vocabulary, 1 + STEPS), -1)
    table[:, 0] = np.where(likeliest < 0, 0, np.where(most >= SURE * total, 2, 1))
    latest = np.arange(vocabulary)
    for step in range(STEPS):
        latest = np.where(latest < 0, -1, likeliest[latest])
        table[:, 1 + step] = latest
    return torch.from_numpy(table).int()


def write_continuations(table: Tensor, folder: Path) -> None:
    """Write a table into a folder of tokens."""
    save_file({NAME: table.contiguous()}, _file(folder))


def copy_continuations(source: Path, target: Path) -> None:
    """Put the table of one folder into another."""
    shutil.copyfile(_file(source), _file(target))


def read_continuations(folder: Path, vocabulary: int) -> Tensor | None:
    """The table in a folder, for a model of `vocabulary` tokens; None if there is none.

    Raises:
        DataError: the file is damaged, or of another kind.
    """
    file = _file(folder)
    if not file.exists():
        return None
    try:
        table = load_file(file)[NAME]
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f"{file} cannot be read: {error}; without it prompt lookup drafts from the article alone"
                        ) from error
    if table.dim() != 2 or table.shape[1] != 1 + STEPS or len(table) > vocabulary or int(table.max()) >= vocabulary:
        raise DataError(f"{file} is not for a model of {vocabulary:,} tokens; delete it, and prompt lookup drafts from "
                        "the article alone")
    return torch.cat([table, table.new_zeros(vocabulary - len(table), 1 + STEPS)])


def _file(folder: Path) -> Path:
    return folder / f"{NAME}.safetensors"
