"""`h2h doctor --measure` on the terminal: measure, keep what is measured, show all of it."""

import sys

from rich.console import Console

from headtohead.attention.spec import AttentionSpec
from headtohead.attention.table import Entry, Size, Table
from headtohead.doctor import facts
from headtohead.doctor.measuring import Task, run, tasks
from headtohead.inputs import resolve
from headtohead.measured import read_table, write_table
from headtohead.models.card import in_words
from headtohead.models.gpt2 import best_device
from headtohead.params import Params
from headtohead.paths import MEASURED
from headtohead.profiling.machine import measured_here
from headtohead.progress import Bar, output, plain_table
from headtohead.records import DataError


def measure(params: Params, seconds: float | None) -> None:
    """Measure what the run of these parameters could choose among, as far as it is not measured yet.

    Args:
        seconds: no size is begun after so many; None if there is no limit.

    Raises:
        DataError: the pretrained model is not to be had, or the table's file is damaged.
    """
    device, console = best_device(), output()
    try:
        model = facts.shape(params)
    except (DataError, OSError) as error:
        raise DataError(f"model {params.chosen.model.pretrained}: {error}") from error
    todo = tasks(params, model, device)
    if not todo:
        console.print(f"Nothing to measure: on this machine ({device}) a single backend computes each variant of this "
                      "run, so there is nothing to choose. A table is for GPUs.")
        return
    if (known := read_table(resolve(MEASURED))).entries and not measured_here().entries:
        console.print(f"{MEASURED} was measured with other hardware or versions ({known.machine}); it is made anew.")
    table = _measured(todo, model, seconds)
    for entry in table.entries:
        _show(console, entry)
    done = sum(table.has(task.job) for task in todo)
    console.print(f"\n{done} of {len(todo)} sizes of preset {params.preset} are measured, in {MEASURED}. `dvc repro` "
                  "runs again what they change.")
    if done < len(todo):
        console.print("The same command goes on with the rest.")


def _measured(todo: list[Task], model: facts.Model, seconds: float | None) -> Table:
    """The machine's whole table, with what is measured now; an interruption keeps what was measured before it."""
    table = measured_here()
    done = sum(table.has(task.job) for task in todo)
    with Bar("measuring backends", total=len(todo), done=done) as bar:
        def save(more: Table) -> None:
            write_table(resolve(MEASURED), more)
            bar.advance()

        try:
            return run(todo, model, table, save, seconds, on_task=lambda task: bar.note(_in_words(task)))
        except KeyboardInterrupt:
            print("stopped; the same command goes on with the rest", file=sys.stderr)
            sys.exit(130)


def _in_words(task: Task) -> str:
    return f"{task.variant}, {task.job.batch} x {task.job.keys:,} tokens"


def _show(console: Console, entry: Entry) -> None:
    """One row a size, in ms; what is taken stands beside the built-in choice."""
    console.print(f"\n{in_words(AttentionSpec(**entry.spec))}; {entry.dtype}, {entry.heads} heads of {entry.head_dim}; "
                  "ms for a whole pass, and what is taken")
    names = sorted({name for size in entry.sizes for name in size.times})
    gains = {(gain.size.batch, gain.size.length, gain.work): gain.name for gain in entry.gains()}
    shown = plain_table()
    for title in ("batch", "tokens", *names, "forward", "prompt"):
        shown.add_column(title, justify="left" if title in ("forward", "prompt") else "right")
    for size in sorted(entry.sizes, key=lambda size: (size.batch, size.length)):
        times = [f"{size.times[name].median:.3g}" if name in size.times else "-" for name in names]
        taken = [_taken(built_in, gains.get((size.batch, size.length, work)))
                 for work, built_in in (("forward", size.forward), ("prompt", size.prompt))]
        shown.add_row(f"{size.batch:,}", f"{size.length:,}", *times, *taken)
    console.print(shown)
    for line in dict.fromkeys(line for size in entry.sizes for line in _left_out(size)):
        console.print(line)


def _taken(built_in: str, faster: str | None) -> str:
    return f"{faster}, not {built_in}" if faster else built_in


def _left_out(size: Size) -> list[str]:
    return [f"{name} at {size.batch} x {size.length:,} tokens: {why}" for name, why in size.left_out.items()]
