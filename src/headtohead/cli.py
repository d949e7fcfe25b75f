"""The command line: `h2h show` prints the comparison of the last run, `h2h doctor` tries what this machine can run,
`h2h publish` writes the last run as files to commit, and `h2h bench` measures the published benchmark on a GPU."""

import argparse
import json
import sys
from pathlib import Path

from headtohead.caches import keep_in
from headtohead.params import STUDY, read_params


def main() -> None:
    options = vars(_parser().parse_args())
    run = options.pop("run")
    keep_in(Path.cwd())
    try:
        run(**options)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    except ImportError as error:
        sys.exit(f"a library is missing or broken: {error}; set the environment up again: rm -r .venv; make setup")


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
    check = commands.add_parser("doctor", help="say what is here, what will run each variant, and try whether it works")
    check.set_defaults(run=doctor)
    check.add_argument("--json", action="store_true", dest="as_json", help="the same, for programs")
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


if __name__ == "__main__":
    main()
