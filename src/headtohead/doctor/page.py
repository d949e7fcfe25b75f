"""A diagnosis for people: as tables on a terminal, as plain text elsewhere."""

from rich.console import Console
from rich.table import Table

from headtohead.doctor.diagnosis import WORKS, Check, Choice, Diagnosis
from headtohead.doctor.facts import Fact
from headtohead.progress import output, plain_table


def show(found: Diagnosis) -> None:
    """Print all of it, what is broken at the end."""
    console = output()
    console.print(_facts(found.facts))
    if found.choices:
        _show_choices(console, found)
        _show_checks(console, found.checks)
    if broken := found.broken:
        console.print("\nBroken: `dvc repro` needs this", style="bold red")
        for line in broken:
            console.print(f"- {line}")
    else:
        console.print("\nAll that `dvc repro` needs works here.", style="bold green")


def _facts(facts: list[Fact]) -> Table:
    table = _table("machine", "", "")
    for fact in facts:
        table.add_row(fact.name, fact.value, fact.problem, style="red" if fact.broken else "")
    return table


def _show_choices(console: Console, found: Diagnosis) -> None:
    console.print(f"\nWhat will run each variant ({found.conditions}; * not in this run)")
    table = _table("variant", *WORKS)
    chosen = {(choice.variant, choice.work): _name(choice) for choice in found.choices}
    for variant in dict.fromkeys(choice.variant for choice in found.choices):
        table.add_row(variant if variant in found.compared else f"{variant} *",
                      *(chosen[variant, work] for work in WORKS))
    console.print(table)
    console.print("\nWhy")
    reasons: dict[tuple[str, str], list[str]] = {}
    for choice in found.choices:
        reasons.setdefault((_name(choice), choice.why), []).append(choice.work)
    for (backends, why), works in reasons.items():
        console.print(f"- {backends} in {', '.join(dict.fromkeys(works))}: {why}")


def _name(choice: Choice) -> str:
    return " + ".join(choice.backends) or "nothing"


def _show_checks(console: Console, checks: list[Check]) -> None:
    console.print("\nTried on random numbers, against float32 (allowed: twice plain PyTorch's error in this precision)")
    table = _table("backend", "work", "precision", "right", "largest error", "allowed")
    for check in checks:
        right = len(check.variants) - len(check.wrong)
        table.add_row(check.backend, check.work, check.dtype, f"{right} of {len(check.variants)} variants",
                      f"{check.error:.1e}", f"{check.allowed:.1e}", style="red" if check.wrong else "")
    console.print(table)
    for check in checks:
        for variant, problem in check.wrong.items():
            console.print(f"{check.work} by {check.backend}, {variant}: {problem}", style="red")


def _table(*titles: str) -> Table:
    table = plain_table()
    for title in titles:
        table.add_column(title)
    return table
