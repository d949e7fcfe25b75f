"""What prompt lookup would gain for a single article: how many tokens a pass writes, and what such a pass takes."""

from collections.abc import Mapping
from typing import Any

from headtohead.reporting.results import Results, Variant
from headtohead.reporting.tables import NOTHING, Table, short


def gains(results: Results) -> Table:
    """Of each variant. Passes take the same time whatever they accept, so the two can be measured apart."""
    return Table(["variant", "tokens a pass", "one token ms", "lookup's pass ms", "times as fast"],
                 [[variant.name, *_gain(variant)] for variant in results.variants])


def drafted(results: Results) -> int | None:
    """How many tokens a pass of prompt lookup drafts; None if no variant has it timed."""
    timed = (_timing(variant, "lookup_pass") for variant in results.variants)
    return next((row["new_tokens"] - 1 for row in timed if row), None)


def _gain(variant: Variant) -> list[str]:
    tokens = variant.details.get("tokens_a_pass")
    whole, first, verified = (_timing(variant, work) for work in ("generate", "first_token", "lookup_pass"))
    if tokens is None or not (whole and first and verified) or whole["new_tokens"] == 1:
        return [NOTHING] * 4
    one = (whole["median"] - first["median"]) / (whole["new_tokens"] - 1)
    return [f"{tokens:.2f}", short(one), short(verified["median"]), f"{tokens * one / verified['median']:.2f}"]


def _timing(variant: Variant, work: str) -> Mapping[str, Any] | None:
    """The headline's, of a single article; None if it was not measured, or memory did not suffice."""
    return next(iter(variant.timings(work)), None)
