"""The command line: `h2h init` makes a preset for one's own articles, `h2h show` prints the comparison of the last run,
`h2h choose` says which variant to take for a length, a batch size and limits, `h2h summarize` uses a trained model,
`h2h doctor` tries what this machine can run, `h2h publish` writes the last run as files to commit, and `h2h bench`
measures the published benchmark on a GPU."""

import argparse
import json
import math
import os
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
    except BrokenPipeError:  # what reads our output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    except ImportError as error:
        sys.exit(f"a library is missing or broken: {error}; set the environment up again: rm -r .venv; make setup")


def init(**options: Any) -> None:
    from headtohead.init.command import init
    init(**options)


def show() -> None:
    from headtohead.reporting import print_comparison
    print_comparison(read_params())


def doctor(as_json: bool) -> None:
    params = read_params()
    from headtohead.doctor import page
    from headtohead.doctor.diagnosis import diagnose
    from headtohead.progress import Bar
    with Bar("trying what runs here", total=None) as bar:
        found = diagnose(params, on_check=bar.note)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        page.show(found)
    sys.exit(1 if found.broken else 0)


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


def summarize(files: list[str], model: str, output: Path | None, stream: bool, column: str | None,
              encoding: str | None, beams: int | None, **lengths: int | None) -> None:
    from headtohead.summaries.command import run
    from headtohead.summaries.reading import PIPE, Sources
    from headtohead.summaries.settings import Wishes
    if stream and (beams or 1) > 1:
        raise ValueError(f"--stream shows a summary as it is written, and --beams {beams} chooses it at the end; leave "
                         "one of them out")
    try:
        run(Sources(files or [PIPE], column, encoding), model, output, stream,
            Wishes(beams=1 if stream else beams, **lengths))
    except KeyboardInterrupt:
        print("\nstopped" + (f"; the same command goes on with {output}" if output else ""), file=sys.stderr)
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="h2h", description="Which attention should a GPT-2 summarizer use?")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_init(commands)
    commands.add_parser("show", help="print the comparison of the last run and where its report is").set_defaults(
        run=show)
    check = commands.add_parser("doctor", help="say what is here, what will run each variant, and try whether it works")
    check.set_defaults(run=doctor)
    check.add_argument("--json", action="store_true", dest="as_json", help="the same, for programs")
    _add_choose(commands.add_parser("choose", help="say which variant to take for a length, a batch size and limits"))
    files = commands.add_parser("publish", help="write the last run, without any text, as files to commit")
    files.set_defaults(run=publish)
    files.add_argument("target", metavar="TARGET", type=Path, help="what to write: TARGET.md, TARGET.json and TARGET/")
    files.add_argument("--command", required=True, help="what was typed to run it")
    files.add_argument("--took", required=True, help="how long that took")
    files.add_argument("--commit", help="commit of the code that ran, if it was not this repository as it is")
    _add_summarize(commands.add_parser(
        "summarize", help="write summaries with a trained model",
        description="Write the summary of each article as a line of JSON: id, summary, model, tokens (of the article), "
                    "cut (how many of them did not fit), cut_share, key (what it was made from)."))
    rows = commands.add_parser("bench", help="time GPT-2 small with each variant beside transformers, on a GPU")
    rows.set_defaults(run=bench)
    rows.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; rows already there are kept")
    rows.add_argument("--family", action="store_true", help="every kind of variant, each beside flash")
    rows.add_argument("--render", action="store_true", help="measure nothing: make the page again from the rows")
    rows.add_argument("--commit", help="commit of the code that runs, if it is not this repository as it is")
    return parser


def _add_init(commands: Any) -> None:
    parser = commands.add_parser(
        "init", help="write a preset for your articles and this machine to params.yaml",
        description="Look at a file of articles and at this machine, and write a preset for them to params.yaml.")
    parser.set_defaults(run=init)
    parser.add_argument("source", metavar="ARTICLES",
                        help="a CSV, TSV, JSON, JSON Lines, Parquet or Arrow file, a folder, or a data set's NAME or "
                             "NAME@REVISION on the hub")
    parser.add_argument("--minutes", type=_minutes, default=60, help="how long the run may take (%(default)s)")
    parser.add_argument("--name", type=_name, default="mine", help="of the preset (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a preset of that name")
    parser.add_argument("--article", metavar="COLUMN", help="the column with the articles, if it cannot be told")
    parser.add_argument("--summary", metavar="COLUMN", help="the column with their summaries")
    parser.add_argument("--pretrained", metavar="GPT2",
                        help="begin with this GPT-2: a local folder, or the hub's NAME or NAME@REVISION")
    parser.add_argument("--end-of-text", metavar="TOKEN",
                        help="the token that ends a summary, if the pretrained vocabulary names none")
    parser.add_argument("--encoding", help="of the files, such as cp1251, if it cannot be detected")
    parser.add_argument("--config", help="which configuration of a data set on the hub")


def _minutes(text: str) -> float:
    minutes = float(text)
    if not (math.isfinite(minutes) and minutes > 0):
        raise argparse.ArgumentTypeError(f"{text} is no time; give minutes, such as 60")
    return minutes


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{,39}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a preset; use lower-case letters, digits and _")
    return text


def _add_summarize(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=summarize)
    parser.add_argument("files", metavar="FILE", nargs="*",
                        help="text (.txt, one article each), CSV, TSV, JSON, JSON Lines, Parquet or Arrow; without any "
                             "or for -, standard input: JSON Lines, or one text")
    parser.add_argument("--model", required=True, help="folder of a trained model: models/VARIANT/SEED")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write here instead of to standard output; if the "
                        "command is stopped, the same command goes on where it was")
    parser.add_argument("--stream", action="store_true", help="show each summary on standard output as it is written; "
                        "greedy, one article at a time")
    parser.add_argument("--column", help="of the articles in a table; found by its usual names (article, text, ...)")
    parser.add_argument("--encoding", help="of the files, by Python's name; detected, and on standard input UTF-8")
    for flag, most, what in (
            ("--max-length", 1_000_000, "tokens of article and summary together; an article is cut to fit"),
            ("--max-new-tokens", 1_000_000, "tokens of a summary"), ("--beams", 64, "of the search; 1 is greedy"),
            ("--batch-size", 100_000, "articles summarized at once; lower it if memory runs out")):
        parser.add_argument(flag, type=_count(most), metavar="N", help=f"{what} (default: as in the model's training)")


def _count(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most:,} (is {text!r})")
        return int(text)
    return number


def _add_choose(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=choose)
    parser.description = ("Say which variant to take: of those that lose no more quality than allowed and keep within "
                          "the limits, the cheapest. Costs between measured sizes are interpolated; beyond them, "
                          "nothing is said.")
    parser.add_argument("--length", type=_count(1_000_000), metavar="TOKENS",
                        help="tokens of article and summary together (default: the preset's tokenizer.max_length)")
    parser.add_argument("--batch", type=_count(100_000), default=1, metavar="SEQUENCES", help="batch size (default: 1)")
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


def _share(text: str) -> float:
    if not (re.fullmatch(r"[0-9]*\.?[0-9]+", text) and float(text) <= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1, such as 0.01")
    return float(text)


if __name__ == "__main__":
    main()
