"""CUDA graphs: a whole series of kernels in one launch, always on the same memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

Part = Callable[[], object]


@dataclass(frozen=True)
class Graph:
    """A graph of what `part` did. It holds `part`, so that the memory that it reads stays alive."""

    graph: torch.cuda.CUDAGraph
    part: Part

    def __call__(self) -> None:
        self.graph.replay()


def capture(parts: list[Part]) -> list[Part]:
    """Each part as a graph. They share one memory pool, because they run one after the other."""
    stream = _side_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compile and choose kernels before recording them
        for part in parts:
            part()
    torch.cuda.current_stream().wait_stream(stream)
    pool, graphs = torch.cuda.graph_pool_handle(), []
    for part in parts:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            part()
        graphs.append(Graph(graph, part))
    return [*graphs]


class Afterwards:
    """Whether all of `flags` are set, each call telling what the pass before the latest has left.

    So the GPU has the next pass already while the host waits for one to end, at the price of a last one in vain.

    Args:
        flags: bool on the device; passes set them and never take them back.
    """

    def __init__(self, flags: torch.Tensor) -> None:
        self._flags, self._seen = flags, torch.zeros_like(flags, device="cpu", pin_memory=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def __call__(self) -> bool:
        self._copied.synchronize()
        done = bool(self._seen.all())
        stream = _side_stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._seen.copy_(self._flags, non_blocking=True)
            self._copied.record(stream)
        return done


@cache
def _side_stream() -> torch.cuda.Stream:
    """A single one: cuBLAS keeps 32 MB for every stream that it has ever run on."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]
