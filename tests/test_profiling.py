"""profiling/: what is timed, remembered and left alone. No test asserts a speed."""

import gc
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest
import torch

import headtohead
from headtohead import params
from headtohead.attention import AttentionSpec
from headtohead.model import GPT2, from_scratch
from headtohead.profiling import machine, memory, nvml, timing
from headtohead.profiling.memory import peak_memory, process_peak_mb
from headtohead.profiling.operations import top_operations
from headtohead.profiling.profile import passes_of, profile
from headtohead.profiling.timing import Timing, measure

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SETTINGS = params.Profile(new_tokens=4, train_batch_sizes=[2, 1], min_repeats=2, min_seconds=0.0, precision="float32")
LENGTH, VOCABULARY, END_OF_TEXT = 24, 64, 0
FLAT = {"forward_ms", "generate_ms", "first_token_ms", "tokens_per_s", "peak_memory_mb", "train_step_ms", "backend"}


def tiny(device=CPU):
    """A GPT-2 that would emit end-of-text at once and for ever."""
    shape = params.Model(pretrained=None, dropout=0.0, layers=1, width=16, heads=2, init_std=0.1,
                         position_init_std=0.01)
    model = from_scratch(AttentionSpec(kernel="flash"), shape, vocab_size=VOCABULARY, max_length=LENGTH,
                         end_of_text=END_OF_TEXT, seed=1).eval()
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)  # so a token's logit is the sum of its embedding
        model.transformer.wte.weight[END_OF_TEXT] = 10.0
    return model.to(device)


def mean_loss(model, ids):
    return model(input_ids=ids, labels=ids, weights=torch.ones_like(ids, dtype=torch.float32)).loss


def run_profile(model, tmp_path, device=CPU, **changes):
    arguments = {"prompt": torch.arange(LENGTH)[None] + 1, "settings": SETTINGS, "loss": mean_loss, "device": device,
                 "trace": tmp_path / "trace.json.gz"} | changes
    return profile(model, **arguments)


def models_alive():
    """How many there are in this process, by type itself: transformers' lazy objects import when asked."""
    gc.collect()
    return sum(type(thing) is GPT2 for thing in gc.get_objects())


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


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_percentiles_are_numpys(count):
    samples = np.random.default_rng(count).lognormal(size=count).tolist()
    row = Timing("forward", 1, 8, 0, "float32", samples).row()
    for key, percent in (("p10", 10), ("median", 50), ("p90", 90)):
        assert row[key] == pytest.approx(np.percentile(samples, percent), abs=1e-4)
    assert row["repeats"] == len(row["samples"]) == count
    assert row["unit"] == "ms"


# --- memory


def test_peak_notices_what_is_freed_again_and_forgets_what_came_before():
    base = peak_memory(lambda: None, CPU)
    large = peak_memory(lambda: megabytes(400), CPU)
    small = peak_memory(lambda: [megabytes(1) for _ in range(200)], CPU)  # these come from glibc's heap
    after = peak_memory(lambda: None, CPU)
    assert all(peak.reset for peak in (base, large, small, after))
    assert large.mb - base.mb == pytest.approx(400, abs=40)
    assert small.mb - base.mb == pytest.approx(200, abs=40)
    assert after.mb - base.mb == pytest.approx(0, abs=40)


def test_peak_leaves_out_what_the_c_library_keeps_after_it_was_freed():
    base = peak_memory(lambda: None, CPU)
    megabytes(1)  # once one such block was freed, glibc takes the next from its heap
    blocks = [megabytes(1) for _ in range(200)]
    last = blocks.pop()  # holds the heap's end, so that it cannot shrink by itself
    del blocks
    assert peak_memory(lambda: None, CPU).mb - base.mb < 40
    del last


def test_warm_up_does_not_count_as_memory():
    calls = []

    def work():
        calls.append(None)
        megabytes(200 if len(calls) == 1 else 1)

    assert peak_memory(work, CPU).mb - peak_memory(lambda: None, CPU).mb < 50
    assert len(calls) == 2


def test_peak_that_cannot_be_reset_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "missing" / "status")
    peak = peak_memory(lambda: None, CPU)
    assert not peak.reset
    assert 50 < peak.mb < 2**20


def test_process_peak_is_this_process_alone():
    """getrusage would give a child the peak of the process that started it."""
    ballast = megabytes(800)
    peak = float(in_subprocess("from headtohead.profiling.memory import process_peak_mb; print(process_peak_mb())"))
    assert peak < ballast.numel() / 2**20 < process_peak_mb()


# --- the whole profile


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """flat, details and what on_progress was told."""
    said = []
    return *run_profile(tiny(), tmp_path_factory.mktemp("profiled"), on_progress=said.append), said


def test_profile_gives_the_contracts_keys_and_every_pass(profiled):
    flat, details, said = profiled
    json.dumps([flat, details])
    assert flat.keys() == FLAT
    assert flat["backend"] == details["backend"] == "sdpa"
    assert details.keys() == {"device", "dtype", "backend", "versions", "threads", "timings", "memory", "operations",
                              "nvml", "process_peak_mb"}
    sizes = [("forward", 1, LENGTH), ("generate", 1, LENGTH - 4), ("first_token", 1, LENGTH - 4),
             ("train_step", 1, LENGTH), ("train_step", 2, LENGTH)]
    *timings, yardstick = details["timings"]
    for rows in (timings, details["memory"]):
        assert [(row["work"], row["batch"], row["length"]) for row in rows] == sizes
    assert [row["new_tokens"] for row in timings] == [0, 4, 1, 0, 0]
    assert yardstick["work"] == "yardstick"
    assert yardstick["repeats"] >= 2 * SETTINGS.min_repeats  # before and after
    assert len(said) == passes_of(SETTINGS)
    assert details["nvml"] is None


def test_flat_numbers_come_from_their_rows(profiled):
    flat, details, _ = profiled
    median = {(row["work"], row["batch"]): row["median"] for row in details["timings"]}
    assert flat["forward_ms"] == median["forward", 1]
    assert flat["first_token_ms"] == median["first_token", 1]
    assert flat["train_step_ms"] == median["train_step", 2]
    assert flat["tokens_per_s"] == pytest.approx(4 / median["generate", 1] * 1000, rel=1e-3)
    inference = [row["peak_mb"] for row in details["memory"] if row["work"] != "train_step"]
    assert flat["peak_memory_mb"] == max(inference) <= details["process_peak_mb"]


def test_inference_memory_is_read_before_training_allocates(tmp_path):
    said, trained_after = [], []

    def loss(model, ids):
        trained_after.append(len(said))
        return mean_loss(model, ids)

    run_profile(tiny(), tmp_path, on_progress=said.append, loss=loss)
    assert not any("train" in what for what in said[:min(trained_after) - 1])
    assert not any("forward" in what or "generate" in what for what in said[min(trained_after):])


def test_generation_has_exactly_new_tokens_though_the_model_would_stop(tmp_path, monkeypatch):
    model = tiny()
    start, original, lengths = torch.arange(1, 9)[None], model.generate, []
    assert original(start, attention_mask=torch.ones_like(start), max_new_tokens=4, pad_token_id=0).shape[1] == 9

    def spy(ids, **settings):
        tokens = original(ids, **settings)
        lengths.append(tokens.shape[1] - ids.shape[1])
        return tokens

    monkeypatch.setattr(model, "generate", spy)
    run_profile(model, tmp_path)
    assert set(lengths) == {1, 4}
    monkeypatch.setattr(model, "generate", lambda ids, min_new_tokens, **rest: original(ids, **rest))
    with pytest.raises(RuntimeError, match="1 tokens instead of 4"):
        run_profile(model, tmp_path)


def test_forward_computes_the_logits_of_every_position(tmp_path):
    model, shapes = tiny(), []
    model.register_forward_hook(lambda module, inputs, output: shapes.append(output.get("logits")))
    run_profile(model, tmp_path)
    whole = [logits for logits in shapes if logits is not None and logits.shape == (1, LENGTH, VOCABULARY)]
    assert len(whole) >= SETTINGS.min_repeats
    assert not any(logits.requires_grad for logits in whole)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("training", [True, False])
def test_model_stays_as_it_was_and_copies_are_freed(tmp_path, precision, training):
    model = tiny().train(training)
    alive = models_alive()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run_profile(model, tmp_path, settings=SETTINGS.model_copy(update={"precision": precision}))
    assert model.training is training
    assert model.dtype == torch.float32
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert models_alive() == alive


def test_bfloat16_is_weights_in_inference_and_autocast_in_training(tmp_path, monkeypatch):
    seen = set()

    def loss(learner, ids):
        seen.add((learner.training, learner.dtype, torch.is_autocast_enabled("cpu")))
        return mean_loss(learner, ids)

    def spy(self, ids, **settings):
        seen.add((self.training, self.dtype, torch.is_autocast_enabled("cpu")))
        return original(self, ids, **settings)

    model = tiny()
    original = type(model).generate
    monkeypatch.setattr(type(model), "generate", spy)
    run_profile(model, tmp_path, loss=loss, settings=SETTINGS.model_copy(update={"precision": "bfloat16"}))
    assert seen == {(False, torch.bfloat16, False), (True, torch.float32, True)}


def test_a_batch_without_room_is_a_row_and_no_crash(tmp_path):
    def loss(learner, ids):
        if len(ids) == 2:
            raise torch.OutOfMemoryError
        return mean_loss(learner, ids)

    flat, details = run_profile(tiny(), tmp_path, loss=loss)
    assert flat["train_step_ms"] is None  # never a smaller batch's in its place
    first, second = (row for row in details["timings"] if row["work"] == "train_step")
    assert "median" in first
    assert second == {"work": "train_step", "batch": 2, "length": LENGTH, "out_of_memory": True}


@pytest.mark.parametrize("shape", [(LENGTH,), (2, LENGTH), (1, SETTINGS.new_tokens)])
def test_prompt_of_a_wrong_shape_is_refused(tmp_path, shape):
    with pytest.raises(ValueError, match="longer than new_tokens 4"):
        run_profile(tiny(), tmp_path, prompt=torch.ones(shape, dtype=torch.long))


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


def in_subprocess(code):
    """What `code` prints, in an interpreter of its own that finds this package."""
    found = [str(Path(headtohead.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(found)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True,
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
    base = peak_memory(lambda: None, CUDA).mb
    assert peak_memory(lambda: megabytes(400, CUDA), CUDA).mb - base == 400
    assert peak_memory(lambda: megabytes(200, CUDA), CUDA).mb - base == 200


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_profile_on_cuda(tmp_path, precision):
    model = tiny()
    alive = models_alive()
    flat, details = run_profile(model, tmp_path, CUDA, settings=SETTINGS.model_copy(update={"precision": precision}))
    assert models_alive() == alive
    assert model.device == CPU
    assert flat.keys() == FLAT
    assert details["device"] == torch.cuda.get_device_name()
    assert details["nvml"]["runs"] >= 1
    assert details["nvml"]["power_w_mean"] > 0
    shares = [row["share"] for row in details["operations"]]
    assert len(shares) == 10
    assert 0.5 < sum(shares) <= 1.001


@pytest.mark.gpu
def test_out_of_memory_on_cuda_leaves_room_for_what_follows(tmp_path):
    def loss(learner, ids):
        if len(ids) == 1:  # the first to run
            megabytes(2**30, CUDA)
        return mean_loss(learner, ids)

    _, details = run_profile(tiny(), tmp_path, CUDA, loss=loss)
    first, second = (row for row in details["timings"] if row["work"] == "train_step")
    assert first["out_of_memory"]
    assert second["median"] > 0
