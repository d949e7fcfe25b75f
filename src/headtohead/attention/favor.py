"""Performer attention: causal FAVOR+ (Choromanski et al. 2021, "Rethinking Attention with Performers").

Softmax's exp(q.k) is the mean over Gaussian w of exp(w.q - |q|^2/2) exp(w.k - |k|^2/2) (lemma 1). With few w, drawn
orthogonal to each other (section 2.4), it is estimated by a product of positive features, whose sums over the keys
need not be formed again for each query: time grows linearly with length, and decoding carries a state of constant size.

Factors common to all features of a query cancel in the quotient, and a factor may move from a key's feature to the
query's feature of the same w. So here, with a constant c,

    key feature    exp(c - |w-k|^2/2)                  at most exp(c): no running maximum is needed
    query feature  softmax over w of w.q + |w|^2/2     at most 1

where q and k are scaled by sqrt(scale). If all products of a query's features with those of its keys underflow, the
query's output is 0; this happens if all its keys are very long (64 wide and with scale 1/8, from a norm of 45 on).
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-30   # added to denominators; its reciprocal, in gradients, is within float32 too
LARGEST = 64.0    # a key feature's exponent: float32 ends at exp(88), and sums of features times v need room
CHUNK = 128       # positions whose features are multiplied with each other
ONES = 8          # columns of ones beside v; one is enough, but tensor cores need rows of a multiple of 16 bytes


def orthogonal_features(features: int, head_dim: int, seed: int) -> Tensor:
    """The w as rows: orthogonal within each block of head_dim rows, as long as Gaussian vectors (section 2.4).

    Returns:
        float32 [features, head_dim] on the CPU; the last block may be cut short.
    """
    generator = torch.Generator().manual_seed(seed)
    blocks = -(-features // head_dim)
    normal = partial(torch.randn, dtype=torch.float64, generator=generator, device="cpu")
    gaussian = normal(blocks, head_dim, head_dim)
    lengths = normal(features, head_dim).norm(dim=-1, keepdim=True)
    rotation, triangle = torch.linalg.qr(gaussian)
    # Uniform over all rotations only with the signs that make R's diagonal positive (Mezzadri 2007).
    rotation = rotation * triangle.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return (rotation.flatten(0, 1)[:features] * lengths).float()


def dense(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, scale: float,
          left_padding: Tensor | None = None) -> Tensor:
    """`attend` in quadratic time and float32, one step per line: the oracle.

    Arguments and result are those of `attend`.
    """
    queries, keys = q.shape[2], k.shape[2]
    left, right = q.float() * scale**0.5, k.float() * scale**0.5
    half_square = projection.square().sum(-1) / 2
    query_features = (left @ projection.T + half_square).softmax(-1)
    key_exponent = _offset(projection) - (right.unsqueeze(-2) - projection).square().sum(-1) / 2
    key_features = key_exponent.clamp(max=LARGEST).exp()
    weights = query_features @ key_features.mT
    position = torch.arange(keys, device=k.device)
    seen = position <= position[keys - queries:, None]
    if left_padding is not None:
        seen = seen & (position >= left_padding.to(k.device).view(-1, 1, 1, 1))
    weights = weights.masked_fill(~seen, 0)
    return (weights @ v.float() / (weights.sum(-1, keepdim=True) + EPSILON)).to(q.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, scale: float,
           left_padding: Tensor | None = None, chunk: int = CHUNK) -> Tensor:
    """Causal FAVOR+ in linear time: the masked product of features within a chunk, the sum of states before it.

    Exponents, sums over chunks and the quotient are float32. Features and their factors are bfloat16 if q is, else
    float32: float16 does not have the range.

    Args:
        q: [batch, heads, queries, head_dim]; the last positions of k if there are fewer.
        k, v: [batch, heads, keys, head_dim].
        projection: float32 [features, head_dim], from `orthogonal_features`, on q's device.
        scale: of the dot products, usually 1/sqrt(head_dim).
        left_padding: int [batch], padding tokens before each sequence; rows of padding queries are 0.
        chunk: positions in a chunk; only affects time and rounding.

    Returns:
        [batch, heads, queries, head_dim] in q's dtype.
    """
    length, head_dim = q.shape[2:]
    past = k.shape[2] - length
    chunk = min(chunk, length)
    hidden = None if left_padding is None else _places(k) < left_padding.to(k.device)[:, None]
    now, earlier = (None, None) if hidden is None else (hidden[:, past:], hidden[:, :past])
    with torch.autocast(q.device.type, enabled=False):
        queries = _cut(_query_features(_filled(q, chunk), projection, scale), chunk)
        keys, values = _keys_and_values(k[:, :, past:], v[:, :, past:], projection, scale, now, chunk)
        sums = keys.mT @ values
        start = torch.zeros_like(sums[:, :, 0], dtype=torch.float32)
        if past:
            start = _sum_over(k[:, :, :past], v[:, :, :past], projection, scale, earlier)
        states = torch.cat([start.unsqueeze(2), sums[:, :, :-1]], 2).cumsum(2)
        before = queries @ states.to(queries.dtype)
        within = (queries @ keys.mT).tril_() @ values
        out = _quotient(before.float() + within, head_dim)
    return out.flatten(2, 3)[:, :, :length].to(q.dtype)


def final_state(k: Tensor, v: Tensor, projection: Tensor, scale: float, lengths: Tensor | None = None) -> Tensor:
    """The state for `step` after a prompt: the sum over its keys of phi(k)^T [v, 1] (appendix B).

    Args:
        k, v, projection, scale: as in `attend`.
        lengths: int [batch], how many keys at the start of each row are the prompt's; None if all rows are full.

    Returns:
        float32 [batch, heads, features, head_dim + 1].
    """
    with torch.autocast(k.device.type, enabled=False):
        hidden = None if lengths is None else _places(k) >= lengths[:, None]
        return _sum_over(k, v, projection, scale, hidden)[..., :v.shape[-1] + 1].contiguous()


def step(state: Tensor, q: Tensor, k: Tensor, v: Tensor, projection: Tensor, scale: float) -> Tensor:
    """One more token: add its key and value to the state, in place, and attend to all so far, in float32.

    Args:
        state: float32 [rows, heads, features, head_dim + 1], from `final_state`, or zeros before the first token.
        q, k, v: [rows, heads, head_dim].
        projection, scale: as in `attend`.

    Returns:
        [rows, heads, head_dim] in q's dtype.
    """
    with torch.autocast(q.device.type, enabled=False):
        key = _key_features(k.float(), projection, scale)
        state.addcmul_(key.unsqueeze(-1), F.pad(v.float(), (0, 1), value=1.0).unsqueeze(-2))
        query = _query_features(q.float(), projection, scale)
        return _quotient((query.unsqueeze(-2) @ state).squeeze(-2), q.shape[-1]).to(q.dtype)


def _query_features(q: Tensor, projection: Tensor, scale: float) -> Tensor:
    """softmax over w of w.q + |w|^2/2: [..., features]."""
    half_square = projection.square().sum(-1) / 2
    return F.linear(_float(q), projection * scale**0.5, half_square).softmax(-1).to(_kept(q))


def _key_features(k: Tensor, projection: Tensor, scale: float) -> Tensor:
    """exp(c - |w-k|^2/2): [..., features]. The square is expanded, and most of it goes into the product's bias."""
    exact, half_square = _float(k), projection.square().sum(-1) / 2
    exponent = F.linear(exact, projection * scale**0.5, _offset(projection) - half_square)
    exponent.sub_(exact.square().sum(-1, keepdim=True) * (scale / 2))
    if _offset(projection) > LARGEST:
        exponent.clamp_(max=LARGEST)   # only keys nearly equal to a w get that large
    return exponent.exp_().to(_kept(k))


def _places(k: Tensor) -> Tensor:
    return torch.arange(k.shape[2], device=k.device)


def _keys_and_values(k: Tensor, v: Tensor, projection: Tensor, scale: float, hidden: Tensor | None,
                     chunk: int) -> tuple[Tensor, Tensor]:
    """phi(k) [batch, heads, chunks, chunk, features] and [v, 1] [batch, heads, chunks, chunk, head_dim + ONES].

    A hidden key's row of [v, 1] is 0, which removes it from all sums; so are the rows that pad the last chunk.
    """
    values = F.pad(v.to(_kept(k)), (0, ONES), value=1.0)
    if hidden is not None:
        values = values.masked_fill(hidden[:, None, :, None], 0)
    keys = _key_features(_filled(k, chunk), projection, scale)
    return _cut(keys, chunk), _cut(_filled(values, chunk), chunk)


def _sum_over(k: Tensor, v: Tensor, projection: Tensor, scale: float, hidden: Tensor | None) -> Tensor:
    """phi(k)^T [v, 1] summed over all visible keys: float32 [batch, heads, features, head_dim + ONES]."""
    # By chunks, because one long product per head would leave most of a GPU idle.
    keys, values = _keys_and_values(k, v, projection, scale, hidden, min(CHUNK, k.shape[2]))
    return (keys.mT @ values).sum(2, dtype=torch.float32)


def _quotient(totals: Tensor, head_dim: int) -> Tensor:
    """Sums of weighted values over sums of weights: float32 [..., head_dim] from [..., head_dim + 1 or more]."""
    return totals[..., :head_dim] / (totals[..., head_dim:head_dim + 1] + EPSILON)


def _offset(projection: Tensor) -> float:
    """c: as large as is safe, so that long keys do not underflow; at least half of |w|^2's mean, for short keys."""
    return max(LARGEST, projection.shape[-1] / 2)


def _filled(x: Tensor, chunk: int) -> Tensor:
    """Padded with zeros to a whole number of chunks."""
    rest = -x.shape[2] % chunk
    return F.pad(x, (0, 0, 0, rest)) if rest else x


def _cut(x: Tensor, chunk: int) -> Tensor:
    """[batch, heads, chunks, chunk, width] from [batch, heads, length, width]."""
    return x.reshape(*x.shape[:2], -1, chunk, x.shape[-1])


def _kept(x: Tensor) -> torch.dtype:
    return torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32


def _float(x: Tensor) -> Tensor:
    # Contiguous, unlike heads split off a projection: otherwise F.linear adds its bias in a separate kernel.
    return x.to(torch.float32, memory_format=torch.contiguous_format)
