"""GPT-2 with a variant inside: pretrained weights stay, nothing looks ahead, and a checkpoint knows what it is."""

import copy
import json

import pytest
import torch
from conftest import MAX_LENGTH, VARIANTS, VOCABULARY, compiles, random_ids, tiny
from torch._dynamo.utils import counters
from transformers import GPT2Config, GPT2LMHeadModel

import headtohead
from headtohead.attention import AttentionSpec
from headtohead.attention.plan import BackendError
from headtohead.models.checkpoints import build, check_trained_here, from_pretrained, named_variant
from headtohead.models.gpt2 import GPT2, ModelError, compile_for_training
from headtohead.params import Model, read_params
from headtohead.paths import Run

variants = pytest.mark.parametrize("name", VARIANTS)


@pytest.fixture
def pretrained(tmp_path):
    """A checkpoint as the hub has them: plain GPT-2, saved by transformers."""
    torch.manual_seed(5)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=64, n_embd=48, n_layer=2, n_head=3,
                                       initializer_range=0.2))
    model.save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2", model.eval()


@pytest.fixture
def trained(tmp_path, tokenizer):
    """A folder as training leaves it."""
    tiny(VARIANTS["flash"]).save_pretrained(tmp_path / "flash")
    tokenizer.save_pretrained(tmp_path / "flash")
    return tmp_path / "flash"


def test_switching_the_kernel_keeps_a_pretrained_models_logits(pretrained):
    path, original = pretrained
    ids = random_ids(2, 40, seed=1)
    for name in ("standard", "flash"):
        ours = from_pretrained(VARIANTS[name], path, dropout=0.0, max_length=64).eval()
        torch.testing.assert_close(ours(ids).logits, original(ids).logits, atol=1e-4, rtol=1e-4)


@variants
def test_every_weight_that_the_variant_keeps_is_the_pretrained_one(pretrained, name):
    path, original = pretrained
    ours = dict(from_pretrained(VARIANTS[name], path, dropout=0.0, max_length=64).named_parameters())
    theirs = dict(original.named_parameters())
    removed = {"transformer.wpe.weight"} if VARIANTS[name].positions != "learned" else set()
    assert theirs.keys() - ours.keys() == removed
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_checkpoint_without_all_weights_is_refused(pretrained):
    path, original = pretrained
    weights = original.state_dict()
    del weights["transformer.h.1.attn.c_attn.weight"]
    original.save_pretrained(path, state_dict=weights)
    with pytest.raises(ModelError, match="lacks weights"):
        from_pretrained(VARIANTS["flash"], path, dropout=0.0, max_length=64)


def test_too_few_positions_are_refused_unless_the_variant_has_none(pretrained):
    path, _ = pretrained
    with pytest.raises(ModelError, match=r"64 positions, fewer than tokenizer\.max_length 65"):
        from_pretrained(VARIANTS["flash"], path, dropout=0.0, max_length=65)
    assert from_pretrained(VARIANTS["flash_alibi"], path, dropout=0.0, max_length=65).length_limit is None


def both(folder):
    """Every way in which a folder's model is read."""
    return (lambda: headtohead.load(folder),
            lambda: from_pretrained(VARIANTS["flash"], folder, dropout=0.0, max_length=MAX_LENGTH))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"no JSON", bytes(200),
                                     b'{"model_type": "gpt2", "attention_variant": {}, "n_layer": "two"}',
                                     b'{"model_type": "gpt2", "attention_variant": {}, "n_head": 5}'])
def test_a_damaged_file_is_named(trained, name, content):
    (trained / name).write_bytes(content)
    for read in both(trained):
        with pytest.raises(ModelError, match=rf"{trained}/(config\.json|model\.safetensors) cannot be read: .*; get"):
            read()


def test_weights_that_were_cut_off_are_named(trained):
    weights = trained / "model.safetensors"
    for size in (1, 100, weights.stat().st_size // 2, weights.stat().st_size - 1):
        weights.write_bytes(weights.read_bytes()[:size])
        for read in both(trained):
            with pytest.raises(ModelError, match=rf"{weights} cannot be read"):
                read()


@pytest.mark.parametrize(("said", "instead", "message"), [
    ('"n_embd": 64', '"n_embd": 32', r"lacks weights .* another shape: transformer\.h\.0\.attn\.c_attn"),
    ('"model_type": "headtohead_gpt2"', '"model_type": "llama"', "is a llama model"),
])
def test_a_config_that_its_weights_do_not_fit_is_refused(trained, said, instead, message):
    config = trained / "config.json"
    config.write_text(config.read_text().replace(said, instead))
    for read in both(trained):
        with pytest.raises(ModelError, match=message):
            read()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": "1.0", "model": {"type": "BPE"'])
def test_a_damaged_tokenizer_is_named(trained, content):
    (trained / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=rf"{trained}/tokenizer\.json cannot be read"):
        headtohead.load(trained)


def test_an_unknown_variant_in_a_checkpoint_is_named(trained):
    config = trained / "config.json"
    config.write_text(config.read_text().replace('"pattern": "full"', '"pattern": "spiral"'))
    with pytest.raises(ModelError, match=rf"{trained}: attention_variant in its config.json: .*'spiral'"):
        headtohead.load(trained)


def test_pickled_weights_are_refused(trained):
    (trained / "model.safetensors").rename(trained / "pytorch_model.bin")
    for read in both(trained):
        with pytest.raises(ModelError, match=r"holds pickled weights alone.*safetensors are needed"):
            read()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(trained, tokenizer):
    larger = type(tokenizer).from_pretrained(trained)
    larger.add_tokens([f"token{i}" for i in range(VOCABULARY + 1 - len(larger))])
    settings = Model(pretrained=str(trained), dropout=0.0)
    with pytest.raises(ModelError, match="its tokenizer has 301 tokens, but its model embeds only 300"):
        build(VARIANTS["flash"], settings, larger, MAX_LENGTH, seed=1)
    assert build(VARIANTS["flash"], settings, tokenizer, MAX_LENGTH, seed=1).config.vocab_size == VOCABULARY
    larger.save_pretrained(trained)
    with pytest.raises(ModelError, match="301 tokens"):
        headtohead.load(trained)


def test_another_variant_or_tokenizer_than_the_runs_is_refused(trained):
    model, tokenizer = headtohead.load(trained)
    params = read_params()
    check_trained_here(Run("flash", 13), model, tokenizer, params, tokenizer)
    with pytest.raises(ModelError, match=r"models/flash_alibi/13 was trained with kernel flash, positions learned.*"
                                         r"`dvc repro train@flash_alibi-13 --force`"):
        check_trained_here(Run("flash_alibi", 13), model, tokenizer, params, tokenizer)
    other = type(tokenizer).from_pretrained(trained, separator=" TL;DR:")
    with pytest.raises(ModelError, match="models/flash/13 was trained with another tokenizer"):
        check_trained_here(Run("flash", 13), model, tokenizer, params, other)
    with pytest.raises(ModelError, match=r"no variant 'nope'; there are standard, flash"):
        named_variant(params, "nope")


@variants
def test_nothing_sees_a_later_token(name):
    model, ids = tiny(VARIANTS[name]), random_ids(1, 30, seed=2)
    before = model(ids).logits
    for cut in (1, 13, 29):
        changed = ids.clone()
        changed[:, cut:] = random_ids(1, 30 - cut, seed=cut)
        torch.testing.assert_close(model(changed).logits[:, :cut], before[:, :cut])


def test_a_window_hides_what_is_beyond_it():
    model = tiny(AttentionSpec(kernel="flash", pattern="window", window=5))
    ids = random_ids(1, 30, seed=3)
    changed = ids.clone()
    changed[:, 10] = (changed[:, 10] + 1) % 299 + 1
    differs = (model(ids).logits != model(changed).logits).any(-1)[0]
    reach = 2 * (5 - 1)  # two layers, each looking four back
    assert differs.nonzero().flatten().tolist() == list(range(10, 10 + reach + 1))


def test_an_alibi_model_has_no_position_table_and_no_length_limit():
    model = tiny(VARIANTS["flash_alibi"])
    assert not any("wpe" in name for name, _ in model.named_parameters())
    assert model.length_limit is None
    assert model(random_ids(1, 4 * MAX_LENGTH, seed=4)).logits.isfinite().all()
    assert tiny(VARIANTS["flash"]).length_limit == MAX_LENGTH


@variants
def test_left_padding_changes_nothing(name):
    model, ids = tiny(VARIANTS[name]), random_ids(2, 20, seed=5)
    padded = torch.cat([torch.zeros(2, 7, dtype=torch.long), ids], dim=1)
    mask = torch.cat([torch.zeros(2, 7, dtype=torch.long), torch.ones_like(ids)], dim=1)
    torch.testing.assert_close(model(padded, attention_mask=mask).logits[:, 7:], model(ids).logits,
                               atol=1e-4, rtol=1e-4)


def test_a_mask_with_holes_is_refused():
    model, ids = tiny(VARIANTS["flash"]), random_ids(1, 6, seed=5)
    with pytest.raises(ValueError, match="only at the ends"):
        model(ids, attention_mask=torch.tensor([[1, 1, 0, 1, 1, 1]]))


@variants
def test_decoding_with_a_cache_equals_the_full_forward(name):
    model, ids = tiny(VARIANTS[name]), random_ids(2, 25, seed=6)
    past, steps = None, []
    for i in range(25):
        out = model(ids[:, i:i + 1], past_key_values=past, use_cache=True)
        past = out.past_key_values
        steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), model(ids).logits, atol=1e-4, rtol=1e-4)


@variants
def test_a_checkpoint_loads_back_alone_with_its_variant(name, tmp_path, tokenizer):
    model, ids = tiny(VARIANTS[name]), random_ids(1, 30, seed=7)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, its_tokenizer = headtohead.load(tmp_path)
    assert again.variant == VARIANTS[name]
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert its_tokenizer.get_vocab() == tokenizer.get_vocab()
    assert (tmp_path / "model.safetensors").exists()


def test_loading_what_is_no_checkpoint_says_so_at_once(tmp_path, pretrained):
    with pytest.raises(ModelError, match="no checkpoint folder"):
        headtohead.load(tmp_path / "nothing")
    with pytest.raises(ModelError, match="names no attention variant"):
        headtohead.load(pretrained[0])


def test_the_same_seed_gives_every_variant_the_same_weights():
    standard = dict(tiny(VARIANTS["standard"]).named_parameters())
    for spec in VARIANTS.values():
        assert all(torch.equal(weight, standard[key]) for key, weight in tiny(spec).named_parameters())


def test_the_variant_is_readable_in_the_checkpoint(tmp_path):
    tiny(VARIANTS["flash_sparse"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["attention_variant"] == {"kernel": "flash", "positions": "learned", "pattern": "window", "window": 5}


@variants
def test_the_backend_that_runs_is_named(name):
    model: GPT2 = tiny(VARIANTS[name])
    assert model.backend_for(20) == model.backend_for(20, training=True)
    by = {"eager": "eager", "flash": "sdpa", "performer": "performer"}
    assert model.backend_for(20) == " + ".join(dict.fromkeys(by[spec.kernel] for spec in VARIANTS[name].depth(2)))


def test_a_named_backend_runs_the_model(trained):
    model, _ = headtohead.load(trained, backend="reference")
    assert model.backend_for(20) == "reference"
    ids = random_ids(1, 20, seed=9)
    with torch.no_grad(), torch.profiler.profile() as profile:
        logits = model(ids, use_cache=False).logits
    assert not any("scaled_dot_product" in event.key for event in profile.key_averages())
    torch.testing.assert_close(logits, tiny(VARIANTS["flash"])(ids).logits, atol=1e-4, rtol=1e-4)


def test_a_named_backend_that_cannot_run_is_an_error_and_standard_stays_eager(trained, tokenizer):
    model, _ = headtohead.load(trained, backend="flash-attn")
    with pytest.raises(BackendError, match="flash-attn takes no float32 on cpu"):
        model(random_ids(1, 20, seed=9))
    tiny(VARIANTS["standard"]).save_pretrained(trained)
    model, _ = headtohead.load(trained, backend="flash-attn")
    assert model.backend_for(20) == "eager"


def test_a_checkpoint_does_not_depend_on_the_backend(trained, tmp_path, tokenizer):
    settings = Model(pretrained=None, layers=1, width=16, heads=1, init_std=0.1, position_init_std=0.1, dropout=0.0)
    built = build(VARIANTS["flash"], settings, tokenizer, MAX_LENGTH, seed=1, backend="reference")
    assert built.backend_for(20) == "reference"
    for model in (built, headtohead.load(trained, backend="reference")[0]):
        model.save_pretrained(tmp_path / "again")
        assert "reference" not in (tmp_path / "again/config.json").read_text()
        assert "attention_backend" not in (tmp_path / "again/config.json").read_text()


def gradients(model, precision):
    """Loss and gradients of a batch whose labels begin at another place in every row."""
    ids = random_ids(3, 20, seed=1)
    labels = ids.masked_fill(torch.arange(20) < torch.tensor([[5], [9], [0]]), -100)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        loss = model(input_ids=ids, labels=labels, weights=torch.linspace(0.1, 1, 60).view(3, 20)).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


# Each kind of code once: a pattern is no more than numbers in the mask that a compiled block is handed.
COMPILED = ["standard", "none_eager", "flash", "flash_sparse", "flash_alibi", "alibi_local_global", "rope_performer"]


@compiles
@pytest.mark.parametrize("name", COMPILED)
def test_compiling_changes_neither_loss_nor_gradients_nor_names_nor_kernel(name):
    model = tiny(VARIANTS[name]).train()
    compiled = copy.deepcopy(model)
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):  # as they are, and put back
        compile_for_training(compiled)
        ours, theirs = gradients(compiled, "float32"), gradients(model, "float32")
        kinds = len(set(VARIANTS[name].depth(2)))
        assert counters["stats"]["unique_graphs"] == kinds + 1  # one for each kind of blocks, one for the loss
        assert not counters["graph_break"]
        with torch.profiler.profile() as profile:
            gradients(compiled, "bfloat16")
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert compiled.state_dict().keys() == model.state_dict().keys()
    fused = any("scaled_dot_product" in event.key for event in profile.key_averages())
    assert fused == (VARIANTS[name].kernel == "flash")  # the compiler has not put a fused kernel in place of scores


def test_training_with_attention_dropout_is_refused(pretrained):
    model = tiny(VARIANTS["flash"]).train()
    model.transformer.h[0].attn.attn_dropout.p = 0.1
    with pytest.raises(ValueError, match="attention dropout must be 0"):
        model(random_ids(1, 5, seed=8))
