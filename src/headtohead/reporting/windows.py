"""Variants that differ only in the width of their window, as curves over that width."""

from collections.abc import Sequence
from dataclasses import dataclass

from headtohead.attention import AttentionSpec
from headtohead.reporting.results import Results, Variant

LEAST = 3  # widths make a curve

Layers = tuple[AttentionSpec, ...]


@dataclass(frozen=True)
class Curve:
    """`points` are widths with their variants, the narrowest first; `full` has full attention instead of the window."""

    label: str
    points: Sequence[tuple[int, Variant]]
    full: Variant | None


def curves(results: Results) -> list[Curve]:
    """A curve for each group of variants that differ only in the width of the window."""
    computed: dict[Layers, Variant] = {}  # the first kernel of each function
    for variant in results.variants:
        layers = tuple(layer.function for layer in variant.spec.depth(results.layers))
        computed.setdefault(layers, variant)
    families: dict[Layers, list[tuple[int, Variant]]] = {}
    for layers, variant in computed.items():
        widths = {layer.numbers["window"] for layer in layers if "window" in layer.numbers}
        if len(widths) == 1:
            families.setdefault(_without_width(layers), []).append((*widths, variant))
    return [Curve(_label(layers), sorted(points, key=lambda point: point[0]), computed.get(_widened(layers)))
            for layers, points in families.items() if len(points) >= LEAST]


def _without_width(layers: Layers) -> Layers:
    return tuple(layer.model_copy(update={"window": 0}) if "window" in layer.numbers else layer for layer in layers)


def _widened(layers: Layers) -> Layers:
    """With full attention instead of every window."""
    return tuple(AttentionSpec(kernel=layer.kernel, positions=layer.positions) if "window" in layer.numbers else layer
                 for layer in layers)


def _label(layers: Layers) -> str:
    """"3 of 4 layers", and what is unusual about the variants."""
    [first, *more] = [layer for layer in layers if "window" in layer.numbers]
    where = "every layer" if 1 + len(more) == len(layers) else f"{1 + len(more)} of {len(layers)} layers"
    return ", ".join([where, *[first.positions] * (first.positions != "learned"),
                      *[first.pattern] * (first.pattern != "window")])
