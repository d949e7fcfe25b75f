"""GPT-2s with whatever their configurations say, against transformers' own; what is not supported is refused."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from closure import ROOT
from conftest import VARIANTS, VOCABULARY, compiles
from safetensors.torch import load_file, save_file
from test_decoding import by_transformers, padded_prompts
from test_model import gradients
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.activations import ACT2FN

from headtohead.inference.engine import Engine
from headtohead.inference.search import generate
from headtohead.models.checkpoints import build, from_pretrained
from headtohead.models.gpt2 import ModelError, compile_for_training
from headtohead.models.pretrained import ACTIVATIONS, SEARCH, UNSUPPORTED, check_pretrained
from headtohead.params import Model
from headtohead.records import DataError

POSITIONS = 40


@pytest.fixture
def folder(tmp_path) -> Path:
    """A plain GPT-2 whose head is its own, as transformers saves it."""
    random_model(5, tie_word_embeddings=False).save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def read(folder: Path, name: str = "flash"):
    return from_pretrained(VARIANTS[name], folder, dropout=0.0, max_length=POSITIONS).eval()


def say(folder: Path, file: str = "config.json", **settings) -> None:
    """Write settings into one of a model's files."""
    path = folder / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | settings))


def edit_weights(folder: Path, edit) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def assert_logits_are_transformers_own(folder: Path, model) -> None:
    """By our forward pass and by the engine."""
    theirs = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(1, 21).view(2, 10)
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(Engine(model).forward(ids), expected[:, -1], atol=1e-5, rtol=1e-5)


def random_model(seed: int, **settings) -> GPT2LMHeadModel:
    """A GPT-2 that uses whatever its configuration can say, with no weight at 0 or 1."""
    rng = random.Random(seed)
    heads = rng.choice((1, 2, 3))
    vocabulary = rng.choice((37, 64, 101))
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=POSITIONS, n_embd=heads * rng.choice((4, 6, 16)), n_head=heads,
        n_layer=rng.choice((1, 2, 3)), n_inner=rng.choice((None, 5, 48)),
        activation_function=ACTIVATIONS[seed % len(ACTIVATIONS)],
        layer_norm_epsilon=rng.choice((1e-6, 1e-5, 0.1)), tie_word_embeddings=rng.random() < 0.5,
        scale_attn_weights=rng.random() < 0.5, scale_attn_by_inverse_layer_idx=rng.random() < 0.5,
        reorder_and_upcast_attn=rng.random() < 0.5, attn_pdrop=rng.random(), resid_pdrop=rng.random(),
        embd_pdrop=rng.random(), bos_token_id=rng.randrange(vocabulary), eos_token_id=rng.randrange(vocabulary),
        pad_token_id=rng.choice((None, 1)), use_cache=rng.random() < 0.5)
    config.update(settings)
    model = GPT2LMHeadModel(config)
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, mean=float(".ln_" in name and "weight" in name), std=0.3)
    return model.to(rng.choice((torch.float32, torch.bfloat16, torch.float16)))


@pytest.mark.parametrize("seed", range(2 * len(ACTIVATIONS)))
def test_whatever_a_configuration_says_logits_and_summaries_are_transformers_own(seed, tmp_path):
    random_model(seed).save_pretrained(tmp_path)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float32,
                                             attn_implementation=("eager", "sdpa")[seed % 2]).eval()
    ours = read(tmp_path, ("flash", "standard")[seed // 2 % 2])
    ids, mask, padding = padded_prompts(3, 20, seed)
    ids, engine = ids % theirs.config.vocab_size, Engine(ours)
    with torch.no_grad():
        expected = theirs(ids[:, :15]).logits
        logits = ours(ids[:, :15]).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(engine.forward(ids[:, :15]), expected[:, -1], atol=1e-5, rtol=1e-5)
    losses = torch.nn.functional.cross_entropy(expected[:, :-1].transpose(1, 2), ids[:, 1:15], reduction="none")
    ours_losses = torch.tensor([loss for loss, _ in ours.summary_losses(ids[:, :15], ids[:, :15])])
    torch.testing.assert_close(ours_losses, losses.mean(1), atol=1e-5, rtol=1e-5)
    for beams in (1, 3):
        asked = {"max_new_tokens": 10, "beams": beams, "no_repeat_ngram": 2, "end": seed % 30}
        assert generate(engine, ids, padding, **asked).tolist() == by_transformers(theirs, ids, mask, **asked)


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(len(ACTIVATIONS)))
def test_on_cuda_too_whatever_a_configuration_says_the_engine_is_right(seed, tmp_path):
    """In one pass, for a single token, and token by token; by kernels that have GPT-2's activation built in."""
    random_model(seed, n_embd=48).save_pretrained(tmp_path)  # PyTorch's float32 kernels want widths by fours
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ours = read(tmp_path).cuda()
    ours.config.attention_backend = "sdpa"  # FlexAttention would compile for every shape
    engine, ids = Engine(ours), torch.randint(0, theirs.config.vocab_size, (3, 20))
    with torch.no_grad():
        for prompts in (ids, ids[:1, :1]):
            expected = theirs(prompts).logits
            torch.testing.assert_close(engine.forward(prompts.cuda()).cpu(), expected[:, -1], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(ours(prompts.cuda()).logits.cpu(), expected, atol=1e-4, rtol=1e-4)
    for rows in (3, 1):
        asked = {"max_new_tokens": 10, "no_repeat_ngram": 2, "end": seed % 30}
        expected = by_transformers(theirs, ids[:rows], torch.ones_like(ids[:rows]), beams=1, **asked)
        assert generate(engine, ids[:rows].cuda(), beams=1, **asked).tolist() == expected
        assert len(generate(engine, ids[:rows].cuda(), beams=3, **asked)) == rows  # beams may tie but for rounding
    engine.release()


@compiles
def test_compiled_training_is_right_too(tmp_path):
    random_model(5, vocab_size=VOCABULARY, activation_function="relu", tie_word_embeddings=False,
                 scale_attn_by_inverse_layer_idx=True).save_pretrained(tmp_path)
    compiled, plain = read(tmp_path).train(), read(tmp_path).train()
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):  # as they are, and put back
        compile_for_training(compiled)
        for ours, theirs in zip(gradients(compiled, "float32"), gradients(plain, "float32"), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_activations_that_are_allowed_are_those_that_transformers_has():
    assert set(ACTIVATIONS) <= set(ACT2FN)


def test_a_stored_head_that_differs_is_the_models_head_and_stays_it(folder, tmp_path):
    say(folder, tie_word_embeddings=True)  # transformers warns, and does not tie them either
    model = read(folder)
    assert_logits_are_transformers_own(folder, model)
    model.save_pretrained(tmp_path / "ours")
    assert json.loads((tmp_path / "ours/config.json").read_text())["tie_word_embeddings"] is False
    again = read(tmp_path / "ours")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(again.lm_head.weight, again.transformer.wte.weight)


def test_a_tied_head_may_be_missing_and_an_untied_one_may_not(folder):
    edit_weights(folder, lambda weights: weights.pop("lm_head.weight"))
    with pytest.raises(ModelError, match=r"gpt2 lacks weights that its config.json asks for.*: lm_head\.weight"):
        read(folder)
    say(folder, tie_word_embeddings=True)
    assert_logits_are_transformers_own(folder, read(folder))


def test_weights_that_would_not_be_used_are_refused_unless_they_are_of_another_task(folder):
    edit_weights(folder, lambda weights: weights.update({
        "score.weight": torch.ones(2, 4), "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4),
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}))
    assert_logits_are_transformers_own(folder, read(folder))
    edit_weights(folder, lambda weights: weights.update({"transformer.h.3.ln_1.weight": torch.ones(4)}))
    with pytest.raises(ModelError, match=r"gpt2 has weights that its config.json does not ask for: .*h\.3\.ln_1"):
        read(folder)


def test_what_a_pass_returns_is_not_for_the_checkpoint_to_say(folder):
    before = read(folder)
    say(folder, return_dict=False, output_hidden_states=True, output_attentions=True, attn_implementation="eager")
    ids = torch.arange(1, 21).view(2, 10)
    for of in (lambda model: model.summary_losses(ids, ids), lambda model: Engine(model).forward(ids).tolist()):
        assert of(read(folder)) == of(before)


@pytest.mark.parametrize(("file", "name", "value"), [
    *(("config.json", name, {"1": {"n_inner": 8}} if "config" in name else True) for name in UNSUPPORTED),
    *(("generation_config.json", name, 0.5 if neutral == 1 else [[3]]) for name, neutral in SEARCH.items()),
    ("config.json", "activation_function", "elu"),
    ("config.json", "model_type", "gpt_neo"),
])
def test_what_is_not_supported_is_refused_by_name_before_any_work(folder, file, name, value):
    check_pretrained(str(folder))
    say(folder, file, **{name: value})
    named = "is a gpt_neo model" if name == "model_type" else name
    with pytest.raises(DataError, match=rf"^model\.pretrained {folder}: .*{named}"):
        check_pretrained(str(folder))
    with pytest.raises(ModelError, match=rf"^{folder}: .*{named}|^{folder} is a gpt_neo model"):
        read(folder)


def test_the_first_stage_refuses_them(folder, tmp_path):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["presets"]["laptop"]["tokenizer"]["vocab_size"] = None
    params["presets"]["laptop"]["model"] = {"pretrained": str(folder), "dropout": 0.0}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    say(folder, add_cross_attention=True)
    done = subprocess.run([sys.executable, "-m", "stages.fingerprint"], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert f"model.pretrained {folder}: its settings ask for add_cross_attention True" in done.stderr
    assert not (tmp_path / "data/pretrained.json").exists()


def test_generation_settings_in_config_json_count_where_there_are_no_others(folder):
    say(folder, repetition_penalty=1.3)
    check_pretrained(str(folder))  # transformers does not look at it either
    (folder / "generation_config.json").unlink()
    with pytest.raises(DataError, match=r"repetition_penalty 1\.3"):
        check_pretrained(str(folder))


def test_damaged_settings_are_refused_before_any_work(folder):
    (folder / "generation_config.json").write_text("[]")
    with pytest.raises(DataError, match=rf"model\.pretrained {folder}: .*generation_config\.json holds no JSON object"):
        check_pretrained(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: Expecting property name"):
        check_pretrained(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"its settings cannot be read: .*config\.json"):
        check_pretrained(str(folder))


def test_fine_tuned_models_end_as_they_were_trained_and_forget_the_pretrained_ones_way_of_generating(
        folder, tmp_path, tokenizer):
    say(folder, vocab_size=300)
    tokenizer.save_pretrained(folder)
    edit_weights(folder, lambda weights: weights.update({
        name: torch.ones(300, weights[name].shape[1]) for name in ("lm_head.weight", "transformer.wte.weight")}))
    say(folder, "generation_config.json", do_sample=True, temperature=0.7, max_length=50, eos_token_id=[7, 8])
    model = build(VARIANTS["flash"], Model(pretrained=str(folder), dropout=0.0), tokenizer, POSITIONS, seed=1)
    model.save_pretrained(tmp_path / "ours")
    saved = json.loads((tmp_path / "ours/generation_config.json").read_text())
    end = tokenizer.eos_token_id
    assert saved.keys() - {"transformers_version", "_from_model_config"} == {"bos_token_id", "eos_token_id",
                                                                            "pad_token_id"}
    assert saved["eos_token_id"] == saved["pad_token_id"] == end
    assert json.loads((tmp_path / "ours/config.json").read_text())["eos_token_id"] == end
