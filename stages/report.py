"""Build the report, its figures and the headline from what the other stages wrote."""

from headtohead.params import read_params
from headtohead.progress import console
from headtohead.reporting import build
from headtohead.stage import run


def main() -> None:
    build(read_params())
    console.print("The comparison is in report/report.html; `h2h show` prints its main table.")


if __name__ == "__main__":
    run(main)
