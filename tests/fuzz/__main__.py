"""The long form: `python -m tests.fuzz 500` tries 500 inputs a parser, `python -m tests.fuzz 500 formula` of one."""

import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz import commands, messages, papers, records, stored, texts
from tests.fuzz.trial import Outcome, Target, tried

HEADS = ("parser", "tried", "read", "refused", "faults", "most calls", "MiB")


def found(folder: Path) -> dict[str, tuple[Target, ...]]:
    """Every target, by what it is about. folder: where samples are made."""
    return {
        "texts": texts.TARGETS,
        "records": records.targets(folder),
        "stored": stored.targets(folder),
        "commands": commands.TARGETS,
        "papers": papers.targets(folder),
        "messages": messages.targets(folder),
    }


def row(name: str, outcome: Outcome) -> str:
    """One line of the table."""
    read, faults = outcome.outcomes["read"], outcome.outcomes["fault"]
    figures = (outcome.tried, read, outcome.tried - read - faults, faults, outcome.most_calls, outcome.growth >> 20)
    return f"{name:<26}" + "".join(f"{figure:>11,}" for figure in figures)


def heads() -> str:
    """The first line of the table."""
    return f"{HEADS[0]:<26}" + "".join(f"{head:>11}" for head in HEADS[1:])


def all_tried(targets: Iterable[Target], count: int) -> dict[str, Outcome]:
    """Each target by itself, in a folder of its own."""
    outcomes = {}
    for target in targets:
        with TemporaryDirectory(prefix="fuzz-") as folder:
            outcomes[target.name] = tried(target, count, Path(folder))
    return outcomes


def main(words: Sequence[str]) -> int:
    """Try everything, or what is named; says what came out, and every fault with the input that showed it."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    count, named = int(words[0]) if words else 500, words[1:]
    print(heads())  # noqa: T201
    faults = 0
    with TemporaryDirectory(prefix="fuzz-") as folder:
        for target in (one for some in found(Path(folder)).values() for one in some):
            if named and target.name not in named:
                continue
            outcome = all_tried([target], count)[target.name]
            print(row(target.name, outcome), flush=True)  # noqa: T201
            for what, shown in outcome.faults.items():
                faults += 1
                print(f"  {what}: {shown}", flush=True)  # noqa: T201
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
