"""Does a variant that is compared with itself come out as no different? Standard against standard, again and again.

Usage, after `dvc repro tokenize`: python tests/same_against_same.py [--tries 40] [--out FILE]
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "src")]

import stages  # noqa: F401  (its threads wait as those of the pipeline do)
from headtohead.params import read_params
from headtohead.profiling import fresh
from headtohead.profiling.pairs import MEMORY, TIMES, in_pairs, side_by_side
from headtohead.profiling.profile import CONTROL, HEAVY, headlines
from headtohead.statistics import Ratio, ratio

MARGINS = dict.fromkeys(TIMES, 0.05) | {MEMORY: 0.02}
COLUMNS: dict[str, Callable[[Ratio], object]] = {
    "equivalent": lambda found: found.verdict == "equivalent",
    "less or more": lambda found: found.verdict in ("less", "more"),
    "undecided": lambda found: found.verdict == "undecided",
    "scattered": lambda found: found.scattered,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--out", type=Path, help="where every pair is kept, as JSON")
    given = parser.parse_args()
    params = read_params()
    fresh.serve([HEAVY])
    tries = []
    for _ in range(given.tries):
        tries.append(in_pairs(side_by_side(lambda names: headlines(params, names, lambda what: None),
                                           CONTROL, CONTROL, params.chosen.profile.pairs)))
        if given.out:
            given.out.write_text(json.dumps(tries))
    print("| figure | margin | tries | ratio within the margin |", " | ".join(COLUMNS), "|")
    print("|---|" + "---:|" * (3 + len(COLUMNS)))
    for name, margin in MARGINS.items():
        found = [ratio(one[name], margin) for one in tries]
        within = sum(1 / (1 + margin) <= one.value <= 1 + margin for one in found)
        shares = [within, *(sum(map(bool, map(test, found))) for test in COLUMNS.values())]
        print(f"| {name} | {margin} | {len(found)} |", " | ".join(f"{count / len(found):.3f}" for count in shares), "|")


if __name__ == "__main__":
    main()
