"""What is in a file, folder or data set of the hub: its columns, how many usable articles, and some of them."""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from headtohead.articles.cleaning import Tally
from headtohead.articles.files import Table
from headtohead.articles.folders import SPLITS, locate
from headtohead.articles.formats import TABLES, TEXT, format_of
from headtohead.articles.hub import whole_rows
from headtohead.articles.sources import usable
from headtohead.articles.texts import Texts
from headtohead.init.columns import Columns, find
from headtohead.inputs import PATIENCE, hub_errors, in_one_line, resolve
from headtohead.params import Data, Hub
from headtohead.records import DataError, Record

ROWS = 200  # in which columns are looked for
SAMPLE = 2_000  # articles whose tokens are counted
FROM_HUB = 20_000  # rows of a split that are read from the hub: what is asked for must be there
ON_HUB = re.compile(r"(?P<name>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>[\w./-]+))?")

UNDECIDED = Data(source="files", path=".", article="article", summary="summary", train=1, validation=1, test=1)


@dataclass(frozen=True)
class Found:
    """What there is to work with.

    Args:
        data: where it is, with its columns; the numbers of articles are still to be decided.
        columns: the columns, and why it is these.
        counts: usable articles, of "all" or of each split.
        tallies: what happened to the input's rows.
        sample: usable articles drawn at random, of all or of the training split.
    """

    data: Data
    columns: Columns
    counts: Mapping[str, int]
    tallies: list[Tally]
    sample: list[Record]


def look(source: str, article: str | None, summary: str | None, encoding: str | None, config: str | None, seed: int,
         on_row: Callable[[], object]) -> Found:
    """Look at a file or folder, or else at the data set of that name on the hub.

    Raises:
        DataError: it cannot be read, its columns cannot be told, or two different articles have one id.
    """
    data = _place(source, encoding, config)
    columns = find(list(islice(_whole_rows(data), ROWS)), article, summary, source)
    data = data.model_copy(update={"article": columns.article, "summary": columns.summary})
    counts: dict[str, int] = {}
    tallies: list[Tally] = []
    sample: list[Record] = []
    for name, tally, rows in usable(data, seed, on_row):
        kept = islice(rows, FROM_HUB) if data.source == "hub" else rows
        if name in ("all", "train"):
            sample, counts[name] = _drawn(kept, SAMPLE, seed)
        else:
            counts[name] = sum(1 for _ in kept)
        tallies.append(tally)
    return Found(data, columns, counts, tallies, sample)


def _place(source: str, encoding: str | None, config: str | None) -> Data:
    """Where the articles are; of the hub, the commit that is there now."""
    there, named = resolve(source).exists(), ON_HUB.fullmatch(source)
    if there or not named or format_of(Path(source)) in TABLES:
        return UNDECIDED.model_copy(update={"path": source, "encoding": encoding})
    hub = _on_hub(named["name"], named["revision"], config)
    return UNDECIDED.model_copy(update={"source": "hub", "path": None, "hub": hub})


def _on_hub(name: str, revision: str | None, config: str | None) -> Hub:
    from huggingface_hub import HfApi
    try:
        commit = HfApi().dataset_info(name, revision=revision, timeout=PATIENCE).sha
        import datasets
        configs = datasets.get_dataset_config_names(name, revision=commit)
        if (config or len(configs) > 1) and config not in configs:
            raise DataError(f"{name} has the configurations {', '.join(configs)}; name one of them with --config")
        splits = datasets.get_dataset_split_names(name, config or configs[0], revision=commit)
    except DataError:
        raise
    except hub_errors() as error:
        raise DataError(f"{name}: no such file or folder, and the hub does not give a data set of that name: "
                        f"{in_one_line(error)}") from error
    if missing := [split for split in SPLITS if split not in splits]:
        raise DataError(f"{name} has no split {missing[0]} on the hub; it has {', '.join(splits)}. Download its files, "
                        "and give the file or folder instead")
    return Hub(name=name, config=config or configs[0], revision=str(commit))


def _whole_rows(data: Data) -> Iterator[Mapping[str, Any]]:
    if data.hub is not None:
        return whole_rows(data.hub, "train", seed=0)
    if names := _text_folders(resolve(str(data.path))):
        return _texts(names, data.encoding)
    files = locate(data)
    return Table((files.get("all") or files["train"])[0], None, None, data.encoding).whole_rows()


def _text_folders(path: Path) -> list[Path]:
    """The folders of single texts that a folder, or its training split, has beside each other."""
    for place in (path, *(path / name for name in SPLITS["train"])):
        if place.is_dir():
            inner = [entry for entry in sorted(place.iterdir()) if entry.is_dir() and _text_names(entry)]
            if len(inner) > 1 and not any(entry.name.lower() in names for entry in inner for names in SPLITS.values()):
                return inner
    return []


def _text_names(folder: Path) -> set[Path]:
    return {file.relative_to(folder) for file in folder.rglob("*") if format_of(file) == TEXT}


def _texts(folders: list[Path], encoding: str | None) -> Iterator[Mapping[str, Any]]:
    """The texts of the same name in each folder, by the folders' names."""
    common = sorted(set.intersection(*map(_text_names, folders)))[:ROWS]
    columns = [Texts([folder / name for name in common for _ in ("article", "summary")], encoding).rows()
               for folder in folders]
    for row in zip(*columns, strict=True):
        yield {folder.name: text["article"] for folder, text in zip(folders, row, strict=True)}


def _drawn(rows: Iterator[Record], size: int, seed: int) -> tuple[list[Record], int]:
    """At most `size` of the rows, each with the same chance, and how many there are."""
    rng, drawn, count = random.Random(seed), list[Record](), 0
    for count, row in enumerate(rows, 1):
        if len(drawn) < size:
            drawn.append(row)
        elif (place := rng.randrange(count)) < size:
            drawn[place] = row
    return drawn, count
