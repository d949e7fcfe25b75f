"""The measured table: whom it prefers and when, its files, and how it reaches what runs."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
import yaml
from closure import ROOT
from conftest import BIGBIRD, VARIANTS, random_ids, tiny
from hypothesis import given
from hypothesis import strategies as st

from headtohead import cli
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
from headtohead.profiling.machine import decisive
from headtohead.records import DataError

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


def measured(params, seconds=None, before=Table(), todo=None):
    saved = []
    return measuring.run(tasks(params) if todo is None else todo, shape(params), before, saved.append, seconds), saved


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
    found, saved = measured(smoke, todo=todo)
    assert len(saved) == len(todo)
    assert saved[-1] == found
    assert [entry.spec["pattern"] for entry in found.entries] == ["full", "full", "window"]
    assert {taken(task.job, found) for task in todo} == {"reference"}
    assert {gain.work for entry in found.entries for gain in entry.gains()} == {"forward", "prompt"}


def test_an_interrupted_measurement_goes_on_where_it_was(two, smoke):
    todo = small(tasks(smoke))
    half, _ = measured(smoke, todo=todo[:2])
    whole, saved = measured(smoke, before=half, todo=todo[:3])
    assert len(saved) == 1
    assert whole.entries[0].sizes[:2] == half.entries[0].sizes
    assert measured(smoke, seconds=0, before=half, todo=todo) == (half, [])


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
    found, _ = measured(smoke, todo=tasks(smoke)[:1])
    [size] = found.entries[0].sizes
    assert list(size.times) == [size.forward] == ["reference"]
    assert size.left_out["sdpa"].startswith(told)
    assert taken(tasks(smoke)[0].job, found) == "reference"
