"""Articles from the Hugging Face hub."""

from collections.abc import Iterator
from typing import Any

from headtohead.inputs import PATIENCE, hub_errors, in_one_line
from headtohead.params import Hub
from headtohead.records import DataError, Record

BUFFER = 1_000  # articles shuffled at a time, from ten places of the split at once
READ_AHEAD = 2**16  # bytes beyond what is asked for; the library's own 5 MB are more than a thousand articles


def stream(hub: Hub, split: str, article: str, summary: str, seed: int) -> Iterator[Record]:
    """The articles of one split in an order given by the seed; only what is needed is downloaded.

    Raises:
        DataError: the hub cannot be reached, or has no such data set, split or column, or no text there.
    """
    for number, row in enumerate(whole_rows(hub, split, seed), 1):
        yield {"id": str(row.get("id", number)), "article": _text(row, article, hub.name),
               "summary": _text(row, summary, hub.name)}


def whole_rows(hub: Hub, split: str, seed: int) -> Iterator[dict[str, Any]]:
    """Every row as the hub has it, in the order of `stream`, which says what it raises."""
    import datasets
    import fsspec  # type: ignore[import-untyped]
    fsspec.config.conf["hf"] = {"block_size": READ_AHEAD}
    try:
        rows = datasets.load_dataset(hub.name, hub.config, revision=hub.revision, split=split, streaming=True)
        yield from rows.reshard().shuffle(seed=seed, buffer_size=BUFFER)
    except hub_errors() as error:
        raise DataError(f"{hub.name} ({hub.config}, {split}) cannot be read from the hub: "
                        f"{in_one_line(error)}") from error


def _text(row: dict[str, Any], column: str, name: str) -> str:
    if column not in row:
        raise DataError(f"{name} has no column {column!r} (data.article, data.summary); its columns are "
                        f"{', '.join(row)}")
    cell = row[column]
    if not isinstance(cell, str | None):
        raise DataError(f"{name}: column {column!r} holds {type(cell).__name__} {str(cell)[:40]!r}, and must hold text")
    return (cell or "").strip()


def check_reachable(hub: Hub) -> None:
    """Ask the hub for the data set once, briefly: the library itself would try for half a minute.

    Raises:
        DataError: no answer, or there is no such data set or revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    try:
        HfApi().dataset_info(hub.name, revision=hub.revision, timeout=PATIENCE)
    except HfHubHTTPError as error:
        raise DataError(f"the hub refuses {hub.name}, revision {hub.revision} (data.hub): "
                        f"{in_one_line(error)}") from error
    except hub_errors() as error:
        raise DataError(f"{hub.name} cannot be read: the hub does not answer ({error}). Without a network use "
                        "data.source: files with a local copy (data.path), or the default preset, laptop, whose "
                        "articles are bundled") from error
