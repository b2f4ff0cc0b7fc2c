"""Hostile inputs: how many were tried, what came of them, and how far one lying holder moves a figure.

    python benchmarks/hostile.py          # 5,000 inputs a target
    python benchmarks/hostile.py 200

Targets: messages of a hostile coordinator at a holder, replies of a hostile holder at the coordinator, objects of
messages at both ends, papers of a pilot, and what else travels (statements, answers, errors, arrays, packets). A fault
is an exception that is none of ours, an error that tells a value or does not name who it is about, a message that is
not printable, a paper with a name that is none, or more work than any input may take. The second table changes one bit
of what one of three holders sends at a time, and has the coordinator go on: what it notices, and the largest change of
the mean of an age from 0 to 120 that it does not. Under the other protections what a holder sends is opened by third
parties, whose replies a kept run has once. Exit status 1 where there is a fault.
"""

import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from flwr.app import Array, Message

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.fuzz import messages, papers, stored
from tests.fuzz.sessions import Recording, recorded, twin
from tests.fuzz.trial import Outcome, Target, tried

from statfed.core.errors import StatfedError

TRAVELS = ("statement", "replies", "failure", "arrays", "packets", "identity key")
PROTECTIONS = ("plain", "secure-aggregation")
LIAR = "cbs"


@dataclass
class Lies:
    """What came of a holder's lies. noticed: that ended the run; moved: figures that were others; furthest: the figure
    farthest from the true one."""

    told: int = 0
    noticed: int = 0
    moved: int = 0
    furthest: float = 0.0
    true: float = 0.0


def everything(folder: Path) -> Iterator[Target]:
    """All targets."""
    yield from messages.targets(folder)
    yield from papers.targets(folder)
    yield from (one for one in stored.targets(folder) if one.name in TRAVELS)


def row(name: str, outcome: Outcome, seconds: float) -> str:
    """One line of the first table."""
    read, faults = outcome.outcomes["read"], outcome.outcomes["fault"]
    refused = outcome.tried - read - faults
    figures = f"{outcome.tried:>8,}{read:>8,}{refused:>9,}{faults:>8,}"
    return f"{name:<24}{figures}{outcome.seconds:>15.2f}{outcome.growth / 2**20:>11.0f}{seconds:>9.0f}"


def lies(recording: Recording) -> Lies:
    """Change one bit of the holder's contribution at a time."""
    kept = [one.reply for one in recording.sent if one.party == LIAR]
    number, reply = next((n, r) for n, r in enumerate(kept, 1) if _carries(r))
    found = Lies(true=_figure(recording, number, reply))
    found.furthest = found.true
    for changed in _flipped(reply):
        found.told += 1
        try:
            figure = _figure(recording, number, changed)
        except StatfedError:
            found.noticed += 1
            continue
        found.moved += figure != found.true
        if abs(figure - found.true) > abs(found.furthest - found.true):
            found.furthest = figure
    return found


def _carries(reply: Message) -> bool:
    return any(len(record) for record in reply.content.array_records.values())


def _flipped(reply: Message) -> Iterator[Message]:
    for key, record in reply.content.array_records.items():
        for name, item in record.items():
            words = np.atleast_1d(item.numpy())
            for place in range(words.size * words.itemsize * 8):
                raw = bytearray(words.tobytes())
                raw[place // 8] ^= 1 << (place % 8)
                made = twin(reply)
                array = np.frombuffer(bytes(raw), words.dtype).reshape(item.shape)
                made.content.array_records[key][name] = Array(array)
                yield made


def _figure(recording: Recording, number: int, instead: Message) -> float:
    node, count = recording.nodes[LIAR], 0

    def change(replies: Sequence[Message]) -> Iterator[Message]:
        nonlocal count
        for reply in replies:
            mine = reply.metadata.src_node_id == node
            count += mine
            yield instead if mine and count == number else reply

    rows: Any = recording.again(change).result.tables["estimates"]
    return float(rows[0]["estimate"])


def main(words: Sequence[str]) -> int:
    """Try everything and write both tables."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    count, faults, total = int(words[0]) if words else 5_000, 0, 0
    heads = f"{'inputs':>8}{'read':>8}{'refused':>9}{'faults':>8}{'worst seconds':>15}{'worst MiB':>11}{'seconds':>9}"
    print(f"{'target':<24}{heads}")
    with TemporaryDirectory(prefix="hostile-") as folder:
        for target in everything(Path(folder)):
            started = time.monotonic()
            with TemporaryDirectory(prefix="hostile-") as scratch:
                outcome = tried(target, count, Path(scratch))
            total += outcome.tried
            print(row(target.name, outcome, time.monotonic() - started), flush=True)
            for what, shown in outcome.faults.items():
                faults += 1
                print(f"  {what}: {shown}", flush=True)
    print(f"{'all':<24}{total:>8,}\n")
    print(f"{'one bit of a holder':<24}{'lies':>8}{'noticed':>9}{'moved':>8}{'true mean':>12}{'furthest':>24}")
    with TemporaryDirectory(prefix="hostile-") as folder:
        for one in recorded(Path(folder), [("mean", {"columns": ["age"]}, name) for name in PROTECTIONS]):
            told = lies(one)
            figures = f"{told.told:>8,}{told.noticed:>9,}{told.moved:>8,}{told.true:>12.4f}{told.furthest:>24,.4f}"
            print(f"{one.study.terms.protection.name:<24}{figures}", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
