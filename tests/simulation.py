"""Does `headtohead.statistics` keep its promise? Worlds in which the truth is known, and how often a claim is false.

Usage: python tests/simulation.py [--worlds 2000]
"""

import argparse
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from headtohead.statistics import compare, compare_all

ARTICLE, OWN = 0.13, 0.08  # sd over articles of what all models share, and of what each function has of its own
NOISE = 0.06  # sd of what a training adds to one article
VARIANTS = 3  # beside the control, in a report
KERNELS = 0.7  # correlation of the luck of two kernels of one function
RATES = ("false claims", "coverage", "found 0.02", "found 0.03", "false equivalence", "reports with a false claim")


@dataclass(frozen=True)
class World:
    """How large the luck of training is (sd), how many trainings a function has, and how many articles there are."""

    luck: float
    trainings: int
    articles: int
    skewed: bool = False  # luck with a long tail on one side, as of trainings that are late
    kernels: int = 1  # of the control's function, whose luck is correlated: they are averaged for each seed

    def function(self, rng: np.random.Generator, shared: np.ndarray, mean: float, kernels: int = 1) -> np.ndarray:
        """Scores [trainings, articles] of a function."""
        size = (kernels, self.trainings, 1)
        luck = self._luck(rng, size)
        if kernels > 1:
            luck = np.sqrt(KERNELS) * self._luck(rng, (1, *size[1:])) + np.sqrt(1 - KERNELS) * luck
        noise = rng.normal(0, NOISE, (*size[:2], self.articles))
        return mean + (luck + noise).mean(0) + shared + rng.normal(0, OWN, self.articles)

    def _luck(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        return self.luck * (1 - rng.exponential(1, size) if self.skewed else rng.normal(0, 1, size))


def rates(world: World, margin: float, worlds: int, seed: int = 1) -> dict[str, float]:
    """Shares of worlds, by `RATES`.

    Where nothing differs: of claims, of intervals that hold the truth, and of reports with some claim. Where something
    does: of differences of 0.02 and 0.03 that are found, and of equivalence claimed of a difference as large as the
    margin.
    """
    rng = np.random.default_rng(seed)
    found = dict.fromkeys(RATES, 0)
    for _ in range(worlds):
        shared = rng.normal(0, ARTICLE, world.articles)
        control = world.function(rng, shared, 0.35, world.kernels)
        variants = {str(i): world.function(rng, shared, 0.35) for i in range(VARIANTS)}
        first = variants["0"]
        alone = compare(first, control, margin)
        found["false claims"] += alone.verdict in ("better", "worse")
        found["coverage"] += alone.low <= 0 <= alone.high
        found["found 0.02"] += compare(first + 0.02, control, margin).verdict == "better"
        found["found 0.03"] += compare(first + 0.03, control, margin).verdict == "better"
        found["false equivalence"] += compare(first + margin, control, margin).verdict == "equivalent"
        report = compare_all(variants, control, margin).values()
        found["reports with a false claim"] += any(one.verdict in ("better", "worse") for one in report)
    return {name: count / worlds for name, count in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=2000)
    worlds = parser.parse_args().worlds
    cases = [World(*case) for case in product((0.003, 0.015, 0.04), (3, 5, 10), (40, 200, 1000))]
    cases += [World(0.015, 5, 10_000), World(0.015, 3, 1000, skewed=True), World(0.015, 5, 1000, skewed=True),
              World(0.015, 10, 1000, skewed=True), World(0.015, 3, 1000, kernels=2), World(0.015, 5, 1000, kernels=2)]
    print("| luck (sd) | trainings | articles |", " | ".join(RATES), "|")
    print("|" + "---:|" * (3 + len(RATES)))
    for world in cases:
        found = rates(world, 0.01, worlds if world.articles < 10_000 else worlds // 4)
        luck = f"{world.luck}" + ", skewed" * world.skewed + f", {world.kernels} kernels" * (world.kernels > 1)
        print(f"| {luck} | {world.trainings} | {world.articles:,} |",
              " | ".join(f"{value:.3f}" for value in found.values()), "|", flush=True)


if __name__ == "__main__":
    main()
