"""The command line: `h2h init` makes a preset for one's own articles, `h2h show` prints the comparison of the last run,
`h2h choose` says which variant to take for a length, a batch size and limits, `h2h summarize` uses a trained model,
`h2h doctor` tries what this machine can run, `h2h publish` writes the last run as files to commit, `h2h bench`
measures the published benchmark on a GPU, and `h2h run` runs the pipeline in parallel."""

import argparse
import json
import os
import sys
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headtohead.arguments import MOST, SIZES, TIMES, minutes, preset_name, share, whole_number, with_unit
from headtohead.caches import keep_in, settle_libraries
from headtohead.params import STUDY, read_params


def main() -> None:
    options = vars(_parser().parse_args())
    run = options.pop("run")
    settle_libraries()
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


def doctor(as_json: bool, measure: bool, preset: str | None, seconds: float | None) -> None:
    params = read_params()
    if measure:
        from headtohead.doctor import command
        command.measure(params.with_preset(preset) if preset else params, seconds)
        return
    if preset or seconds:
        raise ValueError("--preset and --seconds are for --measure; add it, or leave them out")
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


def bench(folder: Path, kind: str | None, render: bool, commit: str | None) -> None:
    if not render:
        from headtohead.benchmark import suite
        from headtohead.benchmark.plan import FAMILY_PLAN, SIZES_PLAN, Plan
        from headtohead.reporting.publish import current_commit
        device, variants = suite.gpu(), read_params().variants
        study = Plan({name: variants[name] for name in STUDY})
        plan = {"family": FAMILY_PLAN, "sizes": SIZES_PLAN, None: study}[kind]
        suite.run(folder, plan, device, commit=commit or current_commit(),
                  command=f"h2h bench {folder}{f' --{kind}' if kind else ''}")
    from headtohead.benchmark import page
    page.render(folder)
    print(f"Written: {folder / page.PAGE} and its figures")


def summarize(files: list[str], model: str, latency: float | None, output: Path | None, stream: bool,
              column: str | None, encoding: str | None, beams: int | None, **lengths: int | None) -> None:
    from headtohead.summaries.command import run
    from headtohead.summaries.reading import PIPE, Sources
    from headtohead.summaries.routing import AUTO
    from headtohead.summaries.settings import Wishes
    if latency and model != AUTO:
        raise ValueError(f"--latency is for --model {AUTO}, which chooses by it; leave it out")
    if lengths["max_length"] and model == AUTO:
        raise ValueError(f"--model {AUTO} chooses by what was measured at the run's lengths; leave --max-length "
                         "out, or name a model")
    if stream and (beams or 1) > 1:
        raise ValueError(f"--stream shows a summary as it is written, and --beams {beams} chooses it at the end; leave "
                         "one of them out")
    try:
        run(Sources(files or [PIPE], column, encoding), model, latency, output, stream,
            Wishes(beams=1 if stream else beams, **lengths))
    except KeyboardInterrupt:
        print("\nstopped" + (f"; the same command goes on with {output}" if output else ""), file=sys.stderr)
        sys.exit(130)


def run_stages(**options: Any) -> None:
    if not find_spec("ray"):
        raise ValueError("`h2h run` needs Ray: pip install -e '.[cluster]'. `dvc repro` does the same without it, one "
                         "stage after another")
    from headtohead.cluster.command import run
    try:
        run(**options)
    except KeyboardInterrupt:
        print("\nstopped; what has finished is recorded, and the same command goes on from there", file=sys.stderr)
        sys.exit(130)


class _Parser(argparse.ArgumentParser):
    """Answers an option that it does not know with its own usage, and with the option that was meant."""

    def parse_known_args(self, *given: Any) -> Any:  # type: ignore[override]
        found, unknown = super().parse_known_args(*given)
        if unknown:
            near = get_close_matches(unknown[0].split("=")[0], self._option_string_actions, n=1)
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; did you mean {near[0]}?" if near else ""))
        return found, unknown


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="h2h", description="Which attention should a GPT-2 summarizer use?")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_init(commands.add_parser("init", help="write a preset for your articles and this machine to params.yaml"))
    commands.add_parser("show", help="print the comparison of the last run and where its report is").set_defaults(
        run=show)
    _add_run(commands.add_parser("run", help="do what `dvc repro` does, in parallel: on this machine or a cluster"))
    _add_choose(commands.add_parser("choose", help="say which variant to take for a length, a batch size and limits"))
    _add_summarize(commands.add_parser("summarize", help="write summaries with a trained model"))
    _add_doctor(commands.add_parser("doctor", help="say what will run each variant here, and try whether it works"))
    _add_publish(commands.add_parser("publish", help="write the last run, without any text, as files to commit"))
    _add_bench(commands.add_parser("bench", help="time GPT-2 with each variant beside transformers, on a GPU"))
    return parser


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=init)
    parser.description = "Look at a file of articles and at this machine, and write a preset for them to params.yaml."
    parser.add_argument("source", metavar="ARTICLES",
                        help="a CSV, TSV, JSON, JSON Lines, Parquet or Arrow file, a folder, or a data set's NAME or "
                             "NAME@REVISION on the hub")
    parser.add_argument("--minutes", type=minutes, default=60, help="how long the run may take (default: %(default)s)")
    parser.add_argument("--name", type=preset_name, default="mine", help="of the preset (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a preset of that name")
    parser.add_argument("--article", metavar="COLUMN", help="the column with the articles, if it cannot be told")
    parser.add_argument("--summary", metavar="COLUMN", help="the column with their summaries")
    parser.add_argument("--pretrained", metavar="GPT2",
                        help="begin with this GPT-2: a local folder, or the hub's NAME or NAME@REVISION")
    parser.add_argument("--end-of-text", metavar="TOKEN",
                        help="the token that ends a summary, if the pretrained vocabulary names none")
    parser.add_argument("--encoding", help="of the files, such as cp1251, if it cannot be detected")
    parser.add_argument("--config", help="which configuration of a data set on the hub")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_stages)
    parser.description = ("Do what `dvc repro` does, in parallel: each stage that is out of date runs as a task of "
                          "Ray, one on each GPU or on every two cores, and a plain `dvc repro` at the end finds its "
                          "results in DVC's cache. docs/cluster.md says more.")
    parser.add_argument("--address", metavar="ADDRESS",
                        help="of a running Ray cluster of which this machine is a node, such as auto (default: this "
                             "machine alone)")
    parser.add_argument("--per-gpu", type=whole_number(64), default=1, metavar="TASKS",
                        help="tasks at once on one GPU (default: %(default)s)")
    parser.add_argument("--keep-going", action="store_true",
                        help="if a stage fails, run all that does not depend on it")


def _add_choose(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=choose)
    parser.description = ("Say which variant to take: of those that lose no more quality than allowed and keep within "
                          "the limits, the cheapest. Costs between measured sizes are interpolated; beyond them, "
                          "nothing is said.")
    parser.add_argument("--length", type=whole_number(MOST), metavar="TOKENS",
                        help="tokens of article and summary together (default: the preset's tokenizer.max_length)")
    parser.add_argument("--batch", type=whole_number(MOST), default=1, metavar="SEQUENCES",
                        help="batch size (default: %(default)s)")
    parser.add_argument("--memory", type=with_unit(SIZES), metavar="SIZE", help="most memory, such as 500MB or 4GB")
    parser.add_argument("--latency", type=with_unit(TIMES), metavar="TIME",
                        help="most time for the whole batch, such as 50ms or 1.5s")
    parser.add_argument("--max-loss", type=share, metavar="LOSS",
                        help="how much of the primary measure may be lost, 0 to 1 (default: its margin)")
    parser.add_argument("--work", choices=["generate", "forward"], default="generate",
                        help="what is timed: writing summaries, or one forward pass (default: %(default)s)")
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE",
                        help="a file of `h2h publish`, such as docs/results/h200-news.json (default: the last run)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON, in ms and MB (2**20 bytes)")


def _add_summarize(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=summarize)
    parser.description = ("Write the summary of each article as a line of JSON: id, summary, model, tokens (of the "
                          "article), cut (how many of them did not fit), cut_share, key (what it was made from).")
    parser.add_argument("files", metavar="FILE", nargs="*",
                        help="text (.txt, one article each), CSV, TSV, JSON, JSON Lines, Parquet or Arrow; without any "
                             "or for -, standard input: JSON Lines, or one text")
    parser.add_argument("--model", required=True, help="folder of a trained model: models/VARIANT/SEED; or auto: for "
                        "each article the one of the last run that h2h choose takes at its length")
    parser.add_argument("--latency", type=with_unit(TIMES), metavar="TIME",
                        help="with --model auto: most time for an article by itself, such as 50ms")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write here instead of to standard output; if the "
                        "command is stopped, the same command goes on where it was")
    parser.add_argument("--stream", action="store_true", help="show each summary on standard output as it is written; "
                        "greedy, one article at a time")
    parser.add_argument("--column", help="of the articles in a table; found by its usual names (article, text, ...)")
    parser.add_argument("--encoding", help="of the files, by Python's name; detected, and on standard input UTF-8")
    for flag, most, what in (
            ("--max-length", MOST, "tokens of article and summary together; an article is cut to fit"),
            ("--max-new-tokens", MOST, "tokens of a summary"), ("--beams", 64, "of the search; 1 is greedy"),
            ("--batch-size", MOST, "articles summarized at once; lower it if memory runs out")):
        parser.add_argument(flag, type=whole_number(most), metavar="N",
                            help=f"{what} (default: as in the model's training)")


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=doctor)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", dest="as_json", help="the same, for programs")
    what.add_argument("--measure", action="store_true",
                      help="on a GPU: time every backend that can do the run's work, for later runs to choose by")
    parser.add_argument("--preset", metavar="NAME",
                        help="with --measure: whose model and sizes (default: that of params.yaml)")
    parser.add_argument("--seconds", type=whole_number(MOST), metavar="N",
                        help="with --measure: begin nothing after so many; the same command goes on later")


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=publish)
    parser.add_argument("target", metavar="TARGET", type=Path, help="what to write: TARGET.md, TARGET.json and TARGET/")
    parser.add_argument("--command", required=True, help="what was typed to run it")
    parser.add_argument("--took", required=True, help="how long that took")
    parser.add_argument("--commit", help="commit of the code that ran, if it was not this repository as it is")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=bench)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; rows already there are kept")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--family", action="store_const", const="family", dest="kind",
                       help="every kind of variant, each beside flash")
    kinds.add_argument("--sizes", action="store_const", const="sizes", dest="kind",
                       help="GPT-2 small, medium, large and XL, by the number of parameters")
    parser.add_argument("--render", action="store_true", help="measure nothing: make the page again from the rows")
    parser.add_argument("--commit", help="commit of the code that runs, if it is not this repository as it is")


if __name__ == "__main__":
    main()
