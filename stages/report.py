"""Build the report, its figures and the headline from what the other stages wrote."""

from headtohead.params import read_params
from headtohead.reporting import build, print_comparison
from headtohead.stage import run


def main() -> None:
    params = read_params()
    build(params)
    print_comparison(params)


if __name__ == "__main__":
    run(main)
