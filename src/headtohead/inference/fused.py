"""The parts of a forward pass on CUDA, in as few kernels as there can be: their number decides at small batches."""

import torch
from torch import Tensor

from headtohead.inference.network import Arithmetic, Block
from headtohead.kernels.layers import add_norm, linear


class Fused(Arithmetic):
    """Seven kernels a layer: biases, GELU by tanh and sums ride along with the matrix products and norms."""

    def enter(self, x: Tensor, block: Block) -> Tensor:
        return torch.addmm(block.qkv.bias, add_norm(x, block.carried, block.norm_1), block.qkv.weight)

    def leave(self, x: Tensor, attended: Tensor, block: Block) -> Tensor:
        x.addmm_(attended, block.projection.weight)
        normed = add_norm(x, block.projection.bias, block.norm_2)
        if block.tanh_gelu:
            wide = torch._addmm_activation(block.widen.bias, normed, block.widen.weight, use_gelu=True)
        else:
            wide = block.activation(torch.addmm(block.widen.bias, normed, block.widen.weight))
        return x.addmm_(wide, block.narrow.weight)  # its bias: `carried` of the next layer

    def logits(self, x: Tensor) -> Tensor:
        network = self.network
        return (add_norm(x, network.carried, network.norm) @ network.head.t())[:, :network.vocabulary]


class SingleRow(Arithmetic):
    """Five kernels a layer, for a single token."""

    def enter(self, x: Tensor, block: Block) -> Tensor:
        return linear(x, block.qkv.weight.t(), block.qkv.bias, norm=block.norm_1)

    def leave(self, x: Tensor, attended: Tensor, block: Block) -> Tensor:
        x = linear(attended, block.projection.weight.t(), block.projection.bias, residual=x)
        fused = block.tanh_gelu
        wide = linear(x, block.widen.weight.t(), block.widen.bias, norm=block.norm_2, gelu=fused)
        wide = wide if fused else block.activation(wide)
        return linear(wide, block.narrow.weight.t(), block.narrow.bias, residual=x)

    def logits(self, x: Tensor) -> Tensor:
        return linear(x, self.network.head[:self.network.vocabulary], None, norm=self.network.norm)
