"""What was measured on one machine: how long a whole pass takes with each backend that computes the same function.

Imports no torch: the `fingerprint` stage picks from a table what concerns a variant. Only passes without gradients are
measured, so training keeps the built-in order.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from headtohead.attention.spec import AttentionSpec

if TYPE_CHECKING:
    from headtohead.attention.job import Job

LEAST = 0.05  # the share of the built-in choice's time that another backend must save
COMPILED = ("flex", "regrouped")  # for each shape, so not for prompts, which come in many

Count = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Time(_Section):
    """Of a whole pass: the median over rounds, and the fastest and the slowest round, in ms."""

    median: Milliseconds
    low: Milliseconds
    high: Milliseconds


class Size(_Section):
    """One measured size.

    Args:
        batch, length: in sequences and tokens.
        forward, prompt: what the built-in order takes for a forward pass, and for a prompt that is continued.
        times: of each backend that errs no more than rounding allows here, by name.
        left_out: why another one has no time.
    """

    batch: Count
    length: Count
    forward: str
    prompt: str
    times: dict[str, Time]
    left_out: dict[str, str] = {}

    def saves(self, name: str, built_in: str) -> bool:
        """Whether a backend saves enough time, and its slowest round is faster than the other's fastest."""
        if name not in self.times or built_in not in self.times:
            return False
        ours, theirs = self.times[name], self.times[built_in]
        return ours.high < theirs.low and ours.median <= (1 - LEAST) * theirs.median

    def share(self, name: str, built_in: str) -> float:
        """A backend's time over that of the built-in choice."""
        return self.times[name].median / self.times[built_in].median

    def compared(self, name: str, built_in: str) -> str:
        """"0.31 ms against 0.36 by flash-attn (1 x 512 tokens)"."""
        return (f"{self.times[name].median:.3g} ms against {self.times[built_in].median:.3g} by {built_in} "
                f"({self.batch} x {self.length:,} tokens)")


@dataclass(frozen=True)
class Gain:
    """At one size, a backend that is taken instead of the built-in choice; work: a forward pass or a prompt."""

    work: str
    size: Size
    name: str
    built_in: str


class Entry(_Section):
    """All sizes of one layer's function, in the shape of one model; spec: see `same_work`."""

    spec: dict[str, Any]
    dtype: str
    heads: Count
    head_dim: Count
    sizes: tuple[Size, ...] = ()

    def around(self, batch: int, length: int) -> list[Size]:
        """The measured sizes nearest around one, which is the size itself if it was measured.

        Empty if the size does not lie between measured ones: nothing is extrapolated.
        """
        at = {(size.batch, size.length): size for size in self.sizes}
        lengths: dict[int, set[int]] = {}
        for size in self.sizes:
            lengths.setdefault(size.batch, set()).add(size.length)
        near = {known: found for known, own in lengths.items() if (found := _around(length, own))}
        return [at[known, other] for known in sorted(_around(batch, near)) for other in sorted(near[known])]

    def gains(self) -> Iterator[Gain]:
        """Wherever the table changes the built-in choice, smaller sizes first."""
        for size in sorted(self.sizes, key=lambda size: (size.batch, size.length)):
            for work, built_in, names in (("forward", size.forward, size.times),
                                          ("prompt", size.prompt, size.times.keys() - COMPILED)):
                if name := _fastest([size], built_in, names):
                    yield Gain(work, size, name, built_in)


class Table(_Section):
    """Everything that was measured on one machine.

    Args:
        machine: what decides how fast kernels are there (`profiling.machine.decisive`).
    """

    machine: dict[str, str | None] = {}
    entries: tuple[Entry, ...] = ()

    def faster(self, job: "Job", built_in: str, able: Collection[str]) -> tuple[str, str] | None:
        """What to take instead of the built-in choice, and why; None if that is to be kept.

        Args:
            able: the backends that can do the job.
        """
        entry = self._entry(job)
        if entry is None or job.backward or job.padded or job.queries != job.keys:
            return None
        sizes = entry.around(job.batch, job.keys)
        if (name := _fastest(sizes, built_in, able)) is None:
            return None
        return name, f"measured here: {', '.join(size.compared(name, built_in) for size in sizes)}"

    def has(self, job: "Job") -> bool:
        """Whether the job's own size was measured."""
        entry = self._entry(job)
        return entry is not None and (job.batch, job.keys) in {(size.batch, size.length) for size in entry.sizes}

    def with_size(self, job: "Job", size: Size) -> "Table":
        """The table with one more size, of the job's entry."""
        entry = self._entry(job) or Entry(**_key(job))
        more = entry.model_copy(update={"sizes": (*entry.sizes, size)})
        return self.model_copy(update={"entries": (*(one for one in self.entries if one is not entry), more)})

    def part(self, specs: Iterable[AttentionSpec], dtypes: Collection[str], heads: int | None) -> "Table":
        """The entries that change a choice of layers `specs`; without any, an empty table of no machine.

        Args:
            heads: of the model; None if they are not known.
        """
        wanted = [same_work(spec) for spec in specs]
        entries = tuple(entry for entry in self.entries if entry.spec in wanted and entry.dtype in dtypes
                        and heads in (None, entry.heads) and any(entry.gains()))
        return Table(machine=self.machine, entries=entries) if entries else Table()

    def _entry(self, job: "Job") -> Entry | None:
        key = _key(job)
        return next((entry for entry in self.entries
                     if all(getattr(entry, name) == value for name, value in key.items())), None)


def same_work(spec: AttentionSpec) -> dict[str, Any]:
    """A layer without what is drawn at random: layers that only draw otherwise take the same time."""
    return {name: value for name, value in spec.model_dump().items() if name not in spec.visibility.drawn}


def _key(job: "Job") -> dict[str, Any]:
    return {"spec": same_work(job.spec), "dtype": str(job.dtype).removeprefix("torch."), "heads": job.heads,
            "head_dim": job.head_dim}


def _fastest(sizes: Sequence[Size], built_in: str, names: Iterable[str]) -> str | None:
    """Of the backends that save enough time at all of the sizes the one that saves most; None if there is none."""
    saving = sorted(name for name in names if sizes and all(size.saves(name, built_in) for size in sizes))
    return min(saving, key=lambda name: sum(size.share(name, built_in) for size in sizes), default=None)


def _around(wanted: int, known: Iterable[int]) -> set[int]:
    """The nearest numbers on both sides, or the number itself; empty if there is none on one side."""
    below = [number for number in known if number <= wanted]
    above = [number for number in known if number >= wanted]
    return {max(below), min(above)} if below and above else set()
