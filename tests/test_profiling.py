"""profiling/: what is timed, remembered and left alone, and in which process. No test asserts a speed."""

import gc
import gzip
import itertools
import json
import os
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import children
import numpy as np
import pynvml
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.flop_counter import FlopCounterMode

import headtohead
from headtohead import params
from headtohead.attention import AttentionSpec, visible
from headtohead.inference.engine import Engine
from headtohead.models.gpt2 import GPT2, from_scratch
from headtohead.profiling import fresh, inference, machine, memory, nvml, peaks, timing, training
from headtohead.profiling.cost import pairs_of, shape_of
from headtohead.profiling.kernel import captured
from headtohead.profiling.measurement import Measurement, over_processes, read
from headtohead.profiling.memory import peak_memory, process_peak_mb
from headtohead.profiling.operations import top_operations
from headtohead.profiling.pairs import MEMORY, TIMES, in_pairs, side_by_side
from headtohead.profiling.passes import Passes, Work
from headtohead.profiling.process import Subject, headline, sweep
from headtohead.profiling.profile import arranged
from headtohead.profiling.timing import measure
from headtohead.profiling.training import Lesson

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SETTINGS = params.Profile(new_tokens=4, lengths=[16, 48, 24], batch_sizes=[3, 1], train_batch_sizes=[2, 1], pairs=2,
                          min_repeats=4, min_seconds=0.0, precision="float32")
LENGTH, VOCABULARY, END_OF_TEXT = 24, 64, 0
EXAMPLES = [(np.arange(1, 21, dtype=np.int32), 14), (np.arange(3, 19, dtype=np.int32), 12)]  # 6 and 4 tokens count
TRAIN = params.Train(steps=9, batch_size=7, accumulation=5, learning_rate=0.1, warmup_steps=3, weight_decay=0.1,
                     article_weight=0.0, precision="float32", evaluations=1)
LESSON = Lesson(EXAMPLES, filler=END_OF_TEXT, length=LENGTH, train=TRAIN)
FLAT = {"forward_ms", "generate_ms", "first_token_ms", "tokens_per_s", "peak_memory_mb", "train_step_ms", "backend"}
pytestmark = pytest.mark.usefixtures("server")


def tiny(device=CPU, layers=1, width=16, tile=(), **variant):
    """A GPT-2 that would emit end-of-text at once and for ever."""
    shape = params.Model(pretrained=None, dropout=0.0, layers=layers, width=width, heads=2, init_std=0.1,
                         position_init_std=0.01)
    spec = AttentionSpec(**{"kernel": "flash"} | variant | ({"layers": tile} if tile else {}))
    model = from_scratch(spec, shape, vocab_size=VOCABULARY, max_length=LENGTH, end_of_text=END_OF_TEXT, seed=1).eval()
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)  # so a token's logit is the sum of its embedding
        model.transformer.wte.weight[END_OF_TEXT] = 10.0
    return model.to(device)


def subject_of(model, **changes):
    return Subject(model, **{"prompt": torch.arange(48)[None] % VOCABULARY, "length": LENGTH, "lesson": LESSON,
                             "settings": SETTINGS} | changes)


def lesson_with(**changes):
    return replace(LESSON, train=TRAIN.model_copy(update=changes))


def run_profile(model, tmp_path, device=CPU, **changes):
    """Both files' contents, measured in this very process, standard beside itself."""
    def headlines(names):
        return [headline(subject_of(deepcopy(model), **changes), device, len, lambda: None) for _ in names]

    processes = side_by_side(headlines, "standard", "standard", SETTINGS.pairs)
    swept = sweep(subject_of(deepcopy(model), **changes), device, tmp_path / "trace.json.gz", len)
    return arranged(processes, *swept, SETTINGS.new_tokens)


def megabytes(count, device=CPU):
    return torch.ones(count * 2**20, dtype=torch.uint8, device=device)


# --- time


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `work` moves on."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(timing, "perf_counter", lambda: now.seconds)
    return now


@pytest.mark.parametrize(("min_repeats", "min_seconds", "repeats"), [(2, 1.0, 4), (5, 0.0, 5), (5, 1.0, 5)])
def test_measure_warms_up_then_obeys_both_minimums(clock, min_repeats, min_seconds, repeats):
    calls = []

    def work():
        calls.append(clock.seconds)
        clock.seconds += 0.25 if len(calls) > 3 else 9.0  # the first runs are slow

    samples = measure(work, CPU, min_repeats=min_repeats, min_seconds=min_seconds, warmup=3)
    assert samples == pytest.approx([250.0] * repeats)
    assert len(calls) == 3 + repeats


def test_measure_pauses_the_garbage_collector_and_restores_it():
    enabled = []
    measure(lambda: enabled.append(gc.isenabled()), CPU, min_repeats=2, min_seconds=0, warmup=0)
    assert enabled == [False, False]
    assert gc.isenabled()

    def fails():
        raise KeyError

    with pytest.raises(KeyError):
        measure(fails, CPU, min_repeats=2, min_seconds=0, warmup=0)
    assert gc.isenabled()


def test_on_cuda_the_device_is_idle_before_and_done_after(monkeypatch):
    """The study's timers did not wait for the GPU. Only CUDA itself is replaced."""
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            log.append("record")

        def synchronize(self):
            log.append("wait for event")

        def elapsed_time(self, end):
            return 7.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("wait for device"))
    assert measure(lambda: log.append("work"), CUDA, min_repeats=2, min_seconds=0, warmup=1) == [7.0, 7.0]
    assert log == ["work"] + 2 * ["wait for device", "record", "work", "record", "wait for event"]


# --- one measurement


def measured(samples=(1.0, 2.0), unit="ms", work="forward", batch=1, length=8, backend="sdpa"):
    return Measurement(work, batch, length, 0, "float32", unit, tuple(samples), backend)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
def test_percentiles_are_numpys(count):
    samples = np.random.default_rng(count).lognormal(size=count).tolist()
    row = measured(samples).row()
    for key, percent in (("p10", 10), ("median", 50), ("p90", 90)):
        assert row[key] == pytest.approx(np.percentile(samples, percent), abs=1e-5)
    assert row["repeats"] == len(row["samples"]) == count
    assert row["unit"] == "ms"


@given(st.lists(st.floats(0.001, 1e6).map(lambda value: round(value, 5)), max_size=5),
       st.sampled_from(["ms", "MB"]), st.sampled_from([None, "sdpa"]))
def test_a_measurement_comes_back_from_its_row(samples, unit, backend):
    one = measured(samples, unit, backend=backend)
    row = json.loads(json.dumps(one.row()))
    assert read(row) == one
    assert row.get("out_of_memory", False) == (not samples)
    assert ("median" in row) == (unit == "ms" and bool(samples))
    assert ("peak_mb" in row) == (unit == "MB" and bool(samples))


def test_over_processes_a_sample_is_a_processs_median():
    one = over_processes([measured([1.0, 2.0, 9.0]), measured([4.0]), measured([3.0, 5.0])])
    assert one == measured([2.0, 4.0, 4.0])
    assert one.median == 4.0
    assert over_processes([measured([1.0]), measured([])]).out_of_memory


# --- processes


def call(function, *arguments, announce=lambda what: None):
    answer, = fresh.in_turns(function, [arguments], announce)
    return answer


def test_every_call_is_a_process_of_its_own_in_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    first, second = fresh.in_turns(children.tell, [("one",), ("two",)], said.append)
    third = call(children.tell, "three", announce=said.append)
    assert said == ["one", "two", "three"]
    assert {one["folder"] for one in (first, second, third)} == {str(tmp_path)}
    assert len({first["pid"], second["pid"], third["pid"], os.getpid()}) == 4


def test_processes_run_one_at_a_time_and_in_turn():
    said = []
    assert fresh.in_turns(children.count, [("a", 3), ("b", 1), ("c", 2)], said.append) == [3, 1, 2]
    assert said == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_an_error_in_a_process_is_told_with_its_message_and_traceback():
    with pytest.raises(fresh.ProcessError, match=r"^no bridge in Ashfield\n") as caught:
        call(children.fail, "no bridge in Ashfield")
    assert "in fail" in caught.value.__notes__[0]
    assert "ValueError" in caught.value.__notes__[0]


def test_what_cannot_be_handed_back_is_an_error_too():
    with pytest.raises(fresh.ProcessError, match="pickle"):
        call(children.give_a_function)


@pytest.mark.parametrize(("how", "message"), [("exit", r"ended without an answer \(exit code 3\)"),
                                              ("kill", "was killed, as Linux does .* out of memory")])
def test_a_process_that_dies_is_told(how, message):
    with pytest.raises(fresh.ProcessError, match=message):
        call(children.die, how)


@pytest.mark.parametrize("deaf", [False, True])
def test_an_interruption_leaves_no_process_behind(monkeypatch, deaf):
    """Neither the one that runs nor the one that waits for its turn."""
    monkeypatch.setattr(fresh, "GRACE_S", 0.5)
    started = []

    def interrupt(pid):
        started.append(pid)
        if len(started) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fresh.in_turns(children.wait_then_sleep, [(deaf,), (deaf,)], interrupt)
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_server_imports_once_and_from_where_this_process_would(tmp_path):
    (tmp_path / "only_here.py").write_text("import os\nPID = os.getpid()\n"
                                           "def pids(line): return PID, os.getpid()\n")
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path.append({str(tmp_path)!r})\n"
                      "from headtohead.profiling import fresh\nimport only_here\n"
                      "if __name__ == '__main__':\n"
                      "    fresh.serve(['only_here'])\n"
                      "    print(fresh.in_turns(only_here.pids, [(), ()], print))\n")
    (server, first), (again, second) = eval(in_subprocess(script.read_text(), script))
    assert server == again
    assert len({server, first, second}) == 3


def test_the_stage_itself_has_no_torch():
    """It only asks; to import what the processes need would take it seconds once more."""
    code = "import sys, stages.profile; print({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules))"
    assert in_subprocess(code).strip() == "set()"


# --- pairs


def beside(**figures):
    """A process's measurements: a figure's samples, which are one for each turn; () is out of memory."""
    works = dict.fromkeys(TIMES, (1.0,)) | {"forward_mb": (100.0,), "generate_mb": (90.0,),
                                                "train_step_mb": (500.0,)} | figures
    return [measured(samples, "MB" if name.endswith("_mb") else "ms", name.removesuffix("_mb"))
            for name, samples in works.items()]


def test_pairs_alternate_which_comes_first():
    order = []
    processes = side_by_side(lambda names: order.append(names) or [beside(), beside()], "flash", "standard", 3)
    assert order == [["flash", "standard"], ["standard", "flash"], ["flash", "standard"]]
    assert [(one.pair, one.side, one.variant) for one in processes] == [
        (0, "ours", "flash"), (0, "control", "standard"), (1, "control", "standard"), (1, "ours", "flash"),
        (2, "ours", "flash"), (2, "control", "standard")]


def test_a_pair_is_ours_then_the_controls_whichever_ran_first():
    taken = iter([1.0, 2.0, 20.0, 10.0, 100.0, 200.0])
    processes = side_by_side(lambda names: [beside(forward=(next(taken),)) for _ in names], "standard", "standard", 3)
    pairs = in_pairs(processes)
    assert pairs.keys() == {*TIMES, MEMORY}
    assert pairs["forward"] == [[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]
    assert pairs[MEMORY] == [[100.0, 100.0]] * 3  # the highest of inference, and not of training


def test_of_the_turns_the_one_with_the_middle_ratio_counts():
    """A neighbour slows the third turn of both by two, and the last of ours alone by nine."""
    ours, control = (1.1, 1.2, 2.3, 1.2, 9.0), (1.0, 1.0, 2.0, 1.0, 1.0)
    processes = side_by_side(lambda names: [beside(generate=ours), beside(generate=control)], "flash", "standard", 1)
    assert in_pairs(processes)["generate"] == [[1.2, 1.0]]


@pytest.mark.parametrize(("lost", "without"), [("train_step", {"train_step"}), ("generate_mb", {MEMORY}),
                                               ("train_step_mb", set())])
def test_a_work_without_room_on_either_side_has_no_pairs_and_the_rest_has(lost, without):
    taken = iter([{}, {}, {lost: ()}, {}])
    pairs = in_pairs(side_by_side(lambda names: [beside(**next(taken)) for _ in names], "flash", "standard", 2))
    assert {name for name, found in pairs.items() if found is None} == without
    assert all(len(found) == 2 for found in pairs.values() if found)


# --- memory


def test_peak_notices_what_is_freed_again_and_forgets_what_came_before():
    base = peak_memory(lambda: None, CPU)
    large = peak_memory(lambda: megabytes(400), CPU)
    small = peak_memory(lambda: [megabytes(1) for _ in range(200)], CPU)  # these come from glibc's heap
    after = peak_memory(lambda: None, CPU)
    assert large - base == pytest.approx(400, abs=40)
    assert small - base == pytest.approx(200, abs=40)
    assert after - base == pytest.approx(0, abs=40)


def test_peak_leaves_out_what_the_c_library_keeps_after_it_was_freed():
    base = peak_memory(lambda: None, CPU)
    megabytes(1)  # once one such block was freed, glibc takes the next from its heap
    blocks = [megabytes(1) for _ in range(200)]
    last = blocks.pop()  # holds the heap's end, so that it cannot shrink by itself
    del blocks
    assert peak_memory(lambda: None, CPU) - base < 40
    del last


def test_warm_up_does_not_count_as_memory():
    calls = []

    def work():
        calls.append(None)
        megabytes(200 if len(calls) == 1 else 1)

    assert peak_memory(work, CPU) - peak_memory(lambda: None, CPU) < 50
    assert len(calls) == 2


def test_without_linux_the_peak_is_the_process_s_since_it_began(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "missing" / "status")
    assert 50 < peak_memory(lambda: None, CPU) < 2**20


def test_process_peak_is_this_process_alone():
    """getrusage would give a child the peak of the process that started it."""
    ballast = megabytes(800)
    peak = float(in_subprocess("from headtohead.profiling.memory import process_peak_mb; print(process_peak_mb())"))
    assert peak < ballast.numel() / 2**20 < process_peak_mb()


# --- the whole profile


@pytest.fixture(autouse=True, scope="module")
def small_peaks():
    """What a peak is measured on fills a large machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(peaks.SIDE, "cpu", 64)
        patch.setitem(peaks.COPIED, "cpu", 2**16)
        yield


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """As in the processes that measure: garbage is collected before every turn."""
    with timing.garbage_frozen():
        yield


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """flat and details."""
    return run_profile(tiny(), tmp_path_factory.mktemp("profiled"))


@pytest.fixture
def engines(monkeypatch):
    """Every engine that is made in this test, each with a log of what is asked of it."""
    made = []

    class Watched(inference.Engine):
        def __init__(self, model, graphs=None):
            super().__init__(model, graphs=graphs)
            self.asked, self.graphs_wanted, self.model_was = [], graphs, (model.training, model.dtype)
            made.append(self)

        def forward(self, ids):
            logits = super().forward(ids)
            self.asked.append((tuple(ids.shape), tuple(logits.shape), logits.requires_grad))
            return logits

        def release(self):
            self.asked.append("release")
            super().release()

    monkeypatch.setattr(inference, "Engine", Watched)
    return made


@pytest.fixture
def losses(monkeypatch):
    """Every loss that is computed in this test: (batch, length), tokens that count, the model's state."""
    seen, original = [], GPT2._losses

    def watched(model, labels, at, **inputs):
        seen.append((tuple(labels.shape), len(at[0]),
                     (model.training, model.dtype, torch.is_autocast_enabled("cpu"))))
        return original(model, labels, at, **inputs)

    monkeypatch.setattr(GPT2, "_losses", watched)
    return seen


def sizes(rows):
    return [(row["work"], row["batch"], row["length"]) for row in rows]


INFERRED = [("forward", 1, LENGTH), ("generate", 1, LENGTH - 4), ("first_token", 1, LENGTH - 4)]
SWEPT = [("forward", 1, 16), ("forward", 3, LENGTH)]
TRAINED = [("train_step", 1, LENGTH), ("train_step", 2, LENGTH)]


def test_profile_gives_the_contracts_keys_and_every_pass(profiled):
    flat, details = profiled
    json.dumps([flat, details])
    assert flat.keys() == FLAT
    assert flat["backend"] == details["backend"] == "sdpa"
    assert details.keys() == {"device", "dtype", "backend", "versions", "threads", "timings", "memory", "operations",
                              "nvml", "peaks", "attention_share", "layers", "seen_share", "cache_mb", "length_limit",
                              "lengths_left_out", "pairs", "processes", "train_step"}
    assert sizes(details["memory"]) == INFERRED + SWEPT + TRAINED
    assert sizes(details["timings"]) == [*INFERRED, *SWEPT, ("attention", 1, 16), ("attention", 1, LENGTH),
                                         ("lookup_pass", 1, LENGTH - 4), *TRAINED]
    assert [row["new_tokens"] for row in details["timings"]] == [0, 4, 1, 0, 0, 0, 0, 16, 0, 0]
    assert {row["work"] for row in details["timings"] if row.get("backend") == "sdpa"} == {
        "forward", "attention", "train_step"}
    assert [row["backend"] for row in details["timings"] if row["work"] == "generate"] == ["sdpa, then sdpa"]
    assert details["nvml"] is None


def test_every_timing_of_every_process_is_kept(profiled):
    _, details = profiled
    assert [(one["pair"], one["side"], one["variant"]) for one in details["processes"]] == [
        (0, "ours", "standard"), (0, "control", "standard"), (1, "control", "standard"), (1, "ours", "standard")]
    for process in details["processes"]:
        times = [row for row in process["measurements"] if row["unit"] == "ms"]
        assert sizes(times) == [*INFERRED, TRAINED[-1]]
        assert [len(row["samples"]) for row in times] == [15, 15, 15, 7]  # one for each turn


def test_headline_figures_are_medians_over_the_variants_own_processes(profiled):
    flat, details = profiled
    ours = [one for one in details["processes"] if one["side"] == "ours"]
    for work in TIMES:
        medians = [row["median"] for one in ours for row in one["measurements"]
                   if (row["work"], row["unit"]) == (work, "ms")]
        row = [row for row in details["timings"] if row["work"] == work][-1 if work == "train_step" else 0]
        assert row["samples"] == medians
        assert flat[f"{work}_ms"] == pytest.approx(row["median"], abs=1e-4)
    assert flat["tokens_per_s"] == pytest.approx(4 / flat["generate_ms"] * 1000, rel=1e-3)
    peaks = [max(row["peak_mb"] for row in one["measurements"]
                 if row["unit"] == "MB" and row["work"] != "train_step") for one in ours]
    assert peaks == [pair[0] for pair in details["pairs"][MEMORY]]
    assert flat["peak_memory_mb"] == pytest.approx(np.median(peaks), abs=1e-4)


@pytest.mark.parametrize(("positions", "measured", "left_out"), [
    ("learned", [16, LENGTH], [48]), ("alibi", [16, LENGTH, 48], [])])
def test_the_sweep_goes_as_far_as_positions_do_and_says_where_it_ends(tmp_path, positions, measured, left_out):
    model = tiny(positions=positions)
    _, details = run_profile(model, tmp_path)
    for rows, work in (("timings", "forward"), ("memory", "forward"), ("timings", "attention")):
        assert sorted(length for name, batch, length in sizes(details[rows]) if (name, batch) == (work, 1)) == measured
    assert details["lengths_left_out"] == left_out
    assert details["length_limit"] == model.length_limit
    assert [row["length"] for row in details["attention_share"]] == measured


def test_a_grid_has_every_length_in_every_batch_size_and_generation_where_there_is_room_for_it(tmp_path):
    settings = SETTINGS.model_copy(update={"grid": True, "lengths": [4, 16]})
    _, details = run_profile(tiny(positions="alibi"), tmp_path, settings=settings)
    for rows in ("timings", "memory"):
        inferred = [row for row in details[rows] if row["work"] in ("forward", "generate")]
        found = sorted((row["work"], row["batch"], row["length"] + row["new_tokens"]) for row in inferred)
        assert found == [*(("forward", batch, length) for batch in (1, 3) for length in (4, 16, LENGTH)),
                         *(("generate", batch, length) for batch in (1, 3) for length in (16, LENGTH))]
        assert all(row["new_tokens"] == 4 for row in inferred if row["work"] == "generate")


def test_attentions_share_and_what_is_achieved_come_from_the_rows(profiled):
    _, details = profiled
    model, peaks = tiny(), details["peaks"]
    shape = shape_of(model, itemsize=4)
    rows = {(row["work"], row["batch"], row["length"]): row for row in details["timings"]}
    costs = {("forward", 3, LENGTH): shape.forward(3, LENGTH), ("attention", 1, 16): shape.attention(16),
             ("generate", 1, LENGTH - 4): shape.generate(LENGTH - 4, 4),
             ("train_step", 2, LENGTH): shape.train_step(2, LENGTH, counted=10)}  # five a sequence
    for size, cost in costs.items():
        row, seconds = rows[size], rows[size]["median"] / 1000
        assert row["tflops"] == pytest.approx(cost.operations / seconds / 1e12, rel=1e-3)
        assert row["gb_per_s"] == pytest.approx(cost.bytes / seconds / 1e9, rel=1e-3)
        assert row["tflops_share"] == pytest.approx(row["tflops"] / peaks["tflops"], rel=1e-2)
        assert row["gb_per_s_share"] == pytest.approx(row["gb_per_s"] / peaks["gb_per_s"], rel=1e-2)
    for row in details["attention_share"]:
        layers = model.config.n_layer * rows["attention", 1, row["length"]]["median"]
        assert row["share"] == pytest.approx(layers / rows["forward", 1, row["length"]]["median"], abs=1e-3)


def test_memory_is_read_without_graphs_and_time_is_taken_with_them(tmp_path, engines):
    """A graph allocates when it is captured: a replay's peak says nothing."""
    run_profile(tiny(), tmp_path)
    asked = {wanted: [sum(asked != "release" for asked in engine.asked) for engine in engines
                      if engine.graphs_wanted is wanted] for wanted in (False, None)}
    assert max(asked[False]) < 7 <= min(asked[None])


def test_between_points_of_the_sweep_the_engine_gives_back_what_it_holds(tmp_path, engines):
    run_profile(tiny(positions="alibi"), tmp_path)
    for engine in engines:
        *asked, last = engine.asked[:max(i for i, what in enumerate(engine.asked) if what == "release") + 1]
        assert last == "release"
        for before, after in itertools.pairwise(asked):
            assert "release" in (before, after) or before == after


def test_inference_is_measured_before_training_allocates(tmp_path):
    said = []
    headline(subject_of(tiny()), CPU, said.append, lambda: None)
    assert "train" in said[-1]
    assert not any("train" in what for what in said[:-1])


def test_works_take_turns_and_one_without_room_leaves_the_others_theirs():
    ran, rooms = [], []

    def work(name, fails=False):
        def run():
            if fails and ran.count(name):
                raise MemoryError
            ran.append(name)
        return Work(name, 1, LENGTH, 0, run)

    passes = Passes(SETTINGS, CPU, lambda what: None, turns=3, turn=lambda: ran.append("turn"))
    passes.time(work("a"), work("b", fails=True), work("c"), make_room=lambda: rooms.append(len(ran)))
    turns = [key for key, _ in itertools.groupby(ran) if key != "turn"]
    assert turns == ["a", "b", "c", "a", "c", "a", "c"]
    assert ran.count("turn") == 7
    assert [len(one.samples) for one in passes.taken] == [3, 0, 3]
    assert len(rooms) == 1


def test_generation_has_exactly_new_tokens_though_the_model_would_stop(tmp_path, monkeypatch):
    model, original, shapes = tiny(), inference.generate, []
    start = torch.arange(1, 9)[None]
    assert model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=4, pad_token_id=0).shape[1] == 9

    def spy(engine, ids, **settings):
        tokens = original(engine, ids, **settings)
        shapes.append((ids.shape[1], tuple(tokens.shape)))
        return tokens

    monkeypatch.setattr(inference, "generate", spy)
    run_profile(model, tmp_path)
    assert set(shapes) == {(LENGTH - 4, (1, 1)), (LENGTH - 4, (1, 4))}


def test_forward_gives_the_next_tokens_logits(tmp_path, engines):
    run_profile(tiny(), tmp_path)
    seen = {asked for engine in engines for asked in engine.asked} - {"release"}
    assert {ids for ids, _, _ in seen} == {(1, LENGTH), (1, 16), (3, LENGTH)}
    assert all(logits == (batch, VOCABULARY) and not gradient for (batch, _), logits, gradient in seen)


def test_a_step_is_the_trainings_on_real_examples_padded_to_one_length(tmp_path, losses):
    """Of 20 and 16 tokens, 6 and 4 are summary: only those count, as in training."""
    run_profile(tiny(), tmp_path)
    assert {shape for shape, _, _ in losses} == {(1, LENGTH), (2, LENGTH)}
    assert {counted for shape, counted, _ in losses if shape[0] == 1} == {6, 4}
    assert {counted for shape, counted, _ in losses if shape[0] == 2} <= {12, 10, 8}


@pytest.mark.parametrize(("changes", "optimizer", "weights", "dtype"), [
    ({}, "AdamW", torch.float32, "float32"),
    ({"optimizer": "adafactor", "gradient_checkpointing": True}, "Adafactor", torch.float32, "float32"),
    ({"weights": "bfloat16", "devices": 2}, "AdamW", torch.bfloat16, "bfloat16"),
])
def test_a_step_is_the_presets_own_on_one_device(tmp_path, changes, optimizer, weights, dtype):
    model, seen, passes = tiny(), set(), []
    hook = register_optimizer_step_pre_hook(lambda own, *_: seen.add(
        (type(own).__name__, own.param_groups[0]["params"][0].dtype, len(passes), passes.clear())))
    model.transformer.h[0].mlp.register_forward_pre_hook(lambda module, _: module.training and passes.append(module))
    _, details = run_profile(model, tmp_path, lesson=lesson_with(**changes))
    hook.remove()
    assert seen == {(optimizer, weights, 2 if changes.get("gradient_checkpointing") else 1, None)}
    assert details["train_step"] == {"article_weight": 0.0, "precision": "float32", "optimizer": "adamw",
                                     "weights": "float32", "gradient_checkpointing": False} | changes | {"devices": 1}
    assert {row["dtype"] for row in details["timings"] if row["work"] == "train_step"} == {dtype}
    assert {row["dtype"] for row in details["timings"] if row["work"] == "forward"} == {"float32"}


def test_with_weight_on_the_article_every_token_but_the_first_counts(tmp_path, losses):
    lesson = lesson_with(article_weight=0.5)
    assert lesson.counted == 17
    run_profile(tiny(), tmp_path, lesson=lesson)
    assert {counted for shape, counted, _ in losses if shape[0] == 1} == {19, 15}


def test_a_step_clips_the_gradients_and_leaves_the_weights_all_but_as_they_are(monkeypatch):
    model, clipped = tiny(), []
    original = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_",
                        lambda weights, norm, **rest: clipped.append(norm) or original(weights, norm, **rest))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measured = headline(subject_of(model), CPU, len, lambda: None)
    assert len(measured[-1].samples) >= 2
    assert set(clipped) == {1.0}
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=1e-6)


def test_bfloat16_is_weights_in_inference_and_autocast_in_training(tmp_path, engines, losses):
    lesson = lesson_with(precision="bfloat16")
    _, details = run_profile(tiny(), tmp_path, lesson=lesson,
                             settings=SETTINGS.model_copy(update={"precision": "bfloat16"}))
    assert {state for _, _, state in losses} == {(True, torch.float32, True)}
    assert {engine.model_was for engine in engines} == {(False, torch.bfloat16)}
    assert {row["dtype"] for row in details["timings"]} == {"bfloat16"}


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_of_training_without_room_is_a_row_and_no_crash(tmp_path, monkeypatch, batch):
    original = training.prepare

    def no_room(model, examples, validation, settings, **more):
        if settings.batch_size == batch:
            raise torch.OutOfMemoryError
        return original(model, examples, validation, settings, **more)

    monkeypatch.setattr(training, "prepare", no_room)
    flat, details = run_profile(tiny(), tmp_path)
    assert (flat["train_step_ms"] is None) == (batch == 2)  # never a smaller batch's in its place
    assert (details["pairs"]["train_step"] is None) == (batch == 2)
    assert all(details["pairs"][name] for name in ("forward", "generate", "first_token", MEMORY))
    for rows in ("timings", "memory"):
        found = {row["batch"]: row.get("out_of_memory", False) for row in details[rows] if row["work"] == "train_step"}
        assert found == {1: batch == 1, 2: batch == 2}


def raising(error, shape, monkeypatch):
    """Lets the engine fail at inputs of one shape."""
    def forward(engine, ids):
        if ids.shape == shape:
            raise error
        return original(engine, ids)

    original = inference.Engine.forward
    monkeypatch.setattr(inference.Engine, "forward", forward)


NO_ROOM = [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
           RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")]


@pytest.mark.parametrize("error", NO_ROOM, ids=lambda error: type(error).__name__)
def test_a_point_of_the_sweep_without_room_is_a_row_and_the_rest_goes_on(tmp_path, monkeypatch, error):
    raising(error, (1, 16), monkeypatch)
    _, details = run_profile(tiny(), tmp_path)
    for rows, measured in (("timings", "median"), ("memory", "peak_mb")):
        found = {(row["batch"], row["length"]): row for row in details[rows] if row["work"] == "forward"}
        lost = found.pop((1, 16))
        assert lost["out_of_memory"]
        assert measured not in lost
        assert found.keys() == {(1, LENGTH), (3, LENGTH)}
        assert all(measured in row for row in found.values())
    assert [row["length"] for row in details["attention_share"]] == [LENGTH]


def test_a_headline_figure_without_room_is_null_and_the_rest_goes_on(tmp_path, monkeypatch):
    raising(torch.OutOfMemoryError("no room"), (1, LENGTH), monkeypatch)
    flat, details = run_profile(tiny(), tmp_path)
    assert {name for name, value in flat.items() if value is None} == {"forward_ms", "peak_memory_mb"}
    assert {name for name, value in details["pairs"].items() if value is None} == {"forward", MEMORY}
    assert details["operations"] == []
    assert [row["length"] for row in details["attention_share"]] == [16]
    with gzip.open(tmp_path / "trace.json.gz") as trace:
        assert json.load(trace) == {"traceEvents": []}  # dvc.yaml names it, so it has to be there


def test_any_other_error_ends_the_profile(tmp_path, monkeypatch):
    raising(RuntimeError("shapes do not match"), (1, 16), monkeypatch)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_profile(tiny(), tmp_path)


@pytest.mark.parametrize(("shape", "length", "message"), [
    ((48,), LENGTH, r"need \[1, 48\] or more"), ((2, 48), LENGTH, r"need \[1, 48\] or more"),
    ((1, 47), LENGTH, r"need \[1, 48\] or more"), ((1, 48), 49, r"need \[1, 49\] or more"),
    ((1, 48), SETTINGS.new_tokens, "longer than new_tokens 4")])
def test_a_prompt_of_a_wrong_shape_is_refused(shape, length, message):
    with pytest.raises(ValueError, match=message):
        Subject(tiny(), torch.ones(shape, dtype=torch.long), length, LESSON, SETTINGS)


# --- arithmetic


SPECS = st.builds(lambda window: AttentionSpec(kernel="flash", pattern="window", window=window) if window else
                  AttentionSpec(), st.integers(0, 12))


def test_layers_that_differ_are_added_up():
    near, far = ({"pattern": "window", "window": 3}, {"pattern": "full"})
    mixed, *uniform = (shape_of(tiny(layers=3, tile=tile), itemsize=4) for tile in ([near, far, far], [near], [far]))
    of_near, of_far = (shape.attention(20).operations for shape in uniform)
    assert mixed.attention(20).operations == (of_near + 2 * of_far) // 3
    for cost in (lambda shape: shape.train_step(2, 20, 40), lambda shape: shape.generate(10, 6)):
        ours, lowest, highest = (cost(shape).operations for shape in (mixed, *uniform))
        assert lowest < ours < highest


def test_performers_work_grows_with_features_and_length_and_not_with_its_square():
    few, many = (pairs_of(AttentionSpec(kernel="performer", features=m), 40, 40) for m in (8, 16))
    assert many == 2 * few
    assert pairs_of(AttentionSpec(kernel="performer", features=8), 80, 80) == 2 * few


@pytest.mark.parametrize(("variant", "share", "kept"), [
    ({}, 1.0, 2 * 16 * 4 * LENGTH * 4),
    ({"pattern": "window", "window": 6},
     (6 * 7 / 2 + (LENGTH - 6) * 6) / (LENGTH * (LENGTH + 1) / 2), 2 * 16 * 4 * 6 * 4),
    ({"pattern": "longformer", "window": 6, "globals": 2},
     (8 * 9 / 2 + (LENGTH - 8) * 8) / (LENGTH * (LENGTH + 1) / 2), 2 * 16 * 4 * 8 * 4),
    ({"tile": [{"pattern": "window", "window": 1}, {"pattern": "full"}]}, (2 / (LENGTH + 1) + 1) / 2,
     2 * 16 * 4 * (1 + LENGTH) * 2),
    ({"kernel": "performer", "features": 8}, 1.0, 2 * 8 * (8 + 1) * 4 * 4)])
def test_what_is_seen_and_kept_of_a_sequence(variant, share, kept):
    shape = shape_of(tiny(layers=4, **variant), itemsize=4)
    assert shape.seen_share(LENGTH) == pytest.approx(share)
    assert shape.kept_bytes(LENGTH) == kept


@pytest.mark.parametrize("variant", [
    {}, {"pattern": "block", "block": 4}, {"tile": [{"pattern": "window", "window": 3}, {"pattern": "full"}]},
    {"kernel": "performer", "features": 8}])
def test_what_is_kept_is_what_the_engine_holds(variant):
    model = tiny(layers=3, **variant)
    assert shape_of(model, itemsize=4).kept_bytes(LENGTH) == Engine(model).cache(1, LENGTH).bytes


def test_seen_and_kept_are_in_the_details(profiled):
    _, details = profiled
    assert (details["layers"], details["seen_share"]) == (1, 1.0)
    assert details["cache_mb"] == pytest.approx(2 * 16 * 4 * LENGTH / 2**20, abs=1e-6)


def operations_of(run):
    """As PyTorch counts them; of eager attention also those that are masked away."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("layers", [1, 3])
def test_operations_are_those_that_pytorch_counts(layers):
    model = tiny(layers=layers, kernel="eager")
    shape, width, ids = shape_of(model, itemsize=4), model.config.n_embd, torch.ones(2, 20, dtype=torch.long)
    masked_away = 4 * width * layers * len(ids) * (20**2 - visible(model.variant, 20).sum().item())
    everything = operations_of(lambda: model(input_ids=ids, use_cache=False)) - masked_away
    assert shape.train_step(2, 20, counted=40).operations == 3 * everything
    engine = inference.Engine(model, graphs=False)
    for_the_next_token = operations_of(lambda: engine.forward(ids)) - masked_away
    assert shape.forward(2, 20).operations <= for_the_next_token <= everything
    last_queries = (2 * width**2 + 4 * width * 20) * 20 * len(ids)  # the last layer's, at all positions
    assert for_the_next_token - shape.forward(2, 20).operations <= last_queries


@settings(max_examples=30, deadline=None)
@given(SPECS, st.integers(1, 12), st.integers(1, 6))
def test_generation_is_its_prompts_pass_and_one_for_each_further_token(spec, length, new_tokens):
    model = tiny(**spec.model_dump(), layers=2)
    shape, width = shape_of(model, itemsize=2), model.config.n_embd
    seen = visible(spec, length + new_tokens - 1).sum(1).tolist()
    weights = sum(p.numel() for p in model.transformer.h.parameters() if p.dim() > 1)
    prompt, further = shape.forward(1, length), seen[length:]
    operations = sum(2 * weights + 2 * width * VOCABULARY + 4 * width * pairs * 2 for pairs in further)
    moved = sum(weights + width * VOCABULARY + VOCABULARY + 2 * 2 * width * (1 + pairs) for pairs in further)
    cost = shape.generate(length, new_tokens)
    assert (cost.operations, cost.bytes) == (prompt.operations + operations, prompt.bytes + 2 * moved)


def test_attention_alone_reads_three_tensors_and_writes_one():
    alone = shape_of(tiny(), itemsize=4).attention(20)
    assert alone.operations == 4 * 16 * (20 * 21 // 2)
    assert alone.bytes == 4 * 4 * 20 * 16


def test_a_peak_is_the_best_of_its_repeats(monkeypatch):
    monkeypatch.setattr(peaks, "measure", lambda work, device, **settings: [4.0, work() is None or 2.0, 3.0])
    found = peaks.measure_peaks(CPU, torch.float32)
    assert found.tflops == pytest.approx(2 * 64**3 / 2e-3 / 1e12)
    assert found.gb_per_s == pytest.approx(2 * 2**16 / 2e-3 / 1e9)


# --- operations


@pytest.mark.parametrize(("name", "opener"), [("trace.json", open), ("trace.json.gz", gzip.open)])
def test_top_operations_and_a_trace_that_opens(tmp_path, name, opener):
    model, ids = tiny(), torch.ones(1, LENGTH, dtype=torch.long)
    path = tmp_path / "new" / name
    rows = top_operations(lambda: model(input_ids=ids), CPU, trace=path, top=5)
    assert len(rows) == 5
    assert rows == sorted(rows, key=lambda row: -row["self_ms"])
    assert 0 < sum(row["share"] for row in rows) <= 1
    assert all(row["calls"] >= 1 for row in rows)
    with opener(path, "rt") as trace:
        names = {event["name"] for event in json.load(trace)["traceEvents"]}
    assert {row["name"] for row in rows} <= names
    assert path.stat().st_size < 5 * 2**20


# --- the machine and the GPU's counters


class FakeNvml(SimpleNamespace):
    """The library's edge: one GPU that draws more power at each reading, and measures no temperature."""

    def __init__(self):
        super().__init__(opens=0, power=iter(range(100_000, 10**9, 50_000)), energy=iter([5_000, 9_000]))
        for name in ("NVMLError", "NVMLError_NotSupported", "NVML_TEMPERATURE_GPU", "NVML_CLOCK_SM"):
            setattr(self, name, getattr(pynvml, name))

    def nvmlInit(self):
        self.opens += 1

    def nvmlShutdown(self):
        self.opens -= 1

    def nvmlDeviceGetTemperature(self, gpu, sensor):
        raise pynvml.NVMLError_NotSupported

    def __getattr__(self, name):
        answers = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: f"GPU-{index}",
            "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
            "nvmlDeviceGetName": lambda gpu: "Fake 1",
            "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(used=3 * 2**20, total=8 * 2**30),
            "nvmlDeviceGetPowerUsage": lambda gpu: next(self.power),
            "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=50),
            "nvmlDeviceGetClockInfo": lambda gpu, clock: 1980,
            "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: next(self.energy),
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 13010,
        }
        return answers[name]


@pytest.fixture
def gpu(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setattr(nvml, "pynvml", fake)
    monkeypatch.setattr(machine, "pynvml", fake)
    return fake


def test_counters_are_sampled_while_the_work_runs(gpu):
    seen = nvml.watch(lambda: time.sleep(0.1), "GPU-0", interval_s=0.001)
    readings = seen["readings"]
    assert readings > 2
    assert seen["seconds"] >= 0.1
    assert seen["power_w_max"] == 100 + 50 * (readings - 1)
    assert seen["power_w_mean"] == pytest.approx(100 + 25 * (readings - 1))
    assert seen["utilisation_percent_mean"] == 50
    assert seen["sm_clock_mhz_max"] == 1980
    assert seen["memory_used_mb_max"] == 3
    assert seen["energy_j"] == 4.0
    assert seen["temperature_c_mean"] is seen["temperature_c_max"] is None
    assert gpu.opens == 0


def test_a_counter_that_breaks_is_an_error_and_nvml_is_closed(gpu):
    gpu.power = iter([100_000])
    with pytest.raises((StopIteration, RuntimeError)):
        nvml.watch(lambda: time.sleep(0.02), "GPU-0", interval_s=0.001)
    assert gpu.opens == 0


def test_without_a_gpu_there_are_no_counters(monkeypatch):
    def no_library():
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", no_library)
    assert nvml.watch(lambda: pytest.fail("ran"), "GPU-0") is None
    assert machine.describe()["gpu"] is None


def test_machine_is_flat_the_same_again_and_tells_gpus(gpu, monkeypatch):
    seen = machine.describe()
    assert seen == machine.describe() == json.loads(json.dumps(seen))
    assert all(value is None or isinstance(value, str | int) for value in seen.values())
    assert (seen["gpu"], seen["driver"], seen["cuda"]) == ("Fake 1 8 GB, Fake 1 8 GB", "580.1", "13.1")
    assert seen["cores"] == len(os.sched_getaffinity(0))
    assert seen["torch"].split("+")[0] == torch.__version__.split("+")[0]  # not every build names its CUDA there
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # other hardware in use, so other timings
    assert machine.describe() != seen


def test_machine_id_tells_machines_apart_and_stays_private(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "MACHINE_ID", tmp_path / "id")
    without = machine.hashed_id()
    hashes = {without}
    for raw in ("0123456789abcdef" * 2, "fedcba9876543210" * 2):
        (tmp_path / "id").write_text(raw + "\n")
        assert raw not in json.dumps(machine.describe())
        hashes.add(machine.hashed_id())
    assert len(hashes) == 3
    (tmp_path / "id").write_text("\n")  # as container images have it
    assert machine.hashed_id() == without


def in_subprocess(code, script=None):
    """What `code` prints, in an interpreter of its own that finds this package; from the file `script` if there is one.
    """
    found = [str(Path(headtohead.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(found)}
    how = ["-c", code] if script is None else [script]
    return subprocess.run([sys.executable, *how], env=environment, capture_output=True, text=True,
                          check=True).stdout


def test_machine_needs_no_torch_and_agrees_between_processes():
    code = ("import json, sys; from headtohead.profiling import machine; "
            "print(json.dumps([machine.describe(), sorted(sys.modules)]))")
    described, modules = json.loads(in_subprocess(code))
    assert described == machine.describe()
    assert not {"torch", "transformers", "datasets", "numpy"} & set(modules)


# --- on a GPU


@pytest.mark.gpu
def test_cuda_events_count_the_kernels_and_not_their_launch():
    cycles = 20_000_000  # of the GPU's clock, below 3 GHz: 6 ms at least
    samples = measure(lambda: torch.cuda._sleep(cycles), CUDA, min_repeats=3, min_seconds=0, warmup=1)
    assert min(samples) > cycles / 3e9 * 1000


@pytest.mark.gpu
def test_cuda_peak_is_exact_and_reset():
    base = peak_memory(lambda: None, CUDA)
    assert peak_memory(lambda: megabytes(400, CUDA), CUDA) - base == 400
    assert peak_memory(lambda: megabytes(200, CUDA), CUDA) - base == 200


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_profile_on_cuda(tmp_path, precision):
    lesson = lesson_with(precision=precision)
    flat, details = run_profile(tiny(width=128), tmp_path, CUDA, lesson=lesson,
                                settings=SETTINGS.model_copy(update={"precision": precision}))
    assert flat.keys() == FLAT
    assert all(details["pairs"].values())
    assert details["device"] == torch.cuda.get_device_name()
    assert details["nvml"]["runs"] >= 1
    assert details["nvml"]["power_w_mean"] > 0
    assert details["nvml"]["energy_per_summary_j"] == pytest.approx(
        details["nvml"]["energy_j"] / details["nvml"]["runs"], abs=1e-3)
    shares = [row["share"] for row in details["operations"]]
    assert len(shares) == 10
    assert 0.5 < sum(shares) <= 1.001


def test_without_cuda_nothing_is_captured():
    run = object()
    assert captured(run, CPU) is run


@pytest.mark.gpu
def test_a_captured_run_does_its_work_at_every_replay():
    count = torch.zeros((), device=CUDA)
    replay = captured(lambda: count.add_(1), CUDA)
    before = count.item()
    replay()
    replay()
    assert count.item() == before + 2


@pytest.mark.gpu
def test_a_sweep_without_room_on_cuda_goes_on(tmp_path):
    """Of the larger batch the token ids have room, and the logits have not: 184 GB."""
    settings = SETTINGS.model_copy(update={"lengths": [20], "batch_sizes": [large := 30_000_000, 2]})
    _, details = run_profile(tiny(), tmp_path, CUDA, settings=settings)
    for rows in ("timings", "memory"):
        found = {row["batch"]: row for row in details[rows] if row["work"] == "forward"}
        assert found[large]["out_of_memory"]
        assert "out_of_memory" not in found[2]
    assert all("median" in row for row in details["timings"] if row["work"] in ("attention", "train_step"))


@pytest.mark.gpu
def test_out_of_memory_on_cuda_leaves_room_for_what_follows(tmp_path, monkeypatch):
    original = training.prepare

    def filling(model, examples, validation, settings, **more):
        if settings.batch_size == 1:
            megabytes(2**30, CUDA)
        return original(model, examples, validation, settings, **more)

    monkeypatch.setattr(training, "prepare", filling)
    _, details = run_profile(tiny(), tmp_path, CUDA)
    first, second = (row for row in details["timings"] if row["work"] == "train_step")
    assert first["out_of_memory"]
    assert second["median"] > 0
