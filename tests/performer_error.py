"""How well Performer's random features stand for softmax, on what a trained model attends to: run by hand.

    python tests/performer_error.py models/flash/13 models/flash_performer/13

For each model, its queries, keys and values of real test articles; for each number of features, the error of attention
by random features against softmax attention over the same, relative to the latter (norms over all heads and tokens of a
layer), a mean over draws. So it is the approximation that is measured, not what a model has learned to make of it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import headtohead
from headtohead.attention import AttentionSpec, attend, favor
from headtohead.tokens.splits import load_split

FEATURES, DRAWS, ARTICLES = (16, 32, 64, 128, 256, 512, 1024), 10, 20


def attended(model: torch.nn.Module, articles: list[list[int]]) -> list[list[Tensor]]:
    """Of each layer the queries, keys and values [1, heads, length, head_dim] of each article."""
    taken: list[list[Tensor]] = []
    for block in model.transformer.h:
        block.attn.c_attn.register_forward_hook(lambda module, given, out: taken.append(
            [part.unflatten(-1, (model.config.n_head, -1)).transpose(1, 2) for part in out.chunk(3, -1)]))
    with torch.no_grad():
        for article in articles:
            model(torch.tensor([article]))
    return taken


def error(layers: list[list[Tensor]], features: int) -> float:
    """Mean over layers, articles and draws."""
    errors = []
    for number, (q, k, v) in enumerate(layers):
        exact = attend(q, k, v, AttentionSpec(kernel="flash"), "reference")
        for draw in range(DRAWS):
            projection = favor.orthogonal_features(features, q.shape[-1], seed=1000 * number + draw)
            near = favor.dense(q, k, v, projection, q.shape[-1] ** -0.5)
            errors.append(float((near - exact).norm() / exact.norm()))
    return sum(errors) / len(errors)


def main(folders: list[str]) -> None:
    table = Table("model", "mean |q|", "mean |k|", *map(str, FEATURES), title="relative error by number of features")
    for folder in folders:
        model, _ = headtohead.load(folder)
        layers = attended(model, load_split("test")["article"][:ARTICLES])
        norms = [sum(float(layer[i].norm(dim=-1).mean()) for layer in layers) / len(layers) for i in (0, 1)]
        table.add_row(folder, *(f"{norm:.1f}" for norm in norms), *(f"{error(layers, m):.2f}" for m in FEATURES))
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
