"""Where this machine's measured table changed what runs, and what the built-in order would have cost."""

from collections.abc import Iterator

from headtohead.attention.table import Entry, Gain
from headtohead.reporting.results import Results
from headtohead.reporting.tables import Table, short


def gains(results: Results) -> Table:
    """One row for each size at which a variant's layers got another backend than by the built-in order."""
    header = ["variant", "layers", "work", "taken", "built-in order", "batch", "tokens", "ms", "built-in order's ms",
              "times as long"]
    return Table(header, [row for variant in results.variants for entry in variant.measured.entries
                          for row in _rows(variant.name, entry)], words=5)


def used(results: Results) -> bool:
    """Whether a table changed anything: not where params.yaml names a backend."""
    return results.params.asked_backend is None and any(variant.measured.entries for variant in results.variants)


def gpu(results: Results) -> str:
    """The card on which the table was measured."""
    return str(next(variant.measured.machine["gpu"] for variant in results.variants if variant.measured.entries))


def _rows(variant: str, entry: Entry) -> Iterator[list[str]]:
    works: dict[tuple[int, int, str, str], list[Gain]] = {}
    for gain in entry.gains():
        works.setdefault((gain.size.batch, gain.size.length, gain.name, gain.built_in), []).append(gain)
    for (batch, length, name, built_in), same in works.items():
        times = same[0].size.times
        yield [variant, _layers(entry), ", ".join(gain.work for gain in same), name, built_in, f"{batch:,}",
               f"{length:,}", short(times[name].median), short(times[built_in].median),
               f"{times[built_in].median / times[name].median:.2f}"]


def _layers(entry: Entry) -> str:
    """"window 64, alibi, bfloat16"."""
    numbers = (f" {value}" for name, value in entry.spec.items() if name not in ("kernel", "positions", "pattern"))
    return f"{entry.spec['pattern']}{''.join(numbers)}, {entry.spec['positions']}, {entry.dtype}"
