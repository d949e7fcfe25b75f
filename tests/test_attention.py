"""Every variant against arithmetic spelled out in Python, one number at a time."""

import cmath
import logging
import math
import random
import sys
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise, product
from types import SimpleNamespace

import pytest
import torch
from conftest import SOFTMAX, STUDY_VARIANTS, VARIANTS, random_ids, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_decoding import by_transformers

from headtohead.attention import AttentionSpec, alibi_slopes, attend, visible
from headtohead.attention.backends import flash_attn, flex
from headtohead.attention.job import BackendError, Capability, Job
from headtohead.attention.masks import bias_at
from headtohead.attention.patterns import PATTERNS, Kept, Pattern
from headtohead.attention.plan import BACKENDS, LONG, choose, preferred
from headtohead.inference.engine import Engine
from headtohead.inference.search import generate

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
JOB = Job(VARIANTS["flash"], CUDA, torch.bfloat16, heads=12, head_dim=64, queries=512, keys=512)
variants = pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS.keys())
# One layer of each, so that a mix is tested by its parts.
LAYERS = {f"{name}-{index}": spec.layer(index)
          for name, spec in SOFTMAX.items() for index in range(len(spec.layers) or 1)}
layers = pytest.mark.parametrize("spec", LAYERS.values(), ids=LAYERS.keys())


def sees(spec: AttentionSpec, query: int, key: int) -> bool:
    """The definitions, spelled out; of BigBird all but the random blocks, which `drawn_blocks` looks at."""
    if key > query:
        return False
    back = query - key
    match spec.pattern:
        case "full":
            return True
        case "window":
            return back <= spec.window - 1
        case "strided":
            return back < spec.stride or back % spec.stride == 0
        case "block":
            return key >= query - query % spec.block
        case "longformer":
            return back < spec.window or key < spec.globals
        case "bigbird":
            own, other = query // spec.block, key // spec.block
            return own - other < spec.window_blocks or other < spec.global_blocks or other in drawn_blocks(spec, own)
    raise AssertionError(spec.pattern)


@lru_cache(100)
def drawn_blocks(spec: AttentionSpec, own: int) -> set[int]:
    """Which blocks between the leading and the near ones the block `own` sees, as the pattern tells one by one."""
    between = range(spec.global_blocks, own - spec.window_blocks + 1)
    return {other for other in between if spec.visibility.sees(own * spec.block, other * spec.block)}


def slopes_of_the_paper(heads: int) -> list[float]:
    """The recursion that the paper's authors published with it."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**i for i in range(heads)]
    lower = 2 ** math.floor(math.log2(heads))
    return slopes_of_the_paper(lower) + slopes_of_the_paper(2 * lower)[0::2][: heads - lower]


def turned(x, position):
    """A head's vector as complex numbers, each turned by the angle that RoPE gives it at this position."""
    half = len(x) // 2
    return [complex(x[c], x[c + half]) * cmath.exp(1j * position * 10_000 ** (-2 * c / len(x))) for c in range(half)]


def score_by_hand(q, k, spec, back, slope):
    """Of two vectors as lists; for RoPE turned, and so as half as many complex numbers."""
    if spec.positions == "rope":
        return sum((a * b.conjugate()).real for a, b in zip(q, k, strict=True)) / math.sqrt(2 * len(q))
    score = sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(len(q))
    return score - slope * back if spec.positions == "alibi" else score


def attend_by_hand(q, k, v, spec, padding):
    """softmax(q k / sqrt(d) + bias) v in Python's own floats; padding queries are left at 0."""
    batch, heads, queries, _ = q.shape
    keys, slopes = k.shape[2], slopes_of_the_paper(heads)
    out = torch.zeros(q.shape, dtype=torch.float64)
    for b in range(batch):
        first = padding[b]
        for h in range(heads):
            asking, asked, values = (x[b, h].double().tolist() for x in (q, k, v))
            if spec.positions == "rope":
                asking = [turned(x, keys - queries + row - first) for row, x in enumerate(asking)]
                asked = [turned(x, j - first) for j, x in enumerate(asked)]
            for row in range(queries):
                i = keys - queries + row
                seen = [j for j in range(first, keys) if i >= first and sees(spec, i - first, j - first)]
                if not seen:
                    continue
                scores = [score_by_hand(asking[row], asked[j], spec, i - j, slopes[h]) for j in seen]
                top = max(scores)
                weights = [math.exp(s - top) for s in scores]
                mean = [sum(w * values[j][c] for w, j in zip(weights, seen, strict=True)) / sum(weights)
                        for c in range(v.shape[-1])]
                out[b, h, row] = torch.tensor(mean, dtype=torch.float64)
    return out


def tensors(batch, heads, queries, keys, dim=8, dtype=torch.float32):
    return [torch.randn(batch, heads, n, dim).to(dtype) for n in (queries, keys, keys)]


@layers
def test_visible_is_the_definition_at_every_length(spec):
    expected = torch.tensor([[sees(spec, i, j) for j in range(70)] for i in range(70)])
    for length in range(1, 71):
        assert torch.equal(visible(spec, length), expected[:length, :length])


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


@layers
def test_attend_against_arithmetic_for_every_head_count(spec):
    for heads in range(1, 17):
        length = random.randint(1, 20)
        q, k, v = tensors(1, heads, length, length)
        expected = attend_by_hand(q, k, v, spec, [0])
        for backend in (None, "reference"):
            torch.testing.assert_close(attend(q, k, v, spec, backend).double(), expected, atol=2e-5, rtol=1e-4)


@layers
def test_attend_against_arithmetic_at_every_length(spec):
    """What a query gets depends on nothing after it, so that one sum by hand is right for all lengths."""
    q, k, v = tensors(1, 1, 70, 70, dim=4)
    expected = attend_by_hand(q, k, v, spec, [0])
    for length in range(1, 71):
        ours = attend(*(x[:, :, :length] for x in (q, k, v)), spec)
        torch.testing.assert_close(ours.double(), expected[:, :, :length], atol=2e-5, rtol=1e-4)


@layers
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
    torch.testing.assert_close(torch.cat(steps, dim=2), whole, atol=1e-5, rtol=1e-5)


@layers
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
        error, allowed = (ours.float() - reference).norm(), 2 * (same_precision.float() - reference).norm()
        assert error <= allowed + 1e-5 * reference.norm()


def test_a_fused_kernel_is_never_replaced_by_materialised_scores():
    q, k, v = tensors(1, 2, 9, 9)
    for spec in STUDY_VARIANTS.values():
        with torch.profiler.profile() as profile:
            attend(q, k, v, spec)
        fused = any("scaled_dot_product_flash_attention_for_cpu" in event.key for event in profile.key_averages())
        materialised = any(event.key == "aten::_softmax" for event in profile.key_averages())
        assert (fused, materialised) == ((True, False) if spec.kernel == "flash" else (False, True))


@pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_pattern_is_causal_sees_itself_and_counts_what_it_sees(spec):
    for layer in range(4):
        pattern, seen = spec.layer(layer).visibility, visible(spec, 70, layer)
        assert not seen.triu(1).any()
        assert seen.diagonal().all()
        for queries, keys in ((70, 70), (1, 70), (13, 60), (1, 1)):
            assert pattern.pairs(queries, keys) == seen[keys - queries:keys, :keys].sum()
        assert [pattern.count(query) for query in range(70)] == seen.sum(1).tolist()
        assert [Pattern.count(pattern, query) for query in range(70)] == seen.sum(1).tolist()


@variants
def test_what_is_kept_covers_what_later_queries_see(spec):
    for layer, length in product(range(2), (1, 2, 5, 8, 33, 70)):
        kept, seen = spec.layer(layer).visibility.keeps(length), visible(spec, length, layer)
        assert kept.first + kept.last <= length
        for now in range(length):
            held = [key < kept.first or now - key < kept.last for key in range(now + 1)]
            assert all(there for there, needed in zip(held, seen[now].tolist(), strict=False) if needed)


def test_caches_that_can_be_small_are():
    for numbers, kept in (({"pattern": "window", "window": 5}, Kept(0, 5)),
                          ({"pattern": "block", "block": 6}, Kept(0, 6)),
                          ({"pattern": "longformer", "window": 5, "globals": 2}, Kept(2, 5)),
                          ({"pattern": "full"}, Kept(0, 70))):
        assert AttentionSpec(**numbers).visibility.keeps(70) == kept


@given(query=st.integers(0, 4000), layer=st.integers(0, 50), seed=st.integers(0, 2**32 - 1), block=st.integers(1, 9),
       window_blocks=st.integers(1, 4), global_blocks=st.integers(0, 3), random_blocks=st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_bigbird_draws_as_many_blocks_as_there_are_to_draw(query, layer, seed, block, window_blocks, global_blocks,
                                                           random_blocks):
    numbers = {"block": block, "window_blocks": window_blocks, "global_blocks": global_blocks,
               "random_blocks": random_blocks, "seed": seed}
    spec = AttentionSpec(pattern="bigbird", **numbers).layer(layer)
    own, key = query // block, torch.arange(query + 1)
    between = max(0, own + 1 - window_blocks - global_blocks)
    assert len(drawn_blocks(spec, own)) == min(random_blocks, between)
    seen = spec.visibility.sees(query, key)
    assert seen.tolist() == [bool(spec.visibility.sees(query, int(other))) for other in key]
    assert torch.equal(seen, spec.visibility.sees(torch.tensor(query, dtype=torch.int32), key.to(torch.int32)))


def test_random_blocks_differ_by_layer_and_seed_and_are_the_same_everywhere():
    spec = AttentionSpec(pattern="bigbird", block=4, window_blocks=1, global_blocks=1, random_blocks=2)
    masks = [visible(spec, 400, layer) for layer in range(12)]
    assert len({mask.numpy().tobytes() for mask in masks}) == 12
    other = AttentionSpec(pattern="bigbird", block=4, window_blocks=1, global_blocks=1, random_blocks=2, seed=1)
    assert not torch.equal(visible(other, 400), masks[0])
    # Every block is drawn about as often as any other, over layers and seeds.
    drawn = Counter(other for layer in range(2000) for other in drawn_blocks(spec.layer(layer), 21))
    assert sorted(drawn) == list(range(1, 21))
    assert max(drawn.values()) < 1.5 * min(drawn.values())
    assert sorted(drawn_blocks(spec.layer(0), 90)) == [36, 69]  # on any machine, in any version


def test_regrouped_says_that_it_takes_strides_alone():
    takes = BACKENDS["regrouped"].capability
    for name, spec in VARIANTS.items():
        job = Job(spec.layer(0), CUDA, torch.float32, heads=2, head_dim=16, queries=40, keys=40)
        assert (takes.unsupported(job) is None) == (name == "strided"), name


class Dilated(Pattern):
    """A pattern of this file's own: every `dilation`-th of the last keys."""

    window: int
    dilation: int

    def sees(self, query, key):
        return (query - key < self.window * self.dilation) & ((query - key) % self.dilation == 0)


del PATTERNS["dilated"]  # but where a test asks for it: other tests count the patterns


@pytest.fixture
def dilated():
    """One class makes a variant like any other; it is forgotten again."""
    PATTERNS["dilated"] = Dilated
    yield AttentionSpec(kernel="flash", positions="alibi", layers=[
        {"pattern": "dilated", "window": 3, "dilation": 4}, {"pattern": "full"}])
    del PATTERNS["dilated"]


def test_a_new_pattern_is_one_class(dilated):
    expected = [[j <= i and i - j in (0, 4, 8) for j in range(30)] for i in range(30)]
    assert visible(dilated, 30).tolist() == expected
    assert dilated.layer(0).visibility.pairs(30, 30) == sum(map(sum, expected))
    q, k, v = tensors(2, 4, 30, 30)
    padding = torch.tensor([0, 7])
    for layer in (0, 1):
        ours, oracle = (attend(q, k, v, dilated, backend, left_padding=padding, layer=layer)[1, :, 7:]
                        for backend in (None, "reference"))
        torch.testing.assert_close(ours, oracle, atol=2e-6, rtol=1e-5)
    model, ids = tiny(dilated), random_ids(2, 20, seed=4)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    asked = {"max_new_tokens": 15, "beams": 2, "no_repeat_ngram": 0, "end": 0}
    written = generate(Engine(model), ids * mask, torch.tensor([0, 5]), **asked).tolist()
    assert written == by_transformers(model, ids * mask, mask, **asked)


@layers
def test_bias_of_one_query_over_a_ring_of_keys(spec):
    """A cache may hold its keys in any order; its empty slots have negative positions."""
    whole = bias_at(spec, 4, torch.arange(20), torch.arange(20)).expand(1, 4, 20, 20)[0]
    rings = torch.tensor([[16, 17, 18, 19, -1, 13, -7, 15], [14, 0, 1, 2, 3, -1, 13, 12]])
    bias = bias_at(spec, 4, torch.tensor([[17], [14]]), rings).expand(2, 4, 1, 8)
    for row, now in enumerate((17, 14)):
        for place, key in enumerate(rings[row].tolist()):
            expected = whole[:, now, key] if key >= 0 else torch.full((4,), -math.inf)
            assert torch.equal(bias[row, :, 0, place], expected)


def test_a_named_backend_is_used_or_refused():
    job = replace(JOB, device=CPU, dtype=torch.float32)
    with pytest.raises(BackendError, match="unknown attention backend 'nope'; there are flash-attn, flex, sdpa"):
        choose(job, "nope")
    with pytest.raises(BackendError, match="eager is no kernel of the kind 'flash'"):
        choose(job, "eager")
    with pytest.raises(BackendError, match=r"in torch\.float32 on meta: sdpa takes no float32 on meta"):
        choose(replace(job, device=torch.device("meta")))
    assert choose(job, "reference").backend.name == "reference"
    assert choose(job, "reference").why == "asked for by name"


@pytest.mark.parametrize(("backend", "changes", "message"), [
    ("flash-attn", {}, "is not installed: pip install --no-build-isolation flash-attn"),
    ("flash-attn", {"dtype": torch.float32}, "takes no float32 on cuda"),
    ("flash-attn", {"device": CPU}, "takes no bfloat16 on cpu"),
    ("flash-attn", {"head_dim": 257}, "takes head dimensions from 1 to 256, not 257"),
    ("flex", {"device": CPU}, "takes no bfloat16 on cpu"),
    ("flex", {"device": CPU, "dtype": torch.float32}, "takes no float32 on cpu"),  # it computed garbage on AVX2
    ("flex", {"head_dim": 8}, "takes head dimensions from 16 to 256, not 8"),
    ("flex", {"dtype": torch.float64}, "takes no float64 on cuda"),
    ("sdpa", {"dtype": torch.float64}, "takes no float64 on cuda"),
])
def test_what_a_backend_cannot_do_is_named(monkeypatch, backend, changes, message):
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # as where it is not installed
    with pytest.raises(BackendError, match=f"{backend} .*{message}"):
        choose(replace(JOB, **changes), backend)


def test_a_capability_refuses_each_thing_that_it_lacks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    job = Job(VARIANTS["alibi_window"], CUDA, torch.float16, heads=2, head_dim=64, queries=1, keys=9, padded=True,
              backward=True)
    able = Capability(kernels=frozenset({"flash"}))
    lacking = {"kernels": (frozenset({"eager"}), "kernel of the kind 'flash'"), "dtypes": ({}, "no float16 on cuda"),
               "backward": (frozenset({"cpu"}), "no gradients on cuda"), "alibi": (False, "no ALiBi"),
               "forms": (frozenset(), "no pattern 'window'"), "padding": (False, "no padding on the left"),
               "cache": (False, "no fewer queries than keys"), "head_dims": ((8, 16), "dimensions 8, 16, not 64"),
               "lengths": (range(1, 9), "from 1 to 8 keys, not 9"), "compute": (9, "for compute capability 9, not 8"),
               "package": (("no_such_package", "get it"), "is not installed: get it")}
    assert able.unsupported(job) is None
    for name, (value, message) in lacking.items():
        assert able.unsupported(job) != replace(able, **{name: value}).unsupported(job)
        assert message in replace(able, **{name: value}).unsupported(job)
    everything = replace(able, **{name: value for name, (value, _) in lacking.items()}).unsupported(job)
    assert all(message in everything for _, message in lacking.values())


@pytest.fixture(params=[9, 8])
def compute(request):
    """A GPU's major compute capability."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_capability", lambda device: (request.param, 0))
        yield request.param


@pytest.fixture
def with_flash_attn(monkeypatch):
    monkeypatch.setattr(flash_attn, "capability", replace(flash_attn.capability, package=None))


def on_cuda(name, length, **changes):
    return replace(JOB, spec=VARIANTS[name], queries=length, keys=length, **changes)


@pytest.mark.parametrize(("job", "first", "without_flash_attn"), [
    (on_cuda("standard", 512), "eager", "eager"),
    (on_cuda("flash", 512), "cudnn|sdpa", "cudnn|sdpa"),
    (on_cuda("flash", LONG), "cudnn|sdpa", "cudnn|sdpa"),
    (on_cuda("flash", 512, backward=True), "sdpa", "sdpa"),
    (on_cuda("flash", LONG, backward=True), "sdpa", "sdpa"),
    (on_cuda("flash", 512, padded=True), "flash-attn", "sdpa"),
    (on_cuda("flash", LONG, padded=True), "flash-attn", "flex"),
    (on_cuda("flash_alibi", 512), "cudnn|flash-attn", "cudnn|flex"),
    (on_cuda("flash_alibi", LONG), "cudnn|flex", "cudnn|flex"),
    (on_cuda("flash", 1), "sdpa", "sdpa"),
    (on_cuda("flash_alibi", 1), "flash-attn", "flex"),
    (on_cuda("flash_alibi", 65_537), "flex", "flex"),
    (on_cuda("flash_alibi", 512, head_dim=40), "flash-attn", "flex"),
    (on_cuda("flash_alibi", LONG - 1, backward=True), "flash-attn", "flex"),
    (on_cuda("flash_alibi", LONG, backward=True), "flex", "flex"),
    (on_cuda("flash_alibi", LONG, padded=True), "flash-attn", "flex"),
    (on_cuda("flash_sparse", 512), "flash-attn", "flex"),
    (on_cuda("flash_sparse", LONG), "flex", "flex"),
    (on_cuda("flash_sparse", LONG, backward=True), "flash-attn", "flex"),
    (on_cuda("alibi_window", LONG), "flex", "flex"),
    (on_cuda("flash", 512, dtype=torch.float32), "sdpa", "sdpa"),
    (on_cuda("flash_alibi", 512, dtype=torch.float32), "flex", "flex"),
    (on_cuda("flash_alibi", 512, head_dim=8), "flash-attn", "sdpa"),
    (replace(on_cuda("flash_alibi", LONG), queries=1), "flash-attn", "sdpa"),  # a growing cache
    (on_cuda("flash_alibi", 512, device=CPU), "sdpa", "sdpa"),
    (on_cuda("standard", 512, device=CPU), "eager", "eager"),
])
def test_dispatch_takes_the_best_that_can_do_the_whole_job(monkeypatch, with_flash_attn, compute, job, first,
                                                           without_flash_attn):
    """Where two are named, the first is for a Hopper GPU alone."""
    first, without_flash_attn = (names.split("|")[0 if compute == 9 else -1] for names in (first, without_flash_attn))
    assert choose(job).backend.name == first
    order = preferred(job)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    choice = choose(job)
    assert choice.backend.name == without_flash_attn
    passed_over = order[:order.index(without_flash_attn)]
    assert all(f"{name} " in choice.why for name in passed_over)


@pytest.mark.parametrize("backend", ["flash-attn", "flex", "sdpa"])
def test_standard_stays_eager_whatever_runs_fused_kernels(backend):
    assert choose(on_cuda("standard", 512), backend).backend.name == "eager"


def test_a_choice_is_told_once(caplog):
    caplog.set_level(logging.INFO)
    spec = AttentionSpec(kernel="flash", pattern="window", window=977)  # of no other test
    for length in (5, 5, 6):
        attend(*tensors(1, 1, length, length), spec)
    assert [record.getMessage() for record in caplog.records] == [
        f"attention {spec} in torch.float32 on cpu by sdpa: the best that can do it here"]


def dense_by_segment(q, k, v, queries, keys, softmax_scale, causal, alibi_slopes, window_size):
    """What flash-attn documents: each segment alone, its mask aligned to its last query and key."""
    assert causal
    assert q.dtype == k.dtype
    out = torch.full_like(q, math.nan)
    for (a, b), (c, d) in zip(pairwise(queries), pairwise(keys), strict=True):
        back = torch.arange(b - a)[:, None] + (d - c) - (b - a) - torch.arange(d - c)
        hidden = (back < 0) if window_size == (-1, -1) else (back < -window_size[1]) | (back > window_size[0])
        scores = torch.einsum("qhd,khd->hqk", q[a:b], k[c:d]) * softmax_scale
        if alibi_slopes is not None:
            scores = scores - alibi_slopes[:, None, None] * back.abs()
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        out[a:b] = torch.einsum("hqk,khd->qhd", weights, v[c:d])
    return out


@pytest.fixture
def stand_in(monkeypatch):
    """A flash-attn for the CPU, written from its documentation: what we hand it must mean what we want."""
    def varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options):
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert (cu_seqlens_q[-1], cu_seqlens_k[-1]) == (len(q), len(k))
        assert (cu_seqlens_q.diff().max() <= max_seqlen_q, cu_seqlens_k.diff().max() <= max_seqlen_k) == (True, True)
        return dense_by_segment(q, k, v, cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), **options)

    def whole(q, k, v, **options):
        segments = [0, q.shape[1]], [0, k.shape[1]]
        return torch.stack([dense_by_segment(*row, *segments, **options) for row in zip(q, k, v, strict=True)])

    library = SimpleNamespace(flash_attn_func=whole, flash_attn_varlen_func=varlen)
    monkeypatch.setitem(sys.modules, "flash_attn", library)
    monkeypatch.setattr(flash_attn, "capability", replace(flash_attn.capability, dtypes=None, package=None))


@pytest.mark.parametrize("spec", [spec for spec in LAYERS.values() if spec.kernel == "flash" and spec.visibility.form
                                  and spec.visibility.form.parts <= {"window", "block"}], ids=str)
def test_flash_attn_is_handed_what_the_variant_means(stand_in, spec):
    @settings(deadline=None, max_examples=40)
    @given(data=st.data())
    def check(data):
        batch, heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
        keys = data.draw(st.integers(1, 24))
        queries = data.draw(st.integers(1, keys))
        rows = st.none() | st.lists(st.integers(0, keys - 1), min_size=batch, max_size=batch)
        left = data.draw(rows)
        padding = None if left is None else torch.tensor(left)
        q, k, v = tensors(batch, heads, queries, keys)
        expected = attend(q, k, v, spec, "reference", left_padding=padding, scale=0.7)
        out = attend(q, k, v, spec, "flash-attn", left_padding=padding, scale=0.7)
        assert out.isfinite().all()
        real = torch.arange(keys - queries, keys) >= (torch.zeros(batch, 1) if left is None else padding[:, None])
        mask = real[:, None, :, None]
        torch.testing.assert_close(out * mask, expected * mask, atol=2e-5, rtol=1e-4)

    check()


def test_flex_builds_a_block_mask_once_for_each_pair_of_lengths():
    first, again, other = (flex.build(replace(JOB, device=CPU, queries=9, keys=keys), None) for keys in (9, 9, 10))
    assert first.blocks is again.blocks
    assert first.blocks is not other.blocks


def test_shapes_that_do_not_belong_together_are_refused():
    q, k, v = tensors(1, 2, 9, 4)
    with pytest.raises(ValueError, match="at most as many queries as keys"):
        attend(q, k, v, AttentionSpec())


@pytest.mark.parametrize(("wrong", "message"), [
    ({"kernel": "fast"}, "'eager', 'flash' or 'performer'"),
    ({"pattern": "spiral"}, "there are full, window, strided, block, longformer, bigbird"),
    ({"pattern": "strided"}, "needs stride"),
    ({"pattern": "bigbird", "block": 4}, "needs window_blocks, global_blocks, random_blocks"),
    ({"kernel": "performer"}, "needs features"),
    ({"features": 3}, "knows no features"),
    ({"kernel": "performer", "features": 0}, "features: .*greater than or equal to 1"),
    ({"kernel": "performer", "features": 8, "positions": "alibi"}, "never computes them"),
    ({"kernel": "performer", "features": 8, "pattern": "window", "window": 3}, "can leave none out"),
    ({"layers": [{"pattern": "full"}], "pattern": "full"}, "stands beside `layers`"),
    ({"layers": [{"pattern": "full", "positions": "alibi"}]}, "has no positions of its own"),
    ({"layers": [{"layers": [{"pattern": "full"}]}]}, "has no layers of its own"),
    ({"layers": [{"pattern": "window"}]}, "needs window"),
    ({"layers": [3]}, "layers.0"),
    ({"positions": "sinus"}, "'learned', 'alibi', 'rope' or 'none'"),
    ({"pattern": "window"}, "needs window"),
    ({"pattern": "full", "window": 3}, "knows no window"),
    ({"pattern": "window", "window": 0}, "greater than or equal to 1"),
    ({"pattern": "window", "window": True}, "valid integer"),
    ({"pattern": "window", "window": 2.5}, "valid integer"),
])
def test_wrong_variants_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        AttentionSpec(**wrong)
