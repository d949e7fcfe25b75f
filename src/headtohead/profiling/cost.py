"""How many operations a piece of work needs, and how many bytes it must move: calculated lower bounds.

They count what every implementation needs: the matrix products of the weights, of the logits and of attention's
visible pairs; weights read once per pass, keys and values written and read once, logits written. A pass over a prompt
only needs the next token, so its other tokens only need keys and values in the last layer. Not counted: norms,
activations, residuals, softmax, masked-out work, and intermediate results that a kernel writes and reads again. A
multiplication and its addition are two operations.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headtohead.attention.patterns import Full
from headtohead.attention.spec import AttentionSpec

if TYPE_CHECKING:
    from headtohead.models.gpt2 import GPT2


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, and bytes read and written."""

    operations: int
    bytes: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.operations + other.operations, self.bytes + other.bytes)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.operations * times, self.bytes * times)


@dataclass(frozen=True)
class Peaks:
    """The device's best: 10^12 operations per second of a matrix product, 10^9 bytes per second of a copy."""

    tflops: float
    gb_per_s: float


@dataclass(frozen=True)
class Shape:
    """The properties of a model that its costs depend on.

    Args:
        layers: what each layer computes.
        weights: numbers in the blocks' matrices.
        width: heads times head_dim.
        itemsize: bytes of a number.
    """

    layers: tuple[AttentionSpec, ...]
    width: int
    heads: int
    vocabulary: int
    weights: int
    itemsize: int

    def forward(self, batch: int, length: int) -> Cost:
        """A pass over prompts [batch, length], with the logits of each one's next token."""
        tokens, key_and_value = batch * length, 2 * self.width**2
        last = self.weights // len(self.layers)
        products = (self.weights - last + key_and_value) * tokens + (last - key_and_value) * batch
        pairs = (sum(pairs_of(layer, length, length) for layer in self.layers[:-1])
                 + pairs_of(self.layers[-1], 1, length))
        return (Cost(2 * products, self.weights * self.itemsize) + self._scores(batch * pairs)
                + self._logits(batch) + self._cache(2 * tokens * len(self.layers)))

    def generate(self, length: int, new_tokens: int) -> Cost:
        """One sequence's prompt of `length` tokens in one pass, then a pass for each new token but the last."""
        steps = new_tokens - 1
        seen = sum(pairs_of(layer, steps, length + steps) for layer in self.layers)
        decoding = (self._blocks(1) + self._logits(1)) * steps + self._scores(seen)
        return self.forward(1, length) + decoding + self._cache(steps * len(self.layers) + seen)

    def train_step(self, batch: int, length: int, counted: int) -> Cost:
        """A pass over [batch, length] tokens, with logits for those that the loss counts, and its backward pass, which
        is twice as much; without the optimizer's own work."""
        tokens, pairs = batch * length, batch * sum(pairs_of(layer, length, length) for layer in self.layers)
        return (self._blocks(tokens) + self._scores(pairs) + self._logits(counted)
                + self._cache(2 * tokens * len(self.layers))) * 3

    def attention(self, length: int) -> Cost:
        """One layer's attention over one sequence, on average: queries, keys and values read, the result written."""
        moved = Cost(0, 4 * length * self.width * self.itemsize)
        return self._scores(sum(pairs_of(layer, length, length) for layer in self.layers) // len(self.layers)) + moved

    def seen_share(self, length: int) -> float:
        """The share that is seen of a sequence's pairs of a query and a key that is not later, over all layers."""
        seen = 0.0
        for layer in self.layers:
            all_seen = layer.kernel == "performer"
            seen += 1.0 if all_seen else layer.visibility.pairs(length, length) / Full().pairs(length, length)
        return seen / len(self.layers)

    def kept_bytes(self, length: int) -> int:
        """What a decoder keeps for one sequence of `length` tokens, in all layers.

        Keys and values of what later queries may still see; for Performer its sums, in float32.
        """
        kept = 0
        for layer in self.layers:
            if layer.kernel == "performer":
                kept += 4 * int(layer.numbers["features"]) * (self.width + self.heads)
            else:
                kept += 2 * self.width * self.itemsize * sum(layer.visibility.keeps(length))
        return kept

    def _blocks(self, tokens: int) -> Cost:
        return Cost(2 * self.weights * tokens, self.weights * self.itemsize)

    def _logits(self, tokens: int) -> Cost:
        head, logits = self.width * self.vocabulary, tokens * self.vocabulary
        return Cost(2 * head * tokens, (head + logits) * self.itemsize)

    def _cache(self, moved: int) -> Cost:
        """Keys and values of `moved` positions, summed over layers, written or read."""
        return Cost(0, 2 * self.width * moved * self.itemsize)

    def _scores(self, pairs: int) -> Cost:
        """For each pair and head a product of query and key, and one of weight and value."""
        return Cost(4 * self.width * pairs, 0)


def shape_of(model: "GPT2", itemsize: int) -> Shape:
    """The shape of a model whose numbers take `itemsize` bytes."""
    weights = sum(weight.numel() for weight in model.transformer.h.parameters() if weight.dim() == 2)
    config = model.config
    return Shape(tuple(model.variant.depth(config.n_layer)), config.n_embd, config.n_head, config.vocab_size, weights,
                 itemsize)


def pairs_of(layer: AttentionSpec, queries: int, keys: int) -> int:
    """How many pairs of query and key are visible, for the last `queries` of `keys` positions.

    Performer has no pairs: its work for each query, two projections and two products with its sums, equals that of two
    pairs for each feature.
    """
    if layer.kernel == "performer":
        return 2 * int(layer.numbers["features"]) * queries
    return layer.visibility.pairs(queries, keys)
