"""Causal FAVOR+ and its gradients without features in memory (what it computes: `attention/favor.py`).

PyTorch's operators write every position's features, several times as wide as the position itself, and read them many
times. Here they are computed again from queries and keys wherever they are needed. A program walks through a segment of
positions, chunk by chunk, and holds in registers the sum of phi(k)^T [v, 1] over all keys before. Where its segment
begins is known from a first pass, which sums up each segment alone, and from adding up those sums.

For gradients the same happens from the other end. With out = N / D, g = the gradient of out, u = g / D and
r = -u.out, the weight phi(q).phi(k) has the gradient u.v + r; so a key sees its queries through sums over later
positions of phi(q)^T [u, r].

Exponents, sums and quotients are float32, factors of products bfloat16. Of an exponent w.q the absolute error counts,
and so w is split into a sum of two bfloat16 numbers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

EPSILON = tl.constexpr(1e-30)
OFFSET = tl.constexpr(64.0)  # c, for heads of up to 128 dimensions
SEGMENTS = 128, 512  # positions that one program walks through: at least and at most,
PROGRAMS = 512       # and as many as leave this number of programs, if any do
BLOCK = 1024         # numbers of a state that one program adds up over segments
# Of each pass the positions in a chunk, the warps, and the stages in which it loads.
KEY_SUMS, QUERY_SUMS = (32, 4, 3), (64, 4, 2)
OUTPUTS, QUERY_GRADIENTS, KEY_GRADIENTS = (32, 4, 3), (32, 4, 2), (32, 4, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, scale: float) -> Tensor:
    """Causal FAVOR+, with gradients for q, k and v.

    Args:
        q, k, v: bfloat16 [batch, heads, length, head_dim], head_dim a power of two from 32 to 128.
        projection: float32 [features, head_dim], features a power of two from 16 to 128.
        scale: of the dot products.

    Returns:
        bfloat16 [batch, heads, length, head_dim], laid out as [batch, length, heads, head_dim].
    """
    return _attend(q, k, v, projection.contiguous(), scale)[0]


def _segment(rows: int, length: int) -> int:
    """How many positions one program walks through."""
    segment, most = SEGMENTS
    while segment < most and rows * triton.cdiv(length, 2 * segment) >= PROGRAMS:
        segment *= 2
    return segment


def _like(q: Tensor) -> Tensor:
    """Room for as much, laid out as [batch, length, heads, head_dim]."""
    batch, heads, length, dim = q.shape
    return q.new_empty(batch, length, heads, dim).transpose(1, 2)


def _three(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _like(q), _like(q), _like(q)


def _empty(q: Tensor, projection: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room for what `_attend` returns."""
    batch, heads, length, dim = q.shape
    rows, features = batch * heads, projection.shape[0]
    segments = triton.cdiv(length, _segment(rows, length))
    return (_like(q), projection.new_empty(2, rows, length),
            projection.new_empty(rows, segments, features * (dim + 1)))


@torch.library.custom_op("headtohead::favor", mutates_args=())
def _attend(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs, and what gradients need besides: two numbers for each position, and the state before each segment.

    The numbers [2, batch * heads, length] are the denominator, and the logarithm of what the softmax divides by.
    """
    out, numbers, states = _empty(q, projection)
    common, grid = _common(q, projection, scale), states.shape[:2]
    _key_sums[grid](k, v, projection, states, *k.stride(), *v.stride(), **common, **_launch(KEY_SUMS))
    _add_up(states, backwards=False)
    _outputs[grid](q, k, v, projection, states, out, *numbers, *q.stride(), *k.stride(), *v.stride(), **common,
                   **_launch(OUTPUTS))
    return out, numbers, states


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(q, projection)


@torch.library.custom_op("headtohead::favor_gradients", mutates_args=())
def _gradients(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, projection: Tensor, out: Tensor, numbers: Tensor,
               states: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = _three(q)
    later, r = torch.empty_like(states), torch.empty_like(numbers[0])
    common, grid = _common(q, projection, scale), states.shape[:2]
    strides = *q.stride(), *k.stride(), *v.stride(), *gradient.stride()
    _query_sums[grid](q, gradient, out, projection, *numbers, r, later, *q.stride(), *gradient.stride(), *out.stride(),
                      **common, **_launch(QUERY_SUMS))
    _add_up(later, backwards=True)
    _query_gradients[grid](q, k, v, gradient, projection, *numbers, r, states, dq, *strides, **common,
                           **_launch(QUERY_GRADIENTS))
    _key_gradients[grid](q, k, v, gradient, projection, *numbers, r, later, dk, dv, *strides, **common,
                         **_launch(KEY_GRADIENTS))
    return dq, dk, dv


@_gradients.register_fake
def _(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, projection: Tensor, out: Tensor, numbers: Tensor,
      states: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    return _three(q)


def _save(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx, gradient, *_):
    if gradient is None:
        return (None,) * 5
    return *_gradients(gradient, *ctx.saved_tensors, ctx.scale), None, None


_attend.register_autograd(_backward, setup_context=_save)


def _common(q: Tensor, projection: Tensor, scale: float) -> dict[str, float]:
    batch, heads, length, dim = q.shape
    return {"length": length, "heads": heads, "scale": scale, "FEATURES": projection.shape[0],
            "DIM": dim, "SEGMENT": _segment(batch * heads, length)}


def _launch(chosen: tuple[int, int, int]) -> dict[str, int]:
    return dict(zip(("CHUNK", "num_warps", "num_stages"), chosen, strict=True))


def _add_up(states: Tensor, backwards: bool) -> None:
    """In place: each segment's state [rows, segments, size] becomes the sum of those before it, or after it."""
    rows, segments, size = states.shape
    _accumulate[(rows, triton.cdiv(size, BLOCK))](states, segments, size, BACKWARDS=backwards, BLOCK=BLOCK, num_warps=4)


@triton.jit
def _accumulate(states_at, segments, size, BACKWARDS: tl.constexpr, BLOCK: tl.constexpr):
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    states_at += tl.program_id(0).to(tl.int64) * segments * size + column
    total = tl.zeros((BLOCK,), tl.float32)
    for index in range(segments):
        at = states_at + (segments - 1 - index if BACKWARDS else index) * size
        own = tl.load(at, column < size, 0.0)
        tl.store(at, total, column < size)
        total += own


@triton.jit
def _read(at, position, length, row, column, DIM: tl.constexpr):
    """Rows [positions, DIM]; zeros after the last."""
    channel = tl.arange(0, DIM)
    return tl.load(at + position[:, None] * row + channel[None, :] * column, (position < length)[:, None], 0.0)


@triton.jit
def _write(at, x, position, length, row, DIM: tl.constexpr):
    channel = tl.arange(0, DIM)
    tl.store(at + position[:, None] * row + channel[None, :], x.to(at.dtype.element_ty), (position < length)[:, None])


@triton.jit
def _w(at, scale, KIND: tl.constexpr, FEATURES: tl.constexpr, DIM: tl.constexpr):
    """The w times sqrt(scale), as a sum of two [FEATURES, DIM] of a kind; and half of |w|^2."""
    w = tl.load(at + tl.arange(0, FEATURES)[:, None] * DIM + tl.arange(0, DIM)[None, :])
    scaled = w * tl.sqrt(scale)
    high = scaled.to(KIND)
    return high, (scaled - high.to(tl.float32)).to(KIND), tl.sum(w * w, 1) / 2


@triton.jit
def _by_feature(x, high, low, of_feature, of_position):
    """exp(w.x + a number of each w + a number of each position): float32 [FEATURES, positions]."""
    exponent = tl.dot(high, tl.trans(x), tl.dot(low, tl.trans(x)))
    return tl.exp(exponent + of_feature[:, None] + of_position[None, :])


@triton.jit
def _by_position(x, high, low, of_feature, of_position):
    """The same transposed."""
    exponent = tl.dot(x, tl.trans(high), tl.dot(x, tl.trans(low)))
    return tl.exp(exponent + of_feature[None, :] + of_position[:, None])


@triton.jit
def _of_key(k, scale):
    """-|k|^2/2 of each position."""
    exact = k.to(tl.float32)
    return tl.sum(exact * exact, 1) * (-scale / 2)


@triton.jit
def _u(at, position, length, row, column, denominator, KIND: tl.constexpr, DIM: tl.constexpr):
    gradient = _read(at, position, length, row, column, DIM).to(tl.float32)
    return (gradient / denominator[:, None]).to(KIND)


@triton.jit
def _state_at(states_at, FEATURES: tl.constexpr, DIM: tl.constexpr):
    """Where this program's state is: [FEATURES, DIM] and after it [FEATURES]."""
    at = states_at + (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * (FEATURES * (DIM + 1))
    feature = tl.arange(0, FEATURES)
    return at + feature[:, None] * DIM + tl.arange(0, DIM)[None, :], at + FEATURES * DIM + feature


@triton.jit
def _key_sums(k_at, v_at, w_at, states_at, k_batch, k_head, k_row, k_column, v_batch, v_head, v_row, v_column,
              length, heads, scale, FEATURES: tl.constexpr, DIM: tl.constexpr, CHUNK: tl.constexpr,
              SEGMENT: tl.constexpr):
    """Each segment's phi(k)^T [v, 1]."""
    KIND: tl.constexpr = k_at.dtype.element_ty
    batch, head = tl.program_id(0).to(tl.int64) // heads, tl.program_id(0) % heads
    k_at += batch * k_batch + head * k_head
    v_at += batch * v_batch + head * v_head
    high, low, half_square = _w(w_at, scale, KIND, FEATURES, DIM)
    state = tl.zeros((FEATURES, DIM), tl.float32)
    total = tl.zeros((FEATURES,), tl.float32)
    begin = tl.program_id(1) * SEGMENT
    for start in range(begin, tl.minimum(begin + SEGMENT, length), CHUNK):
        position = start + tl.arange(0, CHUNK)
        k = _read(k_at, position, length, k_row, k_column, DIM)
        v = _read(v_at, position, length, v_row, v_column, DIM)
        key = _by_feature(k, high, low, -half_square + OFFSET, _of_key(k, scale)).to(KIND)
        state = tl.dot(key, v, state)
        total += tl.sum(key.to(tl.float32), 1)
    matrix, vector = _state_at(states_at, FEATURES, DIM)
    tl.store(matrix, state)
    tl.store(vector, total)


@triton.jit
def _outputs(q_at, k_at, v_at, w_at, states_at, out_at, denominators_at, divisors_at,
             q_batch, q_head, q_row, q_column, k_batch, k_head, k_row, k_column, v_batch, v_head, v_row, v_column,
             length, heads, scale, FEATURES: tl.constexpr, DIM: tl.constexpr, CHUNK: tl.constexpr,
             SEGMENT: tl.constexpr):
    KIND: tl.constexpr = k_at.dtype.element_ty
    which = tl.program_id(0).to(tl.int64)
    batch, head = which // heads, which % heads
    q_at += batch * q_batch + head * q_head
    k_at += batch * k_batch + head * k_head
    v_at += batch * v_batch + head * v_head
    out_at += (batch * length * heads + head) * DIM
    high, low, half_square = _w(w_at, scale, KIND, FEATURES, DIM)
    matrix, vector = _state_at(states_at, FEATURES, DIM)
    state, total = tl.load(matrix), tl.load(vector)
    inside = tl.arange(0, CHUNK)
    begin = tl.program_id(1) * SEGMENT
    for start in range(begin, tl.minimum(begin + SEGMENT, length), CHUNK):
        position = start + inside
        q = _read(q_at, position, length, q_row, q_column, DIM)
        k = _read(k_at, position, length, k_row, k_column, DIM)
        v = _read(v_at, position, length, v_row, v_column, DIM)
        exponent = tl.dot(q, tl.trans(high), tl.dot(q, tl.trans(low))) + half_square[None, :]
        highest = tl.max(exponent, 1)
        query = tl.exp(exponent - highest[:, None])
        divisor = tl.sum(query, 1)
        query = (query / divisor[:, None]).to(KIND)
        out = tl.dot(query, state.to(KIND))
        denominator = tl.sum(query.to(tl.float32) * total[None, :], 1) + EPSILON
        key = _by_feature(k, high, low, -half_square + OFFSET, _of_key(k, scale)).to(KIND)
        weight = tl.where(inside[:, None] >= inside[None, :], tl.dot(query, key), 0.0).to(KIND)
        state = tl.dot(key, v, state)
        total += tl.sum(key.to(tl.float32), 1)
        out = tl.dot(weight, v, out)
        # Of the rounded weights, so that numerator and denominator err alike.
        denominator += tl.sum(weight.to(tl.float32), 1)
        _write(out_at, out / denominator[:, None], position, length, heads * DIM, DIM)
        tl.store(denominators_at + which * length + position, denominator, position < length)
        tl.store(divisors_at + which * length + position, highest + tl.log(divisor), position < length)


@triton.jit
def _query_sums(q_at, gradient_at, out_at, w_at, denominators_at, divisors_at, r_at, states_at,
                q_batch, q_head, q_row, q_column, g_batch, g_head, g_row, g_column,
                out_batch, out_head, out_row, out_column, length, heads, scale,
                FEATURES: tl.constexpr, DIM: tl.constexpr, CHUNK: tl.constexpr, SEGMENT: tl.constexpr):
    """Each segment's phi(q)^T [u, r], and r."""
    KIND: tl.constexpr = q_at.dtype.element_ty
    which = tl.program_id(0).to(tl.int64)
    batch, head = which // heads, which % heads
    q_at += batch * q_batch + head * q_head
    gradient_at += batch * g_batch + head * g_head
    out_at += batch * out_batch + head * out_head
    high, low, half_square = _w(w_at, scale, KIND, FEATURES, DIM)
    state = tl.zeros((FEATURES, DIM), tl.float32)
    total = tl.zeros((FEATURES,), tl.float32)
    begin = tl.program_id(1) * SEGMENT
    for start in range(begin, tl.minimum(begin + SEGMENT, length), CHUNK):
        position = start + tl.arange(0, CHUNK)
        at, real = which * length + position, position < length
        q = _read(q_at, position, length, q_row, q_column, DIM)
        u = _u(gradient_at, position, length, g_row, g_column, tl.load(denominators_at + at, real, 1.0), KIND, DIM)
        out = _read(out_at, position, length, out_row, out_column, DIM)
        r = -tl.sum(u.to(tl.float32) * out.to(tl.float32), 1)
        tl.store(r_at + at, r, real)
        divisor = tl.load(divisors_at + at, real, float("inf"))
        query = _by_feature(q, high, low, half_square, -divisor).to(KIND)
        state = tl.dot(query, u, state)
        total += tl.sum(query.to(tl.float32) * r[None, :], 1)
    matrix, vector = _state_at(states_at, FEATURES, DIM)
    tl.store(matrix, state)
    tl.store(vector, total)


@triton.jit
def _query_gradients(q_at, k_at, v_at, gradient_at, w_at, denominators_at, divisors_at, r_at, states_at, dq_at,
                     q_batch, q_head, q_row, q_column, k_batch, k_head, k_row, k_column,
                     v_batch, v_head, v_row, v_column, g_batch, g_head, g_row, g_column, length, heads, scale,
                     FEATURES: tl.constexpr, DIM: tl.constexpr, CHUNK: tl.constexpr, SEGMENT: tl.constexpr):
    KIND: tl.constexpr = k_at.dtype.element_ty
    which = tl.program_id(0).to(tl.int64)
    batch, head = which // heads, which % heads
    q_at += batch * q_batch + head * q_head
    k_at += batch * k_batch + head * k_head
    v_at += batch * v_batch + head * v_head
    gradient_at += batch * g_batch + head * g_head
    dq_at += (batch * length * heads + head) * DIM
    high, low, half_square = _w(w_at, scale, KIND, FEATURES, DIM)
    matrix, vector = _state_at(states_at, FEATURES, DIM)
    state, total = tl.load(matrix), tl.load(vector)
    inside = tl.arange(0, CHUNK)
    begin = tl.program_id(1) * SEGMENT
    for start in range(begin, tl.minimum(begin + SEGMENT, length), CHUNK):
        position = start + inside
        at, real = which * length + position, position < length
        q = _read(q_at, position, length, q_row, q_column, DIM)
        k = _read(k_at, position, length, k_row, k_column, DIM)
        v = _read(v_at, position, length, v_row, v_column, DIM)
        u = _u(gradient_at, position, length, g_row, g_column, tl.load(denominators_at + at, real, 1.0), KIND, DIM)
        r = tl.load(r_at + at, real, 0.0)
        key = _by_feature(k, high, low, -half_square + OFFSET, _of_key(k, scale)).to(KIND)
        of_query = tl.dot(u, tl.trans(state.to(KIND)), r[:, None] * total[None, :])
        state = tl.dot(key, v, state)
        total += tl.sum(key.to(tl.float32), 1)
        of_weight = tl.dot(u, tl.trans(v)) + r[:, None]
        of_weight = tl.where(inside[:, None] >= inside[None, :], of_weight, 0.0).to(KIND)
        of_query = tl.dot(of_weight, tl.trans(key), of_query)
        query = _by_position(q, high, low, half_square, -tl.load(divisors_at + at, real, float("inf")))
        of_exponent = query * (of_query - tl.sum(query * of_query, 1)[:, None])
        _write(dq_at, tl.dot(of_exponent.to(KIND), high), position, length, heads * DIM, DIM)


@triton.jit
def _key_gradients(q_at, k_at, v_at, gradient_at, w_at, denominators_at, divisors_at, r_at, states_at, dk_at, dv_at,
                   q_batch, q_head, q_row, q_column, k_batch, k_head, k_row, k_column,
                   v_batch, v_head, v_row, v_column, g_batch, g_head, g_row, g_column, length, heads, scale,
                   FEATURES: tl.constexpr, DIM: tl.constexpr, CHUNK: tl.constexpr, SEGMENT: tl.constexpr):
    """Weights and their gradients have keys as rows here, and queries as columns."""
    KIND: tl.constexpr = k_at.dtype.element_ty
    which = tl.program_id(0).to(tl.int64)
    batch, head = which // heads, which % heads
    q_at += batch * q_batch + head * q_head
    k_at += batch * k_batch + head * k_head
    v_at += batch * v_batch + head * v_head
    gradient_at += batch * g_batch + head * g_head
    dk_at += (batch * length * heads + head) * DIM
    dv_at += (batch * length * heads + head) * DIM
    high, low, half_square = _w(w_at, scale, KIND, FEATURES, DIM)
    matrix, vector = _state_at(states_at, FEATURES, DIM)
    state, total = tl.load(matrix), tl.load(vector)
    inside = tl.arange(0, CHUNK)
    seen = inside[:, None] <= inside[None, :]
    begin = tl.program_id(1) * SEGMENT
    chunks = tl.cdiv(tl.minimum(SEGMENT, length - begin), CHUNK)
    for index in range(chunks):
        position = begin + (chunks - 1 - index) * CHUNK + inside
        at, real = which * length + position, position < length
        q = _read(q_at, position, length, q_row, q_column, DIM)
        k = _read(k_at, position, length, k_row, k_column, DIM)
        v = _read(v_at, position, length, v_row, v_column, DIM)
        u = _u(gradient_at, position, length, g_row, g_column, tl.load(denominators_at + at, real, 1.0), KIND, DIM)
        r = tl.load(r_at + at, real, 0.0)
        query = _by_feature(q, high, low, half_square, -tl.load(divisors_at + at, real, float("inf"))).to(KIND)
        key = _by_position(k, high, low, -half_square + OFFSET, _of_key(k, scale)).to(KIND)
        weight = tl.where(seen, tl.dot(key, query), 0.0).to(KIND)
        later = state.to(KIND)
        _write(dv_at, tl.dot(weight, u, tl.dot(key, later)), position, length, heads * DIM, DIM)
        of_weight = tl.where(seen, tl.dot(v, tl.trans(u)) + r[None, :], 0.0).to(KIND)
        of_key = tl.dot(of_weight, tl.trans(query), tl.dot(v, tl.trans(later))) + total[None, :]
        of_exponent = (key.to(tl.float32) * of_key).to(KIND)
        # |k|^2's part from the rounded numbers too: most of it cancels.
        pull = tl.sum(of_exponent.to(tl.float32), 1) * scale
        dk = tl.dot(of_exponent, high) - pull[:, None] * k.to(tl.float32)
        _write(dk_at, dk, position, length, heads * DIM, DIM)
        state = tl.dot(query, u, state)
        total += tl.sum(query.to(tl.float32) * r[None, :], 1)
