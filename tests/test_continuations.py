"""The table of what summaries go on with: counted by brute force, written, read, and refused where it is damaged."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headtohead.records import DataError
from headtohead.tokens.continuations import (
    STEPS,
    SURE,
    copy_continuations,
    count_continuations,
    read_continuations,
    write_continuations,
)

VOCABULARY, END = 6, 5
SUMMARIES = st.lists(st.lists(st.integers(0, 4), max_size=8), min_size=1, max_size=6).filter(any)


def counted(summaries):
    starts = np.cumsum([0, *map(len, summaries)])
    return count_continuations(np.array([token for summary in summaries for token in summary]), starts, END, VOCABULARY)


@given(summaries=SUMMARIES)
def test_a_continuation_is_the_most_frequent_next_token_and_so_on(summaries):
    pairs = Counter(pair for summary in summaries for pair in zip(summary, [*summary[1:], END], strict=False))
    likeliest = {first: min((-count, second) for (one, second), count in pairs.items() if one == first)[1]
                 for first, _ in pairs}
    for token, (enough, *steps) in enumerate(counted(summaries).tolist()):
        if token not in likeliest:
            assert [enough, *steps] == [0, *STEPS * [-1]]
            continue
        total = sum(count for (first, _), count in pairs.items() if first == token)
        assert enough == (2 if pairs[token, likeliest[token]] >= SURE * total else 1)
        for step in steps:
            token = likeliest.get(token, -1)
            assert step == token


def test_a_table_travels_with_its_checkpoint(tmp_path):
    source, target = tmp_path / "tokens", tmp_path / "model"
    source.mkdir()
    target.mkdir()
    assert read_continuations(target, VOCABULARY) is None
    write_continuations(counted([[1, 2, 3]]), source)
    copy_continuations(source, target)
    table = read_continuations(target, VOCABULARY + 2)  # some models embed more tokens than their tokenizer has
    assert torch.equal(table[:VOCABULARY], counted([[1, 2, 3]]))
    assert not table[VOCABULARY:].any()


@pytest.mark.parametrize(("damage", "message"), [
    (lambda file: file.write_bytes(file.read_bytes()[:-8]), "cannot be read"),
    (lambda file: file.write_bytes(b""), "cannot be read"),
])
def test_a_damaged_table_is_named(tmp_path, damage, message):
    write_continuations(counted([[1, 2, 3]]), tmp_path)
    damage(tmp_path / "continuations.safetensors")
    with pytest.raises(DataError, match=rf"continuations\.safetensors {message}"):
        read_continuations(tmp_path, VOCABULARY)


def test_a_table_of_another_vocabulary_is_refused(tmp_path):
    write_continuations(counted([[1, 2, 3]]), tmp_path)
    with pytest.raises(DataError, match="is not for a model of 4 tokens; delete it"):
        read_continuations(tmp_path, 4)
