"""Who sees whom, as pictures. `python -m headtohead.reporting.patterns FILE.svg` draws the variants of params.yaml."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headtohead.attention import AttentionSpec
from headtohead.attention.patterns import Pattern
from headtohead.params import read_params
from headtohead.reporting import drawing

LENGTHS = range(32, 257, 32)
SHOWN = 0.6  # of the pairs at most are seen at a length that shows a pattern: three windows
COLUMNS = 4  # of pictures; no function has more
LAYERS = 4  # of the model whose patterns the documents show

Picture = tuple[AttentionSpec, str]  # one layer's, and what stands above it


def who_sees_whom(variants: Mapping[str, AttentionSpec], layers: int) -> Figure:
    """A picture for each function, or for each pattern among its layers; kernels of one function share it."""
    rows = _in_rows([_pictures(names, variants[names[0]].depth(layers)) for names in _functions(variants)])
    length = common_length(spec.visibility for row in rows for spec, _ in row)
    heights = [1.3 + 0.13 * drawing.lines([title for _, title in row]) for row in rows]
    figure = Figure(figsize=(drawing.WIDTH, sum(heights)), layout="compressed")
    grid = figure.subplots(len(rows), COLUMNS, squeeze=False)
    for places, row in zip(grid, rows, strict=True):
        for axes in places[len(row):]:
            axes.set_axis_off()
        for axes, (spec, title) in zip(places, row, strict=False):
            _draw(axes, spec, title, length)
    return figure


def common_length(patterns: Iterable[Pattern]) -> int:
    """The shortest length that shows each pattern, ignoring patterns that none of `LENGTHS` shows."""
    needed = (next((length for length in LENGTHS if _seen(pattern, length) <= SHOWN), 0) for pattern in patterns)
    return max(needed, default=0) or LENGTHS[-1]


def _seen(pattern: Pattern, length: int) -> float:
    return pattern.pairs(length, length) * 2 / (length * (length + 1))


def _functions(variants: Mapping[str, AttentionSpec]) -> list[list[str]]:
    """The names of each function's kernels."""
    names: dict[AttentionSpec, list[str]] = {}
    for name, spec in variants.items():
        names.setdefault(spec.function, []).append(name)
    return list(names.values())


def _pictures(names: Sequence[str], layers: Sequence[AttentionSpec]) -> list[Picture]:
    """One for each pattern among the layers, up to `COLUMNS`, with the numbers of the layers that have it."""
    numbers: dict[AttentionSpec, list[int]] = {}
    for number, spec in enumerate(layers, 1):
        numbers.setdefault(spec.function, []).append(number)
    name, shown = drawing.wrapped(", ".join(names)), list(numbers.items())[:COLUMNS]
    if len(numbers) == 1:
        return [(spec, name) for spec, _ in shown]
    labels = [_layers(own) for _, own in shown]
    labels[-1] += ", and so on" * (len(numbers) > COLUMNS)
    return [(spec, f"{name}\n{label}" if place == 0 else label)
            for place, ((spec, _), label) in enumerate(zip(shown, labels, strict=True))]


def _layers(numbers: Sequence[int]) -> str:
    """"layers 1-3, 5"."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    parts = [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    return f"layer{'s' * (len(numbers) > 1)} {', '.join(parts)}"


def _in_rows(groups: Sequence[list[Picture]]) -> list[list[Picture]]:
    """A function's pictures stay in one row."""
    rows: list[list[Picture]] = [[]]
    for group in groups:
        if len(rows[-1]) + len(group) > COLUMNS:
            rows.append([])
        rows[-1] += group
    return rows


def _draw(axes: Axes, spec: AttentionSpec, title: str, length: int) -> None:
    spec.visibility.draw(axes, length)
    axes.set_title(title, fontsize=8)
    if spec.kernel == "performer":
        axes.images[0].set_alpha(0.4)
        axes.text(0.05, 0.05, "all,\napproximately", transform=axes.transAxes, fontsize=8)


def main(file: str) -> None:
    """Draw the variants of params.yaml into a file, as layers of a model of `LAYERS`."""
    target = Path(file)
    drawing.save({target.stem: partial(who_sees_whom, read_params().variants, LAYERS)}, target.parent)


if __name__ == "__main__":
    main(*sys.argv[1:])
