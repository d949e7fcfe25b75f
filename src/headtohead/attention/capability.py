"""What is asked of a backend, what it can do, and the one comparison of the two."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from headtohead.attention.spec import AttentionSpec


class BackendError(RuntimeError):
    """The backend asked for does not exist or cannot do the job, or none can; the message says why."""


@dataclass(frozen=True)
class Job:
    """One attention to compute.

    Args:
        dtype: of queries, keys and values.
        queries, keys: how many; with fewer queries than keys, they are the last positions, as with a cache.
        padded: whether there may be padding on the left.
        backward: whether gradients will be asked for.
    """

    spec: AttentionSpec
    device: torch.device
    dtype: torch.dtype
    head_dim: int
    queries: int
    keys: int
    padded: bool = False
    backward: bool = False


@dataclass(frozen=True)
class Capability:
    """What a backend can do.

    Args:
        kernels: of `AttentionSpec.kernel`, those that it is.
        dtypes: the types it takes, by type of device; None is any type on any device.
        backward: types of device on which it has gradients.
        patterns: names of those it knows; None is any.
        alibi, padding, cache: whether it takes ALiBi's bias, padding on the left, fewer queries than keys.
        head_dims: those it takes; None is any.
        lengths: the numbers of keys it takes; None is any.
        compute: the major CUDA compute capability that it is for (9 is Hopper); None is any.
        package: (module, how to get it), if it needs one beside torch.
    """

    kernels: frozenset[str]
    dtypes: Mapping[str, tuple[torch.dtype, ...]] | None = None
    backward: frozenset[str] = frozenset({"cpu", "cuda"})
    patterns: frozenset[str] | None = None
    alibi: bool = True
    padding: bool = True
    cache: bool = True
    head_dims: range | tuple[int, ...] | None = None
    lengths: range | None = None
    compute: int | None = None
    package: tuple[str, str] | None = None

    def unsupported(self, job: Job) -> str | None:
        """Everything that the job asks for and the backend lacks, in words; None if it can do the whole job."""
        return ", ".join(self._lacks(job)) or None

    def _lacks(self, job: Job) -> Iterator[str]:
        spec, device = job.spec, job.device.type
        if spec.kernel not in self.kernels:
            yield f"is no kernel of the kind {spec.kernel!r}"
        if self.dtypes is not None and job.dtype not in self.dtypes.get(device, ()):
            yield f"takes no {str(job.dtype).removeprefix('torch.')} on {device}"
        if self.patterns is not None and spec.pattern not in self.patterns:
            yield f"knows no pattern {spec.pattern!r}"
        if spec.positions == "alibi" and not self.alibi:
            yield "takes no ALiBi"
        if job.padded and not self.padding:
            yield "takes no padding on the left"
        if job.queries < job.keys and not self.cache:
            yield "takes no fewer queries than keys"
        if job.backward and device not in self.backward:
            yield f"has no gradients on {device}"
        if self.head_dims is not None and job.head_dim not in self.head_dims:
            yield f"takes head dimensions {_in_words(self.head_dims)}, not {job.head_dim}"
        if self.lengths is not None and job.keys not in self.lengths:
            yield f"takes from {self.lengths[0]:,} to {self.lengths[-1]:,} keys, not {job.keys:,}"
        if self.compute is not None and device == "cuda" and self.compute != (major := _compute(job.device)):
            yield f"is for compute capability {self.compute}, not {major}"
        if self.package is not None and find_spec(self.package[0]) is None:
            yield f"is not installed: {self.package[1]}"


def _in_words(numbers: range | tuple[int, ...]) -> str:
    if isinstance(numbers, tuple):
        return ", ".join(map(str, numbers))
    return f"from {numbers[0]} to {numbers[-1]}" + (f" in steps of {numbers.step}" if numbers.step > 1 else "")


def _compute(device: torch.device) -> int:
    return torch.cuda.get_device_capability(device)[0]
