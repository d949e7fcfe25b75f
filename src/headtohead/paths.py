"""Where a run's files are, relative to the repository."""

from dataclasses import dataclass
from pathlib import Path

SOURCE, PRETRAINED = Path("data/source.json"), Path("data/pretrained.json")
STEP = Path("data/step.json")  # what the cost of a training step follows from
VARIANTS = Path("data/variants")  # what each variant computes: VARIANT.json
BACKENDS = Path("data/backends")  # what was measured here and concerns a variant: VARIANT.json
MEASURED = ".cache/backends.json"  # everything that was measured here, for all presets
SUBSET = Path("data/subset")  # the articles of each split: SPLIT.jsonl
TOKENS = Path("data/tokens")
FACTS = TOKENS / "facts.jsonl"
ARTICLES, LENGTHS = Path("data/details/articles.json"), Path("data/details/lengths.json")
MACHINE, HEADLINE = Path("metrics/machine.json"), Path("metrics/headline.json")
CHECKPOINTS = Path(".checkpoints")  # of trainings, to go on from; DVC does not know them
PLOTS, REPORT = Path("plots"), Path("report")

BASELINES = LEAD3, UNTRAINED = "lead3", "untrained"  # the report's reference rows
QUALITY, EFFICIENCY = "quality", "efficiency"  # the two kinds of numbers


@dataclass(frozen=True)
class Run:
    """One training: a variant, and the seed of its initial weights and of its order of articles.

    A baseline, which is not trained, has the seed of the data.
    """

    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.variant}-{self.seed}"  # as DVC names its stage

    @property
    def model(self) -> Path:
        return Path("models", self.variant, str(self.seed))

    @property
    def curve(self) -> Path:
        """The training's learning curves."""
        return PLOTS / "training" / self.variant / f"{self.seed}.csv"

    @property
    def predictions(self) -> Path:
        """Summaries of the test set."""
        return Path("data/predictions", self.variant, f"{self.seed}.jsonl")

    @property
    def further(self) -> Path:
        """Summaries of the further test sets."""
        return self.predictions.parent / "further" / self.predictions.name

    @property
    def trained_on(self) -> Path:
        """What the training ran on, as its model says."""
        return self.predictions.parent / "trained_on" / f"{self.seed}.json"

    @property
    def quality(self) -> Path:
        """Scores of this training alone, article by article."""
        return Path("data/details", self.variant, QUALITY, f"{self.seed}.json")


def metrics(variant: str, kind: str) -> Path:
    """The few numbers of one kind, over all seeds of a variant."""
    return Path("metrics/variants", variant, f"{kind}.json")


def details(variant: str, kind: str) -> Path:
    """Everything else of one kind, over all seeds of a variant."""
    return Path("data/details", variant, f"{kind}.json")
