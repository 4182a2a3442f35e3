"""Writes a document file: `python -m fusion_core.corpus --domain mixed --bytes 60000 --out F`."""

import argparse

from fusion_core.corpus import DOMAINS, SPLITS, text, write


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and writes the file.

    Args:
        arguments: the command line without the program's name; None for those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m fusion_core.corpus", description=__doc__)
    parser.add_argument("--domain", choices=(*DOMAINS, "mixed"), required=True)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--bytes", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    given = parser.parse_args(arguments)
    write(given.out, text(given.domain, given.split, given.bytes, seed=given.seed))


if __name__ == "__main__":
    main()
