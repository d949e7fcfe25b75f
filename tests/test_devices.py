"""One training on two devices is the training on one: here two processes on the CPU, over gloo."""

import json

import pytest
import torch
from children import fail_in_the_second
from conftest import VARIANTS, tiny
from test_training import LAYOUT, SETTINGS, Killed, at, kill, make_examples, rows, uneven
from transformers import Trainer

from headtohead.params import Train
from headtohead.tokens.layout import Layout
from headtohead.training import run, step
from headtohead.training.devices import DeviceError, count_devices, launch
from headtohead.training.run import best, take_steps

# Eight steps an epoch, the last with a single article, so that one process has none; six evaluations, in the middle of
# epochs too. Summaries of 2 and of 30 tokens: the processes' shares of a batch weigh differently.
MORE = {"steps": 24, "evaluations": 6, "batch_size": 6, "article_weight": 0.5}
TOLERANCE = 1e-4  # float32 sums in another order: 1e-6 was seen, which Adam may enlarge
EXAMPLES, VALIDATION = (make_examples(uneven(count, seed), Layout([1], end=0, max_length=64, new_tokens=40))
                        for count, seed in ((43, 1), (25, 2)))


def settings(**more):
    return Train.model_validate(SETTINGS.model_dump() | MORE | more)


def steps(path, model=None, **more):
    model = model or tiny(VARIANTS["flash"])
    take_steps(model, EXAMPLES, VALIDATION, settings(**more), filler=0, seed=7, checkpoints=path, title="training x")
    return model


def begin(path, monkeypatch):
    """A training that is killed between two checkpoints, in its second epoch."""
    with monkeypatch.context() as patch:
        patch.setattr(run, "Progress", lambda bar: at("on_step_end", 14, kill))
        with pytest.raises(Killed):
            steps(path)


def watched(path, monkeypatch):
    """A whole training; returns the rows of each of its batches."""
    batches = []

    def collate(examples, *rest):
        batches.append([list(map(int, sequence)) for sequence, _ in examples])
        return step_collate(examples, *rest)

    step_collate = step.collate
    with monkeypatch.context() as patch:
        patch.setattr(step, "collate", collate)
        steps(path)
    return batches


def of_own_batch(trainer, batches, count, device):
    """What each process would divide by without its neighbour's weight: then the loss is a mean of means."""
    batches, _ = Trainer.get_batch_samples(trainer, batches, count, device)
    return batches, sum(trainer._weights(batch, training=True)[:, 1:].sum() for batch in batches).clamp(min=1)


def in_each_process(folder):
    """All trainings on two devices, because processes take seconds to start."""
    rank = torch.distributed.get_rank()
    monkeypatch = pytest.MonkeyPatch()
    (folder / f"rows-{rank}.json").write_text(json.dumps(watched(folder / "two", monkeypatch)))
    begin(folder / "begun on two", monkeypatch)
    steps(folder / "begun on one")
    monkeypatch.setattr(step.FadingArticle, "get_batch_samples", of_own_batch)
    steps(folder / "naive")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    monkeypatch = pytest.MonkeyPatch()
    (folder / "rows.json").write_text(json.dumps(watched(folder / "one", monkeypatch)))
    begin(folder / "begun on one", monkeypatch)
    launch(in_each_process, folder, devices=2)
    return folder


def curves(path):
    return best(tiny(VARIANTS["flash"]), settings(), path)


def same(first, second):
    return all(first[column].tolist() == pytest.approx(second[column].tolist(), rel=TOLERANCE) for column in first)


def test_the_curve_of_two_devices_is_that_of_one(folder):
    assert curves(folder / "one")["step"].tolist() == [4, 8, 12, 16, 20, 24]
    assert same(curves(folder / "two"), curves(folder / "one"))


def test_a_mean_of_the_processes_means_is_another_training(folder):
    """The test above would see it."""
    assert not same(curves(folder / "naive"), curves(folder / "one"))


def test_every_step_has_the_articles_of_one_device_and_each_once(folder):
    whole, first, second = (json.loads((folder / name).read_text())
                            for name in ("rows.json", "rows-0.json", "rows-1.json"))
    assert {1, 6, 24} <= set(map(len, whole))
    assert len(whole) == len(first) == len(second)
    nothing = [[0]]
    for batch, ours, theirs in zip(whole, first, second, strict=True):
        assert ours == batch[::2]
        assert theirs == (batch[1::2] or nothing)


def test_a_training_goes_on_on_another_number_of_devices(folder, capsys):
    assert same(curves(folder / "begun on one"), curves(folder / "one"))
    capsys.readouterr()
    steps(folder / "begun on two")
    assert "resumes from step 12 of 24" in capsys.readouterr().err
    assert same(curves(folder / "begun on two"), curves(folder / "one"))


def test_checkpoints_are_complete_and_plain(folder):
    names = [{file.name for file in (folder / where / "checkpoint-24").iterdir()} for where in ("one", "two")]
    assert names[1] - names[0] == {"rng_state_0.pth", "rng_state_1.pth"}
    assert names[0] - names[1] == {"rng_state.pth"}


@pytest.mark.parametrize(("how", "told"), [
    ("raise", "process 2 of 2: no space: left"),
    ("kill", r"process 2 of 2 ended: Signal 9 \(SIGKILL\)"),
])
def test_the_error_is_that_of_the_process_that_failed_first(how, told):
    with pytest.raises(DeviceError, match=told):
        launch(fail_in_the_second, how, devices=2)


def test_gpus_that_are_not_there_are_an_error_that_names_the_key(monkeypatch):
    key = "presets.news.train"
    assert count_devices(settings(devices="all"), key) == 1
    assert count_devices(settings(devices=3), key) == 3  # processes
    with pytest.raises(DeviceError, match=r"presets\.news\.train\.sharding: full needs GPUs"):
        count_devices(settings(devices=3, sharding="full"), key)
    monkeypatch.setattr("headtohead.training.devices.best_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert count_devices(settings(devices="all", sharding="full"), key) == 2
    with pytest.raises(DeviceError, match=r"presets\.news\.train\.devices: asks for 3 GPUs, and 2 can be seen here"):
        count_devices(settings(devices=3), key)


@pytest.mark.parametrize(("wrong", "told"), [
    ({"devices": 7}, "devices: 7 is more than batch_size 6"),
    ({"sharding": "full"}, "sharding: full splits a model over several devices, and devices is 1"),
    ({"devices": 2, "sharding": "full", "optimizer": "adafactor"}, "optimizer: adafactor cannot be split"),
])
def test_what_does_not_go_together_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        settings(**wrong)


@pytest.mark.parametrize("more", [{"optimizer": "adafactor"}, {"weights": "bfloat16"},
                                  {"gradient_checkpointing": True}], ids=str)
def test_what_saves_memory_still_learns(tmp_path, more):
    examples = make_examples(rows(40, 1), LAYOUT)
    model, plain = tiny(VARIANTS["alibi_local_global"]), tiny(VARIANTS["alibi_local_global"])
    changed, unchanged = (run.train(one, examples, examples[:8], SETTINGS.model_copy(update=update), filler=0, seed=7,
                                    checkpoints=tmp_path / name)["validation_loss"]
                          for one, update, name in ((model, more, "changed"), (plain, {}, "unchanged")))
    assert changed.iloc[-1] < changed.iloc[0]
    assert model.dtype is step.WEIGHTS[more.get("weights", "float32")]
    if "gradient_checkpointing" in more:  # only repeats work
        assert changed.tolist() == unchanged.tolist()
