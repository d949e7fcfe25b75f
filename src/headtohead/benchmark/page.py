"""The benchmark's page: FOLDER/README.md and its figures, made of bench.json and about.json alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from headtohead.benchmark import figures
from headtohead.benchmark.curves import crossings, curves
from headtohead.benchmark.plan import LIBRARIES, OURS, TRANSFORMERS
from headtohead.benchmark.rows import ABOUT, ROWS, Row, read_about, read_rows
from headtohead.records import DataError
from headtohead.reporting.page import fill
from headtohead.reporting.tables import NOTHING, Table, short

PAGE = "README.md"
SIZE = ("work", "batch", "length", "new_tokens", "beams")  # what tells one point from another
BY_LENGTH = ("forward", "peak_memory", "attention", "attention_backward")


def render(folder: Path) -> None:
    """Write FOLDER/README.md and the figures beside it; the same bytes for the same two files.

    Raises:
        DataError: one of the two files is missing or cannot be used; or the page cannot be written.
    """
    rows, about = read_rows(folder), read_about(folder)
    headline = [_size(point) for point in about["headline"]]
    try:
        drawn = figures.draw_all(rows, folder)
        text = fill("page.md.jinja", __package__, rows=rows, about=about, files=(ROWS, ABOUT), drawn=drawn,
                    headline=compared(rows, headline), further=compared(rows, _others(rows, headline)),
                    attention=attention(rows), crossed=crossed(rows), all_rows=all_rows(rows), name=_device(about))
        (folder / PAGE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{error.filename or folder} cannot be written: {error.strerror}") from error


def compared(rows: Sequence[Row], sizes: Iterable[tuple[Any, ...]]) -> Table:
    """Medians at each size: transformers' two, each variant of ours, and two ratios."""
    variants = _variants(rows)
    names = [*((who, None) for who in TRANSFORMERS), *((OURS, variant) for variant in variants)]
    table = []
    for size in sizes:
        own = [row for row in rows if _size(row) == size]
        if own:
            cells = [_cell(_find(own, *name)) for name in names]
            table.append([_in_words(own[0]), *cells,
                          _ratio(_find(own, TRANSFORMERS[0]), _find(own, OURS, "flash")),
                          _ratio(_find(own, OURS, "flash_alibi"), _find(own, OURS, "flash"))])
    return Table(["", "transformers eager", "transformers sdpa", *variants, "eager / flash", "flash_alibi / flash"],
                 table)


def attention(rows: Sequence[Row]) -> Table:
    """Attention alone: ours, the libraries called directly, and ours over the faster of flash-attn and flex."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["work"] in ("attention", "attention_backward"):
            groups.setdefault((_size(row), row["variant"]), []).append(row)
    table = []
    for own in groups.values():
        mine, direct = _find(own, OURS), [_find(own, library) for library in LIBRARIES]
        fastest = min((row for row in direct[:2] if row and row["median"]), key=lambda row: row["median"], default=None)
        backend = mine["backend"] if mine and "backend" in mine else NOTHING  # none where memory did not suffice
        table.append([_in_words(own[0], unit=False), own[0]["variant"], backend, *map(_cell, [mine, *direct]),
                      _ratio(mine, fastest)])
    return Table(["", "variant", "ours runs", "ours", *LIBRARIES, "ours / faster of flash-attn, flex"], table, words=3)


def crossed(rows: Sequence[Row]) -> Table:
    """Where two lines change places, in whole tokens."""
    table = [[f"{work.replace('_', ' ')}, batch {batch}", before, after, f"{length:,.0f}"]
             for (work, batch, _), own in _lines(rows).items() for before, after, length in crossings(curves(own))]
    return Table(["", "lower before", "lower after", "about, tokens"], table, words=3)


def _lines(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """What is to be compared: whole models all with each other; attention alone by variant, and ours with ours."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        attention = row["work"].startswith("attention")
        for who in {row["variant"], row["implementation"]} & {row["variant"], OURS} if attention else {""}:
            groups.setdefault((row["work"], row["batch"], who), []).append(row)
    return {key: own for key, own in groups.items() if key[0] in BY_LENGTH}


def all_rows(rows: Sequence[Row]) -> Table:
    """Every row, in the file's order."""
    return Table(["", "variant", "implementation", "backend", "median (p10 to p90)", "unit", "repeats"],
                 [[_in_words(row, unit=False), row["variant"], row["implementation"], row.get("backend", NOTHING),
                   _with_range(row), row["unit"], str(row["repeats"])] for row in rows], words=4)


def _size(point: Row) -> tuple[Any, ...]:
    return tuple(point.get(name, 1) for name in SIZE)


def _others(rows: Sequence[Row], headline: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Sizes of whole models that are not in the first table, by work, batch and length."""
    found = {_size(row) for row in rows if not row["work"].startswith("attention")}
    return sorted(found - set(headline))


def _variants(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["variant"] for row in rows if row["implementation"] == OURS))


def _find(rows: Iterable[Row], implementation: str, variant: str | None = None) -> Row | None:
    return next((row for row in rows if row["implementation"] == implementation
                 and variant in (None, row["variant"])), None)


def _in_words(row: Row, unit: bool = True) -> str:
    """"generate, batch 10 x 412 + 100, 5 beams, ms"."""
    out = f" + {row['new_tokens']}" if row["new_tokens"] else ""
    beams = f", {row['beams']} beams" if row.get("beams", 1) > 1 else ""
    size = f"{row['work'].replace('_', ' ')}, {row['batch']} x {row['length']:,}{out}{beams}"
    return f"{size}, {row['unit']}" if unit else size


def _cell(row: Row | None) -> str:
    if row is None:
        return NOTHING
    return "out of memory" if row["median"] is None else short(row["median"])


def _with_range(row: Row) -> str:
    if row["median"] is None or row["repeats"] == 1:
        return _cell(row)
    return f"{_cell(row)} ({short(row['p10'])}\u00a0to\u00a0{short(row['p90'])})"


def _ratio(one: Row | None, other: Row | None) -> str:
    if one is None or other is None or one["median"] is None or not other["median"]:
        return NOTHING
    return f"{one['median'] / other['median']:.2f}"


def _device(about: Row) -> str:
    device = about["device"]
    return str(device["gpu"] or f"{device['processor']}, {device['cores']} cores")
