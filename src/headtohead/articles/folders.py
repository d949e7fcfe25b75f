"""Which files hold which split: one file, or a folder in the layouts of people, the hub and `datasets`."""

import json
import re
from pathlib import Path

from headtohead.articles.formats import KNOWN, TABLES, TEXT, format_of
from headtohead.inputs import resolve
from headtohead.params import Data
from headtohead.records import DataError

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
OWN = ("data", "models", "metrics", "plots", "report", "logs", ".cache", ".checkpoints", ".dvc", ".git")
SHARD = re.compile(r"-(\d+)-of-(\d+)")  # as in train-00000-of-00003.parquet
SHOWN = 10  # of a folder's entries, in messages

Files = dict[str, list[Path]]


def locate(data: Data) -> Files:
    """The files behind `data.path`: {"all": files}, or {"train", "validation", "test"} of a folder.

    Several files are the parts of one table, in their order, or single texts, each article followed by its summary.

    Raises:
        DataError: nothing is there, it may not be read from, a format is unknown, or a folder lacks a split, a part
            or a text, or has one twice; says what is there and what is expected.
    """
    assert data.path is not None  # the parameters' validator saw to it
    if "://" in data.path:
        raise DataError(f"data.path {data.path}: is an address; download the file and give its path, or use "
                        "data.source: hub")
    found = resolve(data.path)
    _check_allowed(data.path, found)
    if found.is_file():
        if format_of(found) not in TABLES:
            raise DataError(f"{data.path}: format {found.suffix or '(none)'} is unknown; there are {KNOWN}")
        return {"all": [found]}
    if not found.is_dir():
        what = "is neither a file nor a folder" if found.exists() else "no such file or folder"
        raise DataError(f"{data.path}: {what} (data.path; looked at {found})")
    return _in_folder(found, data)


def _check_allowed(path: str, found: Path) -> None:
    """Refuse what the pipeline itself writes, so that no run reads its own output."""
    inside = found.resolve()
    for folder in (resolve(name).resolve() for name in OWN):
        if inside == folder or folder in inside.parents:
            raise DataError(f"data.path {path}: lies in {folder.name}/, which the pipeline itself writes; "
                            "put the articles elsewhere")


def _in_folder(folder: Path, data: Data) -> Files:
    """The splits of a folder, or of the one folder in it that has any, as the hub's repositories have `data`."""
    if whole := _saved(folder) or _texts(folder, data):
        return {"all": whole}
    within = [] if _has_splits(folder) else [inner for inner in _entries(folder) if _has_splits(inner)]
    if len(within) > 1:
        raise DataError(f"{folder} has splits in {' and '.join(f'{inner.name}/' for inner in within)}; name one of "
                        "them in data.path")
    return {split: _files(within[0] if within else folder, split, data) for split in SPLITS}


def _has_splits(folder: Path) -> bool:
    return folder.is_dir() and any(_named(folder, split) for split in SPLITS)


def _files(folder: Path, split: str, data: Data) -> list[Path]:
    """The files of one split."""
    named = _named(folder, split)
    if not named:
        there = [entry.name + "/" * entry.is_dir() for entry in _entries(folder)]
        shown = ", ".join(there[:SHOWN]) + ", ..." * (len(there) > SHOWN)
        raise DataError(
            f"{folder} has no {split} file; there are {shown or 'no files'}. A folder needs one each of train, "
            f"validation and test: {split}.jsonl, NAME.{split}.jsonl, {split}-00000-of-00003.parquet and so on, or a "
            f"folder {split} (formats: {KNOWN}); or folders {data.article} and {data.summary} (data.article, "
            f"data.summary) with one {TEXT} file for each article")
    if named[0].is_dir() and len(named) == 1:
        tables = [entry for entry in _entries(named[0]) if entry.is_file() and format_of(entry) in TABLES]
        return _saved(named[0]) or _texts(named[0], data) or _parts(named[0], tables)
    return _parts(folder, named)


def _named(folder: Path, split: str) -> list[Path]:
    """The entries that carry the name of a split, else the files that have it as one of the words of their name."""
    stems = {entry: entry.name.lower().removesuffix(".gz").removesuffix(format_of(entry))
             for entry in _entries(folder) if entry.is_dir() or format_of(entry) in TABLES}
    if exactly := [entry for entry, stem in stems.items() if stem in SPLITS[split]]:
        return exactly
    words = {file: set(re.findall(r"[a-z]+", stem)) for file, stem in stems.items() if file.is_file()}
    among = [file for file, said in words.items() if said.intersection(SPLITS[split])]
    for file in among:
        if len(named := [key for key, names in SPLITS.items() if words[file].intersection(names)]) > 1:
            raise DataError(f"{file}: is it {' or '.join(named)}? Give it the name of one split")
    return among


def _parts(folder: Path, files: list[Path]) -> list[Path]:
    """The parts of one table, in the order of their numbers, none missing."""
    if not files:
        raise DataError(f"{folder} has no file of articles; formats: {KNOWN}")
    if len({re.sub(r"\d+", "", file.name) for file in files}) > 1:
        raise DataError(f"{folder} has both {files[0].name} and {files[-1].name}; a folder needs exactly one each of "
                        "train, validation and test, or the numbered parts of one table")
    ordered = sorted(files, key=lambda file: [int(number) for number in re.findall(r"\d+", file.name)])
    shards = [(int(found[1]), int(found[2])) for file in ordered if (found := SHARD.search(file.name))]
    if shards and shards != [(number, shards[0][1]) for number in range(shards[0][1])]:
        raise DataError(f"{folder}: {', '.join(file.name for file in ordered[:SHOWN])} are not all parts of one table, "
                        "each once; download them again")
    return ordered


def _saved(folder: Path) -> list[Path]:
    """The files of a data set that `datasets` saved to a folder; none if it saved none there."""
    state = folder / "state.json"
    if not state.is_file():
        return []
    try:
        files = [folder / file["filename"] for file in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{state} is not as `datasets` writes it: {error!r}; save the data set again") from error
    if missing := [file.name for file in files if not file.is_file()]:
        raise DataError(f"{folder} lacks {missing[0]}, which its state.json names; save the data set again")
    return files


def _texts(folder: Path, data: Data) -> list[Path]:
    """The texts of two folders, one with the articles and one with their summaries; none if these are not there."""
    articles, summaries = folder / data.article, folder / data.summary
    if not (articles.is_dir() and summaries.is_dir()):
        return []
    ours, theirs = _text_names(articles), _text_names(summaries)
    if single := sorted(ours ^ theirs):
        there, lacking = (articles, summaries) if single[0] in ours else (summaries, articles)
        raise DataError(f"{there / single[0]}: there is no {lacking / single[0]} to go with it")
    if not ours:
        raise DataError(f"{articles} has no {TEXT} files")
    return [side / name for name in sorted(ours) for side in (articles, summaries)]


def _text_names(folder: Path) -> set[Path]:
    names = {file.relative_to(folder) for file in folder.rglob("*") if format_of(file) == TEXT}
    return {name for name in names if not any(part.startswith(".") for part in name.parts)}


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
