"""Triton's kernels against plain code in float32: compiled on a GPU, elsewhere by Triton's interpreter."""

import os
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import gelu, layer_norm
from torch.nn.functional import linear as by_torch

HOW = "run `TRITON_INTERPRET=1 python -m pytest tests/test_kernels.py`, for which `pip install triton`"
pytest.importorskip("triton", reason=f"needs Triton: {HOW}")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # which counts when Triton is imported
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip(f"needs a CUDA device, or Triton's interpreter: {HOW}", allow_module_level=True)

from headtohead.attention import AttentionSpec, favor
from headtohead.attention.backends import performer, sdpa
from headtohead.attention.job import Job
from headtohead.attention.positions import rotations
from headtohead.attention.states import Dense, OneQuery
from headtohead.inference import lookup
from headtohead.kernels import favor as by_kernel
from headtohead.kernels import lookup as lookup_by_kernel
from headtohead.kernels.alibi_fold import EXTRA, fold
from headtohead.kernels.cache import fill, reorder
from headtohead.kernels.far_keys import add_far
from headtohead.kernels.few_queries import attend_few
from headtohead.kernels.layers import FEW as FEW_TOKENS
from headtohead.kernels.layers import LOGIT_BLOCK, add_norm, embed, likeliest, linear
from headtohead.kernels.one_query import attend_one
from headtohead.kernels.rotary import rotate

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
RANDOM = torch.Generator().manual_seed(1)
ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
dtypes = pytest.mark.parametrize("dtype", ROUNDING)


def normal(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=RANDOM).to(DEVICE, dtype)


def integers(low, high, *shape):
    return torch.randint(low, high, shape, generator=RANDOM).to(DEVICE)


def close(ours, expected):
    rounding = ROUNDING[ours.dtype]
    torch.testing.assert_close(ours.float(), expected, atol=rounding, rtol=rounding)


def a_norm(width, dtype):
    norm = torch.nn.LayerNorm(width, eps=1e-3, device=DEVICE, dtype=dtype).requires_grad_(False)
    norm.weight.copy_(normal(width))
    norm.bias.copy_(normal(width))
    return norm


def normed(x, norm):
    return layer_norm(x.float(), x.shape[-1:], norm.weight.float(), norm.bias.float(), norm.eps)


@dtypes
@pytest.mark.parametrize("width", [1, 48, 600])
@pytest.mark.parametrize("biased", [False, True])
def test_add_norm(dtype, width, biased):
    x, norm, bias = 3 * normal(3, width, dtype=dtype) + 1, a_norm(width, dtype), normal(width, dtype=dtype)
    added = x.float() + bias.float() * biased
    close(add_norm(x, bias if biased else None, norm), normed(added, norm))
    close(x, added)


@dtypes
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("has_gelu", [False, True])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("tokens", [1, 7, FEW_TOKENS])
def test_linear(dtype, has_bias, has_norm, has_gelu, has_residual, tokens):
    """In all ways but the shape, which follows from them."""
    if INTERPRETED and tokens > 1 and dtype == torch.bfloat16:
        pytest.skip("the interpreter multiplies bfloat16 numbers as if their bits were integers")
    rows, width = [(37, 600), (4, 48)][(has_bias + has_norm + has_gelu + has_residual + tokens) % 2]
    x, bias, residual = (normal(*shape, dtype=dtype) for shape in ((tokens, width), (rows,), (tokens, rows)))
    x = 3 * x + 1 if has_norm else x
    weight, norm = normal(rows, width, dtype=dtype) / width ** 0.5, a_norm(width, dtype)
    expected = by_torch(normed(x, norm) if has_norm else x.float(), weight.float()) + bias.float() * has_bias
    expected = (gelu(expected, approximate="tanh") if has_gelu else expected) + residual.float() * has_residual
    close(linear(x, weight, bias if has_bias else None, norm=norm if has_norm else None, gelu=has_gelu,
                 residual=residual if has_residual else None), expected)


def test_linear_refuses_more_tokens_than_it_takes():
    with pytest.raises(ValueError, match=f"{FEW_TOKENS + 1} tokens; at most {FEW_TOKENS}"):
        linear(normal(FEW_TOKENS + 1, 48), normal(4, 48), None)


@dtypes
@pytest.mark.parametrize("placed", [True, False])
def test_embed(dtype, placed):
    """A position beyond the table has its last place."""
    tokens, places = normal(30, 48, dtype=dtype), normal(9, 48, dtype=dtype)
    ids, positions = integers(0, 30, 7), integers(0, 12, 7)
    expected = tokens[ids].float() + (places[positions.clamp(max=8)].float() if placed else 0)
    close(embed(ids, positions, tokens, places if placed else None), expected)


@dtypes
@pytest.mark.parametrize("vocabulary", [1, 300, LOGIT_BLOCK, 2 * LOGIT_BLOCK + 300])
def test_likeliest_is_the_first_of_equals(dtype, vocabulary):
    """One row without equals, one with many, one with two in different blocks, one where all are impossible."""
    logits = normal(4, vocabulary + 5, dtype=dtype)
    logits[:, vocabulary:] = 100  # of a wider head, and none of the vocabulary
    logits[1] = logits[1].round()
    logits[2, [vocabulary // 7, vocabulary - 1]] = 50
    logits[3, :vocabulary] = -torch.inf
    logits = logits[:, :vocabulary]
    assert likeliest(logits).tolist() == [row.index(max(row)) for row in logits.tolist()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("length", "dim"), [(1, 16), (600, 48)])
def test_fold_puts_alibi_into_products(dtype, length, dim):
    heads, scale = 3, 0.25
    q, k = normal(2, 2, length, heads, dim, dtype=dtype).transpose(2, 3)
    slopes = torch.rand(heads, generator=RANDOM).to(DEVICE)
    folded = fold(q, k, slopes, scale)
    for tensor, out in zip((q, k), folded, strict=True):
        assert out.transpose(1, 2).is_contiguous()
        assert torch.equal(out[..., :dim], tensor)
    extra_q, extra_k = (out[..., -EXTRA:].double() for out in folded)
    position = torch.arange(length, device=DEVICE)
    expected = (slopes[:, None] * position)[None, :, None, :].double()
    torch.testing.assert_close(extra_q @ extra_k.mT * scale, expected.expand(2, heads, length, length),
                               atol=2e-5, rtol=1e-6)


def slot_of(position, first, slots):
    return position if position < first else first + (position - first) % (slots - first)


def lay(cache, tokens, first):
    """Put tokens [heads, count, head_dim] into a row's cache [heads, slots, head_dim], later ones over earlier ones."""
    kept = {slot_of(j, first, cache.shape[1]): j for j in range(tokens.shape[1])}
    cache[:, list(kept)] = tokens[:, list(kept.values())]


def turned(x, angles):
    cosine, sine = angles
    one, two = x.float().chunk(2, dim=-1)
    return torch.cat([one * cosine - two * sine, two * cosine + one * sine], -1).to(x.dtype)


LAYOUTS = {"whole": (0, 300, None), "window": (0, 70, None), "leading": (5, 140, None), "block": (0, 133, 133)}


def check_one_query(layout, dtype, dim, *, alibi, rotates, bias_of, splits, grain=None):
    """Rows at their first token, at their cache's last slot, in its first round and far on."""
    first, slots, block = LAYOUTS[layout]
    positions = [0, slots - 1, slots // 3, *([] if layout == "whole" else [slots, 2 * slots + slots // 3])]
    rows, heads, scale = len(positions), 2, dim ** -0.5
    query, new_key, new_value = qkv = normal(3, rows, heads, dim, dtype=dtype)
    phases = 3 * normal(max(positions) + 1, dim // 2)
    angles = torch.stack([phases.cos(), phases.sin()], 1) if rotates else None
    slopes = torch.rand(heads, generator=RANDOM).to(DEVICE) if alibi else None
    bias = None
    if bias_of is not None:
        bias = normal(rows if bias_of[0] else 1, heads if bias_of[1] else 1, 1, slots)
        bias[..., :slots // 2] = -torch.inf  # all that some programs read, but for new tokens
        for row, t in enumerate(positions):
            bias[row if bias_of[0] else 0, ..., slot_of(t, first, slots)] = 1.0
    by_block = torch.rand(*2 * [max(positions) // grain + 1], generator=RANDOM) < 0.5 if grain else None
    if grain:
        by_block.fill_diagonal_(True)
    cache = torch.full((2, rows, heads, slots, dim), torch.nan, device=DEVICE, dtype=dtype)  # what is empty is not read
    after, expected = cache.clone(), torch.empty(rows, heads, dim, device=DEVICE)
    for row, t in enumerate(positions):
        tokens = normal(2, heads, t + 1, dim, dtype=dtype)
        for held, tensor in zip(cache, tokens, strict=True):
            lay(held[row], tensor[:, :t], first)
        q, tokens[0, :, t], tokens[1, :, t] = query[row], new_key[row], new_value[row]
        if angles is not None:
            q, tokens[0, :, t] = turned(q, angles[t]), turned(new_key[row], angles[t])
        after[:, row] = cache[:, row]
        for held, tensor in zip(after, tokens, strict=True):
            lay(held[row], tensor, first)
        seen = [j for j in range(t + 1) if (j // block == t // block if block else j < first or t - j < slots - first)]
        if grain:
            seen = [j for j in seen if by_block[t // grain, j // grain]]
        keys, values = tokens[:, :, seen].float()
        scores = (keys @ q.float()[:, :, None])[..., 0] * scale
        if slopes is not None:
            scores -= slopes[:, None] * (t - torch.tensor(seen, device=DEVICE))
        if bias is not None:
            scores += bias.expand(rows, heads, 1, slots)[row, :, 0, [slot_of(j, first, slots) for j in seen]]
        expected[row] = (scores.softmax(-1)[:, None] @ values)[:, 0]
    out = attend_one(qkv.transpose(0, 1).flatten(1), *cache, torch.tensor(positions, device=DEVICE), first=first,
                     block=block, grain=grain or 1, seen_blocks=by_block.to(DEVICE, torch.uint8) if grain else None,
                     slopes=slopes, bias=bias, rotary=angles, scale=scale, splits=splits)
    close(out, expected.flatten(1))
    last_digit = torch.finfo(dtype).eps if rotates else 0.0
    torch.testing.assert_close(cache, after, atol=last_digit, rtol=last_digit, equal_nan=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("rotates", [False, True])
@pytest.mark.parametrize("bias_of", [None, (True, True)])
def test_one_query(layout, alibi, rotates, bias_of):
    """Every layout with any three of the other four, the number of splits being the fourth."""
    splits = [None, 3][(alibi + rotates + (bias_of is not None)) % 2]
    check_one_query(layout, torch.float32, 16, alibi=alibi, rotates=rotates, bias_of=bias_of, splits=splits)


@pytest.mark.parametrize("layout", ["whole", "window", "leading"])
@pytest.mark.parametrize("grain", [1, 16, 40])
@pytest.mark.parametrize("splits", [None, 3])
def test_one_query_reads_the_blocks_that_are_seen(layout, grain, splits):
    check_one_query(layout, torch.float32, 16, alibi=True, rotates=False, bias_of=None, splits=splits, grain=grain)


BIGBIRD = {"pattern": "bigbird", "block": 8, "window_blocks": 2, "global_blocks": 1, "random_blocks": 1}


@pytest.mark.parametrize("numbers", [
    {"positions": "learned"} | BIGBIRD, {"positions": "alibi"} | BIGBIRD | {"block": 4, "global_blocks": 0},
    {"positions": "rope"} | BIGBIRD | {"window_blocks": 1}, {"positions": "alibi", "pattern": "strided", "stride": 5},
    {"positions": "rope", "pattern": "longformer", "window": 9, "globals": 2}], ids=str)
def test_the_kernels_state_decodes_as_a_dense_bias_does(numbers):
    length, rows = 70, 3
    job = Job(AttentionSpec(kernel="flash", **numbers), DEVICE, torch.float32, heads=2, head_dim=16, queries=1,
              keys=length)
    states = [OneQuery(job, 1, rows, length), Dense("sdpa", sdpa.attend, job, 1, rows, length)]
    lengths = torch.tensor([50, 23, 37], device=DEVICE)
    keys, values = normal(2, rows, 2, 50, 16)
    for state in states:
        state.fill(0, keys, values, lengths)
    for token in range(12):
        qkv = normal(rows, 3, 2, 16)
        with torch.inference_mode():
            for state in states:
                state.ready((lengths + token)[:, None])
            ours, expected = (state.step(0, qkv[:, None]) for state in states)
        close(ours, expected)


FEW = {"full": {}, "alibi": {"positions": "alibi"}, "rope": {"positions": "rope"},
       "window": {"pattern": "window", "window": 6}, "window_of_one": {"pattern": "window", "window": 1},
       "alibi_window": {"positions": "alibi", "pattern": "window", "window": 20},
       "rope_window": {"positions": "rope", "pattern": "window", "window": 6},
       "block": {"pattern": "block", "block": 7}, "rope_block": {"positions": "rope", "pattern": "block", "block": 4},
       "longformer": {"pattern": "longformer", "window": 5, "globals": 3},
       "sinks_not_reached": {"pattern": "longformer", "window": 5, "globals": 60},
       "bigbird": BIGBIRD, "alibi_bigbird": {"positions": "alibi"} | BIGBIRD | {"block": 4},
       "strided": {"pattern": "strided", "stride": 5}, "alibi_strided": {"positions": "alibi", "pattern": "strided",
                                                                         "stride": 4}}


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(("dtype", "tokens", "splits"), [
    (torch.float32, 2, None), (torch.float32, 16, 3), (torch.bfloat16, 6, 2), (torch.float16, 11, None)])
def test_drafted_tokens_attend_and_are_taken_back_as_over_a_cache_without_them(name, dtype, tokens, splits):
    """Passes over several tokens, some of which are wrong: those that stay see what they would see one by one."""
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("the interpreter does not round to bfloat16, but cuts off")
    rows, length, heads, dim, drafted = 3, 90, 2, 16, tokens - 1
    spec = AttentionSpec(kernel="flash", **({"positions": "learned"} | FEW[name]))
    few = Job(spec, DEVICE, dtype, heads, dim, queries=tokens, keys=length + drafted)
    one = Job(spec, DEVICE, torch.float32, heads, dim, queries=1, keys=length)
    ours = OneQuery(few, 1, rows, length + drafted, drafted=drafted)
    ours._attend = partial(ours._attend, splits=splits)
    control = Dense("sdpa", sdpa.attend, one, 1, rows, length)
    lengths = torch.tensor([50, 3, 37], device=DEVICE)
    keys, values = normal(2, rows, heads, 50, dim, dtype=dtype)
    ours.fill(0, keys, values, lengths)
    control.fill(0, keys.float(), values.float(), lengths)
    filled = lengths
    for right in (tokens, 1, 2, tokens):  # at first all drafted tokens are right, then none
        qkv = normal(rows, tokens, 3, heads, dim, dtype=dtype)
        with torch.inference_mode():
            ours.ready(filled[:, None] + torch.arange(tokens, device=DEVICE))
            out = ours.step(0, qkv)
            for token in range(min(right, tokens)):
                control.ready((filled + token)[:, None])
                close(out[:, token], control.step(0, qkv[:, token:token + 1].float())[:, 0])
        filled = filled + min(right, tokens)


def test_more_tokens_than_one_product_takes_are_refused():
    with pytest.raises(ValueError, match="17 tokens a row; at most 16"):
        attend_few(normal(17, 3 * 16), *normal(2, 1, 1, 40, 16), torch.tensor([3], device=DEVICE), scale=1.0)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), drafted=st.integers(1, 15), new=st.integers(1, 12), end=st.sampled_from([None, 2]))
def test_lookups_bookkeeping(data, drafted, new, end):
    rows, length = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([3, 40, 1100]))
    text, starts = integers(0, 3, rows, length + new + drafted), integers(1, length + 1, rows)
    filled = starts + integers(0, new, rows)
    choices = data.draw(st.sampled_from([1, 1 + drafted]))
    chosen, block, finished = integers(0, 3, rows, choices), integers(0, 3, rows, 1 + drafted), integers(0, 2, rows) > 0
    ours = [text, filled, finished, block, torch.zeros_like(block)]
    text, filled, finished, block, positions = expected = [given.clone() for given in ours]
    steps = data.draw(st.sampled_from([0, 4]))
    continuations = integers(-1, 3, 3, 1 + steps)
    lookup_by_kernel.advance(chosen, ours[3], ours[4], *ours[:2], starts, ours[2], continuations, new, end,
                             lookup.GRAMS)
    lookup.accept(chosen, block, text, filled, starts, finished, new, end)
    lookup.draft(block, positions, text, filled, continuations)
    assert all(map(torch.equal, ours, expected))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("bias_of", "splits"), [
    (None, 1), ((True, False), 2), ((False, True), 1), ((False, False), 2)])
def test_one_query_in_half_precision(dtype, bias_of, splits):
    rotates = dtype != torch.bfloat16 or not INTERPRETED  # which does not round to bfloat16, but cuts off
    check_one_query("leading", dtype, 64, alibi=True, rotates=rotates, bias_of=bias_of, splits=splits)
    check_one_query("block", dtype, 32, alibi=False, rotates=False, bias_of=bias_of, splits=3 - splits)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_fill(data):
    prompts, beams, heads = (data.draw(st.integers(1, 3)) for _ in range(3))
    dim, dtype = data.draw(st.sampled_from([1, 16, 48])), data.draw(st.sampled_from(list(ROUNDING)))
    length, slots = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 90))
    first = data.draw(st.integers(0, slots + 2 if length <= slots else slots - 1))
    lengths = data.draw(st.none() | st.lists(st.integers(0, length), min_size=prompts, max_size=prompts))
    key = normal(prompts, length, 3, heads, dim, dtype=dtype)[:, :, 1].transpose(1, 2)
    value = normal(prompts, heads, dim, length, dtype=dtype).mT
    storage = normal(2, prompts * beams, heads, slots, dim, dtype=dtype)
    expected = storage.clone()
    for row in range(prompts * beams):
        prompt = row // beams
        for held, tensor in zip(expected, (key, value), strict=True):
            lay(held[row], tensor[prompt, :, :lengths[prompt] if lengths else length], first)
    fill(storage, key, value, None if lengths is None else torch.tensor(lengths, device=DEVICE), first)
    assert torch.equal(storage, expected)


@pytest.mark.parametrize("slots", [1, 40])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_reorder(slots, data):
    layers, prompts, heads, beams = (data.draw(st.integers(1, most)) for most in (2, 3, 2, 5))
    dim, most = data.draw(st.sampled_from([1, 16, 48])), data.draw(st.sampled_from([slots, slots + 3, 1]))
    count = data.draw(st.just(most) | st.integers(0, most))
    start = integers(0, slots + 1, prompts).repeat_interleave(beams)
    rows = integers(0, beams, prompts * beams) + torch.arange(prompts, device=DEVICE).repeat_interleave(beams) * beams
    storage = normal(layers, 2, prompts * beams, heads, slots, dim)
    expected = storage.clone()
    for row, (source, begin) in enumerate(zip(rows.tolist(), start.tolist(), strict=True)):
        changed = slice(begin, begin + count)
        expected[:, :, row, :, changed] = storage[:, :, source, :, changed]
    reorder(storage, rows, beams, start, most, torch.tensor([count], device=DEVICE))
    assert torch.equal(storage, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("length", "dim"), [(1, 8), (65, 16), (70, 24)])
def test_rotate_turns_pairs_of_channels(dtype, length, dim):
    """Of views into one projection, by angles that are the same for all rows or each row's own."""
    x = torch.randn(2, length, 3, 4, dim, device=DEVICE, dtype=dtype).unbind(2)[1].transpose(1, 2)
    table = rotations(length, dim, DEVICE)
    position = (torch.arange(length, device=DEVICE) - torch.tensor([[0], [length // 2]], device=DEVICE)).clamp(min=0)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-3
    towards = torch.randn(2, length, 4, dim, device=DEVICE, dtype=dtype).transpose(1, 2)
    for turns in (table, table[position][:, None]):
        ours, plain = (x.detach().clone().requires_grad_() for _ in range(2))
        turned = rotate(ours, turns)
        pairs = torch.view_as_complex(torch.stack(plain.float().chunk(2, -1), -1).contiguous())
        expected = torch.view_as_real(pairs * torch.complex(*turns.unbind(-2))).movedim(-1, -2).flatten(-2)
        torch.testing.assert_close(turned.float(), expected, atol=tolerance, rtol=tolerance)
        turned.backward(towards)
        expected.backward(towards.float())
        torch.testing.assert_close(ours.grad, plain.grad, atol=2 * tolerance, rtol=2 * tolerance)
        torch.library.opcheck(rotate, (x, turns))


@settings(deadline=None, max_examples=12)
@given(stride=st.integers(1, 20), length=st.integers(1, 150), dim=st.sampled_from((16, 24, 64)), biased=st.booleans(),
       dtype=st.sampled_from((torch.float32, torch.float16)))
def test_far_keys_go_on_where_the_near_ones_ended(stride, length, dim, biased, dtype):
    qkv = normal(2, length, 3, 2, dim, dtype=dtype)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # strided, as heads split off one projection
    slopes = torch.tensor([0.5, 0.03], device=DEVICE) if biased else None
    place = torch.arange(length, device=DEVICE)
    behind = place[:, None] - place
    scores = q.float() @ k.float().mT * 0.3
    if biased:
        scores -= slopes.view(2, 1, 1) * behind
    near = scores.masked_fill((behind < 0) | (behind >= stride), -torch.inf)
    both = scores.masked_fill((behind < 0) | ((behind >= stride) & (behind % stride > 0)), -torch.inf)
    ours = add_far(q, k, v, (near.softmax(-1) @ v.float()).to(dtype), near.logsumexp(-1), stride, 0.3, slopes)
    close(ours, both.softmax(-1) @ v.float())


def with_gradients(function, inputs, projection, scale, out_gradient):
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, projection, scale)
    return [out.detach(), *torch.autograd.grad(out, inputs, out_gradient.to(out.dtype))]


def no_worse_than_pytorch(ours, expected, other):
    """Typically; the largest error is one number's, and twice PyTorch's in one draw of fifty for chunks of any size."""
    error, others = ours - expected, other - expected
    rounding = 1e-5 * expected.abs().max().clamp(min=1)  # in float32, where both are exact but for it
    assert error.square().mean().sqrt() <= 1.5 * others.square().mean().sqrt() + rounding
    assert error.abs().max() <= 4 * others.abs().max() + rounding


def split_off(batch, heads, length, dim, dtype):
    """Queries, keys and values as heads are split off one projection."""
    return [x.transpose(1, 2) for x in normal(batch, length, 3, heads, dim, dtype=dtype).unbind(2)]


# Triton's interpreter multiplies bfloat16 numbers as if their bits were integers, and a GPU's float32 products are not
# exact: so each computes what it can.
FAVOR = torch.float32 if INTERPRETED else torch.bfloat16


@pytest.mark.parametrize(("features", "dim"), [(16, 32), (128, 64), (32, 64)] if INTERPRETED else
                         list(product(performer.FEATURES, performer.DIMS)))
@pytest.mark.parametrize(("length", "segment"), [(1, 64), (64, 64), (77, 512), (200, 64), (330, 128)])
def test_favor_and_its_gradients(features, dim, length, segment, monkeypatch):
    """Within a chunk, over chunks of a segment, and over segments, the last of which are not full."""
    monkeypatch.setattr(by_kernel, "SEGMENTS", (64, segment))
    monkeypatch.setattr(by_kernel, "PROGRAMS", 1)
    projection, scale = favor.orthogonal_features(features, dim, seed=0).to(DEVICE), dim ** -0.5
    inputs = split_off(2, 2, length, dim, FAVOR)
    out_gradient = normal(2, 2, length, dim, dtype=FAVOR)
    ours = with_gradients(by_kernel.attend, inputs, projection, scale, out_gradient)
    exact = with_gradients(favor.dense, [x.float() for x in inputs], projection, scale, out_gradient)
    plain = with_gradients(favor.attend, inputs, projection, scale, out_gradient)
    for x, expected, other in zip(ours, exact, plain, strict=True):
        assert x.dtype == FAVOR
        assert x.transpose(1, 2).is_contiguous()
        assert x.isfinite().all()
        no_worse_than_pytorch(x, expected, other)


@pytest.mark.parametrize("layout", ["head_dim first", "expanded"])
def test_favor_takes_any_strides(layout):
    projection = favor.orthogonal_features(16, 32, seed=0).to(DEVICE)
    inputs = [normal(2, 3, 32, 70, dtype=FAVOR).mT for _ in range(3)] if layout == "head_dim first" else [
        normal(1, 1, 70, 32, dtype=FAVOR).expand(2, 3, 70, 32) for _ in range(3)]
    expanded = normal(1, 3, 1, 1, dtype=FAVOR).expand(2, 3, 70, 32)
    ours = with_gradients(by_kernel.attend, inputs, projection, 0.25, expanded)
    copied = [x.contiguous() for x in inputs]
    for x, same in zip(ours, with_gradients(by_kernel.attend, copied, projection, 0.25, expanded.contiguous()),
                       strict=True):
        assert torch.equal(x, same)


def test_favor_of_long_queries_and_keys_is_finite_as_is_what_underflows():
    projection = favor.orthogonal_features(128, 64, seed=0).to(DEVICE)
    for size in (4, 20, 200):
        inputs = [size * x for x in split_off(1, 2, 100, 64, FAVOR)]
        results = with_gradients(by_kernel.attend, inputs, projection, 0.125, normal(1, 2, 100, 64, dtype=FAVOR))
        assert all(x.isfinite().all() for x in results)
    assert not results[0].any()


def test_favor_in_inference_and_with_the_gradient_of_one_input():
    projection = favor.orthogonal_features(16, 32, seed=0).to(DEVICE)
    q, k, v = split_off(1, 2, 70, 32, FAVOR)
    expected = by_kernel.attend(q, k, v, projection, 0.25)
    with torch.inference_mode():
        assert torch.equal(by_kernel.attend(q, k, v, projection, 0.25), expected)
    out = by_kernel.attend(q, k, v.requires_grad_(), projection, 0.25)
    out.sum().backward()
    assert torch.equal(out, expected)
    assert v.grad.isfinite().all()


def test_favor_in_a_compiled_graph_is_the_same():
    """Of heads split off within it; and what was computed for the backward pass goes there."""
    projection, x = favor.orthogonal_features(32, 32, seed=0).to(DEVICE), normal(2, 150, 48)
    weight = normal(192, 48) / 7

    def block(x, weight):
        heads = by_torch(x, weight).to(FAVOR).view(2, 150, 3, 2, 32).unbind(2)
        return by_kernel.attend(*(head.transpose(1, 2) for head in heads), projection, 0.25).transpose(1, 2).float()

    results = []
    for function in (block, torch.compile(block, fullgraph=True, dynamic=False, backend="aot_eager")):
        inputs = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = function(*inputs)
        assert out.is_contiguous()
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.skipif(INTERPRETED, reason="takes long without a GPU")
@pytest.mark.parametrize(("batch", "length"), [(64, 500), (1, 5000), (4, 2048)])
def test_favor_of_many_rows_and_long_ones(batch, length):
    """Of as many programs as benchmarks have; the first and last rows' errors in outputs and gradients."""
    projection = favor.orthogonal_features(128, 64, seed=0).to(DEVICE)
    inputs, out_gradient = split_off(batch, 12, length, 64, FAVOR), normal(batch, 12, length, 64, dtype=FAVOR)
    ours = with_gradients(by_kernel.attend, inputs, projection, 0.125, out_gradient)
    for row in {0, batch - 1}:
        one, at = slice(row, row + 1), slice(11, 12)
        part, gradient = [x[one, at] for x in inputs], out_gradient[one, at]
        exact = with_gradients(favor.dense, [x.float() for x in part], projection, 0.125, gradient)
        plain = with_gradients(favor.attend, part, projection, 0.125, gradient)
        for x, expected, other in zip(ours, exact, plain, strict=True):
            no_worse_than_pytorch(x[one, at], expected, other)


@pytest.mark.parametrize(("asked", "fits"), [
    ({}, True), ({"dtype": torch.float16}, False), ({"padded": True}, False), ({"queries": 5}, False),
    ({"head_dim": 16}, False), ({"features": 24}, False), ({"device": torch.device("cpu")}, False)], ids=str)
def test_favor_runs_where_it_can(asked, fits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    spec = AttentionSpec(kernel="performer", features=asked.get("features", 128))
    job = {"device": torch.device("cuda"), "dtype": torch.bfloat16, "heads": 2, "head_dim": 64, "queries": 9, "keys": 9}
    job |= {name: value for name, value in asked.items() if name != "features"}
    padding = torch.tensor([3]) if asked.get("padded") else None
    assert (performer.build(Job(spec, **job), padding).attend is by_kernel.attend) == fits
