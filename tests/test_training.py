"""Training and generation through the public surface, on tiny models."""

import json
import math
import platform
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import VARIANTS, compiles, random_ids, tiny
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments

from headtohead.inference.engine import Engine
from headtohead.inference.generation import generate_tokens, reference_losses, write_summaries
from headtohead.inference.predictions import predict
from headtohead.models.batches import collate
from headtohead.models.processor import processor
from headtohead.params import Generate, Train
from headtohead.records import DataError
from headtohead.tokens.layout import Layout
from headtohead.training.checkpoints import checkpoint_folder, last_whole_checkpoint, remove_finished
from headtohead.training.examples import make_examples
from headtohead.training.run import TrainingError, train
from headtohead.training.trackers import INTEGRATION_TO_CALLBACK, VARIABLE

variants = pytest.mark.parametrize("name", VARIANTS)
SETTINGS = Train(steps=12, batch_size=4, accumulation=1, learning_rate=0.003, warmup_steps=2, weight_decay=0.0,
                 article_weight=0.0, precision="float32", evaluations=3)
GREEDY = Generate(batch_size=4, max_new_tokens=12, beams=1, no_repeat_ngram=0, precision="float32")
LAYOUT = Layout([1], end=0, max_length=64, new_tokens=12)


def rows(count, seed):
    """Articles of different lengths, summaries alike, so that a few steps can learn them."""
    articles = [random_ids(1, 8 + i % 9, seed * 1000 + i)[0].tolist() for i in range(count)]
    return [{"id": str(i), "article": a, "summary": [5, 6, 7], "reference": "x"} for i, a in enumerate(articles)]


def run(path, model=None, settings=SETTINGS):
    model = model or tiny(VARIANTS["flash"])
    curves = train(model, make_examples(rows(40, 1), LAYOUT), make_examples(rows(8, 2), LAYOUT), settings,
                   filler=0, seed=7, checkpoints=path)
    return model, curves


def loss_by_hand(model, sequence, prompt, article_weight):
    """Mean over target tokens, from the full logits of an unpadded sequence."""
    log_p = model(torch.tensor([list(sequence)])).logits[0].double().log_softmax(-1)
    terms = [(1.0 if i >= prompt else article_weight, -log_p[i - 1, sequence[i]].item())
             for i in range(1, len(sequence))]
    return sum(w * nll for w, nll in terms), sum(w for w, _ in terms)


def test_a_model_says_what_it_was_trained_on(tmp_path):
    model, _ = run(tmp_path / "checkpoints")
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["trained_on"] == {
        "device": processor(), "threads": torch.get_num_threads(), "backend": "sdpa"}
    assert f"| trained on | {processor()}, threads: " in (tmp_path / "README.md").read_text()


@variants
@pytest.mark.parametrize("article_weight", [0.0, 0.3])
def test_the_loss_is_that_of_the_summary_given_the_article(name, article_weight):
    model, examples = tiny(VARIANTS[name]), make_examples(rows(5, 3), LAYOUT)
    with torch.no_grad():
        loss = model(**collate(examples, 0, article_weight)).loss.item()
        parts = [loss_by_hand(model, sequence, prompt, article_weight) for sequence, prompt in examples]
    assert loss == pytest.approx(sum(a for a, _ in parts) / sum(b for _, b in parts), rel=1e-4)


@variants
def test_reference_losses_are_per_article(name):
    model, examples = tiny(VARIANTS[name]), make_examples(rows(5, 4), LAYOUT)
    with torch.no_grad():
        expected = [loss_by_hand(model, sequence, prompt, 0.0) for sequence, prompt in examples]
    losses = reference_losses(model, examples, filler=0, batch_size=2)
    assert [tokens for _, tokens in losses] == [weight for _, weight in expected] == [4] * 5
    assert [loss for loss, _ in losses] == pytest.approx([a / b for a, b in expected], rel=1e-4)


def test_training_learns_and_tells_its_curve(tmp_path):
    model, curves = run(tmp_path)
    assert curves["step"].tolist() == [4, 8, 12]
    assert list(curves) == ["step", "training_loss", "validation_loss", "learning_rate"]
    assert curves.notna().all().all()
    assert curves["validation_loss"].iloc[-1] < curves["validation_loss"].iloc[0]
    examples = make_examples(rows(8, 2), LAYOUT)
    kept = reference_losses(model.eval(), examples, filler=0, batch_size=8)
    assert sum(loss for loss, _ in kept) / 8 == pytest.approx(curves["validation_loss"].min(), rel=1e-4)


def test_the_best_checkpoint_is_kept_not_the_last(tmp_path):
    model, curves = run(tmp_path, settings=SETTINGS.model_copy(update={"learning_rate": 0.5, "warmup_steps": 11}))
    kept = reference_losses(model.eval(), make_examples(rows(8, 2), LAYOUT), filler=0, batch_size=8)
    assert curves["validation_loss"].idxmin() != len(curves) - 1
    assert sum(loss for loss, _ in kept) / 8 == pytest.approx(curves["validation_loss"].min(), rel=1e-4)


class Killed(BaseException):
    """Stands for a signal: nothing in the training may catch it."""


def at(event, step, act):
    """A callback that does something at one event of one step."""
    def handler(args, state, control, **rest):
        if state.global_step == step:
            act(**rest)

    callback = TrainerCallback()
    setattr(callback, event, handler)
    return callback


def kill(**_):
    raise Killed


def killed(path, monkeypatch, event="on_step_end", step=10, settings=SETTINGS):
    """A training that ends at an event; it saves at steps 4, 8 and 12."""
    with monkeypatch.context() as patch:
        patch.setattr("headtohead.training.run.Progress", lambda bar: at(event, step, kill))
        with pytest.raises(Killed):
            run(path, settings=settings)


def same(first, second):
    (model, curves), (other, other_curves) = first, second
    return curves.equals(other_curves) and all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(("event", "step", "last"), [
    ("on_step_end", 3, None),    # before the first checkpoint
    ("on_step_end", 10, 8),      # between two
    ("on_evaluate", 8, 4),       # when one is due
    ("on_save", 8, 4),           # one is there, but not sealed
    ("on_save", 12, 8),          # the same for the last one
    ("on_train_end", 12, 12),    # training is over, but the model is not written yet
])
def test_a_training_that_was_killed_ends_with_the_same_weights(tmp_path, monkeypatch, capsys, event, step, last):
    undisturbed = run(tmp_path / "a")
    killed(tmp_path / "b", monkeypatch, event, step)
    capsys.readouterr()
    assert same(undisturbed, run(tmp_path / "b"))
    said = capsys.readouterr().err
    told = {None: "", 12: "has been done before"}.get(last, f"resumes from step {last} of 12")
    assert told in said
    assert ("training" in said) is bool(told)


def test_a_kill_while_old_checkpoints_are_removed_leaves_the_new_one(tmp_path, monkeypatch):
    undisturbed = run(tmp_path / "a")

    def half_way(folder, **_):
        (Path(folder) / "model.safetensors").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half_way)
        with pytest.raises(Killed):
            run(tmp_path / "b")
    assert not (tmp_path / "b/checkpoint-4/model.safetensors").exists()
    assert same(undisturbed, run(tmp_path / "b"))


def remove(file):
    file.unlink()


def cut_off(file):
    file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])


def garble(file):
    first, *rest = file.read_bytes()
    file.write_bytes(bytes([first ^ 1, *rest]))


@pytest.mark.parametrize("damage", [remove, cut_off, garble])
def test_with_any_file_of_a_checkpoint_damaged_training_goes_on_from_an_earlier_one(tmp_path, monkeypatch, damage):
    undisturbed = run(tmp_path / "a")
    killed(tmp_path / "b", monkeypatch)
    names = {file.name for file in (tmp_path / "b/checkpoint-8").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} < names
    for name in names:
        copy = shutil.copytree(tmp_path / "b", tmp_path / name)
        damage(copy / "checkpoint-8" / name)
        assert last_whole_checkpoint(copy) == copy / "checkpoint-4", name
    assert same(undisturbed, run(copy))


def test_with_the_best_checkpoint_damaged_later_ones_are_of_no_use(tmp_path, monkeypatch):
    worse = SETTINGS.model_copy(update={"learning_rate": 0.5, "warmup_steps": 11})  # the best is the first
    undisturbed = run(tmp_path / "a", settings=worse)
    killed(tmp_path / "b", monkeypatch, settings=worse)
    cut_off(tmp_path / "b/checkpoint-4/model.safetensors")
    assert same(undisturbed, run(tmp_path / "b", settings=worse))


def test_only_files_that_training_wrote_are_read_and_none_can_run_code(tmp_path, monkeypatch):
    killed(tmp_path, monkeypatch)
    opened, load = [], torch.load

    def watched(file, **options):
        opened.append(str(file))
        assert options["weights_only"]
        return load(file, **options)

    monkeypatch.setattr(torch, "load", watched)
    killed(tmp_path, monkeypatch, step=9)
    assert sorted(opened) == [str(tmp_path / "checkpoint-8" / name)
                              for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt")]
    (tmp_path / "checkpoint-8/pytorch_model.bin").write_bytes(b"from elsewhere")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-4"


def poison(model, **_):
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(math.nan)


@pytest.mark.parametrize("step", [6, 8])  # seen in the training loss, and in the validation loss alone
def test_a_loss_that_is_no_number_stops_training_before_it_is_saved(tmp_path, monkeypatch, step):
    monkeypatch.setattr("headtohead.training.run.Progress", lambda bar: at("on_step_end", step, poison))
    message = r"training x: the loss is nan at step 8 of 12, .* rate of 0\.003 .*; lower train\.learning_rate"
    with pytest.raises(TrainingError, match=message):
        train(tiny(VARIANTS["flash"]), make_examples(rows(40, 1), LAYOUT), make_examples(rows(8, 2), LAYOUT), SETTINGS,
              filler=0, seed=7, checkpoints=tmp_path, title="training x")
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-4"]
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-4"


def test_a_learning_rate_far_too_high_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+ of 12, with a learning rate of 1e\+06"):
        run(tmp_path, settings=SETTINGS.model_copy(update={"learning_rate": 1e6}))


def test_what_a_training_depends_on_decides_where_its_checkpoints_are():
    here = checkpoint_folder("flash", VARIANTS["flash"], SETTINGS, 64, 7, "data")
    assert here == checkpoint_folder("flash", VARIANTS["flash"], SETTINGS.model_copy(), 64, 7, "data")
    others = [checkpoint_folder("flash", VARIANTS["flash"], SETTINGS.model_copy(update={"steps": 13}), 64, 7, "data"),
              checkpoint_folder("flash", VARIANTS["flash"], SETTINGS, 64, 8, "data"),
              checkpoint_folder("flash", VARIANTS["flash_alibi"], SETTINGS, 64, 7, "data")]
    assert len({here, *others}) == 4


def test_no_training_goes_on_with_other_code(tmp_path, monkeypatch):
    module = ModuleType("headtohead.loaded")
    module.__file__ = str(tmp_path / "loaded.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    folders = []
    for code in ("a = 1", "a = 2", "a = 1"):
        (tmp_path / "loaded.py").write_text(code)
        folders.append(checkpoint_folder("flash", SETTINGS))
    assert folders[0] != folders[1]
    assert folders[0] == folders[2]


def test_checkpoints_stay_until_the_next_training_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("headtohead.training.checkpoints.CHECKPOINTS", tmp_path)
    for name in ("last", "this"):
        run(tmp_path / name)
    killed(tmp_path / "interrupted", monkeypatch)
    remove_finished(keep=[tmp_path / "this"])
    assert {folder.name for folder in tmp_path.iterdir()} == {"this", "interrupted"}


def uneven(count, seed):
    """Summaries of 2 and of 30 tokens in turn."""
    return [row | {"summary": [5 + i for i in range(30 if n % 2 else 2)]} for n, row in enumerate(rows(count, seed))]


def test_a_step_is_the_same_however_it_is_accumulated(tmp_path):
    """A mean of batches' means weighed a short summary's tokens up to fifteen times as much as a long one's."""
    layout = Layout([1], end=0, max_length=64, new_tokens=40)
    examples = make_examples(uneven(8, 5), layout)
    trained, losses = [], []
    for batch_size, accumulation in ((8, 1), (4, 2), (1, 8)):
        model = tiny(VARIANTS["flash"])
        settings = SETTINGS.model_copy(update={"steps": 2, "warmup_steps": 0, "evaluations": 2, "article_weight": 0.5,
                                               "batch_size": batch_size, "accumulation": accumulation})
        curves = train(model, examples, examples, settings, filler=0, seed=1, checkpoints=tmp_path / str(batch_size))
        # Two steps, for Adam's first one has the same length whatever the gradient's.
        trained.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        losses.append(curves["training_loss"].tolist())
    start = torch.cat([parameter.detach().flatten() for parameter in tiny(VARIANTS["flash"]).parameters()])
    moved = (trained[0] - start).norm()
    for other, loss in zip(trained[1:], losses[1:], strict=True):
        assert (other - trained[0]).norm() < 0.01 * moved
        assert loss == pytest.approx(losses[0], rel=1e-4)


def test_the_validation_loss_does_not_depend_on_the_batch_size(tmp_path):
    """It chooses the checkpoint."""
    examples = make_examples(uneven(9, 5), Layout([1], end=0, max_length=64, new_tokens=40))
    losses = []
    for batch_size in (1, 2, 8):
        settings = SETTINGS.model_copy(update={"steps": 1, "warmup_steps": 0, "evaluations": 1, "learning_rate": 1e-9,
                                               "batch_size": batch_size})
        curves = train(tiny(VARIANTS["flash"]), examples, examples, settings, filler=0, seed=1,
                       checkpoints=tmp_path / str(batch_size))
        losses += curves["validation_loss"].tolist()
    with torch.no_grad():
        parts = [loss_by_hand(tiny(VARIANTS["flash"]), *example, 0.0) for example in examples]
    assert losses == pytest.approx([sum(a for a, _ in parts) / sum(b for _, b in parts)] * 3, rel=1e-5)


def test_a_training_uses_one_device_of_several(tmp_path, monkeypatch):
    """Trainer would wrap the model in nn.DataParallel and double the batch."""
    set_up = TrainingArguments._setup_devices.func

    def two_devices(arguments):
        if not hasattr(arguments, "distributed_state"):
            set_up(arguments)
            arguments._n_gpu = 2
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(two_devices))
    model, sizes = tiny(VARIANTS["flash"]), set()
    model.register_forward_pre_hook(lambda model, args, inputs: sizes.add(len(inputs["input_ids"])), with_kwargs=True)
    train(model, make_examples(rows(40, 1), LAYOUT), make_examples(rows(4, 2), LAYOUT), SETTINGS, filler=0, seed=7,
          checkpoints=tmp_path)
    assert sizes == {SETTINGS.batch_size}


def test_the_articles_weight_falls_to_nothing_and_validation_counts_the_summary_alone(tmp_path):
    model, examples = tiny(VARIANTS["flash"]), make_examples(rows(8, 6), LAYOUT)
    settings = SETTINGS.model_copy(update={"steps": 4, "evaluations": 4, "warmup_steps": 0, "article_weight": 0.8,
                                           "batch_size": 8, "learning_rate": 1e-9})  # all but standing still
    with torch.no_grad():
        parts = {weight: [loss_by_hand(model, *example, weight) for example in examples]
                 for weight in (0.8, 0.6, 0.4, 0.2, 0.0)}
    expected = {weight: sum(a for a, _ in pairs) / sum(b for _, b in pairs) for weight, pairs in parts.items()}
    curves = train(model, examples, examples, settings, filler=0, seed=1, checkpoints=tmp_path)
    assert curves["training_loss"].tolist() == pytest.approx([expected[w] for w in (0.8, 0.6, 0.4, 0.2)], rel=1e-3)
    assert curves["validation_loss"].tolist() == pytest.approx([expected[0.0]] * 4, rel=1e-3)


@compiles
def test_compiled_training_is_the_same_training(tmp_path, monkeypatch):
    """As on CUDA: padded to one length, and without a last, smaller batch, which validation must not lose."""
    validation = make_examples(rows(21, 2), LAYOUT)  # a batch of 16 and one of 5
    curves, names = [], []
    for whether in (False, True):
        for module in ("run", "step"):
            monkeypatch.setattr(f"headtohead.training.{module}.compiles", lambda device, whether=whether: whether)
        model, path = tiny(VARIANTS["flash_alibi"]), tmp_path / str(whether)
        with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):
            curves.append(train(model, make_examples(rows(40, 1), LAYOUT), validation, SETTINGS, filler=0, seed=7,
                                checkpoints=path))
        names.append(load_file(path / "checkpoint-12/model.safetensors").keys())
    assert names[0] == names[1]
    for column in curves[0]:
        assert curves[1][column].tolist() == pytest.approx(curves[0][column].tolist(), rel=1e-3)


def test_a_summary_that_does_not_fit_is_left_out_of_training_and_said(caplog):
    long, short = ({"id": str(size), "article": [5], "summary": [5] * size} for size in (70, 3))
    assert len(make_examples([long, short, long], LAYOUT)) == 1
    assert "2 of 3 rows are left out" in caplog.text
    with pytest.raises(DataError, match=r"no summary fits: tokenizer\.max_length 64 and generate\.max_new_tokens 12"):
        make_examples([long, long], LAYOUT)


@variants
def test_a_reference_longer_than_there_is_room_for_stops_nothing(name, tokenizer, caplog):
    row = {"id": "1", "article": [5] * 99, "summary": [6] * 99, "reference": "whole"}
    model = tiny(VARIANTS[name])
    [prediction] = predict(model, tokenizer, [row], GREEDY, 64, "test")
    assert prediction["reference"] == "whole"
    assert prediction["tokens"] == 12  # as many as a summary has room for
    assert "1 references are longer" in caplog.text
    separator = tokenizer(tokenizer.init_kwargs["separator"], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        loss, weight = loss_by_hand(model, [5] * 51 + separator + [6] * 12, 52, 0.0)
    assert prediction["loss"] == pytest.approx(loss / weight, rel=1e-4)


@variants
def test_the_text_is_the_same_for_any_batch_size(name, tokenizer):
    model = tiny(VARIANTS[name])
    prompts = [LAYOUT.prompt(row["article"]) for row in rows(11, 6)]
    texts = [write_summaries(Engine(model), tokenizer, prompts, GREEDY.model_copy(update={"batch_size": size}))
             for size in (1, 3, 11)]
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts[0])) > 1


@variants
def test_greedy_is_the_most_likely_token_each_time(name, tokenizer):
    model, prompt = tiny(VARIANTS[name]), LAYOUT.prompt(rows(1, 7)[0]["article"])
    sequence = list(prompt)
    with torch.no_grad():
        while len(sequence) < len(prompt) + 12 and (len(sequence) == len(prompt) or sequence[-1] != 0):
            sequence.append(model(torch.tensor([sequence])).logits[0, -1].argmax().item())
    assert generate_tokens(Engine(model), tokenizer, [prompt], GREEDY)[0].tolist() == sequence[len(prompt):]


def test_beams_find_likelier_texts_than_greed_does(tokenizer):
    model = tiny(VARIANTS["flash"])
    engine = Engine(model)
    prompts = [LAYOUT.prompt(row["article"]) for row in rows(8, 8)]

    def mean_likelihood(beams):
        texts = generate_tokens(engine, tokenizer, prompts, GREEDY.model_copy(update={"beams": beams, "batch_size": 8}))
        parts = [loss_by_hand(model, prompt + [t for t in text if t], len(prompt), 0.0)
                 for prompt, text in zip(prompts, texts.tolist(), strict=True)]
        return -sum(loss / weight for loss, weight in parts)

    with torch.no_grad():
        assert mean_likelihood(8) > mean_likelihood(1)


def test_the_ngram_ban_leaves_copying_from_the_article_alone(tokenizer):
    """transformers' own ban counts the prompt, and so forbids a summarizer to copy."""
    engine = Engine(tiny(VARIANTS["flash"]))
    prompt = LAYOUT.prompt(rows(1, 9)[0]["article"])
    free = generate_tokens(engine, tokenizer, [prompt], GREEDY)[0].tolist()
    in_article = [*free[:4], *prompt]  # the model's own continuation now stands in the prompt as well
    banned, short = GREEDY.model_copy(update={"no_repeat_ngram": 2}), GREEDY.model_copy(update={"max_new_tokens": 2})
    first = generate_tokens(engine, tokenizer, [in_article], short)[0].tolist()
    with_copy = [*first, *in_article]
    wanted = generate_tokens(engine, tokenizer, [with_copy], short)
    got = generate_tokens(engine, tokenizer, [with_copy], banned.model_copy(update={"max_new_tokens": 2}))
    assert torch.equal(wanted, got)
    tokens = generate_tokens(engine, tokenizer, [prompt], banned)[0].tolist()
    tokens = tokens[:tokens.index(0)] if 0 in tokens else tokens
    pairs = list(pairwise(tokens))
    assert len(set(pairs)) == len(pairs)


def test_predictions_hold_the_continuation_and_never_the_prompt(tokenizer):
    model = tiny(VARIANTS["flash"])
    with torch.no_grad():  # end-of-text at once: all that is left is an empty summary
        model.transformer.wte.weight[0] = 50 * model.transformer.wte.weight.mean(0)
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[0])
    predictions = predict(model, tokenizer, rows(3, 10), GREEDY, 64, "test")
    assert [row["summary"] for row in predictions] == ["", "", ""]
    assert [row["tokens"] for row in predictions] == [4, 4, 4]
    assert all(math.isfinite(row["loss"]) for row in predictions)


def test_long_articles_are_cut_to_the_models_positions_and_not_where_it_has_none(tokenizer):
    long = [{"id": "1", "article": [5] * 200, "summary": [6, 7], "reference": "x"}]
    learned, alibi = (predict(tiny(VARIANTS[name]), tokenizer, long, GREEDY, None, "test")[0]
                      for name in ("flash", "flash_alibi"))
    assert learned["cut"] == 200 - (64 - 1 - 12)
    assert alibi["cut"] == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is another one")
def test_a_stage_trains_in_the_memory_that_it_has():
    """Memory returned to the system comes back page by page, ten thousand a step of this size."""
    script = """
import resource
import numpy as np
import torch
from headtohead.attention import AttentionSpec
from headtohead.models.gpt2 import from_scratch
from headtohead.params import Model, Profile, Train
from headtohead.profiling.passes import Passes
from headtohead.profiling.training import Lesson, measure_training
from headtohead.stage import run

def main():
    size = Model(pretrained=None, layers=2, width=64, heads=4, init_std=0.02, position_init_std=0.02, dropout=0.0)
    model = from_scratch(AttentionSpec(kernel="flash", positions="learned", pattern="full"), size, vocab_size=2048,
                         max_length=176, end_of_text=0, seed=1)
    train = Train(steps=1, batch_size=1, accumulation=1, learning_rate=1.0, warmup_steps=0, weight_decay=0.0,
                  article_weight=0.0, precision="float32", evaluations=1)
    lesson = Lesson([(np.arange(176, dtype=np.int32), 130)], 0, 176, train)
    settings = Profile(new_tokens=1, lengths=[1], batch_sizes=[1], train_batch_sizes=[16], pairs=2, min_repeats=40,
                       min_seconds=0.0, precision="float32")
    faults = []
    turn = lambda: faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    measure_training(model, lesson, 16, Passes(settings, torch.device("cpu"), len, turns=5, turn=turn))
    print(faults[-1] - faults[1])

run(main)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 30_000


TOLD = []


class Tracker(TrainerCallback):
    """Keeps what a tracker is told."""

    def on_log(self, args, state, control, logs=None, **_):
        TOLD.append((args.run_name, logs.get("eval_loss")))


def test_a_tracker_that_the_environment_names_is_told_and_changes_nothing(tmp_path, monkeypatch):
    _, alone = run(tmp_path / "alone")
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "mlflow", Tracker)
    monkeypatch.setenv(VARIABLE, "mlflow")
    _, followed = run(tmp_path / "followed")
    assert followed.equals(alone)
    assert [loss for name, loss in TOLD if name == "training" and loss] == followed["validation_loss"].tolist()


@pytest.mark.parametrize(("names", "told"), [
    ("mlflo", "HEADTOHEAD_REPORT_TO: there is no tracker 'mlflo'; there are .*mlflow"),
    ("clearml", "HEADTOHEAD_REPORT_TO: clearml does not work here: .*clearml"),
])
def test_a_tracker_that_cannot_be_used_is_named_before_any_work(tmp_path, monkeypatch, names, told):
    monkeypatch.setenv(VARIABLE, names)
    with pytest.raises(ValueError, match=told):
        run(tmp_path)
