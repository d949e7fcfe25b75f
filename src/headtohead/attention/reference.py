"""Attention spelled out in float32, one step a line: the oracle that every other backend is tested against.

softmax(Q K^T * scale + bias) V (Vaswani et al. 2017, equation 1), with the variant's mask and bias.
"""

from torch import Tensor

from headtohead.attention.capability import Capability
from headtohead.attention.masks import dense_bias
from headtohead.attention.spec import AttentionSpec

name = "reference"
capability = Capability(kernels=frozenset({"eager", "flash"}))
prepare = dense_bias


def run(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, bias: Tensor, scale: float) -> Tensor:
    scores = q.float() @ k.float().transpose(-1, -2) * scale + bias
    return (scores.softmax(-1) @ v.float()).to(q.dtype)
