"""Functions that are compiled for each shape they are called with, alone."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch._dynamo.exc import FailOnRecompileLimitHit

from headtohead.attention.job import BackendError

SHAPES = 64  # each takes seconds to compile; more than so many is a mistake, not a plan


def run_compiled(function: Callable[..., Any], *given: Any) -> Any:
    """Call `function`, compiled for the shapes of what it is given.

    In training it becomes part of the block that is being compiled, which saves copies. Without gradients it never
    does: FlexAttention of PyTorch 2.11 computes garbage from queries and keys that the same graph computes.

    Raises:
        BackendError: it has been compiled for too many shapes.
    """
    if torch.compiler.is_compiling() and torch.is_grad_enabled():
        return function(*given)
    return _compiled_alone(function, *given)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _compiled_alone(function: Callable[..., Any], *given: Any) -> Any:
    try:
        with torch._dynamo.config.patch(recompile_limit=SHAPES):
            return _apart(function)(*given)
    except FailOnRecompileLimitHit as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in given if isinstance(tensor, torch.Tensor))
        raise BackendError(f"attention has been compiled for {SHAPES} shapes in this process, its limit, and {shapes} "
                           "is one more; take fewer lengths and batch sizes, or another backend") from error


@cache
def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """With fullgraph=True a shape too many is an error; without it, it would be computed densely, after a warning."""
    return torch.compile(function, dynamic=False, fullgraph=True)
