"""The parts of a forward pass on CUDA, in as few kernels as possible: small batches take as long as their launches."""

import torch
from torch import Tensor

from headtohead.inference.network import Arithmetic, Block
from headtohead.kernels.layers import add_norm, embed, linear


class Fused(Arithmetic):
    """Seven kernels per layer: biases, tanh GELU and sums are fused into the matrix products and norms."""

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        return embed(ids, positions, self.network.tokens, self.network.places)

    def before_attention(self, x: Tensor, block: Block) -> Tensor:
        return torch.addmm(block.qkv.bias, add_norm(x, block.deferred_bias, block.norm_1), block.qkv.weight)

    def after_attention(self, x: Tensor, attended: Tensor, block: Block) -> Tensor:
        x.addmm_(attended, block.projection.weight)
        normed = add_norm(x, block.projection.bias, block.norm_2)
        if block.tanh_gelu:
            wide = torch._addmm_activation(block.widen.bias, normed, block.widen.weight, use_gelu=True)
        else:
            wide = block.activation(torch.addmm(block.widen.bias, normed, block.widen.weight))
        return x.addmm_(wide, block.narrow.weight)  # its bias is the next layer's `deferred_bias`

    def logits(self, x: Tensor) -> Tensor:
        network = self.network
        return (add_norm(x, network.deferred_bias, network.norm) @ network.head.t())[:, :network.vocabulary]


class FewTokens(Fused):
    """For as few tokens as `linear` takes: five kernels per layer for a single one, seven for several."""

    def before_attention(self, x: Tensor, block: Block) -> Tensor:
        return linear(x, block.qkv.weight.t(), block.qkv.bias, norm=block.norm_1)

    def after_attention(self, x: Tensor, attended: Tensor, block: Block) -> Tensor:
        x = linear(attended, block.projection.weight.t(), block.projection.bias, residual=x)
        fused = block.tanh_gelu
        wide = linear(x, block.widen.weight.t(), block.widen.bias, norm=block.norm_2, gelu=fused)
        wide = wide if fused else block.activation(wide)
        return linear(wide, block.narrow.weight.t(), block.narrow.bias, residual=x)

    def logits(self, x: Tensor) -> Tensor:
        network = self.network
        if len(x) == 1:
            return linear(x, network.head[:network.vocabulary], None, norm=network.norm)
        return (add_norm(x, None, network.norm) @ network.head.t())[:, :network.vocabulary]  # cuBLAS is faster here
