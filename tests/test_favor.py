"""Performer attention: the linear, the recurrent and the quadratic way are one function, and it nears softmax."""

import math

import pytest
import torch
from conftest import compiles
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from headtohead.attention.favor import attend, dense, final_state, orthogonal_features, step

DIM = 8
SCALE = DIM**-0.5
PROJECTION = orthogonal_features(24, DIM, seed=3)
# float32 sums of positive terms in another order: a few units in the last place of values around 1.
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


def tensors(batch, heads, queries, keys, dim=DIM, seed=0):
    """q, k and v from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, heads, n, dim, generator=generator) for n in (queries, keys, keys)]


def attend_by_hand(q, k, v, projection, scale):
    """Lemma 1 in Python's own floats for one head: phi(x) = exp(w.x - |x|^2/2), as in the paper."""
    def phi(x):
        x = [number * math.sqrt(scale) for number in x]
        return [math.exp(sum(a * b for a, b in zip(w, x, strict=True)) - sum(a * a for a in x) / 2)
                for w in projection]

    rows = []
    for i, query in enumerate(map(phi, q)):
        i += len(k) - len(q)
        weights = [sum(a * b for a, b in zip(query, phi(key), strict=True)) for key in k[:i + 1]]
        rows.append([sum(w * value[d] for w, value in zip(weights, v, strict=False)) / sum(weights)
                     for d in range(len(v[0]))])
    return rows


@pytest.mark.parametrize("queries", [1, 3, 7])
def test_against_the_paper_spelled_out(queries):
    q, k, v = tensors(1, 1, queries, 7)
    expected = torch.tensor(attend_by_hand(*(x[0, 0].tolist() for x in (q, k, v)), PROJECTION.tolist(), 0.5))
    for way in (dense, attend):
        torch.testing.assert_close(way(q, k, v, PROJECTION, 0.5)[0, 0], expected, **CLOSE)


def test_every_length_and_chunk_border_against_the_oracle():
    for length in range(1, 71):
        q, k, v = tensors(1, 2, length, length, seed=length)
        expected = dense(q, k, v, PROJECTION, SCALE)
        for chunk in (1, 7, 16, 64, 128):
            torch.testing.assert_close(attend(q, k, v, PROJECTION, SCALE, chunk=chunk), expected, **CLOSE)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(data=st.data())
def test_left_padding_and_fewer_queries_than_keys_against_the_oracle(data):
    batch, heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    keys, chunk = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 40))
    queries = data.draw(st.integers(1, keys))
    padding = torch.tensor(data.draw(st.lists(st.integers(0, keys - 1), min_size=batch, max_size=batch)))
    # As heads are split off a projection: [batch, length, heads, head_dim], seen otherwise.
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors(batch, heads, queries, keys, seed=keys))
    out = attend(q, k, v, PROJECTION, SCALE, padding, chunk)
    assert out.isfinite().all()
    torch.testing.assert_close(out, dense(q, k, v, PROJECTION, SCALE, padding), **CLOSE)
    for row, first in enumerate(padding.tolist()):  # padding is as good as absent
        shown = min(queries, keys - first)
        alone = dense(q[row:row + 1, :, queries - shown:], k[row:row + 1, :, first:], v[row:row + 1, :, first:],
                      PROJECTION, SCALE)
        torch.testing.assert_close(out[row, :, queries - shown:], alone[0], **CLOSE)


@pytest.mark.parametrize(("queries", "keys", "padding"), [(37, 37, None), (37, 37, [0, 20]), (9, 37, [5, 30])])
def test_gradients_against_the_oracle(queries, keys, padding):
    padding = None if padding is None else torch.tensor(padding)
    inputs = [x.requires_grad_() for x in tensors(2, 2, queries, keys)]
    real = torch.arange(keys - queries, keys) >= (0 if padding is None else padding[:, None])
    out_gradient = tensors(2, 2, queries, keys, seed=1)[0] * real.expand(2, queries)[:, None, :, None]
    expected = torch.autograd.grad(dense(*inputs, PROJECTION, SCALE, padding), inputs, out_gradient)
    gradients = torch.autograd.grad(attend(*inputs, PROJECTION, SCALE, padding, chunk=8), inputs, out_gradient)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-4, rtol=1e-4)


def begun(x, padding):
    """Each row [heads, length, dim] from its first real token on; its padding goes to the end."""
    return torch.stack([row.roll(-int(first), 1) for row, first in zip(x, padding, strict=True)])


@settings(deadline=None, max_examples=20, derandomize=True)
@given(prompt=st.integers(0, 40), steps=st.integers(1, 12), first=st.integers(0, 39))
def test_steps_after_a_prompt_are_the_whole_at_once(prompt, steps, first):
    q, k, v = tensors(2, 3, prompt + steps, prompt + steps, seed=prompt)
    padding = torch.tensor([0, min(first, prompt)])
    expected = attend(q, k, v, PROJECTION, SCALE, padding, chunk=16)
    state = torch.zeros(2, 3, len(PROJECTION), DIM + 1)
    if prompt:
        state = final_state(*(begun(x[:, :, :prompt], padding) for x in (k, v)), PROJECTION, SCALE, prompt - padding)
    address = state.data_ptr()
    for i in range(prompt, prompt + steps):
        torch.testing.assert_close(step(state, q[:, :, i], k[:, :, i], v[:, :, i], PROJECTION, SCALE),
                                   expected[:, :, i], **CLOSE)
    assert state.data_ptr() == address
    assert (state.shape, state.dtype) == ((2, 3, len(PROJECTION), DIM + 1), torch.float32)
    expected = final_state(begun(k, padding), begun(v, padding), PROJECTION, SCALE, prompt + steps - padding)
    torch.testing.assert_close(state / expected.abs().max(), expected / expected.abs().max(), atol=1e-6, rtol=1e-4)


def test_a_long_prompts_state_goes_over_chunks():
    _, k, v = tensors(1, 2, 1, 300)
    whole = final_state(k, v, PROJECTION, SCALE)
    parts = [final_state(k[:, :, a:b], v[:, :, a:b], PROJECTION, SCALE) for a, b in ((0, 11), (11, 140), (140, 300))]
    torch.testing.assert_close(sum(parts) / whole.abs().max(), whole / whole.abs().max(), atol=1e-6, rtol=1e-4)
    assert whole.is_contiguous()


@pytest.mark.parametrize(("features", "dim"), [(5, 8), (8, 8), (20, 8), (256, 64)])
def test_rows_are_orthogonal_within_blocks_and_as_long_as_gaussians(features, dim):
    projection = orthogonal_features(features, dim, seed=1)
    assert (projection.shape, projection.dtype) == ((features, dim), torch.float32)
    for block in projection.split(dim):
        angles = block / block.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(angles @ angles.T, torch.eye(len(block)), atol=1e-6, rtol=0)
    other = orthogonal_features(features, dim, seed=2)
    assert torch.equal(projection, orthogonal_features(features, dim, seed=1))
    assert not torch.isclose(projection, other).any(-1).all()


def test_lengths_and_directions_have_the_gaussians_moments():
    rows = orthogonal_features(40_000, 8, seed=0).double()
    squares = rows.square().sum(-1)   # chi-squared with 8 degrees: mean 8, variance 16
    assert squares.mean() == pytest.approx(8, abs=0.1)      # 5 standard errors
    assert squares.var() == pytest.approx(16, abs=0.8)
    assert rows.mean(0).abs().max() < 0.03                  # signs: each direction as often as its opposite
    torch.testing.assert_close(rows.T @ rows / len(rows), torch.eye(8).double(), atol=0.05, rtol=0)


def test_features_do_not_touch_the_global_generator():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    orthogonal_features(16, 8, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_later_tokens_change_nothing_earlier():
    q, k, v = tensors(1, 2, 50, 50)
    before = attend(q, k, v, PROJECTION, SCALE, chunk=8)
    for position in (1, 7, 8, 30, 49):
        changed = [torch.cat([x[:, :, :position], torch.full_like(x[:, :, position:], 3.0)], 2) for x in (q, k, v)]
        after = attend(*changed, PROJECTION, SCALE, chunk=8)
        assert torch.equal(after[:, :, :position], before[:, :, :position])
        assert not torch.isclose(after[:, :, position], before[:, :, position]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [16, 64, 256])
def test_large_inputs_stay_finite(dtype, dim):
    projection = orthogonal_features(64, dim, seed=0)
    inputs = [(20 * x).to(dtype).requires_grad_() for x in tensors(1, 2, 40, 40, dim)]
    out = attend(*inputs, projection, dim**-0.5, torch.tensor([3]), chunk=16)
    out.float().square().sum().backward()
    assert out.isfinite().all()
    assert all(x.grad.isfinite().all() for x in inputs)
    state = final_state(*inputs[1:], projection, dim**-0.5)
    assert step(state.detach(), *(x[:, :, -1].detach() for x in inputs), projection, dim**-0.5).isfinite().all()


def test_a_row_whose_features_all_underflow_is_0():
    q, k, v = tensors(1, 1, 4, 4)
    k = k / k.norm(dim=-1, keepdim=True) * 200
    assert torch.equal(attend(q, k, v, PROJECTION, SCALE), torch.zeros_like(v))


@pytest.mark.parametrize(("dim", "norm"), [(16, 15), (64, 40), (128, 25), (256, 20), (64, 0.01), (256, 0.01)])
def test_long_and_short_keys_do_not_underflow(dim, norm):
    projection, scale = orthogonal_features(4 * dim, dim, seed=0), dim**-0.5
    q, k, v = tensors(1, 1, 200, 200, dim)
    k = k / k.norm(dim=-1, keepdim=True) * norm
    left, right = (x.double() * scale**0.5 for x in (q, k))   # the paper's features, which float64 has the range for
    key_features = (right @ projection.double().T - right.square().sum(-1, keepdim=True) / 2).exp()
    weights = ((left @ projection.double().T).exp() @ key_features.mT).tril()
    expected = (weights @ v.double() / weights.sum(-1, keepdim=True)).float()
    torch.testing.assert_close(attend(q, k, v, projection, scale), expected, atol=1e-3, rtol=1e-3)


def test_a_key_on_top_of_a_long_w_does_not_overflow():
    for dim in (64, 128, 256):
        projection = orthogonal_features(64, dim, seed=0)
        longest = projection[projection.norm(dim=-1).argmax()] / dim**-0.25   # where its feature is exp(c)
        q, _, v = tensors(1, 1, 64, 64, dim)
        out = attend(q, longest.expand(1, 1, 64, dim), v, projection, dim**-0.5)
        torch.testing.assert_close(out, v.cumsum(2) / torch.arange(1, 65).view(-1, 1), **CLOSE)


def test_more_features_come_nearer_to_softmax():
    q, k, v = tensors(1, 4, 64, 64, dim=16)
    q, k = q / 3, k / 3   # the estimate's variance grows as exp(|q+k|^2)
    exact = scaled_dot_product_attention(q, k, v, is_causal=True)

    def error(features):
        draws = [attend(q, k, v, orthogonal_features(features, 16, seed), 0.25) for seed in range(20)]
        return sum((out - exact).norm() / exact.norm() for out in draws).item() / len(draws)

    errors = [error(features) for features in (64, 256, 1024)]
    print("relative error against softmax with 64, 256, 1024 features:", errors)
    assert errors[1] < 0.6 * errors[0]   # half, as it falls with the root
    assert errors[2] < 0.6 * errors[1]
    assert errors[2] < 0.03


def test_orthogonal_features_err_less_than_independent_ones():
    q, k, v = tensors(1, 4, 64, 64, dim=16)
    q, k = q / 3, k / 3
    exact = scaled_dot_product_attention(q, k, v, is_causal=True)
    generator = torch.Generator().manual_seed(0)
    independent = [torch.randn(16, 16, generator=generator) for _ in range(30)]
    orthogonal = [orthogonal_features(16, 16, seed) for seed in range(30)]
    errors = [sum((attend(q, k, v, w, 0.25) - exact).norm() for w in draws) for draws in (orthogonal, independent)]
    assert errors[0] < errors[1]


def plain(q, k, v, projection, scale):
    """The paper's features, exponents in float32, all else in bfloat16: float16 has not the range."""
    left, right = ((x.float() * scale**0.5 @ projection.T - x.float().square().sum(-1, keepdim=True) * scale / 2)
                   .exp().bfloat16() for x in (q, k))
    weights = (left @ right.mT).tril()
    return weights @ v.bfloat16() / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_errs_little_more_than_plain_code_in_outputs_and_gradients(dtype):
    projection = orthogonal_features(128, 32, seed=0)
    low = [x.to(dtype) for x in tensors(2, 2, 150, 150, 32)]
    out_gradient = tensors(2, 2, 150, 150, 32, seed=1)[0].to(dtype)

    def results(function, inputs):
        inputs = [x.detach().requires_grad_() for x in inputs]
        out = function(*inputs, projection, 32**-0.5)
        return [out, *torch.autograd.grad(out, inputs, out_gradient.to(out.dtype))]

    exact = results(dense, [x.float() for x in low])
    of_plain, ours = results(plain, low), results(lambda *args: attend(*args, chunk=32), low)
    assert {x.dtype for x in ours} == {dtype}
    for name, expected, *both in zip(("output", "dq", "dk", "dv"), exact, ours, of_plain, strict=True):
        errors = [(x.float() - expected).abs() for x in both]
        print(dtype, name, "mean, largest error, ours and plain:", [(e.mean().item(), e.max().item()) for e in errors])
        assert errors[0].mean() <= 1.5 * errors[1].mean()
        assert errors[0].max() <= 3 * errors[1].max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_outputs_have_the_inputs_type_and_inference_and_autocast_change_nothing(dtype):
    q, k, v = (x.to(dtype) for x in tensors(1, 2, 20, 20))
    expected = attend(q, k, v, PROJECTION, SCALE)
    state = final_state(k, v, PROJECTION, SCALE)
    assert expected.dtype == dtype
    assert dense(q, k, v, PROJECTION, SCALE).dtype == dtype
    assert state.dtype == torch.float32
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attend(q, k, v, PROJECTION, SCALE), expected)
        assert torch.equal(final_state(k, v, PROJECTION, SCALE), state)
        last = step(final_state(k[:, :, :-1], v[:, :, :-1], PROJECTION, SCALE),
                    q[:, :, -1], k[:, :, -1], v[:, :, -1], PROJECTION, SCALE)
    assert last.dtype == dtype
    torch.testing.assert_close(last, expected[:, :, -1], atol=0.02, rtol=0.02)


@compiles
def test_compiled_as_one_graph_it_is_the_same():
    def compiled(function, backend="inductor"):
        return torch.compile(function, fullgraph=True, dynamic=False, backend=backend)

    torch.compiler.reset()
    q, k, v = inputs = [x.requires_grad_() for x in tensors(2, 2, 30, 30)]
    padding, out_gradient = torch.tensor([0, 9]), tensors(2, 2, 30, 30, seed=1)[0]
    results = []
    for function in (attend, compiled(attend)):
        out = function(*inputs, PROJECTION, SCALE, padding, chunk=16)
        results.append([out, *torch.autograd.grad(out, inputs, out_gradient)])
    with torch.inference_mode():   # what is left is only traced: code for it takes long to make
        trace = (lambda function: function), lambda function: compiled(function, "aot_eager")
        for wrap, result in zip(trace, results, strict=True):
            state = wrap(final_state)(k, v, PROJECTION, SCALE, 30 - padding)
            last = wrap(step)(state, q[:, :, 0], k[:, :, 0], v[:, :, 0], PROJECTION, SCALE)
            result += [state / state.abs().max(), last, wrap(attend)(q[:, :, 12:], k, v, PROJECTION, SCALE, padding)]
    for other, expected in zip(*results[::-1], strict=True):
        torch.testing.assert_close(other, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_cuda_graph_replays_it_and_the_gpu_gives_the_cpus_numbers(dtype):
    projection, padding = orthogonal_features(256, 64, seed=0), torch.tensor([0, 70])
    q, k, v = (x.to(dtype) for x in tensors(2, 3, 300, 300, 64))
    expected = dense(q.float(), k.float(), v.float(), projection, 0.125, padding)
    state = final_state(*(begun(x[:, :, :-1].float(), padding) for x in (k, v)), projection, 0.125, 299 - padding)
    q, k, v, w, padding, static = (x.cuda() for x in (q, k, v, projection, padding, state))

    def run():
        return (attend(q, k, v, w, 0.125, padding),
                step(static, q[:, :, -1], k[:, :, -1], v[:, :, -1], w, 0.125))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):   # a capture wants cuBLAS set up before
        run()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, last = run()
    static.copy_(state)
    graph.replay()
    tolerance = 1e-4 if dtype == torch.float32 else 0.1 if dtype == torch.bfloat16 else 0.01
    real = (torch.arange(300) >= padding.cpu()[:, None])[:, None, :, None]
    torch.testing.assert_close(out.cpu().float() * real, expected * real, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(last.cpu().float(), expected[:, :, -1], atol=tolerance, rtol=tolerance)
