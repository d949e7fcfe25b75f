"""Where a run's inputs are, and what identifies them; opens no table, so that `fingerprint` stays quick."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from headtohead.paths import SUBSET
from headtohead.records import DataError

SETTINGS = ("config.json", "generation_config.json")
PRETRAINED = (*SETTINGS, "model*.safetensors*", "tokenizer*", "vocab*", "merges.txt", "*.model", "added_tokens.json",
              "special_tokens_map.json")  # no pickles
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",), ("*.model",))  # one is needed
PATIENCE = 5.0  # seconds to wait for the hub's first answer


def resolve(path: str, here: Path | None = None) -> Path:
    """An input path, relative to the workspace; in an experiment's copy of it, relative to the original workspace.

    DVC clones the git repository into PROJECT/.dvc/tmp/exps, whether that is the project, within it or around it.
    """
    here = here or Path.cwd()
    clone = _git_root(here)
    copies = clone.parent.parent if clone.parent.name == "standalone" else clone.parent  # those of --temp are apart
    if copies.parts[-3:] == (".dvc", "tmp", "exps"):
        here = _git_root(copies.parents[2]) / here.relative_to(clone)
    return here / path


def _git_root(here: Path) -> Path:
    """The nearest folder that is a git repository; `here` if there is none."""
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def pretrained_source(pretrained: str) -> str:
    """The folder of a pretrained model: one in the workspace, else the hub's NAME or NAME@REVISION, downloaded once.

    Raises:
        DataError: there is no such folder, and the hub does not have it or does not answer; or it has no tokenizer.
    """
    folder = resolve(pretrained)
    if folder.is_dir():
        return str(_with_tokenizer(folder))
    try:
        downloaded = _from_hub(pretrained, PRETRAINED)
    except hub_errors() as error:
        raise DataError(f"model.pretrained {pretrained}: no such folder (looked at {folder}), and the hub does not "
                        f"give it: {in_one_line(error)}") from error
    return str(_with_tokenizer(Path(downloaded)))


def settings_folder(pretrained: str) -> Path | None:
    """Where a pretrained model's settings are: its own folder, else what the hub gives; None if it does not."""
    folder = resolve(pretrained)
    if folder.is_dir():
        return folder
    with suppress(*hub_errors()):
        return Path(_from_hub(pretrained, SETTINGS))
    return None


def _from_hub(pretrained: str, files: Sequence[str]) -> str:
    """The folder of a model from the hub: downloaded now, or an earlier download if the hub does not answer."""
    from huggingface_hub import HfApi, snapshot_download
    name, _, at = pretrained.partition("@")
    revision = at or None
    fetch = partial(snapshot_download, name, revision=revision, allow_patterns=list(files))
    try:
        there = HfApi().model_info(name, revision=revision, timeout=PATIENCE).siblings  # a download would wait forever
    except hub_errors():
        with suppress(OSError):
            return fetch(local_files_only=True)
        raise
    if not any(file.rfilename.endswith(".safetensors") for file in there or []):
        raise ValueError("it has no weights in safetensors, and pickled ones can run any code when they are opened")
    return fetch()


def hub_errors() -> tuple[type[Exception], ...]:
    """What the hub's libraries raise when it refuses or does not answer, whichever HTTP client they use."""
    from huggingface_hub import errors
    client = errors.HTTPError  # type: ignore[attr-defined]  # httpx's, from huggingface_hub 2 on httpx2's
    return OSError, ValueError, RuntimeError, client  # RuntimeError: a data set that is a script, no longer run


def in_one_line(error: Exception) -> str:
    """The first line of an error from the hub's libraries, except a bare status line, which says nothing."""
    lines = (line for line in str(error).splitlines() if line.strip() and "Client Error." not in line)
    return next(lines, type(error).__name__)


def _with_tokenizer(folder: Path) -> Path:
    """The folder itself, if it has a tokenizer's files; without any, transformers would make an empty tokenizer."""
    if not any(all(any(folder.glob(name)) for name in names) for names in VOCABULARIES):
        raise DataError(f"{folder} has no tokenizer: none of {', '.join(map(' with '.join, VOCABULARIES))}; put the "
                        "files of the tokenizer that the model was trained with beside it")
    return folder


def pretrained_files(pretrained: str) -> dict[str, Path]:
    """The files of a pretrained model's local folder by name; empty for a model on the hub.

    Raises:
        DataError: the folder has no tokenizer.
    """
    folder = resolve(pretrained)
    if not folder.is_dir():
        return {}
    return {file.name: file for file in sorted(_with_tokenizer(folder).iterdir()) if file.is_file()}


def identity(files: dict[str, Path]) -> dict[str, dict[str, str | int]]:
    """Name, size and SHA-256 of each file, independent of where the files are."""
    return {key: {"name": file.name, "bytes": file.stat().st_size, "sha256": _sha256(file)}
            for key, file in files.items()}


def run_identity(preset: str) -> dict[str, str]:
    """What all results of a run share: its preset and its test articles."""
    return {"preset": preset, "data": _sha256(SUBSET / "test.jsonl")}


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
