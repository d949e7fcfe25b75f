"""Tokenised splits on disk, and how far apart a fact and its mention in the summary are."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase

from headtohead.data.records import DataError, Record, read_jsonl, write_jsonl
from headtohead.data.tokenizer import encode, separator_ids

TOKENS = Path("data/tokens")
CHUNK = 1000  # articles tokenised at a time


def tokenize_splits(tokenizer: PreTrainedTokenizerBase, subset: Path, max_length: int, out: Path = TOKENS) -> None:
    """Tokenise every split of the folder `subset` into `out`, beside the tokenizer itself.

    Writes `out`/SPLIT (columns id, article and summary as token ids, nothing cut, and reference, the summary's
    text), `out`/tokenizer, and `out`/facts.jsonl
    ({"set", "id", "facts": [{"kind", "value", "distance"}]}) for the test sets whose facts are known.

    Raises:
        DataError: summaries that `max_length` has no room for, even with an empty article; says what would have.
    """
    facts: list[Record] = []
    for file in sorted(subset.glob("*.jsonl")):
        rows = [row for chunk in _chunks(read_jsonl(file)) for row in _encode(tokenizer, chunk, file.stem, facts)]
        _check_room(rows, max_length - len(separator_ids(tokenizer)) - 1, max_length, file)
        datasets.Dataset.from_list(rows).save_to_disk(out / file.stem)
    write_jsonl(out / "facts.jsonl", facts)
    tokenizer.save_pretrained(out / "tokenizer")


def load_split(split: str) -> datasets.Dataset:
    """One tokenised split: columns id, article, summary, reference."""
    return datasets.load_from_disk(TOKENS / split)


def load_tokenizer() -> PreTrainedTokenizerBase:
    """The run's tokenizer."""
    folder = TOKENS / "tokenizer"
    if not folder.is_dir():  # transformers would look for it on the hub
        raise DataError(f"{folder} is missing; `dvc repro` makes it")
    return AutoTokenizer.from_pretrained(folder)


def further_sets() -> list[str]:
    """Names of the test sets beside `test`."""
    return sorted(folder.name for folder in TOKENS.glob("test-*"))


def digest() -> str:
    """Identifies the tokenised training and validation data, byte for byte."""
    files = sorted(file for split in ("train", "validation") for file in (TOKENS / split).glob("*.arrow"))
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def _chunks(rows: Iterable[Record]) -> Iterator[list[Record]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _check_room(rows: list[Record], room: int, max_length: int, file: Path) -> None:
    """Summaries are never cut: find out before any training that some do not fit."""
    if too_long := [row for row in rows if len(row["summary"]) > room]:
        longest = max(too_long, key=lambda row: len(row["summary"]))
        raise DataError(f"{file}: {len(too_long)} of {len(rows)} summaries do not fit in tokenizer.max_length "
                        f"{max_length}; the longest, of article {longest['id']}, needs at least "
                        f"{max_length - room + len(longest['summary'])}, and more to leave room for the article")


def _encode(tokenizer: PreTrainedTokenizerBase, rows: list[Record], split: str, facts: list[Record]) -> list[Record]:
    articles = encode(tokenizer, [row["article"] for row in rows])
    summaries = encode(tokenizer, [row["summary"] for row in rows])
    if split.startswith("test"):
        facts += [{"set": split, "id": row["id"], "facts": _distances(row, i, articles, summaries, tokenizer)}
                  for i, row in enumerate(rows) if "facts" in row]
    return [{"id": row["id"], "article": article, "summary": summary, "reference": row["summary"]}
            for row, article, summary in zip(rows, articles["input_ids"], summaries["input_ids"], strict=True)]


def _distances(row: Record, i: int, articles: BatchEncoding, summaries: BatchEncoding,
               tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Each fact with the tokens between its start in the article and its first mention in the reference summary."""
    gap = len(articles["input_ids"][i]) + len(separator_ids(tokenizer))
    shift = 1  # texts are tokenised after a space
    return [{"kind": fact["kind"], "value": fact["value"],
             "distance": gap + summaries.char_to_token(i, row["summary"].index(fact["value"]) + shift)
             - articles.char_to_token(i, fact["start"] + shift)} for fact in row["facts"]]
