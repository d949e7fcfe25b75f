"""Tokenised splits on disk, and how far apart a fact and its mention in the summary are."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute
from datasets.table import MemoryMappedTable
from tokenizers import Encoding
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from headtohead.inputs import identity
from headtohead.records import DataError, Record, read_jsonl, write_jsonl
from headtohead.tokens.continuations import count_continuations
from headtohead.tokens.layout import Layout
from headtohead.tokens.tokenizer import encode, separator_ids

TOKENS = Path("data/tokens")
CHUNK = 500  # articles tokenised at a time
COLUMNS = datasets.Features({
    "id": datasets.Value("string"), "article": datasets.List(datasets.Value("int32")),
    "summary": datasets.List(datasets.Value("int32")), "reference": datasets.Value("string")})


def tokenize_splits(tokenizer: PreTrainedTokenizerBase, subset: Path, out: Path = TOKENS,
                    on_done: Callable[[int], object] = lambda count: None) -> None:
    """Tokenise every split of the folder `subset` into `out`, beside the tokenizer itself.

    Writes `out`/SPLIT (columns id, article and summary as token ids, nothing cut, and reference, the summary's
    text), `out`/tokenizer, and `out`/facts.jsonl
    ({"set", "id", "facts": [{"kind", "value", "distance"}]}) for the test sets whose facts are known; where a fact was
    moved with its "position".

    Args:
        on_done: told how many more articles are done, after each chunk.
    """
    for file in sorted(subset.glob("*.jsonl")):
        _save(_tokenized(tokenizer, _chunks(read_jsonl(file))), out / file.stem, on_done)
    write_jsonl(out / "facts.jsonl", (row for file in sorted(subset.glob("test*.jsonl"))
                                      for row in _facts(tokenizer, file)))
    tokenizer.save_pretrained(out / "tokenizer")


def lengths(split: str, layout: Layout, folder: Path = TOKENS) -> dict[str, str | int]:
    """How many articles of a split there are, and how they fit into `layout`.

    Returns:
        "split", "articles"; "longest article" and "longest summary", in tokens; "cut", how many articles are longer
        than their room; "too long", how many summaries go on beyond `max_length`: training and validation leave
        such rows out, and the loss on a test reference is that of its beginning.
    """
    columns = datasets.load_from_disk(folder / split).data
    article, summary = (pyarrow.compute.list_value_length(columns[side]).to_numpy() for side in ("article", "summary"))
    assert layout.room is not None
    assert layout.max_length is not None
    whole = np.minimum(article, layout.room) + len(layout.separator) + summary + 1
    return {"split": split, "articles": len(article), "longest article": int(article.max()),
            "cut": int((article > layout.room).sum()), "longest summary": int(summary.max()),
            "too long": int((whole > layout.max_length).sum())}


def continuations_of(split: str, tokenizer: PreTrainedTokenizerBase, folder: Path = TOKENS) -> Tensor:
    """What the summaries of a split go on with after each token: see `count_continuations`."""
    summaries = datasets.load_from_disk(folder / split).data["summary"].combine_chunks()
    tokens, starts = (array.to_numpy().astype(np.int64) for array in (summaries.values, summaries.offsets))
    return count_continuations(tokens, starts, tokenizer.eos_token_id, len(tokenizer))


def load_split(split: str) -> datasets.Dataset:
    """One tokenised split: columns id, article, summary, reference."""
    return datasets.load_from_disk(TOKENS / split)


def load_tokenizer() -> PreTrainedTokenizerBase:
    """The run's tokenizer.

    Raises:
        DataError: it is missing or damaged.
    """
    folder = TOKENS / "tokenizer"
    if not folder.is_dir():  # transformers would look for it on the hub
        raise DataError(f"{folder} is missing; `dvc repro` makes it")
    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises nothing more exact
        raise DataError(f"{folder} cannot be read: {error}; `dvc repro tokenize --force` makes it again") from error


def further_sets() -> list[str]:
    """Names of the test sets beside `test`."""
    return sorted(folder.name for folder in TOKENS.glob("test-*"))


def digest() -> str:
    """Identifies the tokenised training and validation data, byte for byte."""
    files = sorted(file for split in ("train", "validation") for file in (TOKENS / split).glob("*.arrow"))
    return str(identity({str(file): file for file in files}))


def _chunks(rows: Iterable[Record]) -> Iterator[list[Record]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _tokenized(tokenizer: PreTrainedTokenizerBase, chunks: Iterable[list[Record]]) -> Iterator[pyarrow.RecordBatch]:
    """One chunk ahead: while its result is written down, the next keeps the cores busy."""
    with ThreadPoolExecutor(1) as pool:
        ahead = deque(pool.submit(_encoded, tokenizer, chunk) for chunk in islice(chunks, 1))
        for chunk in chunks:
            ahead.append(pool.submit(_encoded, tokenizer, chunk))
            yield ahead.popleft().result()
        yield from (waiting.result() for waiting in ahead)


def _encoded(tokenizer: PreTrainedTokenizerBase, rows: list[Record]) -> pyarrow.RecordBatch:
    columns = {"id": [row["id"] for row in rows], "reference": [row["summary"] for row in rows]}
    columns |= {side: [encoding.ids for encoding in encode(tokenizer, [row[side] for row in rows])]
                for side in ("article", "summary")}
    return pyarrow.RecordBatch.from_pydict(columns, schema=COLUMNS.arrow_schema)


def _save(batches: Iterable[pyarrow.RecordBatch], folder: Path, on_done: Callable[[int], object]) -> None:
    """Write a data set to disk as it comes, so that it need not fit in memory."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder.parent, suffix=".tmp") as stream:
        with pyarrow.ipc.new_stream(stream.name, COLUMNS.arrow_schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
                on_done(len(batch))
        # Named by what is in it: by default by the temporary file, and then no two runs would write the same bytes.
        name = file_digest(stream, "blake2b").hexdigest()[:16]
        datasets.Dataset(MemoryMappedTable.from_file(stream.name), fingerprint=name).save_to_disk(folder)


def _facts(tokenizer: PreTrainedTokenizerBase, file: Path) -> Iterator[Record]:
    """The facts of one test set with their distances; none where no facts are known."""
    for rows in _chunks(row for row in read_jsonl(file) if "facts" in row):
        articles, summaries = (encode(tokenizer, [row[side] for row in rows], offsets=True)
                               for side in ("article", "summary"))
        for row, article, summary in zip(rows, articles, summaries, strict=True):
            yield {"set": file.stem, "id": row["id"],
                   "facts": _distances(row, article, summary, len(separator_ids(tokenizer)))}


def _distances(row: Record, article: Encoding, summary: Encoding, separator: int) -> list[dict[str, Any]]:
    """Each fact with the tokens between its start in the article and its first mention in the reference summary."""
    return [{**{key: fact[key] for key in ("kind", "value", "position") if key in fact},
             "distance": len(article.ids) - _token_at(article, fact["start"]) + separator
             + _token_at(summary, row["summary"].index(fact["value"]))} for fact in row["facts"]]


def _token_at(text: Encoding, character: int) -> int:
    token = text.char_to_token(character + 1)  # texts are tokenised after a space
    assert token is not None  # a fact's value begins with a letter or digit
    return token
