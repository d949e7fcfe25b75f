"""The command line: `h2h show` prints the comparison of the last run, `h2h choose` says which variant to take for a
length, a batch size and limits, `h2h publish` writes the run as files to commit, and `h2h bench` measures the published
benchmark on a GPU."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headtohead.caches import keep_in
from headtohead.params import STUDY, read_params

SIZES = {"MB": 1.0, "MiB": 1.0, "GB": 1024.0, "GiB": 1024.0}  # MB is 2**20 bytes everywhere, as in the report
TIMES = {"ms": 1.0, "s": 1000.0}


def main() -> None:
    options = vars(_parser().parse_args())
    run = options.pop("run")
    keep_in(Path.cwd())
    try:
        run(**options)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


def show() -> None:
    from headtohead.reporting import print_comparison
    print_comparison(read_params())


def choose(source: Path | None, as_json: bool, **question: Any) -> None:
    from headtohead.reporting import choice
    found = choice.of_file(source) if source else choice.of_last_run(read_params())
    choice.answer_on_terminal(found, choice.Question(**question), as_json)


def publish(target: Path, command: str, took: str, commit: str | None) -> None:
    from headtohead.reporting.publish import publish
    publish(read_params(), target, command, took, commit)
    print(f"Written: {target}.md, {target}.json and the figures in {target}/")


def bench(folder: Path, family: bool, render: bool, commit: str | None) -> None:
    if not render:
        from headtohead.benchmark import suite
        from headtohead.benchmark.plan import FAMILY_PLAN, Plan
        from headtohead.reporting.publish import current_commit
        device, variants = suite.gpu(), read_params().variants
        plan = FAMILY_PLAN if family else Plan({name: variants[name] for name in STUDY})
        suite.run(folder, plan, device, commit=commit or current_commit(),
                  command=f"h2h bench {folder}{' --family' if family else ''}")
    from headtohead.benchmark import page
    page.render(folder)
    print(f"Written: {folder / page.PAGE} and its figures")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="h2h", description="Which attention should a GPT-2 summarizer use?")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("show", help="print the comparison of the last run and where its report is").set_defaults(
        run=show)
    _add_choose(commands.add_parser("choose", help="say which variant to take for a length, a batch size and limits"))
    files = commands.add_parser("publish", help="write the last run, without any text, as files to commit")
    files.set_defaults(run=publish)
    files.add_argument("target", metavar="TARGET", type=Path, help="what to write: TARGET.md, TARGET.json and TARGET/")
    files.add_argument("--command", required=True, help="what was typed to run it")
    files.add_argument("--took", required=True, help="how long that took")
    files.add_argument("--commit", help="commit of the code that ran, if it was not this repository as it is")
    rows = commands.add_parser("bench", help="time GPT-2 small with each variant beside transformers, on a GPU")
    rows.set_defaults(run=bench)
    rows.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; rows already there are kept")
    rows.add_argument("--family", action="store_true", help="every kind of variant, each beside flash")
    rows.add_argument("--render", action="store_true", help="measure nothing: make the page again from the rows")
    rows.add_argument("--commit", help="commit of the code that runs, if it is not this repository as it is")
    return parser


def _add_choose(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=choose)
    parser.description = ("Say which variant to take: of those that lose no more quality than allowed and keep within "
                          "the limits, the cheapest. Costs between measured sizes are interpolated; beyond them, "
                          "nothing is said.")
    parser.add_argument("--length", type=_count, metavar="TOKENS",
                        help="tokens of article and summary together (default: the preset's tokenizer.max_length)")
    parser.add_argument("--batch", type=_count, default=1, metavar="SEQUENCES", help="batch size (default: 1)")
    parser.add_argument("--memory", type=_with_unit(SIZES), metavar="SIZE", help="most memory, such as 500MB or 4GB")
    parser.add_argument("--latency", type=_with_unit(TIMES), metavar="TIME",
                        help="most time for the whole batch, such as 50ms or 1.5s")
    parser.add_argument("--max-loss", type=_share, metavar="LOSS",
                        help="how much of the primary measure may be lost, 0 to 1 (default: its margin)")
    parser.add_argument("--work", choices=["generate", "forward"], default="generate",
                        help="what is timed: writing summaries, or one forward pass (default: generate)")
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE",
                        help="a file of `h2h publish`, such as docs/results/h200-news.json (default: the last run)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON, in ms and MB (2**20 bytes)")


def _with_unit(units: Mapping[str, float]) -> Callable[[str], float]:
    """Reads "4GB" as a number in the first of `units`."""
    def read(text: str) -> float:
        found = re.fullmatch(rf"([0-9]+\.?[0-9]*|\.[0-9]+) ?({'|'.join(units)})", text)
        value = float(found[1]) * units[found[2]] if found else 0.0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 with a unit ({', '.join(units)}), such "
                                             f"as 50{next(iter(units))}")
        return value

    return read


def _count(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _share(text: str) -> float:
    if not (re.fullmatch(r"[0-9]*\.?[0-9]+", text) and float(text) <= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1, such as 0.01")
    return float(text)
