"""What a backend is asked to do, what it can do, and the one place that compares the two."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from headtohead.attention.patterns import Form
from headtohead.attention.spec import AttentionSpec


class BackendError(RuntimeError):
    """The backend asked for does not exist or cannot do the job, or none can; the message says why."""


@dataclass(frozen=True)
class Job:
    """One layer's attention to compute.

    Args:
        spec: without `layers` (`AttentionSpec.layer` gives one layer's).
        dtype: of queries, keys and values.
        queries, keys: how many there are; if there are fewer queries, they are the last positions, as with a cache.
        padded: whether there may be padding on the left.
        backward: whether gradients are needed.
        scale: of the scores; None means 1 / sqrt(head_dim).
        batch: number of rows.
        varied: whether few other jobs have its length, so that compiling a kernel for it does not pay off.
    """

    spec: AttentionSpec
    device: torch.device
    dtype: torch.dtype
    heads: int
    head_dim: int
    queries: int
    keys: int
    padded: bool = False
    backward: bool = False
    scale: float | None = None
    batch: int = 1
    varied: bool = False

    @property
    def scaling(self) -> float:
        """The factor of the scores."""
        return float(self.head_dim**-0.5) if self.scale is None else self.scale

    @property
    def form(self) -> Form | None:
        """Its pattern's form."""
        return self.spec.visibility.form


@dataclass(frozen=True)
class Capability:
    """What a backend can do.

    Args:
        kernels: the values of `AttentionSpec.kernel` that it implements.
        dtypes: the types it takes, by type of device; None means any type on any device.
        backward: types of device on which it has gradients.
        forms: the parts of `Form` that it takes besides full attention; None means any pattern, whatever its form.
        needs: those without which it takes nothing.
        alibi, padding, cache: whether it takes ALiBi's bias, padding on the left, fewer queries than keys.
        head_dims: those it takes; None means any.
        lengths: the numbers of keys it takes; None means any.
        compute: the major CUDA compute capability that it is for (9 is Hopper); None means any.
        package: (module, how to get it), if it needs one besides torch.
    """

    kernels: frozenset[str]
    dtypes: Mapping[str, tuple[torch.dtype, ...]] | None = None
    backward: frozenset[str] = frozenset({"cpu", "cuda"})
    forms: frozenset[str] | None = None
    needs: frozenset[str] = frozenset()
    alibi: bool = True
    padding: bool = True
    cache: bool = True
    head_dims: range | tuple[int, ...] | None = None
    lengths: range | None = None
    compute: int | None = None
    package: tuple[str, str] | None = None

    def unsupported(self, job: Job) -> str | None:
        """Everything that the job needs and the backend lacks, in words; None if it can do the whole job."""
        return ", ".join(self._lacks(job)) or None

    def _lacks(self, job: Job) -> Iterator[str]:
        spec, device = job.spec, job.device.type
        if spec.kernel not in self.kernels:
            yield f"is no kernel of the kind {spec.kernel!r}"
        if self.dtypes is not None and job.dtype not in self.dtypes.get(device, ()):
            yield f"takes no {str(job.dtype).removeprefix('torch.')} on {device}"
        parts = None if job.form is None else job.form.parts
        if self.forms is not None and (parts is None or not self.needs <= parts <= self.forms):
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
