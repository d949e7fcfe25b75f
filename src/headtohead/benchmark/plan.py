"""What the benchmark measures: the model, the sizes of the work, and who does it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from headtohead.attention.patterns import Form
from headtohead.attention.spec import AttentionSpec

OURS = "headtohead"
STANDS_FOR = {"transformers-eager": "standard", "transformers-sdpa": "flash"}  # the same function as which variant
TRANSFORMERS = tuple(STANDS_FOR)
LIBRARIES = ("flash-attn", "flex", "sdpa")  # kernels called directly
POSITIONS = 1024  # of GPT-2 as it was published


@dataclass(frozen=True)
class Point:
    """One size of one work, done by every variant of ours and by `rivals`.

    Args:
        work: forward, generate, decode_step, attention, attention_backward, train_step, peak_memory or cache.
        length: tokens that go in, of each sequence.
        new_tokens, beams, no_repeat_ngram: of generation; one beam is greedy. A decode step is the mean over all of
            `new_tokens` but the first.
        rivals: names in `TRANSFORMERS`, and for attention in `LIBRARIES`.
    """

    work: str
    batch: int
    length: int
    new_tokens: int = 0
    beams: int = 1
    no_repeat_ngram: int = 0
    rivals: tuple[str, ...] = TRANSFORMERS


EAGER = TRANSFORMERS[:1]
HEADLINE = (
    Point("forward", 1, 512),
    Point("generate", 1, 412, 100),
    Point("generate", 64, 412, 100),
    Point("generate", 10, 412, 100, beams=5, no_repeat_ngram=2, rivals=EAGER),  # the study's decoding
    Point("forward", 1, 8192),
    Point("attention", 2, 8192, rivals=LIBRARIES),
    Point("train_step", 64, 512, rivals=EAGER),
    Point("peak_memory", 1, 8192),
)
REST = (
    *(Point("forward", 1, length) for length in (1024, 2048, 4096, 16_384)),
    Point("forward", 64, 512),
    *(Point("peak_memory", 1, length) for length in (512, 2048)),
    *(Point("attention", 2, length, rivals=LIBRARIES) for length in (512, 2048)),
    Point("attention_backward", 2, 8192, rivals=LIBRARIES),
    Point("train_step", 32, 1024, rivals=()),
    Point("train_step", 16, 2048, rivals=()),
)

FAMILY_POINTS = (
    Point("attention", 2, 8192, rivals=("flex",)),
    Point("attention_backward", 2, 8192, rivals=("flex",)),
    Point("forward", 1, 8192, rivals=()),
    Point("forward", 1, 16_384, rivals=()),
    Point("generate", 64, 4000, 100, rivals=()),
    Point("decode_step", 1, 512, 100, rivals=()),
    Point("decode_step", 1, 16_284, 100, rivals=()),
    Point("cache", 1, 8192, rivals=()),
    Point("train_step", 16, 2048, rivals=()),
    Point("train_step", 4, 8192, rivals=()),
)

SIZES_POINTS = (
    Point("forward", 1, 512, rivals=()),
    Point("forward", 1, 8192, rivals=()),
    Point("generate", 1, 412, 100, rivals=()),
    Point("generate", 64, 412, 100, rivals=()),
    Point("train_step", 8, 512, rivals=()),  # XL: about 25 GB of weights, gradients and moments, and 30 of activations
    Point("peak_memory", 1, 8192, rivals=()),
    Point("cache", 1, 8192, rivals=()),
)


def _flash(positions: str = "learned", **rest: Any) -> AttentionSpec:
    return AttentionSpec.model_validate({"kernel": "flash", "positions": positions} | rest)


LOCAL_GLOBAL = [*3 * [{"pattern": "window", "window": 64}], {"pattern": "full"}]
FAMILY = {  # with numbers for 8,192 tokens; those of params.yaml are for short articles
    "flash": _flash(),
    "flash_alibi": _flash("alibi"),
    "flash_rope": _flash("rope"),
    "flash_window": _flash(pattern="window", window=128),
    "flash_block": _flash(pattern="block", block=128),
    "flash_longformer": _flash(pattern="longformer", window=128, globals=64),
    "flash_bigbird": _flash(pattern="bigbird", block=128, window_blocks=3, global_blocks=1, random_blocks=2),
    "flash_strided": _flash(pattern="strided", stride=64),
    "flash_local_global": _flash(layers=LOCAL_GLOBAL),
    "flash_alibi_local_global": _flash("alibi", layers=LOCAL_GLOBAL),
    "flash_performer": _flash(kernel="performer", features=128),
}


@dataclass(frozen=True)
class Architecture:
    """A GPT-2 by its name on the hub: layers, heads in each, and width."""

    name: str
    layers: int
    heads: int
    width: int

    def parameters(self, vocabulary: int) -> int:
        """How many it has with learned positions for as many tokens as GPT-2 takes."""
        block = 12 * self.width**2 + 13 * self.width  # two norms, four matrices and their biases
        return (vocabulary + POSITIONS) * self.width + self.layers * block + 2 * self.width


SMALL = Architecture("gpt2", 12, 12, 768)
MODELS = (Architecture("gpt2-xl", 48, 25, 1600), Architecture("gpt2-large", 36, 20, 1280),
          Architecture("gpt2-medium", 24, 16, 1024), SMALL)  # the largest first, in case that the run is cut off


@dataclass(frozen=True)
class Plan:
    """All numbers of the benchmark; those that stand here are of the published one, on GPT-2 small.

    Args:
        variants: ours, by name.
        models: that the variants are put into, in the order in which they are measured. The page of several holds each
            variant against `flash` by the model's size.
        family: whether the page is to hold each variant against `flash`, and not the study's four against transformers.
        headline: the points of the page's first table; they are measured first.
        dtype: of the weights in inference; in training, of autocast over float32 weights.
        min_repeats, min_seconds, warmup: of each timing at least so many repeats and so long, after untimed runs.
        slow_repeats: the same as min_repeats for transformers' generation, which takes a second each.
    """

    variants: Mapping[str, AttentionSpec]
    headline: tuple[Point, ...] = HEADLINE
    rest: tuple[Point, ...] = REST
    models: tuple[Architecture, ...] = (SMALL,)
    vocabulary: int = 50_257
    positions: int = 16_384
    dtype: str = "bfloat16"
    seed: int = 13
    min_repeats: int = 30
    min_seconds: float = 1.0
    warmup: int = 3
    slow_repeats: int = 3
    family: bool = False


# Fewer repeats, for much of it takes a second each.
FAMILY_PLAN = Plan(FAMILY, FAMILY_POINTS, rest=(), min_repeats=10, family=True)
SIZES_PLAN = Plan({"standard": _flash(kernel="eager")}
                  | {name: FAMILY[name] for name in ("flash", "flash_alibi", "flash_local_global")},
                  SIZES_POINTS, rest=(), models=MODELS, min_repeats=10, min_seconds=0.5)


@dataclass(frozen=True)
class Task:
    """One row to measure: `variant` in `model` at `point` by `implementation`."""

    point: Point
    variant: str
    implementation: str
    model: Architecture

    def __str__(self) -> str:
        point = self.point
        out = f" + {point.new_tokens}" if point.new_tokens else ""
        beams = f", {point.beams} beams" if point.beams > 1 else ""
        return (f"{self.model.name}, {point.work}, {self.variant} by {self.implementation}, batch {point.batch}, "
                f"{point.length:,}{out} tokens{beams}")


def tasks(plan: Plan) -> Iterator[Task]:
    """Every row of the benchmark, in the order in which they are measured."""
    for model, point in product(plan.models, (*plan.headline, *plan.rest)):
        yield from (Task(point, variant, OURS, model) for variant in plan.variants)
        for rival in point.rivals:
            yield from (Task(point, variant, rival, model) for variant in plan.variants if _does(rival, variant, plan))


def _does(rival: str, variant: str, plan: Plan) -> bool:
    """Whether `rival` has this variant's function by itself; to PyTorch's SDPA anything but causal is a dense mask."""
    if rival in STANDS_FOR:
        return STANDS_FOR[rival] == variant
    spec = plan.variants[variant]
    if spec.kernel != "flash" or spec.layers or spec.positions == "rope":
        return False
    form = spec.visibility.form
    takes = {"flash-attn": form is not None and form.parts <= {"window"}, "flex": True,
             "sdpa": form == Form() and spec.positions != "alibi"}
    return takes[rival]
