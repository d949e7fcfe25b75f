"""The benchmark's page: FOLDER/README.md and its figures, made of bench.json and about.json alone."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from headtohead.benchmark import figures
from headtohead.benchmark.curves import crossings, curves
from headtohead.benchmark.plan import LIBRARIES, OURS, TRANSFORMERS
from headtohead.benchmark.rows import ABOUT, ROWS, Row, read_about, read_rows, size_in_words
from headtohead.records import DataError
from headtohead.reporting.page import fill
from headtohead.reporting.tables import NOTHING, Table, joined, short

PAGE = "README.md"
SIZE = ("work", "batch", "length", "new_tokens", "beams")  # what tells one point from another
BY_LENGTH = ("forward", "peak_memory", "attention", "attention_backward")


def render(folder: Path) -> None:
    """Write FOLDER/README.md and the figures beside it; the same bytes for the same two files.

    Raises:
        DataError: one of the two files is missing or cannot be used; or the page cannot be written.
    """
    rows, about = read_rows(folder), read_about(folder)
    models = about.get("models", [about["plan"]])  # earlier files have the numbers of their one model in the plan
    kind = "sizes" if len(models) > 1 else "family" if about["plan"].get("family") else "study"
    try:
        if kind == "sizes":
            drawn = figures.draw_sizes(rows, {model["name"]: model["parameters"] for model in models}, folder)
            own = _sizes(rows, sorted(models, key=lambda model: int(model["parameters"])))
        elif kind == "family":
            drawn, own = figures.draw_family(rows, folder), {"works": by_work(rows)}
        else:
            drawn, own = figures.draw_all(rows, folder), _study(rows, about)
        text = fill("page.md.jinja", __package__, about=about, files=(ROWS, ABOUT), drawn=drawn, kind=kind,
                    models=models, all_rows=all_rows(rows, kind == "sizes"), name=_device(about), **own)
        (folder / PAGE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{error.filename or folder} cannot be written: {error.strerror}") from error


def _study(rows: Sequence[Row], about: Row) -> dict[str, Any]:
    """The tables of the study's four."""
    headline = [_size(point) for point in about["headline"]]
    return {"headline": compared(rows, headline), "further": compared(rows, _others(rows, headline)),
            "attention": attention(rows), "crossed": crossed(rows)}


def _sizes(rows: Sequence[Row], models: Sequence[Row]) -> dict[str, Any]:
    """What the page of several models says; `models` are in order, the smallest first."""
    works: dict[str, list[tuple[Table, str]]] = {}
    for own in _by_size(rows):
        works.setdefault(own[0]["work"], []).append((by_model(own, models), size_in_words(own[0])))
    table = [[model["name"], *(f"{model[name]:,}" for name in ("layers", "heads", "width")), _millions(model)]
             for model in models]
    return {"works": works, "sentences": [grown(rows, models), beside_flash(rows, models)],
            "architectures": Table(["model", "layers", "heads", "width", "parameters, M"], table)}


def by_model(rows: Sequence[Row], models: Sequence[Row]) -> Table:
    """One work at one size: for each model the median of each variant and its ratio to flash."""
    variants = _variants(rows)
    header = [cell for variant in variants for cell in (f"{variant}, {rows[0]['unit']}", "/ flash")]
    table = []
    for model in models:
        if own := _of(model, rows):
            cells = [_beside(_find(own, OURS, variant), _find(own, OURS, "flash")) for variant in variants]
            table.append([model["name"], _millions(model), *chain(*cells)])
    return Table(["model", "parameters, M", *header], table)


def grown(rows: Sequence[Row], models: Sequence[Row]) -> str:
    """How much longer flash takes in the largest model than in the smallest; empty if they are not measured."""
    small, large = models[0], models[-1]
    parts = []
    for own in _by_size(row for row in rows if row["unit"] == "ms"):
        before, after = (_find(_of(model, own), OURS, "flash") for model in (small, large))
        if (ratio := _ratio(after, before, digits=1)) != NOTHING:
            parts.append(f"{_cell(after)} ms for {_in_words(own[0], unit=False)} ({ratio} times as long)")
    if not parts:
        return ""
    return (f"{large['name']} has {large['parameters'] / small['parameters']:.1f} times the parameters of "
            f"{small['name']}. With flash it takes {joined(parts)}.")


def beside_flash(rows: Sequence[Row], models: Sequence[Row]) -> str:
    """The variants beside flash in the longest forward pass, in the largest and the smallest model; may be empty."""
    forward = [row for row in rows if row["work"] == "forward"]
    longest = [row for row in forward if row["length"] == max(row["length"] for row in forward)]
    parts = []
    for model in (models[-1], models[0]):
        own = _of(model, longest)
        ratios = {variant: _ratio(_find(own, OURS, variant), _find(own, OURS, "flash")) for variant in _variants(own)}
        told = [f"{variant} {ratio}" for variant, ratio in ratios.items() if variant != "flash" and ratio != NOTHING]
        if told:
            parts.append(f"in {model['name']} {joined(told)}")
    return f"Time over that of flash, {_in_words(longest[0], unit=False)}: {'; '.join(parts)}." if parts else ""


def _of(model: Row, rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["model"] == model["name"]]


def _millions(model: Row) -> str:
    return f"{model['parameters'] / 1e6:,.0f}"


def _by_size(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of each work at each size, in the order of the rows."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(_size(row), []).append(row)
    return list(found.values())


def by_work(rows: Sequence[Row]) -> dict[str, tuple[Table, str]]:
    """For each work of the family its table and in words its sizes."""
    works: dict[str, list[Row]] = {}
    for row in rows:
        works.setdefault(row["work"], []).append(row)
    return {work: ((by_share if work.startswith("attention") else by_variant)(own), _sizes_in_words(own))
            for work, own in works.items()}


def by_variant(rows: Sequence[Row]) -> Table:
    """One work of ours: at each size the median of each variant and its ratio to flash, and the last over the first."""
    sizes = _by_size(rows)
    header = [cell for own in sizes for cell in (f"{size_in_words(own[0])}, {own[0]['unit']}", "/ flash")]
    table = []
    for variant in _variants(rows):
        cells = [_beside(_find(own, OURS, variant), _find(own, OURS, "flash")) for own in sizes]
        growth = [_ratio(_find(sizes[-1], OURS, variant), _find(sizes[0], OURS, variant))] if len(sizes) > 1 else []
        table.append([variant, *chain(*cells), *growth])
    if len(sizes) > 1:
        header.append(f"{sizes[-1][0]['length']:,} / {sizes[0][0]['length']:,}")
    return Table(["variant", *header], table)


def by_share(rows: Sequence[Row]) -> Table:
    """Attention of ours beside what its share of blocks would take of flash's time, and beside a library's."""
    rivals = list(dict.fromkeys(row["implementation"] for row in rows if row["implementation"] != OURS))
    full = _find(rows, OURS, "flash")
    table = []
    for variant in _variants(rows):
        mine, direct = _find(rows, OURS, variant), [_find(rows, rival, variant) for rival in rivals]
        table.append([variant, _backend(mine), *_beside(mine, full), *_at_its_share(mine, full), *map(_cell, direct),
                      *(_ratio(mine, row) for row in direct)])
    return Table(["variant", "ours runs", "ours, ms", "/ flash", "share of blocks", "share x flash, ms",
                  *(f"{rival}, ms" for rival in rivals), *(f"ours / {rival}" for rival in rivals)], table, words=2)


def _beside(row: Row | None, other: Row | None) -> tuple[str, str]:
    """The median, and its ratio to another one, which may be many times as large."""
    return _cell(row), _ratio(row, other, digits=3)


def _at_its_share(row: Row | None, full: Row | None) -> tuple[str, str]:
    """The share of blocks, and that share of full attention's time."""
    if row is None or "share" not in row:
        return NOTHING, NOTHING
    return f"{row['share']:.3f}", short(row["share"] * full["median"]) if full and full["median"] else NOTHING


def _backend(row: Row | None) -> str:
    """None where memory did not suffice."""
    return row.get("backend", NOTHING) if row else NOTHING


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
        table.append([_in_words(own[0], unit=False), own[0]["variant"], _backend(mine), *map(_cell, [mine, *direct]),
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


def all_rows(rows: Sequence[Row], several: bool) -> Table:
    """Every row, in the file's order; `several` models are named."""
    return Table(["", *(["model"] if several else []), "variant", "implementation", "backend", "median (p10 to p90)",
                  "unit", "repeats"],
                 [[_in_words(row, unit=False), *([row["model"]] if several else []), row["variant"],
                   row["implementation"], row.get("backend", NOTHING), _with_range(row), row["unit"],
                   str(row["repeats"])] for row in rows], words=5 if several else 4)


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
    beams = f", {row['beams']} beams" if row.get("beams", 1) > 1 else ""
    size = f"{row['work'].replace('_', ' ')}, {size_in_words(row)}{beams}"
    return f"{size}, {row['unit']}" if unit else size


def _sizes_in_words(rows: Iterable[Row]) -> str:
    return joined(list(dict.fromkeys(map(size_in_words, rows))))


def _cell(row: Row | None) -> str:
    if row is None:
        return NOTHING
    return "out of memory" if row["median"] is None else short(row["median"])


def _with_range(row: Row) -> str:
    if row["median"] is None or row["repeats"] == 1:
        return _cell(row)
    return f"{_cell(row)} ({short(row['p10'])}\u00a0to\u00a0{short(row['p90'])})"


def _ratio(one: Row | None, other: Row | None, digits: int = 2) -> str:
    if one is None or other is None or one["median"] is None or not other["median"]:
        return NOTHING
    return f"{one['median'] / other['median']:.{digits}f}"


def _device(about: Row) -> str:
    device = about["device"]
    return str(device["gpu"] or f"{device['processor']}, {device['cores']} cores")
