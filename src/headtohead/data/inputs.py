"""Which files a run reads, and what identifies them; opens no table, so that `fingerprint` stays quick."""

import hashlib
from pathlib import Path

from headtohead.data.records import DataError

SUFFIXES = (".csv", ".jsonl", ".parquet")
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def resolve(path: str, here: Path | None = None) -> Path:
    """An input path, relative to the workspace. Queued experiments run in a copy of it, under .dvc/tmp/exps."""
    here = here or Path.cwd()
    for parent in (here, *here.parents):
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return parent.parents[2] / path
    return here / path


def locate(path: str) -> dict[str, Path]:
    """The files behind a path: {"all": file}, or {"train", "validation", "test"} of a folder.

    Raises:
        DataError: nothing is there, a format is unknown, or a folder lacks a split or has it twice.
    """
    found = resolve(path)
    if found.is_file():
        if found.suffix not in SUFFIXES:
            raise DataError(f"{path}: format {found.suffix or '(none)'} is unknown; there are {', '.join(SUFFIXES)}")
        return {"all": found}
    if not found.is_dir():
        raise DataError(f"{path}: no such file or folder (data.path; looked at {found})")
    return {split: _split_file(found, split) for split in SPLITS}


def _split_file(folder: Path, split: str) -> Path:
    files = [file for name in SPLITS[split] for suffix in SUFFIXES if (file := folder / (name + suffix)).is_file()]
    if len(files) != 1:
        what = "both " + " and ".join(f.name for f in files) if files else f"no {split} file ({', '.join(SUFFIXES)})"
        raise DataError(f"{folder} has {what}; a folder needs exactly one each of train, validation and test")
    return files[0]


def pretrained_source(pretrained: str) -> str:
    """Where to load a pretrained model from: its folder, if it names one in the workspace, else the hub's name."""
    folder = resolve(pretrained)
    return str(folder) if folder.is_dir() else pretrained


def pretrained_files(pretrained: str) -> dict[str, Path]:
    """The files of a pretrained model's local folder by name; none of a model on the hub."""
    return {file.name: file for file in sorted(Path(pretrained_source(pretrained)).glob("*")) if file.is_file()}


def identity(files: dict[str, Path]) -> dict[str, dict[str, str | int]]:
    """Name, size and SHA-256 of each file: the same wherever the files lie."""
    return {key: {"name": file.name, "bytes": file.stat().st_size, "sha256": _sha256(file)}
            for key, file in files.items()}


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
