"""Articles from the Hugging Face hub."""

from headtohead.data.records import DataError, Record
from headtohead.params import Hub

BUFFER = 10_000  # articles shuffled at a time while streaming


def read_split(hub: Hub, split: str, count: int, article: str, summary: str, seed: int) -> list[Record]:
    """`count` articles of one split, sampled by seed, streamed so that no more is downloaded than needed.

    Raises:
        DataError: the hub cannot be reached, or has no such data set, split or column.
    """
    import datasets
    try:
        rows = datasets.load_dataset(hub.name, hub.config, revision=hub.revision, split=split, streaming=True)
        taken = list(rows.shuffle(seed=seed, buffer_size=BUFFER).take(count))
        return [{"id": str(row.get("id", number)), "article": row[article].strip(), "summary": row[summary].strip()}
                for number, row in enumerate(taken, 1)]
    except KeyError as error:
        raise DataError(f"{hub.name} has no column {error} (data.article, data.summary)") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{hub.name} ({hub.config}, {split}) cannot be read from the hub: {error}. Without a network "
                        "use data.source files with a local copy, or newswire") from error
