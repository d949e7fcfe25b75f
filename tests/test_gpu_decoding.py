"""The inference engine on a CUDA device: kernels, static cache and CUDA graphs; run there by `make test-gpu`."""

import pytest
import torch
from conftest import SOFTMAX, STUDY_VARIANTS, VARIANTS, random_ids, tiny
from test_decoding import by_transformers, padded_prompts, repetitive

from headtohead.attention.decoding import STATES, state_for
from headtohead.attention.job import Job
from headtohead.attention.masks import bias_at
from headtohead.attention.positions import rotate, rotations
from headtohead.inference.engine import Engine
from headtohead.inference.generation import write_summaries
from headtohead.inference.search import generate
from headtohead.models.gpt2 import GPT2
from headtohead.params import Generate

pytestmark = pytest.mark.gpu
variants = pytest.mark.parametrize("name", VARIANTS)
CUDA = torch.device("cuda")


def on_gpu(model: GPT2, dtype=torch.float32, backend=None) -> GPT2:
    model.config.attention_backend = backend
    return model.to(CUDA, dtype)


@variants
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("graphs", [True, False])
def test_the_gpu_writes_what_transformers_writes_on_the_cpu(name, beams, graphs):
    model = tiny(VARIANTS[name])
    cases = []
    for batch, length, new, no_repeat in ((1, 1, 6, 0), (1, 33, 12, 2), (5, 30, 1, 0), (5, 41, 20, 2), (19, 20, 9, 1)):
        ids, mask, padding = padded_prompts(batch, length, seed=length)
        asked = {"max_new_tokens": new, "beams": beams, "no_repeat_ngram": no_repeat, "end": 7}
        cases.append((ids, padding if batch > 1 else None, asked, by_transformers(model, ids, mask, **asked)))
    engine = Engine(on_gpu(tiny(VARIANTS[name])), graphs=graphs)
    assert {"one-query", "eager", "performer"}.issuperset(engine.decoder.split(" + "))
    for _ in range(2):  # the second time by replaying what was recorded
        for ids, padding, asked, expected in cases:
            left = None if padding is None else padding.cuda()
            written = generate(engine, ids.cuda(), left, **asked).tolist()
            for row, ours, theirs in zip(ids, written, expected, strict=True):
                assert ours == theirs or (beams > 1 and as_likely(model, row, ours, theirs))
    engine.release()


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("backend", [None, "flash-attn", "sdpa"])
def test_prompt_lookup_writes_the_same_tokens_on_the_gpu(name, graphs, backend):
    """In float32, by each decoder that can; what it drafts is often right, as the prompts repeat themselves."""
    if backend and reason(name, backend):
        pytest.skip(reason(name, backend))
    model = tiny(VARIANTS[name])
    engine = Engine(on_gpu(tiny(VARIANTS[name]), backend=backend), graphs=graphs)
    for batch, length, new, no_repeat, drafted in ((1, 33, 24, 0, 15), (1, 40, 20, 2, 7), (5, 30, 20, 0, 5),
                                                   (19, 20, 9, 0, 3), (2, 9, 1, 0, 4)):
        ids, mask, padding = padded_prompts(batch, length, seed=length)
        ids = repetitive(ids, 5) * mask
        asked = {"max_new_tokens": new, "no_repeat_ngram": no_repeat, "end": 7}
        expected = by_transformers(model, ids, mask, beams=1, **asked)
        for _ in range(2):  # the second time by replaying what was recorded
            assert generate(engine, ids.cuda(), padding.cuda(), **asked, drafted=drafted).tolist() == expected
    engine.release()


def reason(name, backend):
    """Why a library does not decode a variant in float32; None if it does."""
    spec = VARIANTS[name]
    return next((why for index in range(len(spec.layers) or 1) if (why := STATES[backend][0].unsupported(
        Job(spec.layer(index), CUDA, torch.float32, 4, 16, 2, 9)))), None)


def as_likely(model, prompt, ours, theirs):
    """Two beams may tie but for rounding."""
    start, scores = prompt[prompt > 0], []
    for tokens in (ours, theirs):
        tokens = tokens[:tokens.index(7) + 1] if 7 in tokens else tokens
        with torch.no_grad():
            likely = model(torch.cat([start, torch.tensor(tokens)])[None]).logits[0].log_softmax(-1)
        scores.append(float(sum(likely[len(start) - 1 + i, token] for i, token in enumerate(tokens)) / len(tokens)))
    return abs(scores[0] - scores[1]) < 1e-4


@pytest.mark.parametrize(("name", "library"), [
    *((name, None) for name in VARIANTS),
    *((name, library) for name in STUDY_VARIANTS for library in ("flash-attn", "flex", "sdpa"))])
@pytest.mark.parametrize("padded", [False, True])
def test_bfloat16_errs_at_most_twice_as_much_as_transformers_own(name, library, padded):
    """Logits of the prompt's pass, and after a few decoded tokens, against the same weights in float32."""
    model = tiny(VARIANTS[name], head_dim=64, max_length=256)
    ids, mask, padding = padded_prompts(3, 120, seed=5) if padded else (random_ids(3, 120, seed=5), None, None)
    steps = 5
    prompt, left = ids[:, :-steps], None if padding is None else padding.clamp(max=120 - steps - 1).cuda()
    if padded:
        mask = (torch.arange(120) >= left.cpu()[:, None]).long()

    def by_model(dtype, device):
        copied = tiny(VARIANTS[name], head_dim=64, max_length=256).to(device, dtype)
        copied.config.attention_backend = "sdpa"
        with torch.no_grad():
            return copied(ids.to(device), attention_mask=None if mask is None else mask.to(device)).logits.float().cpu()

    exact, plain = by_model(torch.float32, "cpu"), by_model(torch.bfloat16, "cuda")
    engine = Engine(on_gpu(model, torch.bfloat16, library), graphs=False)
    with torch.inference_mode():
        cache = engine.cache(3, 120)
        rows = prompt.cuda() if left is None else prompt.cuda().gather(
            1, (torch.arange(120 - steps, device="cuda") + left[:, None]).clamp(max=119 - steps))
        ours = [engine.prefill(rows, None if left is None else 120 - steps - left, cache)]
        for place in range(120 - steps, 120):
            own = torch.full((3,), place, device="cuda") - (0 if left is None else left)
            ours.append(engine.decode(ids[:, place, None].cuda(), own[:, None], cache)[:, 0])
    wanted = exact[:, -steps - 1:]
    error = (torch.stack(ours, 1).float().cpu() - wanted).abs().max()
    assert error <= 2 * (plain[:, -steps - 1:] - wanted).abs().max() + 1e-3


ONE_LAYER = {f"{name}-{index}": spec.layer(index) for name, spec in SOFTMAX.items() if spec.kernel == "flash"
             for index in range(len(spec.layers) or 1)}


@pytest.mark.parametrize("spec", ONE_LAYER.values(), ids=ONE_LAYER.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("decoder", ["one-query", "flash-attn", "flex", "sdpa"])
@pytest.mark.parametrize("tokens", [1, 11])
def test_new_queries_against_spelled_out_attention(spec, dtype, decoder, tokens):
    """Random caches up to thousands of keys, in rows of different lengths, and one or several new tokens a row."""
    heads, dim = 3, 64
    job = Job(spec, CUDA, dtype, heads, dim, tokens, tokens + 1, padded=True)
    if reason := STATES[decoder][0].unsupported(job):
        pytest.skip(reason)
    for rows, length, now in ((1, 5000, 4321), (3, 700, 0), (3, 700, 689), (2, 300, 31))[tokens > 1:]:
        state = state_for(job, layers=1, rows=rows, length=length, backend=decoder, drafted=tokens - 1)
        state.storage.normal_()
        position = (now - torch.randint(0, now + 1, (rows, 1), device=CUDA)) + torch.arange(tokens, device=CUDA)
        qkv = torch.randn(rows, tokens, 3, heads, dim, device=CUDA, dtype=dtype)
        query, key, value = qkv.transpose(1, 3).unbind(2)  # [rows, heads, tokens, dim]
        if spec.positions == "rope":
            turns = rotations(length, dim, CUDA)[position][:, None]
            query, key = rotate(query, turns), rotate(key, turns)
        held = state.positions(position[:, -1])
        keys, values = (kept.float() for kept in state.storage[0].clone())
        row, token, slot = (held[:, None] == position[:, :, None]).nonzero(as_tuple=True)
        keys[row, :, slot], values[row, :, slot] = key[row, :, token].float(), value[row, :, token].float()
        state.ready(position)
        out = state.step(0, qkv)
        bias = bias_at(spec, heads, position, held)
        scores = torch.einsum("rhtd,rhsd->rhts", query.float(), keys) * dim**-0.5 + bias
        expected = torch.einsum("rhts,rhsd->rthd", scores.softmax(-1), values)
        rounding = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
        torch.testing.assert_close(out.float(), expected, atol=rounding, rtol=rounding)
        torch.testing.assert_close(state.storage[0, 0][row, :, slot].float(), key[row, :, token].float(),
                                   atol=rounding, rtol=rounding)


@variants
def test_the_gpu_writes_the_cpus_summaries(name, tokenizer):
    settings = Generate(batch_size=3, max_new_tokens=12, beams=1, no_repeat_ngram=0, precision="float32")
    prompts = [random_ids(1, 8 + i % 9, seed=50 + i)[0].tolist() for i in range(7)]
    expected = write_summaries(Engine(tiny(VARIANTS[name])), tokenizer, prompts, settings)
    assert write_summaries(Engine(on_gpu(tiny(VARIANTS[name]))), tokenizer, prompts, settings) == expected


@variants
@pytest.mark.parametrize("beams", [1, 3])
def test_prompts_that_end_just_before_the_positions_do_are_recorded_within_them(name, beams):
    """61 tokens are recorded as 64, of which a table of 64 has no next one."""
    ids, asked = random_ids(2, 61, seed=6), {"max_new_tokens": 3, "beams": beams, "no_repeat_ngram": 0, "end": 7}
    expected = by_transformers(tiny(VARIANTS[name]), ids, torch.ones_like(ids), **asked)
    assert generate(Engine(on_gpu(tiny(VARIANTS[name]))), ids.cuda(), **asked).tolist() == expected


def test_memory_of_recordings_is_given_back():
    engine = Engine(on_gpu(tiny(VARIANTS["flash"])))
    engine.forward(random_ids(1, 8, seed=1).cuda())
    engine.release()
    before = torch.cuda.memory_allocated()
    for length in range(8, 60):
        generate(engine, random_ids(2, length, seed=1).cuda(), max_new_tokens=4)
    engine.release()
    assert torch.cuda.memory_allocated() <= before + 2**20


def test_weights_that_are_re_laid_out_are_the_same_weights():
    model, ids = tiny(VARIANTS["flash"]), random_ids(2, 20, seed=3)
    expected = model(ids).logits
    on_gpu(model)
    Engine(model)
    torch.testing.assert_close(model(ids.cuda()).logits.cpu(), expected, atol=2e-3, rtol=2e-3)
