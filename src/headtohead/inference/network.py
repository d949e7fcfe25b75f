"""GPT-2 on transformers' own weights, without transformers' overhead: the parts of one forward pass."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm, pad

from headtohead.models.gpt2 import ALIGNED, GPT2


@dataclass(frozen=True)
class Block:
    """A block's weights and activation; `deferred_bias` is the previous block's, which this one's first kernel adds."""

    norm_1: Any
    norm_2: Any
    qkv: Any
    projection: Any
    widen: Any
    narrow: Any
    activation: Callable[[Tensor], Tensor]
    deferred_bias: Tensor | None

    @property
    def tanh_gelu(self) -> bool:
        """Whether its activation is GPT-2's own, which the CUDA kernels include."""
        return isinstance(self.activation, nn.GELU) and self.activation.approximate == "tanh"


class Network:
    """The layers of a model. Everything is [tokens, width], for all tokens of a batch.

    On CUDA the model's weights are re-laid out for the kernels (same values, same shapes, the model still works):
    matrices [out, in] in memory, the head's vocabulary padded to a multiple of 64.
    """

    def __init__(self, model: GPT2) -> None:
        config, transformer = model.config, model.transformer
        self.vocabulary = config.vocab_size
        self.tokens: Tensor = transformer.wte.weight
        self.places: Tensor | None = getattr(transformer.wpe, "weight", None)  # the position table, if there is one
        self.norm = transformer.ln_f
        deferred = [None, *(block.mlp.c_proj.bias for block in transformer.h)]
        self.blocks = [Block(block.ln_1, block.ln_2, block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc,
                             block.mlp.c_proj, block.mlp.act, bias)
                       for block, bias in zip(transformer.h, deferred[:-1], strict=True)]
        self.deferred_bias = deferred[-1]
        self.head: Tensor = model.lm_head.weight  # the token embedding's own, unless the model unties them
        if model.device.type == "cuda":
            self._lay_out(model.lm_head)

    def _lay_out(self, head: Any) -> None:
        for block in self.blocks:
            for part in (block.qkv, block.projection, block.widen, block.narrow):
                part.weight.data = part.weight.data.t().contiguous().t()
        self.head = pad(head.weight.data, (0, 0, 0, -self.vocabulary % ALIGNED))
        head.weight.data = self.head[:self.vocabulary]


class Arithmetic(ABC):
    """The four parts of a pass; attention comes between the second and the third."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """ids and positions [tokens] -> [tokens, width]; positions beyond the table have the last one's place."""
        x = embedding(ids, self.network.tokens)
        places = self.network.places
        return x if places is None else x + embedding(positions.clamp(max=len(places) - 1), places)

    @abstractmethod
    def before_attention(self, x: Tensor, block: Block) -> Tensor:
        """Queries, keys and values [tokens, 3 * width]."""

    @abstractmethod
    def after_attention(self, x: Tensor, attended: Tensor, block: Block) -> Tensor:
        """The layer's output; may overwrite `x`."""

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """[tokens, vocabulary]."""


class Plain(Arithmetic):
    """PyTorch's operators, one after the other."""

    def before_attention(self, x: Tensor, block: Block) -> Tensor:
        return _affine(_normed(x, block.norm_1), block.qkv)

    def after_attention(self, x: Tensor, attended: Tensor, block: Block) -> Tensor:
        x = x + _affine(attended, block.projection)
        wide = block.activation(_affine(_normed(x, block.norm_2), block.widen))
        return x + _affine(wide, block.narrow)

    def logits(self, x: Tensor) -> Tensor:
        return _normed(x, self.network.norm) @ self.network.head.t()


def _affine(x: Tensor, part: Any) -> Tensor:
    """transformers' Conv1D: weight [in, out]."""
    return torch.addmm(part.bias, x, part.weight)


def _normed(x: Tensor, norm: Any) -> Tensor:
    return layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
