"""How a stage runs: arguments, detail on request, and one clear message when it fails."""

import argparse
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

LOGS = Path("logs")


def run(main: Callable[..., None]) -> None:
    """Call a stage's `main` with the variant's name where one is given on the command line.

    On an error its message alone is printed, with the log file that holds the traceback, and the exit code is 1.
    """
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("variant", nargs="*", help="name of the variant, in stages that run once for each")
    parser.add_argument("-v", "--verbose", action="store_true", help="say in detail what is done")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(name)s: %(message)s")
    try:
        main(*arguments.variant)
    except Exception as error:
        log = LOGS / f"{'-'.join([name, *arguments.variant])}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
        sys.exit(f"{error}\n({type(error).__name__}; traceback in {log})")
