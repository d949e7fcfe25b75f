"""What a comparison of 1,000 trainings takes: the report, DVC, and `h2h run`, on results that are made up.

    python tests/thousand.py report [--trainings 1000]
    python tests/thousand.py lock [--trainings 1000]
    python tests/thousand.py dvc [--trainings 1000]
    python tests/thousand.py run [--trainings 100]

report: the real articles, baselines and scorers of the default preset; of every variant in params.yaml the summaries,
scores, curves and times of so many trainings, made up with the sizes of real ones. Then `python -m stages.report`, and
`h2h show`. lock: a dvc.lock of that size, from entries of the repository's own. dvc and run: the stages of dvc.yaml,
which only write files.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from clone import Clone
from closure import ROOT
from dvc.utils.serialize import dump_yaml, load_yaml, modify_yaml
from made_up import FALL, TRAINED_ON, curve, edit, make_efficiency, predict, random, write

from headtohead.inputs import run_identity
from headtohead.params import ALSO, STUDY, read_params
from headtohead.paths import EFFICIENCY, FACTS, QUALITY, Run, details, metrics
from headtohead.quality.measures import Array
from headtohead.quality.reading import read_articles
from headtohead.quality.scoring import over_seeds, score
from headtohead.records import read_jsonl, write_json, write_jsonl
from headtohead.words import pieces

LEVELS = (0.95, 0.85, 0.7, 0.5, 0.3, 0.1)  # shares of facts that summaries of the pool state
SKILL = {"flash_sparse": 0.5, "flash_alibi_sparse": 0.5, "flash_block": 0.3}  # shares of facts that variants state
GOOD, LUCK, SCATTER = 0.85, 0.03, 0.15  # of the others; standard deviations over trainings, and over articles
FIRST_SEED = 13
MEGABYTE = 1_000_000  # of a synthetic stage's output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["report", "lock", "dvc", "run"])
    parser.add_argument("--trainings", type=int, default=1000)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="thousand-") as folder:
        {"report": report, "lock": lock, "dvc": dvc, "run": run}[arguments.what](Path(folder), arguments.trainings)


# --- the report


def report(folder: Path, trainings: int) -> None:
    clone = Clone(folder / "clone")
    names = settle(clone, trainings)
    clone.run("dvc", "repro", "score@lead3", "score@untrained")
    os.chdir(clone.path)
    with ProcessPoolExecutor() as workers:
        scored = list(workers.map(summaries, LEVELS))
        for name, seconds in workers.map(partial(make, scored), names):
            print(f"{name}: score's means over its trainings took {seconds:.1f} s", flush=True)
    for path in ("data/details", "data/predictions", "plots/training"):
        files = [file for file in Path(path).rglob("*") if file.is_file()]
        print(f"{path}: {len(files):,} files, {sum(file.stat().st_size for file in files) / 1e9:.2f} GB")
    for command in (["python", "-m", "stages.report"], ["h2h", "show"]):
        seconds, gigabytes = measured(command, clone.environment)
        print(f"{' '.join(command)}: {seconds:.1f} s, peak memory {gigabytes:.2f} GB", flush=True)
    for file in sorted([*Path("report").iterdir(), *Path("plots").glob("*.svg")]):
        print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


def settle(clone: Clone, trainings: int) -> list[str]:
    """Compare all variants in params.yaml, or as many as can be, from seeds enough; their names."""
    settings = yaml.safe_load((clone.path / "params.yaml").read_text(encoding="utf-8"))
    names = [*STUDY, *(name for name in settings["variants"] if name not in STUDY)][:len(STUDY) + ALSO]
    seeds = list(range(FIRST_SEED, FIRST_SEED + -(-trainings // len(names))))
    also = names[len(STUDY):]
    settings |= {"preset": "laptop", "seeds": seeds, "also": also + ["standard"] * (ALSO - len(also))}
    (clone.path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    print(f"{len(names)} variants from {len(seeds)} seeds: {len(names) * len(seeds):,} trainings", flush=True)
    return names


@dataclass(frozen=True)
class Scored:
    """Summaries of every test set and their scores, by set."""

    rows: dict[str, list[dict[str, Any]]]
    scores: dict[str, dict[str, Any]]
    words: dict[str, list[int]]


def summaries(level: float) -> Scored:
    """Summaries that state a share `level` of the facts."""
    articles, facts = read_articles(), list(read_jsonl(FACTS))
    rows = {name: predict(list(members.values()), level, random("summaries", name, level))
            for name, members in articles.items()}
    found = score([{"set": name, **row} for name, members in rows.items() for row in members], facts, articles)
    return Scored(rows, {"test": found, **found["further"]},
                  {name: [len(pieces(row["summary"])) for row in members] for name, members in rows.items()})


def make(scored: Sequence[Scored], name: str) -> tuple[str, float]:
    """Everything of a variant that the report reads; and how long it took to bring its trainings together."""
    params = read_params()
    of = run_identity(params.preset)
    trainings = [make_training(scored, Run(name, seed), of) for seed in params.seeds]
    started = time.monotonic()
    flat, rest = over_seeds(trainings)
    seconds = time.monotonic() - started
    write_json(metrics(name, QUALITY), flat)
    write_json(details(name, QUALITY), {**rest, "run": of})
    make_efficiency(Path(), name, 4.0, 4.0)
    edit(details(name, EFFICIENCY), lambda content: content.update(run=of))
    return name, seconds


def make_training(scored: Sequence[Scored], ours: Run, of: dict[str, str]) -> dict[str, Any]:
    """A training whose summary of each article is one of those that have been scored."""
    chance = random("training", str(ours))
    skill = chance.normal(SKILL.get(ours.variant, GOOD), LUCK)
    sets, written = {}, {}
    for name, rows in scored[0].rows.items():
        wanted = chance.normal(skill, SCATTER, len(rows))
        which = np.abs(wanted[:, None] - np.array(LEVELS)).argmin(1)
        sets[name] = put_together([one.scores[name] for one in scored], which)
        sets[name]["summary_words"] = float(np.mean([scored[i].words[name][row] for row, i in enumerate(which)]))
        written[name] = [scored[i].rows[name][row] for row, i in enumerate(which)]
    write_jsonl(ours.predictions, written.pop("test"))
    write_jsonl(ours.further, ({"set": name, **row} for name, rows in written.items() for row in rows))
    write(ours.trained_on, TRAINED_ON)
    write(ours.curve, curve([loss + (1 - skill) / 5 for loss in FALL]))
    whole = {**sets.pop("test"), "further": sets, "scorer": scored[0].scores["test"]["scorer"]}
    _, rest = over_seeds([whole])
    found = {**rest, **whole, "further": {name: rest["further"][name] | part for name, part in sets.items()}}
    write_json(ours.quality, {**found, "run": of})
    return found


def put_together(scores: Sequence[dict[str, Any]], which: Array) -> dict[str, Any]:
    """Of each article the scores that `which` names."""
    first = scores[0]
    columns = {key: [scores[i]["articles"][key][row] for row, i in enumerate(which)] for key in first["articles"]}
    of_article = dict(zip(columns["id"], which, strict=True))
    facts = first["by_fact"]
    found = [scores[of_article[article]]["by_fact"]["found"][row] for row, article in enumerate(facts["id"])]
    return {key: first[key] for key in ("reference_words", "cut", "written_by", "tokens_a_pass")} | {
        "articles": columns, "by_fact": {**facts, "found": found}}


# --- DVC, and `h2h run`


def lock(folder: Path, trainings: int) -> None:
    """What recording one stage takes: DVC reads and writes the whole file, with places and comments."""
    file = folder / "dvc.lock"
    content = load_yaml(ROOT / "dvc.lock")
    [*_, training] = [entry for name, entry in content["stages"].items() if name.startswith("train@")]
    content["stages"] |= {f"train@{number}": deepcopy(training) for number in range(trainings)}
    dump_yaml(file, content)
    started = time.process_time()
    load_yaml(file)
    read = time.process_time()
    with modify_yaml(file):
        pass
    print(f"{size(file) / 1e6:.2f} MB; processor seconds: read {read - started:.1f}, "
          f"record a stage {time.process_time() - read:.1f}")

WRITE = """
for out in "$@"; do
  case $out in
    *.csv) mkdir -p "${out%/*}"; echo step,validation_loss > $out; echo 1,1 >> $out;;
    *.json|*.gz|*.jsonl|*.svg) mkdir -p "${out%/*}"; echo '{"made_by": 1}' > $out;;
    models/*) mkdir -p $out; { echo $out; head -c MEGABYTE /dev/zero; } > $out/model.safetensors;;
    *) mkdir -p $out; echo $out > $out/file;;
  esac
done
"""


def stand_in(folder: Path, trainings: int) -> Clone:
    """The repository with stages that only write files, of 1 MB each by training."""
    clone = Clone(folder / "clone")
    names = settle(clone, trainings)
    (clone.path / "write.sh").write_text(WRITE.replace("MEGABYTE", str(MEGABYTE)), encoding="utf-8")
    pipeline = yaml.safe_load((clone.path / "dvc.yaml").read_text(encoding="utf-8"))
    parts = {"fingerprint": [f"data/{part}/{name}.json" for part in ("variants", "backends") for name in names],
             "fetch-subset": ["data/subset/test.jsonl"], "tokenize": ["data/tokens/facts.jsonl"]}
    for name, stage in pipeline["stages"].items():
        files = [next(iter(out)) if isinstance(out, dict) else out
                 for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
        stage["cmd"] = " ".join(["sh write.sh", *files, *parts.get(name, [])])
    (clone.path / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False), encoding="utf-8")
    clone.commit()
    return clone


def dvc(folder: Path, trainings: int) -> None:
    clone = stand_in(folder, trainings)
    clone.run("dvc", "remote", "add", "-d", "storage", str(folder / "remote"))
    clone.commit()
    write_all(clone)
    timed(clone, "dvc", "commit", "--force")  # as `dvc repro` ends, but dvc.lock is written once
    for path in (clone.path / "dvc.lock", clone.path / ".dvc/cache/runs", clone.path / ".dvc/cache"):
        print(f"{path.relative_to(clone.path)}: {size(path) / 1e6:,.1f} MB")
    timed(clone, "dvc", "repro", "--quiet", "--force", "-s", "score@lead3")  # one stage, and dvc.lock is written
    timed(clone, "dvc", "status")
    timed(clone, "dvc", "repro")
    timed(clone, "dvc", "push", "--quiet", "--run-cache")
    print(f"remote: {size(folder / 'remote') / 1e6:,.1f} MB")
    clone.commit()
    clone.clear()
    timed(clone, "dvc", "pull", "--quiet", "--run-cache")
    timed(clone, "dvc", "repro", "--quiet", "--pull")


def write_all(clone: Clone) -> None:
    """What all stages write, without DVC."""
    names = clone.run("dvc", "stage", "list", "--name-only").split()
    pipeline = yaml.safe_load((clone.path / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name in names:
        kind, _, item = name.partition("@")
        variant, _, seed = item.rpartition("-") if kind == "train" else (item, "", "")
        clone.run("sh", "-c", pipeline[kind]["cmd"].replace("${item.variant}", variant).replace("${item.seed}", seed))


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def run(folder: Path, trainings: int) -> None:
    clone = stand_in(folder, trainings)
    timed(clone, "h2h", "run")


def timed(clone: Clone, *command: str) -> None:
    started = time.monotonic()
    clone.run(*command)
    print(f"{' '.join(command)}: {time.monotonic() - started:,.1f} s", flush=True)


def measured(command: Sequence[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds and peak memory in GB of a command that succeeds."""
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} has failed")
    return time.monotonic() - started, used.ru_maxrss / 1e6


if __name__ == "__main__":
    main()
