"""``python -m tests.groundtruth``: print the table; with ``--write``, into docs/."""

from __future__ import annotations

import argparse

from tests.groundtruth.table import PAGE, measure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.groundtruth", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    text = measure()
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
