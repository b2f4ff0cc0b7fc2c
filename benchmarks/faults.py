"""Faults on the real processes of a pilot: what came of each, and whether any budget or release was lost.

    python benchmarks/faults.py [--count 200] [--seed 1] [--json FILE] [--write docs/faults.md]

One pilot of a hub, three holders and a key holder lives through all of them: fault x role x moment, the moments by what
a run has written, or at random from the seed. After each, ledgers, result and releases are compared with a run without
faults. --json: one line a fault as it ends; those that are there already are not tried again, so that a long run can be
made in parts. Exit status 1 where anything is not as it has to be.
"""

import argparse
import json
import os
import re
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.faults.injecting import MOMENTS, faketime
from tests.faults.trial import Outcome, cases, suite
from tests.faults.world import world

_ABOUT = """
One pilot lives through them all: a hub, three holders and a key holder as the processes of `statfed coordinator start`
and `statfed holder start`, each with a line of its own to the hub. `python benchmarks/faults.py --write docs/faults.md`
writes this page. *alone*: the run finished, where need be by trying again itself; *resumed*: it finished after `statfed
resume`; *refused*: it was said clearly that it has to be begun anew. A fault that came after the run's end counts as
alone. A disk without room is one on which these processes can write no file (RLIMIT_FSIZE), their own log included.
"""
FULL = 200
_CLASSES = ("alone", "resumed", "refused", "never ended", "broke")


def facts(outcome: Outcome) -> dict[str, Any]:
    """One line of the record."""
    case = outcome.case
    return {
        "number": case.number,
        "role": case.fault.role,
        "fault": case.fault.what,
        "moment": case.moment,
        "study": case.study,
        "party": case.party,
        "for": case.seconds,
        "how": outcome.how,
        "resumes": outcome.resumes,
        "late": outcome.late,
        "drift": outcome.drift,
        "doubled": outcome.doubled,
        "lost": outcome.lost,
        "wrong": outcome.wrong,
        "held": outcome.held,
        "whole": outcome.whole,
        "said": outcome.said,
        "seconds": round(outcome.seconds, 1),
        "well": outcome.well,
    }


def page(found: Sequence[Mapping[str, Any]], seed: int) -> Iterator[str]:
    """The page, in Markdown."""
    yield "# Faults\n"
    yield _ABOUT.strip()
    how = Counter(one["how"] for one in found)
    total = {key: sum(one[key] for one in found) for key in ("drift", "doubled", "lost", "wrong", "held", "late")}
    minutes = sum(one["seconds"] for one in found) / 60
    yield f"\n{len(found)} faults (seed {seed}), {minutes:.0f} minutes on one machine.\n"
    if len(found) < FULL:
        yield f"This is a part of it: the whole is {FULL} faults or more.\n"
    yield "| what | number |\n| --- | --- |"
    for name in _CLASSES:
        yield f"| {name} | {how[name]} |"
    yield f"| came after the run's end | {total['late']} |"
    yield f"| budget drift: entries of ledgers beyond or short of what was released | {total['drift']} |"
    yield f"| sums charged twice | {total['doubled']} |"
    yield f"| releases lost: paid for by all, and no result | {total['lost']} |"
    yield f"| results other than they have to be | {total['wrong']} |"
    yield f"| holders at which budget is still set aside after a run | {total['held']} |"
    yield "\n## Fault, role, moment\n"
    yield f"| role | fault | {' | '.join(MOMENTS)} |\n| --- | --- | {' | '.join('---' for _ in MOMENTS)} |"
    cells: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for one in found:
        cells[one["role"], one["fault"]][one["moment"]][one["how"]] += 1
    for (role, fault), row in sorted(cells.items()):
        shown = [", ".join(f"{count} {name}" for name, count in row[moment].items()) for moment in MOMENTS]
        yield f"| {role} | {fault} | {' | '.join(shown)} |"
    if faketime() is None:
        yield "\nWrong clocks were not tried: libfaketime is not installed here."
    refusals = Counter(_shape(one["said"]) for one in found if one["how"] == "refused")
    if refusals:
        yield "\n## What was said where a run was refused\n\n| times | said |\n| --- | --- |"
        for said, count in refusals.most_common():
            yield f"| {count} | {said} |"
    if wrong := [one for one in found if not one["well"]]:
        yield "\n## Not as it has to be\n\n| role | fault | moment | study | what |\n| --- | --- | --- | --- | --- |"
        for one in wrong:
            keys = ("drift", "doubled", "lost", "wrong")
            what = ", ".join([one["how"], *(f"{key} {int(one[key])}" for key in keys if one[key])])
            yield f"| {one['role']} | {one['fault']} | {one['moment']} | {one['study']} | {what} |"


def _shape(said: str) -> str:
    """A message without the run's own name."""
    shown = re.sub(r"\d{8}-\d{6}-[a-z-]+-[0-9a-f]{4}(~\d+)?", "RUN", said)
    return shown.replace("|", "&#124;").replace("\n", " ")[:300]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try them; the exit status."""
    parser = argparse.ArgumentParser(description="Faults on the real processes of a pilot.")
    parser.add_argument("--count", type=int, default=FULL)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="record: one line a fault")
    parser.add_argument("--write", type=Path, help="the page, in Markdown")
    parser.add_argument("--folder", type=Path, help="where the pilot lives: a new folder, which is kept")
    given = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where it was started in the background: all processes end
        signal.signal(number, lambda *_: sys.exit(130))
    record = given.json.read_text().splitlines() if given.json and given.json.exists() else []
    there = [json.loads(line) for line in record]
    done = {one["number"] for one in there}
    left = [case for case in cases(given.count, given.seed) if case.number not in done]
    if faketime() is None:
        print("libfaketime: not installed; wrong clocks are not tried", file=sys.stderr)
    if left:
        with tempfile.TemporaryDirectory(prefix="statfed-faults-", ignore_cleanup_errors=True) as temporary:
            folder = given.folder or Path(temporary)
            with world(folder) as pilot:
                for outcome in suite(pilot, left):
                    there.append(facts(outcome))
                    line = json.dumps(there[-1])
                    print(line, flush=True)
                    if given.json:
                        with given.json.open("a", encoding="utf-8") as file:
                            file.write(line + os.linesep)
    if given.write:
        given.write.write_text("\n".join(page(there, given.seed)) + "\n", encoding="utf-8")
    wrong = [one for one in there if not one["well"]]
    print(f"{len(there)} faults, {len(wrong)} not as they have to be", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
