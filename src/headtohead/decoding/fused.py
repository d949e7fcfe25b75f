"""The parts of a forward pass on CUDA, in as few kernels as there can be: their number decides at small batches."""

import torch
from torch import Tensor

from headtohead.decoding.kernels import add_norm, linear
from headtohead.decoding.network import Arithmetic, Layer


class Fused(Arithmetic):
    """Seven kernels a layer: biases, GELU by tanh and sums ride along with the matrix products and norms."""

    def enter(self, x: Tensor, layer: Layer) -> Tensor:
        return torch.addmm(layer.qkv.bias, add_norm(x, layer.carried, layer.norm_1), layer.qkv.weight)

    def leave(self, x: Tensor, attended: Tensor, layer: Layer) -> Tensor:
        x.addmm_(attended, layer.projection.weight)
        normed = add_norm(x, layer.projection.bias, layer.norm_2)
        if layer.tanh_gelu:
            wide = torch._addmm_activation(layer.widen.bias, normed, layer.widen.weight, use_gelu=True)
        else:
            wide = layer.activation(torch.addmm(layer.widen.bias, normed, layer.widen.weight))
        return x.addmm_(wide, layer.narrow.weight)  # its bias: `carried` of the next layer

    def logits(self, x: Tensor) -> Tensor:
        network = self.network
        return (add_norm(x, network.carried, network.norm) @ network.head.t())[:, :network.vocabulary]


class SingleRow(Arithmetic):
    """Five kernels a layer, for a single token."""

    def enter(self, x: Tensor, layer: Layer) -> Tensor:
        return linear(x, layer.qkv.weight.t(), layer.qkv.bias, norm=layer.norm_1)

    def leave(self, x: Tensor, attended: Tensor, layer: Layer) -> Tensor:
        x = linear(attended, layer.projection.weight.t(), layer.projection.bias, residual=x)
        fused = layer.tanh_gelu
        wide = linear(x, layer.widen.weight.t(), layer.widen.bias, norm=layer.norm_2, gelu=fused)
        wide = wide if fused else layer.activation(wide)
        return linear(wide, layer.narrow.weight.t(), layer.narrow.bias, residual=x)

    def logits(self, x: Tensor) -> Tensor:
        return linear(x, self.network.head[:self.network.vocabulary], None, norm=self.network.norm)
