"""Makes the zoo (`python -m fusion_core.zoo build`) or its table (`… table`)."""

import argparse
from pathlib import Path

from fusion_core.zoo.recipes import RECIPES


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and runs one command.

    Args:
        arguments: the command line without the program's name; None for those of the process.
    """
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(prog="python -m fusion_core.zoo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="train the tokenizers and models")
    build.add_argument("--out", type=Path, default=here, help="where to put the folders")
    build.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    build.add_argument("--steps", type=int, help="stop after so many steps (for a trial)")
    commands.add_parser("table", help="measure the models and renew the table in README.md")
    given = parser.parse_args(arguments)
    if given.command == "build":
        from fusion_core.zoo.build import build as make

        make(given.only, given.out, given.steps)
    else:
        from fusion_core.zoo.table import renew

        renew(here / "README.md")


if __name__ == "__main__":
    main()
