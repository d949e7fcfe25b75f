"""The whole pipeline on the smoke preset, in a temporary clone, as a user drives it: through dvc."""

import json
import re
from pathlib import Path

import pytest
from clone import Clone, executed

import headtohead
from headtohead.attention.table import Entry, Size, Table, Time, same_work
from headtohead.measured import write_table
from headtohead.params import STUDY, read_params
from headtohead.paths import MEASURED
from headtohead.profiling.machine import decisive

SEEDS = (13, 14, 15)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    clone = Clone(tmp_path_factory.mktemp("clone"))
    output = clone.run("dvc", "repro")
    stages = executed(output)
    assert stages[:3] == ["fingerprint", "fetch-subset", "tokenize"]
    assert stages[-1] == "report"
    assert len(stages) == 5 + (len(SEEDS) + 3) * len(STUDY) + 2
    clone.commit()
    return clone


def test_every_file_of_the_contract_is_there(clone):
    path = clone.path
    for split in ("train", "validation", "test", "test-2x"):
        rows = read(path / f"data/subset/{split}.jsonl")
        assert {"id", "article", "summary", "facts"} <= rows[0].keys()
        assert all(row["article"][f["start"]:f["start"] + len(f["value"])] == f["value"]
                   for row in rows for f in row["facts"])
    references = [row["summary"] for row in read(path / "data/subset/test.jsonl")]
    for variant in STUDY:
        quality = clone.json(f"metrics/variants/{variant}/quality.json")
        assert quality.keys() == {"rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "loss", "fact_recall", "seeds"}
        assert quality["seeds"] == len(SEEDS)
        assert all(0 <= quality[name] <= 1 for name in quality.keys() - {"loss", "seeds"})
        for seed in SEEDS:
            predictions = read(path / f"data/predictions/{variant}/{seed}.jsonl")
            assert [row["reference"] for row in predictions] == references
            model, tokenizer = headtohead.load(path / f"models/{variant}/{seed}")
            assert model.variant == headtohead.params.read_params(path / "params.yaml").variants[variant]
            assert len(tokenizer) == model.config.vocab_size
            assert clone.json(f"data/predictions/{variant}/trained_on/{seed}.json") == {
                **model.config.trained_on, "devices": 1}
        trained = [clone.json(f"data/details/{variant}/quality/{seed}.json") for seed in SEEDS]
        assert quality["rouge1"] == pytest.approx(sum(one["rouge1"] for one in trained) / len(SEEDS))
        efficiency = clone.json(f"metrics/variants/{variant}/efficiency.json")
        assert efficiency.keys() == {"forward_ms", "generate_ms", "first_token_ms", "tokens_per_s", "peak_memory_mb",
                                     "train_step_ms", "backend"}
        assert efficiency["backend"] == ("eager" if variant == "standard" else "sdpa")
        details = clone.json(f"data/details/{variant}/quality.json")
        assert details["rouge1_low"] <= quality["rouge1"] <= details["rouge1_high"]
        assert details["run"] == clone.json(f"data/details/{variant}/efficiency.json")["run"]
        assert clone.json(f"data/details/{variant}/efficiency.json")["timings"]
    headline = clone.json("metrics/headline.json")
    assert headline["attention"] == "flash"
    assert {"speedup_vs_standard", "memory_vs_standard", "rouge1_vs_standard"} <= headline.keys()
    assert "flash_sparse" in (path / "report/report.md").read_text()
    assert "http" not in re.sub(r"xmlns(:\w+)?=\"[^\"]*\"", "", (path / "report/report.html").read_text())
    assert not clone.run("git", "status", "--porcelain")


def test_summarize_writes_what_the_run_wrote(clone):
    clone.run("h2h", "summarize", "data/subset/test.jsonl", "--model", "models/flash_alibi/14",
              "--output", ".cache/summaries.jsonl")
    written, before = (read(clone.path / name) for name in (
        ".cache/summaries.jsonl", "data/predictions/flash_alibi/14.jsonl"))
    assert [[row[key] for key in ("id", "summary", "cut")] for row in written] == [
        [row[key] for key in ("id", "summary", "cut")] for row in before]


def test_nothing_outside_the_repository_is_written_or_needed(clone):
    """All of this file runs without a home; temporary files are to be gone."""
    assert not list(clone.temporary.iterdir())
    assert {folder.name for folder in clone.path.joinpath(".cache").iterdir()} >= {"dvc", "matplotlib"}


def test_nothing_changed_re_runs_the_fingerprint_alone(clone):
    assert executed(clone.run("dvc", "repro")) == ["fingerprint"]


def test_switching_attention_re_runs_the_report_alone_and_the_diff_shows_it(clone):
    output = clone.run("dvc", "exp", "run", "-S", "attention=flash_alibi")
    assert executed(output) == ["fingerprint", "report"]
    diff = clone.run("dvc", "metrics", "diff")
    assert len(diff.strip().splitlines()) <= 20
    for metric in ("attention", "forward_ms"):
        assert re.search(rf"headline\.json\s+{metric}\s", diff)
    assert "flash_alibi" in diff
    shown = clone.run("dvc", "exp", "show", "--drop", ".*", "--keep", "Exp.*|.*json:attention|.*_vs_standard")
    assert re.search(r"workspace +flash_alibi +\d", shown)
    assert max(map(len, shown.splitlines())) < 140
    assert "DVC failed" not in clone.run("dvc", "plots", "show")
    assert "Validation loss of every variant" in clone.path.joinpath("dvc_plots/index.html").read_text()
    clone.run("git", "checkout", "params.yaml")
    assert executed(clone.run("dvc", "repro")) == ["fingerprint"]  # the report comes from DVC's cache
    assert clone.json("metrics/headline.json")["attention"] == "flash"
    clone.reset()


def test_a_variants_number_re_runs_that_variant_and_changing_it_back_trains_nothing(clone):
    output = clone.run("dvc", "exp", "run", "-S", "variants.flash_sparse.window=16")
    assert sorted(executed(output)) == [
        "fingerprint", "generate@flash_sparse", "profile@flash_sparse", "report", "score@flash_sparse",
        *(f"train@flash_sparse-{seed}" for seed in SEEDS)]
    back = clone.run("dvc", "exp", "run", "-S", "variants.flash_sparse.window=64", "score@flash_sparse",
                     "profile@flash_sparse")
    assert executed(back) == ["fingerprint"]
    clone.reset()


def test_a_further_seed_trains_that_one_alone_and_taking_it_away_trains_nothing(clone):
    more = executed(clone.run("dvc", "exp", "run", "-S", "seeds=[13,14,15,16]", "score@flash"))
    assert more == ["fingerprint", "train@flash-16", "generate@flash", "score@flash"]
    assert clone.json("metrics/variants/flash/quality.json")["seeds"] == 4
    others = executed(clone.run("dvc", "repro", "--dry"))
    assert [stage for stage in others if stage.startswith("train")] == [
        f"train@{variant}-16" for variant in STUDY if variant != "flash"]
    assert not {stage for stage in others if stage.startswith(("fetch", "tokenize", "baselines", "profile"))}
    clone.run("git", "checkout", "params.yaml")
    fewer = executed(clone.run("dvc", "repro", "--dry"))
    assert fewer[-1] == "report"
    assert not [stage for stage in fewer if stage.startswith("train")]
    clone.reset()


def test_a_new_pattern_or_parameter_runs_nothing_that_does_not_read_it(clone):
    patterns, params = (clone.path / "src/headtohead" / name for name in ("attention/patterns.py", "params.py"))
    with patterns.open("a") as end:
        end.write("""

class Odd(Pattern):
    def sees(self, query: Any, key: Any) -> Any:
        return (query - key) % 2 == 0
""")
    params.write_text(params.read_text().replace("    backend: Lit", "    extra: int = 1\n    backend: Lit", 1))
    clone.edit("variants:\n", "variants:\n  odd: {kernel: flash, positions: learned, pattern: odd}\n")
    clone.edit("seed: 13", "extra: 2\nseed: 13")
    clone.run("dvc", "repro", "fingerprint")
    stages = executed(clone.run("dvc", "repro", "--dry"))
    assert set(stages) <= {"fingerprint", "report"}
    window = patterns.read_text().replace("return query - key < self.window\n", "return query - key <= self.window\n")
    patterns.write_text(window)
    clone.run("dvc", "repro", "fingerprint")
    stages = executed(clone.run("dvc", "repro", "--dry"))
    assert {stage for stage in stages if "@" in stage and "flash_sparse" not in stage} == set()
    assert "train@flash_sparse-13" in stages
    clone.reset()
    clone.run("dvc", "repro", "fingerprint")


def test_a_measured_table_re_runs_the_variants_whose_choice_it_changes(clone):
    times = {name: Time(median=ms, low=ms, high=ms) for name, ms in (("sdpa", 2.0), ("flex", 1.0))}
    size = Size(batch=1, length=264, forward="sdpa", prompt="sdpa", times=times)
    spec = same_work(read_params(clone.path / "params.yaml").variants["flash"])
    write_table(clone.path / MEASURED, Table(machine=decisive(), entries=(
        Entry(spec=spec, dtype="float32", heads=2, head_dim=16, sizes=(size,)),)))
    clone.run("dvc", "repro", "fingerprint")
    stages = set(executed(clone.run("dvc", "repro", "--dry")))
    assert {"generate@flash", "profile@flash", "report"} <= stages
    assert stages <= {"fingerprint", "generate@flash", "score@flash", "profile@flash", "report"}
    (clone.path / MEASURED).unlink()
    clone.run("dvc", "repro", "fingerprint")
    assert set(executed(clone.run("dvc", "repro", "--dry"))) <= {"fingerprint", "report"}
    clone.reset()


def test_a_profile_runs_again_if_a_training_step_costs_something_else(clone):
    clone.edit("steps: 12\n", "steps: 14\n      optimizer: adamw\n")  # as without the key
    clone.run("dvc", "repro", "fingerprint")
    assert not {stage for stage in executed(clone.run("dvc", "repro", "--dry")) if stage.startswith("profile")}
    clone.edit("      optimizer: adamw\n      batch_size", "      optimizer: adafactor\n      batch_size")
    clone.run("dvc", "repro", "fingerprint")
    assert {f"profile@{variant}" for variant in STUDY} <= set(executed(clone.run("dvc", "repro", "--dry")))
    clone.reset()
    clone.run("dvc", "repro", "fingerprint")


def test_how_summaries_are_generated_leaves_training_alone(clone):
    clone.edit("max_new_tokens: 84, beams: 1", "max_new_tokens: 84, beams: 2")
    stages = executed(clone.run("dvc", "repro", "--dry"))
    assert "generate@flash" in stages
    assert not {stage for stage in stages if stage.startswith(("train", "tokenize", "fetch", "profile"))}
    clone.reset()


@pytest.mark.parametrize(("change", "message"), [
    ("attention=nope", "attention: unknown variant 'nope'; there are standard, flash, flash_alibi, "),
    ("+presets.smoke.train.stepz=3", "presets.smoke.train.stepz: unknown key; keys there: steps, batch_size"),
])
def test_a_wrong_parameter_stops_in_the_fingerprint_and_says_what_there_is(clone, change, message):
    output = clone.run("dvc", "exp", "run", "-S", change, fails=True)
    assert executed(output) == ["fingerprint"]
    assert message in output
    assert "Traceback" not in output
    clone.reset()


def test_a_queued_sweep_over_attention_runs_the_report_alone_and_gives_each_its_headline(clone):
    clone.run("dvc", "exp", "run", "--queue", "-S", "attention=standard,flash_sparse")
    clone.run("dvc", "exp", "run", "--run-all")
    shown = json.loads(clone.run("dvc", "exp", "show", "--json"))
    headlines = [rev["data"]["metrics"]["metrics/headline.json"]["data"]
                 for experiment in shown[1]["experiments"] for rev in experiment["revs"]]
    assert {"standard", "flash_sparse"} <= {headline["attention"] for headline in headlines}
    clone.reset()
