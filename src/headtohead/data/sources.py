"""The articles of a run: train, validation and test from the chosen source, no article in two of them."""

import random
from collections import Counter

from headtohead.data.inputs import SPLITS, locate
from headtohead.data.records import DataError, Record, near_duplicate_key
from headtohead.params import Data

Splits = dict[str, list[Record]]


def read_splits(data: Data, seed: int) -> tuple[Splits, Counter[str]]:
    """The splits that `data` asks for, and from newswire further test sets beside them.

    Returns:
        Splits by name ("train", "validation", "test", "test-2x", ...), and how many rows were dropped, by reason.

    Raises:
        DataError: the input cannot be read, or holds too few articles.
    """
    if data.source == "newswire":
        return _newswire(data, seed), Counter()
    pools = _hub(data, seed) if data.source == "hub" else _files(data)
    dropped: Counter[str] = Counter()
    return _choose(pools, {split: getattr(data, split) for split in SPLITS}, seed, dropped), dropped


def _newswire(data: Data, seed: int) -> Splits:
    from headtohead.data.newswire import newswire
    assert data.newswire is not None  # the parameters' validator saw to it
    settings = data.newswire.model_dump(include={"words", "distractors"})
    splits = {split: list(newswire(split, getattr(data, split), seed=seed, **settings)) for split in SPLITS}
    longer = {f"test-{scale}x": list(newswire("test", data.test, seed=seed, scale=scale, **settings))
              for scale in data.newswire.longer}
    return splits | longer


def _hub(data: Data, seed: int) -> Splits:
    from headtohead.data.hub import read_split
    assert data.hub is not None  # the parameters' validator saw to it
    spare = 2  # rows that cleaning may drop are read beforehand
    return {split: read_split(data.hub, split, spare * getattr(data, split), data.article, data.summary, seed)
            for split in SPLITS}


def _files(data: Data) -> Splits:
    from headtohead.data.files import read_table
    assert data.path is not None  # the parameters' validator saw to it
    return {split: read_table(file, data.article, data.summary) for split, file in locate(data.path).items()}


def _choose(pools: Splits, counts: dict[str, int], seed: int, dropped: Counter[str]) -> Splits:
    """Sample each split by seed; an article that an earlier split holds, nearly alike, is dropped from later ones."""
    seen: set[str] = set()
    kept = {name: _clean(_shuffled(pool, seed), seen, dropped)
            for name, pool in sorted(pools.items(), key=lambda item: item[0] == "train")}  # test and validation first
    if "all" in kept:
        kept = _cut(kept["all"], counts)
    for split, count in counts.items():
        if len(kept[split]) < count:
            raise DataError(f"data.{split} asks for {count} articles, and {len(kept[split])} are left"
                            + (f" after dropping {_reasons(dropped)}" if dropped else "")
                            + "; ask for fewer or bring more")
    return {split: kept[split][:count] for split, count in counts.items()}


def _cut(rows: list[Record], counts: dict[str, int]) -> Splits:
    """Cut one file's articles into test, validation and train, in this order: the last takes what is left."""
    first, second = counts["test"], counts["test"] + counts["validation"]
    return {"test": rows[:first], "validation": rows[first:second], "train": rows[second:]}


def _shuffled(rows: list[Record], seed: int) -> list[Record]:
    return random.Random(seed).sample(rows, len(rows))


def _clean(rows: list[Record], seen: set[str], dropped: Counter[str]) -> list[Record]:
    """Rows with text on both sides that resemble none in `seen`, which grows by them."""
    kept = []
    for row in rows:
        key = near_duplicate_key(row["article"])
        if not key or not row["summary"].strip():
            dropped["without text"] += 1
        elif key in seen:
            dropped["duplicates"] += 1
        else:
            seen.add(key)
            kept.append(row)
    return kept


def _reasons(dropped: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items())
