"""The command line: `h2h show` prints the comparison of the last run."""

import argparse
import sys

from headtohead.params import read_params


def main() -> None:
    parser = argparse.ArgumentParser(prog="h2h", description="Which attention should a GPT-2 summarizer use?")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("show", help="print the comparison of the last run and where its report is").set_defaults(
        run=show)
    try:
        parser.parse_args().run()
    except (OSError, ValueError) as error:
        sys.exit(str(error))


def show() -> None:
    from headtohead.reporting import print_comparison
    print_comparison(read_params())
