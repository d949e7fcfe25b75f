"""The articles of a run: train, validation and test from the chosen source, no article in two of them."""

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from headtohead.articles.cleaning import Cleaner, Tally
from headtohead.articles.files import Table
from headtohead.articles.folders import locate
from headtohead.articles.formats import TEXT, format_of
from headtohead.articles.texts import Texts
from headtohead.params import Data
from headtohead.records import DataError, Record

Splits = dict[str, Iterator[Record]]
ORDER = ("test", "validation", "train")  # an article that is in two of them is kept in the first
LONGER = 100  # reports at most in each longer test set: summarizing them takes most of the time on a CPU


def open_splits(data: Data, seed: int, on_row: Callable[[], object] = lambda: None) -> tuple[Splits, list[Tally]]:
    """The splits that `data` asks for, and from newswire further test sets beside them; each is read only once.

    Args:
        on_row: called for every row of the input.

    Returns:
        Splits by name ("test", "validation", "train", "test-2x", ...), to be read in this order, and the tallies of the
        input's rows, complete after all splits have been read.

    Raises:
        DataError: the input cannot be read, or holds too few articles; from the hub only when a split is read.
    """
    if data.source == "newswire":
        return _newswire(data, seed), []
    return _hub(data, seed, on_row) if data.source == "hub" else _files(data, seed, on_row)


def usable(data: Data, seed: int, on_row: Callable[[], object] = lambda: None
           ) -> Iterator[tuple[str, Tally, Iterator[Record]]]:
    """The usable articles of each input, before any is sampled: its name, its tally and its rows.

    Names are those of the splits that the input has, or "all". Read each one's rows before the next is asked for: an
    article that is in two is kept in the first.

    Raises:
        DataError: the input cannot be read.
    """
    cleaner, files = Cleaner(), {} if data.source == "hub" else locate(data)
    for name in ORDER if data.source == "hub" else [name for name in (*ORDER, "all") if name in files]:
        if data.source == "hub":
            from headtohead.articles.hub import stream
            assert data.hub is not None  # the parameters' validator saw to it
            tally = Tally(f"{name} of {data.hub.name}", "the hub")
            rows = stream(data.hub, name, data.article, data.summary, seed)
        else:
            tables = _tables(files[name], data)
            tally = Tally(_name(files[name]), " and ".join(dict.fromkeys(table.read_as for table in tables)))
            rows = _rows(tables)
        yield name, tally, (row for _, row in cleaner.clean(_watched(rows, on_row), tally))


def _newswire(data: Data, seed: int) -> Splits:
    from headtohead.articles.newswire import KINDS, moved, newswire
    assert data.newswire is not None  # the parameters' validator saw to it
    settings = data.newswire.model_dump(include={"words", "distractors"})
    splits = {split: newswire(split, getattr(data, split), seed=seed, **settings) for split in ORDER}
    longer = {f"test-{scale}x": newswire("test", min(data.test, LONGER), seed=seed, scale=scale, **settings)
              for scale in data.newswire.longer}
    stories = max(data.test // 10, len(KINDS))
    return splits | longer | {"test-moved": moved(stories, seed=seed, **settings)}


def _hub(data: Data, seed: int, on_row: Callable[[], object]) -> tuple[Splits, list[Tally]]:
    from headtohead.articles.hub import check_reachable, stream
    hub = data.hub
    assert hub is not None  # the parameters' validator saw to it
    check_reachable(hub)
    cleaner, tallies = Cleaner(), {split: Tally(f"{split} of {hub.name}", "the hub") for split in ORDER}

    def read(split: str, tally: Tally) -> Iterator[Record]:
        rows = _watched(stream(hub, split, data.article, data.summary, seed), on_row)
        for _, row in islice(cleaner.clean(rows, tally), getattr(data, split)):
            tally.used += 1
            yield row
        _check_enough({split: getattr(data, split)}, tally)

    return {split: read(split, tally) for split, tally in tallies.items()}, list(tallies.values())


def _files(data: Data, seed: int, on_row: Callable[[], object]) -> tuple[Splits, list[Tally]]:
    """Each file is read twice, to find the rows to keep and then to sample them, so that no rows are held in memory."""
    files, cleaner = locate(data), Cleaner()
    splits: Splits = {}
    tallies: list[Tally] = []
    for name in (name for name in (*ORDER, "all") if name in files):
        tables = _tables(files[name], data)
        tally = Tally(_name(files[name]), " and ".join(dict.fromkeys(table.read_as for table in tables)))
        kept = [position for position, _ in cleaner.clean(_watched(_rows(tables), on_row), tally)]
        wanted = {split: getattr(data, split) for split in (ORDER if name == "all" else (name,))}
        _check_enough(wanted, tally)
        tally.used = sum(wanted.values())
        drawn = iter(random.Random(seed).sample(kept, tally.used))
        splits |= {split: _rows_at(tables, set(islice(drawn, count))) for split, count in wanted.items()}
        tallies.append(tally)
    return splits, tallies


def _check_enough(wanted: dict[str, int], tally: Tally) -> None:
    if tally.kept < sum(wanted.values()):
        asked = " and ".join(f"data.{split}" for split in wanted) + (" ask" if len(wanted) > 1 else " asks")
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.dropped.items())
        raise DataError(f"{tally.name} has {tally.kept:,} articles to use, of {tally.rows:,} rows"
                        + (f" after dropping {reasons}" if reasons else "")
                        + f"; {asked} for {sum(wanted.values()):,}. Ask for fewer or bring more")


def _tables(files: list[Path], data: Data) -> list[Table] | list[Texts]:
    if format_of(files[0]) == TEXT:
        return [Texts(files, data.encoding)]
    return [Table(file, data.article, data.summary, data.encoding) for file in files]


def _name(files: list[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1:,} more"


def _rows(tables: list[Table] | list[Texts]) -> Iterator[Record]:
    count = 0
    for table in tables:
        for row in table.rows(before=count):
            yield row
            count += 1


def _rows_at(tables: list[Table] | list[Texts], positions: set[int]) -> Iterator[Record]:
    return (row for position, row in enumerate(_rows(tables)) if position in positions)


def _watched(rows: Iterator[Record], on_row: Callable[[], object]) -> Iterator[Record]:
    for row in rows:
        on_row()
        yield row
