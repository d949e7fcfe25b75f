"""Kill `dvc repro` at random moments: the next one must end with the bytes of a run that nobody disturbed.

    python tests/soak.py --kills 20 --seed 1
"""

import argparse
import random
import re
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from clone import Clone, contents, executed

RESULTS = ("models", "data/predictions", "metrics/variants/*/quality.json", "data/details/*/quality*")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        clone = Clone(Path(folder) / "clone")
        started = time.monotonic()
        clone.run("dvc", "repro")
        duration = time.monotonic() - started
        expected = contents(clone.path, *RESULTS)
        print(f"undisturbed: {duration:.1f} s, {len(expected)} files", flush=True)
        moments = random.Random(arguments.seed)
        survived = [survives(clone, moments.uniform(0, duration), expected) for _ in range(arguments.kills)]
    sys.exit(f"{survived.count(False)} of {arguments.kills} ended otherwise" if not all(survived) else 0)


def survives(clone: Clone, moment: float, expected: dict[str, bytes]) -> bool:
    """Kill at a moment (s), run again, compare; prints one line."""
    clone.clear()
    killed = clone.run_and_kill("dvc", "repro", when=lambda: time.sleep(moment))
    print(f"{moment:6.1f} s, in {(executed(killed) or ['none'])[-1]}: ", end="", flush=True)
    try:
        again = run_again(clone)
    except AssertionError as failure:
        print(f"the next run failed:\n{failure}", flush=True)
        return False
    resumed = re.findall(r"training [\w-]+ resumes from step \d+", again)
    found = contents(clone.path, *RESULTS)
    differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    print(f"{', '.join(resumed) or 'nothing to resume'}; ran {', '.join(executed(again))}; "
          f"{'differs: ' + ', '.join(differing) if differing else 'equal'}", flush=True)
    return not differing


def run_again(clone: Clone) -> str:
    """`dvc repro`; DVC writes dvc.lock in place, and asks for its removal where the kill cut it off."""
    try:
        return clone.run("dvc", "repro")
    except AssertionError as failure:
        if "dvc.lock' validation failed" not in str(failure) and "dvc.lock' is invalid" not in str(failure):
            raise
        print("dvc.lock was cut off and had to be removed; ", end="", flush=True)
        (clone.path / "dvc.lock").unlink()
        return clone.run("dvc", "repro")


if __name__ == "__main__":
    main()
