"""Articles from the Hugging Face hub."""

from collections.abc import Iterator

from headtohead.data.records import DataError, Record
from headtohead.params import Hub

BUFFER = 1_000  # articles shuffled at a time, from ten places of the split at once
PATIENCE = 5.0  # seconds to wait for the hub's first answer


def stream(hub: Hub, split: str, article: str, summary: str, seed: int) -> Iterator[Record]:
    """The articles of one split in an order given by the seed; what is not asked for is not downloaded.

    Raises:
        DataError: the hub cannot be reached, or has no such data set, split or column.
    """
    import datasets
    from huggingface_hub.errors import HfHubHTTPError
    try:
        rows = datasets.load_dataset(hub.name, hub.config, revision=hub.revision, split=split, streaming=True)
        for number, row in enumerate(rows.reshard().shuffle(seed=seed, buffer_size=BUFFER), 1):
            yield {"id": str(row.get("id", number)), "article": (row[article] or "").strip(),
                   "summary": (row[summary] or "").strip()}
    except KeyError as error:
        raise DataError(f"{hub.name} has no column {error} (data.article, data.summary); its columns are "
                        f"{', '.join(row)}") from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise DataError(f"{hub.name} ({hub.config}, {split}) cannot be read from the hub: {error}") from error


def check_reachable(hub: Hub) -> None:
    """Ask the hub for the data set once, briefly: the library itself would try for half a minute.

    Raises:
        DataError: no answer, or there is no such data set or revision.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    try:
        HfApi().dataset_info(hub.name, revision=hub.revision, timeout=PATIENCE)
    except HfHubHTTPError as error:
        raise DataError(f"the hub refuses {hub.name}, revision {hub.revision} (data.hub): "
                        f"{str(error).splitlines()[0]}") from error
    except (OSError, ValueError, httpx.HTTPError, OfflineModeIsEnabled) as error:
        raise DataError(f"{hub.name} cannot be read: the hub does not answer ({error}). Without a network use "
                        "data.source: files with a local copy (data.path), or the default preset, laptop, whose "
                        "articles are bundled") from error
