"""CUDA graphs: all the kernels of some work in one launch, always on the same memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

Part = Callable[[], object]


@dataclass(frozen=True)
class Captured:
    """A graph of what `part` did; the memory that it reads lives as long as `part`."""

    graph: torch.cuda.CUDAGraph
    part: Part

    def __call__(self) -> None:
        self.graph.replay()


def captured(parts: list[Part]) -> list[Part]:
    """Each part as a graph; they share one pool of memory, as they run one after the other."""
    stream = _side_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels get compiled and chosen before they are recorded
        for part in parts:
            part()
    torch.cuda.current_stream().wait_stream(stream)
    pool, graphs = torch.cuda.graph_pool_handle(), []
    for part in parts:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            part()
        graphs.append(Captured(graph, part))
    return [*graphs]


@cache
def _side_stream() -> torch.cuda.Stream:
    """One for all: cuBLAS keeps 32 MB for every stream that it ever worked on."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]
