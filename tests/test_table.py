"""The measured table: whom it prefers and when, its files, and how it reaches what runs."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import test_reporting
import torch
import yaml
from closure import ROOT
from conftest import BIGBIRD, VARIANTS, random_ids, tiny
from hypothesis import given
from hypothesis import strategies as st
from made_up import edit

from headtohead import cli, reporting
from headtohead.attention import AttentionSpec
from headtohead.attention.backends import flash_attn, sdpa
from headtohead.attention.job import Job
from headtohead.attention.plan import choose
from headtohead.attention.table import LEAST, Entry, Size, Table, Time, same_work
from headtohead.doctor import measuring
from headtohead.doctor.facts import shape
from headtohead.inference.engine import Engine
from headtohead.measured import read_table, write_table
from headtohead.models.checkpoints import load
from headtohead.params import read_params
from headtohead.paths import MACHINE, Run
from headtohead.profiling.machine import decisive
from headtohead.records import DataError
from stages import generate

FLASH = VARIANTS["flash"]
# In float32 neither flash-attn nor cuDNN can run: the built-in order is sdpa, flex.
JOB = Job(FLASH, torch.device("cuda"), torch.float32, heads=4, head_dim=16, queries=512, keys=512)


def at(length, batch=1, *, built_in="sdpa", prompt="sdpa", **times):
    """A measured size; a time is a median, or (median, fastest round, slowest)."""
    return Size(batch=batch, length=length, forward=built_in, prompt=prompt, times={
        name: Time(median=given, low=given * 0.99, high=given * 1.01) if isinstance(given, float) else
        Time(median=given[0], low=given[1], high=given[2]) for name, given in times.items()})


def table(*sizes, spec=FLASH, job=JOB):
    return Table(machine={"gpu": "Made-up GPU"}, entries=(
        Entry(spec=same_work(spec), dtype=str(job.dtype).removeprefix("torch."), heads=job.heads,
              head_dim=job.head_dim, sizes=sizes),))


def sized(length, batch=1, **changes):
    return replace(JOB, queries=length, keys=length, batch=batch, **changes)


def taken(job, measured, backend=None):
    return choose(job, backend, measured).backend.name


@pytest.fixture(scope="module", autouse=True)
def ampere():
    """A GPU for which cuDNN's kernel is not, for the jobs that are on one in name only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
        yield


QUICKER = table(at(512, sdpa=2.0, flex=1.0))


def test_the_users_word_goes_before_the_table_and_the_table_before_the_built_in_order():
    assert taken(JOB, None) == taken(JOB, Table()) == "sdpa"
    assert taken(JOB, QUICKER) == "flex"
    assert taken(JOB, QUICKER, backend="sdpa") == "sdpa"
    assert choose(JOB, None, QUICKER).why == "measured here: 1 ms against 2 by sdpa (1 x 512 tokens)"


@given(st.floats(0.01, 100), st.floats(0.5, 1.5), st.floats(0, 0.1), st.floats(0, 0.1))
def test_another_backend_must_save_five_per_cent_and_more_than_the_noise(ms, ratio, noise, more):
    ours, theirs = ms * ratio, ms
    measured = table(at(512, flex=(ours, ours * (1 - noise), ours * (1 + noise)),
                        sdpa=(theirs, theirs * (1 - more), theirs * (1 + more))))
    wins = ours <= (1 - LEAST) * theirs and ours * (1 + noise) < theirs * (1 - more)
    assert taken(JOB, measured) == ("flex" if wins else "sdpa")


@pytest.mark.parametrize("changes", [
    {"heads": 8}, {"head_dim": 32}, {"dtype": torch.float16}, {"spec": VARIANTS["rope"]}, {"padded": True},
    {"spec": VARIANTS["flash_sparse"]}, {"backward": True}, {"queries": 1}, {"varied": True}])
def test_a_table_says_nothing_about_other_jobs(changes):
    """Gradients and padding are not measured, and flex would compile for each of a prompt's many shapes."""
    job = replace(JOB, **changes)
    assert taken(job, QUICKER) == taken(job, None)


@given(st.dictionaries(st.tuples(st.integers(1, 16), st.integers(1, 64)), st.booleans(), min_size=1, max_size=12),
       st.integers(1, 20), st.integers(1, 70))
def test_between_sizes_all_around_must_agree_and_nothing_is_extrapolated(known, batch, length):
    measured = table(*(at(own, size, sdpa=2.0, flex=1.0 if flex else 3.0) for (size, own), flex in known.items()))
    found = taken(sized(length, batch), measured)
    if (batch, length) in known:
        assert found == ("flex" if known[batch, length] else "sdpa")
    if not any(known.values()):
        assert found == "sdpa"
    for compared, number in ((0, batch), (1, length)):
        if not min(key[compared] for key in known) <= number <= max(key[compared] for key in known):
            assert found == "sdpa"


def test_between_two_sizes_with_one_winner_that_one_is_taken():
    measured = table(at(128, sdpa=2.0, flex=3.0), at(512, sdpa=2.0, flex=1.0), at(2048, sdpa=8.0, flex=4.0))
    assert [taken(sized(length), measured) for length in (64, 128, 300, 512, 1000, 2048, 4096)] == [
        "sdpa", "sdpa", "sdpa", "flex", "flex", "flex", taken(sized(4096), None)]
    why = "measured here: 1 ms against 2 by sdpa (1 x 512 tokens), 4 ms against 8 by sdpa (1 x 2,048 tokens)"
    assert choose(sized(1000), None, measured).why == why
    assert taken(sized(1000, batch=2), measured) == "sdpa"


def test_what_cannot_do_the_job_is_not_taken_whatever_the_table_says():
    assert flash_attn.capability.unsupported(JOB)
    assert taken(JOB, table(at(512, **{"flash-attn": 0.5, "sdpa": 2.0, "flex": 1.0}))) == "flex"


def test_layers_that_only_draw_otherwise_share_their_times():
    spec = AttentionSpec(kernel="flash", **BIGBIRD)
    measured = table(at(512, sdpa=2.0, flex=1.0), spec=spec)
    assert {taken(replace(JOB, spec=layer), measured) for layer in spec.depth(4)} == {"flex"}


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 9000), st.floats(0.001, 1e4)), max_size=5))
def test_a_table_survives_its_file(tmp_path_factory, sizes):
    path = tmp_path_factory.mktemp("table") / "folder/backends.json"
    written = Table(machine={"gpu": "Made-up GPU", "triton": None})
    for batch, length, ms in sizes:
        job = sized(length, batch)
        written = written.with_size(job, at(length, batch, sdpa=ms)) if not written.has(job) else written
    write_table(path, written)
    assert read_table(path) == read_table(path, written.machine) == written
    assert read_table(path, {"gpu": "another"}) == read_table(path.with_name("none.json")) == Table()
    assert [file.name for file in path.parent.iterdir()] == ["backends.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machine": {}, "entries": [{"spec": {}}]}', '{"extra": 1}'])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "backends.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"backends.json is no table .* delete it, and `h2h doctor --measure` makes"):
        read_table(path)


# --- in the engine, and into it


@pytest.fixture
def two(monkeypatch):
    """On a CPU, the reference as a second backend of the same function; sdpa dawdles for as long as it is told to."""
    right, dawdle = sdpa.attend, [0.01]

    def attend(q, k, v, bias, scale):
        time.sleep(dawdle[0])
        return right(q, k, v, bias, scale)

    monkeypatch.setattr(sdpa, "attend", attend)
    monkeypatch.setattr("headtohead.attention.plan.preferred", lambda job: (
        ("sdpa", "reference") if job.spec.kernel == "flash" else (job.spec.kernel,)))
    monkeypatch.setattr(measuring, "ROUNDS", 3)
    monkeypatch.setattr(measuring, "SECONDS", 0.0)
    return dawdle


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """The parameters of the smallest preset, in their own folder."""
    text = (ROOT / "params.yaml").read_text().replace("preset: laptop", "preset: smoke", 1)
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return read_params()


def tasks(params):
    return measuring.tasks(params, shape(params), torch.device("cpu"))


def small(todo):
    """Those that take the reference no time beside sdpa's dawdling."""
    return [task for task in todo if task.job.keys <= 32]


def measured(params, todo, seconds=None, before=None):
    saved = []
    return measuring.run(todo, shape(params), before or Table(), saved.append, seconds), saved


def test_what_the_engine_measures_the_engine_runs(two):
    ids = random_ids(2, 20, seed=1)
    model = tiny(FLASH)
    job = Job(FLASH, model.device, model.dtype, 4, 16, 20, 20, batch=2)
    expected = Engine(model).forward(ids)
    model.config.attention_table = table(at(20, 2, sdpa=2.0, reference=1.0), at(40, 2, sdpa=1.0, reference=2.0),
                                         job=job)
    engine = Engine(model)
    assert engine.backend_for(20, batch=2) == "reference"
    assert engine.backend_for(20) == engine.backend_for(30, batch=2) == engine.backend_for(40, batch=2) == "sdpa"
    assert engine.generation_by(20, batch=2) == "reference, then sdpa"
    torch.testing.assert_close(engine.forward(ids), expected, atol=1e-4, rtol=1e-4)
    assert model.backend_for(20, training=True) == "sdpa"


def test_a_checkpoint_keeps_no_table(tmp_path, tokenizer):
    model = tiny(FLASH)
    model.config.attention_table = QUICKER
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "table" not in (tmp_path / "config.json").read_text()
    assert load(tmp_path)[0].config.attention_table is None


def test_every_size_of_the_run_is_to_be_measured_and_the_runs_own_first(two, smoke):
    own, prompts = [(1, 264), (2, 264), (1, 16), (1, 32)], [(1, 288), (8, 192), (8, 96)]
    for variant in ("flash", "flash_alibi", "flash_sparse"):
        jobs = [task.job for task in tasks(smoke) if task.variant == variant]
        assert [(job.batch, job.keys, job.varied) for job in jobs] == [
            *((*size, False) for size in own), *((*size, True) for size in prompts)]
    assert {task.variant for task in tasks(smoke)} == {"flash", "flash_alibi", "flash_sparse"}


def test_what_is_faster_in_the_engine_is_taken(two, smoke):
    todo = small(tasks(smoke))
    found, saved = measured(smoke, todo)
    assert len(saved) == len(todo)
    assert saved[-1] == found
    assert [entry.spec["pattern"] for entry in found.entries] == ["full", "full", "window"]
    assert {taken(task.job, found) for task in todo} == {"reference"}
    assert {gain.work for entry in found.entries for gain in entry.gains()} == {"forward", "prompt"}


def test_an_interrupted_measurement_goes_on_where_it_was(two, smoke):
    todo = small(tasks(smoke))
    half, _ = measured(smoke, todo[:2])
    whole, saved = measured(smoke, todo[:3], before=half)
    assert len(saved) == 1
    assert whole.entries[0].sizes[:2] == half.entries[0].sizes
    assert measured(smoke, todo, seconds=0, before=half) == (half, [])


@pytest.mark.parametrize(("fails", "told"), [(None, "wrong results: error "), (RuntimeError("no kernel\nmore"), (
    "RuntimeError: no kernel")), (torch.OutOfMemoryError("out of memory"), "OutOfMemoryError: out of memory")])
def test_a_backend_that_computes_wrong_numbers_or_none_is_never_taken(two, smoke, monkeypatch, fails, told):
    right = sdpa.attend

    def attend(q, k, v, bias, scale):
        if fails:
            raise fails
        return right(q, k, v, bias, scale * 1.01)

    two[0] = 0.0
    monkeypatch.setattr(sdpa, "attend", attend)
    monkeypatch.setattr("headtohead.attention.plan.preferred", lambda job: ("reference", "sdpa"))
    found, _ = measured(smoke, tasks(smoke)[:1])
    [size] = found.entries[0].sizes
    assert list(size.times) == [size.forward] == ["reference"]
    assert size.left_out["sdpa"].startswith(told)
    assert taken(tasks(smoke)[0].job, found) == "reference"


def h2h(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["h2h", *words])
    cli.main()


def test_the_command_measures_shows_and_goes_on(two, smoke, monkeypatch, capsys):
    every = measuring.tasks
    monkeypatch.setattr("headtohead.doctor.command.tasks", lambda *given: small(every(*given)))
    h2h(monkeypatch, "doctor", "--measure", "--seconds", "1")
    first = capsys.readouterr().out
    h2h(monkeypatch, "doctor", "--measure")
    out = capsys.readouterr().out
    assert "kernel flash, positions alibi, pattern full; float32, 2 heads of 16; ms for a whole pass" in out
    assert "reference, not sdpa" in first
    assert "6 of 6 sizes of preset smoke are measured, in .cache/backends.json" in out
    assert "goes on" not in out
    assert read_table(Path(".cache/backends.json")).machine == decisive()
    monkeypatch.setattr("headtohead.profiling.machine.decisive", lambda: {"gpu": "another"})
    h2h(monkeypatch, "doctor", "--measure", "--seconds", "1")
    assert "was measured with other hardware or versions" in capsys.readouterr().out
    assert read_table(Path(".cache/backends.json")).machine == {"gpu": "another"}


def test_an_interrupted_command_says_that_it_goes_on(two, smoke, monkeypatch, capsys):
    def interrupt(job, backend):
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "compare", interrupt)
    with pytest.raises(SystemExit, match="130"):
        h2h(monkeypatch, "doctor", "--measure")
    assert "stopped; the same command goes on with the rest" in capsys.readouterr().err


def test_where_there_is_nothing_to_choose_the_command_says_so(smoke, monkeypatch, capsys):
    h2h(monkeypatch, "doctor", "--measure", "--preset", "laptop")
    assert capsys.readouterr().out.startswith("Nothing to measure: on this machine (cpu) a single backend computes")
    assert not Path(".cache").exists()


@pytest.mark.parametrize(("words", "told"), [
    (["--measure", "--preset", "nope"], "unknown preset 'nope'; there are laptop, smoke, news, paper"),
    (["--seconds", "9"], "--preset and --seconds are for --measure"),
    (["--preset", "smoke"], "--preset and --seconds are for --measure")])
def test_wrong_options_are_answered(smoke, monkeypatch, words, told):
    with pytest.raises(SystemExit, match=told):
        h2h(monkeypatch, "doctor", *words)


# --- through the pipeline


SMOKE_JOB = replace(JOB, heads=2)  # of the preset smoke


def fingerprint(measured_table, machine=None):
    """What the stage writes of a table, by variant."""
    write_table(Path(".cache/backends.json"), measured_table.model_copy(update={"machine": machine or decisive()}))
    subprocess.run([sys.executable, "-m", "stages.fingerprint"], check=True,
                   env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"})
    return {path.stem: read_table(path) for path in Path("data/backends").iterdir()}


def test_the_fingerprint_gives_each_variant_what_changes_its_choices(smoke):
    gains, none = at(264, sdpa=2.0, flex=1.0), at(264, sdpa=1.0, flex=2.0)
    whole = table(gains, job=SMOKE_JOB)
    files = fingerprint(whole.model_copy(update={"entries": (
        *whole.entries, *table(none, spec=VARIANTS["flash_alibi"], job=SMOKE_JOB).entries,
        *table(gains, spec=VARIANTS["flash_alibi"], job=JOB).entries)}))  # of a model with other heads
    assert files.keys() == smoke.variants.keys()
    assert {name for name, part in files.items() if part != Table()} == {
        "flash", "flash_local_global"}  # which have such a layer
    assert files["flash"].entries == whole.entries
    assert all(part == Table() for part in fingerprint(whole, {"gpu": "another"}).values())


def returned(found, *_, **__):
    return found


def test_summaries_are_written_by_what_their_variants_table_chose(smoke, monkeypatch, tokenizer):
    tables = []
    for name, found in (("load", (tiny(FLASH), tokenizer)), ("load_tokenizer", tokenizer), ("load_split", []),
                        ("check_trained_here", None), ("further_sets", [])):
        monkeypatch.setattr(generate, name, partial(returned, found))
    monkeypatch.setattr(generate, "predict", lambda model, *_: tables.append(model.config.attention_table) or [])
    write_table(Path("data/backends/flash.json"), QUICKER)
    generate.write(Run("flash", 13), smoke)
    generate.write(Run("flash_alibi", 13), smoke)
    assert tables == [QUICKER, Table()]


def test_a_stage_that_reads_a_variants_table_depends_on_it_alone():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert "data/backends" in stages["fingerprint"]["outs"]
    reads = {name: [dep for dep in stage["deps"] if dep.startswith("data/backends")]
             for name, stage in stages.items() if name != "fingerprint"}
    assert {name: deps for name, deps in reads.items() if deps} == {
        "generate": ["data/backends/${item.variant}.json"], "report": ["data/backends"],
        "profile": ["data/backends/standard.json", "data/backends/${item.variant}.json"]}


made, params, run = test_reporting.made, test_reporting.params, test_reporting.run  # pytest finds fixtures by name


def test_the_report_says_what_the_built_in_order_would_have_cost(run, params):
    write_table(Path("data/backends/flash.json"), table(
        at(512, flex=1.0, sdpa=2.5), at(512, 4, flex=8.0, sdpa=8.1),
        at(128, 4, **{"flash-attn": 0.25, "sdpa": 0.5}), job=SMOKE_JOB))
    reporting.build(params)
    section = test_reporting.report().split("### Chosen by measurement")[1].split("\n#")[0]
    rows = [row.strip("| ").split(" | ") for row in section.splitlines() if row.startswith("| flash")]
    assert rows == [
        ["flash", "full, learned, float32", "forward", "flex", "sdpa", "1", "512", "1.00", "2.50", "2.50"],
        ["flash", "full, learned, float32", "forward, prompt", "flash-attn", "sdpa", "4", "128", "0.250", "0.500",
         "2.00"]]
    assert "made on this machine (Made-up GPU)" in section
    reporting.build(params.model_copy(update={"backend": "sdpa"}))
    assert "Chosen by measurement" not in test_reporting.report()


def test_without_a_table_the_report_says_on_a_gpu_how_to_measure(run, params):
    reporting.build(params)
    assert "doctor --measure" not in test_reporting.report()
    edit(MACHINE, lambda content: content.update(processor="Another CPU", gpu="Made-up GPU"))
    reporting.build(params)
    assert "`h2h doctor --measure` measures whether others are faster" in test_reporting.report()
