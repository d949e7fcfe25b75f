"""Every variant against arithmetic spelled out in Python, one number at a time."""

import math
import random

import pytest
import torch
from conftest import VARIANTS
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headtohead.attention import AttentionSpec, alibi_slopes, attend, visible
from headtohead.attention.dispatch import BackendError, choose

variants = pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS.keys())


def sees(spec: AttentionSpec, query: int, key: int) -> bool:
    if key > query:
        return False
    return spec.pattern == "full" or query - key <= spec.window - 1


def slopes_of_the_paper(heads: int) -> list[float]:
    """The recursion that the paper's authors published with it."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**i for i in range(heads)]
    lower = 2 ** math.floor(math.log2(heads))
    return slopes_of_the_paper(lower) + slopes_of_the_paper(2 * lower)[0::2][: heads - lower]


def attend_by_hand(q, k, v, spec, padding):
    """softmax(q k / sqrt(d) + bias) v in Python's own floats; padding queries are left at 0."""
    batch, heads, queries, dim = q.shape
    keys, slopes = k.shape[2], slopes_of_the_paper(heads)
    out = torch.zeros(q.shape, dtype=torch.float64)
    for b in range(batch):
        first = padding[b]
        for h in range(heads):
            for row in range(queries):
                i = keys - queries + row
                seen = [j for j in range(first, keys) if i >= first and sees(spec, i - first, j - first)]
                if not seen:
                    continue
                scores = [float(q[b, h, row].double() @ k[b, h, j].double()) / math.sqrt(dim) for j in seen]
                if spec.positions == "alibi":
                    scores = [s - slopes[h] * (i - j) for s, j in zip(scores, seen, strict=True)]
                top = max(scores)
                weights = [math.exp(s - top) for s in scores]
                for j, weight in zip(seen, weights, strict=True):
                    out[b, h, row] += v[b, h, j].double() * weight / sum(weights)
    return out


def tensors(batch, heads, queries, keys, dim=8, dtype=torch.float32):
    return [torch.randn(batch, heads, n, dim).to(dtype) for n in (queries, keys, keys)]


@variants
def test_visible_is_the_definition_at_every_length(spec):
    for length in range(1, 71):
        expected = [[sees(spec, i, j) for j in range(length)] for i in range(length)]
        assert visible(spec, length).tolist() == expected


def test_window_counts_the_query_itself():
    spec = AttentionSpec(kernel="flash", pattern="window", window=64)
    assert visible(spec, 200).sum(1).tolist() == [min(i + 1, 64) for i in range(200)]


@pytest.mark.parametrize("heads", range(1, 17))
def test_slopes_are_the_papers_for_every_head_count(heads):
    slopes = alibi_slopes(heads)
    assert slopes.shape == (heads,)
    assert slopes.dtype == torch.float32
    torch.testing.assert_close(slopes, torch.tensor(slopes_of_the_paper(heads)))


def test_twelve_slopes():
    expected = [2.0**-i for i in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    torch.testing.assert_close(alibi_slopes(12), torch.tensor(expected))


def test_no_heads_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        alibi_slopes(0)


@pytest.mark.parametrize("backend", [None, "reference"])
@variants
def test_attend_against_arithmetic_for_every_head_count(spec, backend):
    for heads in range(1, 17):
        length = random.randint(1, 20)
        q, k, v = tensors(1, heads, length, length)
        expected = attend_by_hand(q, k, v, spec, [0])
        torch.testing.assert_close(attend(q, k, v, spec, backend).double(), expected, atol=2e-5, rtol=1e-4)


@variants
def test_attend_against_arithmetic_at_every_length(spec):
    for length in range(1, 71):
        q, k, v = tensors(1, 1, length, length, dim=4)
        torch.testing.assert_close(attend(q, k, v, spec).double(), attend_by_hand(q, k, v, spec, [0]),
                                   atol=2e-5, rtol=1e-4)


@variants
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_left_padding_and_cached_decoding_against_arithmetic(spec, data):
    batch, heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    keys = data.draw(st.integers(1, 24))
    queries = data.draw(st.sampled_from(sorted({1, keys, max(1, keys // 2)})))
    padding = data.draw(st.lists(st.integers(0, keys - 1), min_size=batch, max_size=batch))
    q, k, v = tensors(batch, heads, queries, keys)
    expected = attend_by_hand(q, k, v, spec, padding)
    for backend in (None, "reference"):
        out = attend(q, k, v, spec, backend, left_padding=torch.tensor(padding)).double()
        assert out.isfinite().all()
        for b, first in enumerate(padding):
            real = slice(max(0, first - (keys - queries)), None)
            torch.testing.assert_close(out[b, :, real], expected[b, :, real], atol=2e-5, rtol=1e-4)


@variants
def test_one_token_at_a_time_equals_the_whole(spec):
    q, k, v = tensors(2, 4, 33, 33)
    whole = attend(q, k, v, spec)
    steps = [attend(q[:, :, i:i + 1], k[:, :, :i + 1], v[:, :, :i + 1], spec) for i in range(33)]
    torch.testing.assert_close(torch.cat(steps, dim=2), whole, atol=2e-6, rtol=1e-5)


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_backend_errs_at_most_twice_as_much_as_plain_code(spec, dtype):
    """flash-attention's own rule, for outputs and gradients, against the float32 reference."""
    q, k, v = tensors(2, 3, 65, 65, dim=16, dtype=dtype)
    plain = spec.model_copy(update={"kernel": "eager"})

    def run(backend_spec, backend, cast):
        inputs = [t.detach().to(cast).requires_grad_() for t in (q, k, v)]
        out = attend(*inputs, backend_spec, backend)
        out.float().square().sum().backward()
        return [out, *(t.grad for t in inputs)]

    exact = run(spec, "reference", torch.float32)
    for ours, same_precision, reference in zip(run(spec, None, dtype), run(plain, "eager", dtype), exact, strict=True):
        error = (ours.float() - reference).abs().max()
        allowed = 2 * (same_precision.float() - reference).abs().max() + 1e-5 * reference.abs().max().clamp(min=1)
        assert error <= allowed


def test_a_fused_kernel_is_never_replaced_by_materialised_scores():
    q, k, v = tensors(1, 2, 9, 9)
    for spec in VARIANTS.values():
        with torch.profiler.profile() as profile:
            attend(q, k, v, spec)
        fused = any("scaled_dot_product_flash_attention_for_cpu" in event.key for event in profile.key_averages())
        materialised = any(event.key == "aten::_softmax" for event in profile.key_averages())
        assert (fused, materialised) == ((True, False) if spec.kernel == "flash" else (False, True))


def test_a_named_backend_is_used_or_refused():
    flash, cpu = VARIANTS["flash"], torch.device("cpu")
    with pytest.raises(BackendError, match="unknown attention backend 'nope'; there are eager, sdpa, reference"):
        choose(flash, cpu, torch.float32, "nope")
    with pytest.raises(BackendError, match="eager: it materialises"):
        choose(flash, cpu, torch.float32, "eager")
    with pytest.raises(BackendError, match="no fused kernel for meta"):
        choose(flash, torch.device("meta"), torch.float32)


def test_shapes_that_do_not_belong_together_are_refused():
    q, k, v = tensors(1, 2, 9, 4)
    with pytest.raises(ValueError, match="at most as many queries as keys"):
        attend(q, k, v, AttentionSpec())


@pytest.mark.parametrize(("wrong", "message"), [
    ({"kernel": "fast"}, "'eager' or 'flash'"),
    ({"pattern": "strided"}, "there are full, window"),
    ({"pattern": "window"}, "needs window"),
    ({"pattern": "full", "window": 3}, "knows no window"),
    ({"pattern": "window", "window": 0}, "greater than or equal to 1"),
    ({"pattern": "window", "window": True}, "valid integer"),
    ({"pattern": "window", "window": 2.5}, "valid integer"),
])
def test_wrong_variants_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        AttentionSpec(**wrong)
