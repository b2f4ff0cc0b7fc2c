"""Refusals that depended on data: one public text for all of them, and the reasons in the holder's own log.

Formal guarantee. To whoever asks, every such refusal is the same bytes but for an id that is drawn at random: which
rule failed, on which column, by how much, or whether it was an error instead, is told to nobody but the holder. What is
left is one bit a question, that it was refused. A holder counts those in its ledger and answers nothing exact once
there are as many as its policy's `limits.refusals` within `limits.days`, so that bisecting by refusals ends after that
many halvings (Dinur and Nissim 2003: without a limit on answers, no rule on single ones is enough). Not claimed: that
the time taken tells nothing.

The log is `refusals.jsonl` in the home folder, mode 0600: one line a refusal, only ever added to.
"""

import datetime as dt
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from statfed.client.guard.files import append_private
from statfed.core.errors import UsageError

FILE = "refusals.jsonl"
SPENT = (
    "limits.refusals: this holder has refused on seeing its data as often as its policy allows within {days:g} days, "
    "and answers nothing exact until they have passed; want noise (a [privacy] section), or to ask later"
)


@dataclass(frozen=True)
class Refusal:
    """One refusal. reason: the whole text, for the holder's eyes; kind: of the error."""

    id: str
    time: str
    run: str
    study: str
    method: str
    step: str
    ask: str
    kind: str
    reason: str


def public(refusal: str) -> str:
    """What whoever asked is told: the same for every refusal but its id."""
    return (
        f"not answered as it is asked at this holder (refusal {refusal}). What may be changed, whatever the data are: "
        "ask with noise (a [privacy] section), for fewer cells, over a larger population, or of a narrower set of "
        f"columns. Its people can read the reason: statfed holder why {refusal}"
    )


def record(home: Path, *, run: str, study: str, method: str, step: str, ask: str, error: BaseException) -> Refusal:
    """Write a refusal into the holder's log."""
    made = Refusal(
        id=secrets.token_hex(6),
        time=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        run=run,
        study=study,
        method=method,
        step=step,
        ask=ask,
        kind=type(error).__name__,
        reason=str(error) or type(error).__name__,
    )
    append_private(home / FILE, json.dumps(asdict(made)))
    return made


def refusals(home: Path) -> list[Refusal]:
    """All refusals in the log, the oldest first. Raises UsageError naming a line that cannot be read."""
    path = home / FILE
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            found.append(Refusal(**json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            raise UsageError(f"{path}: line {number}: got one that is damaged; want it as it was written") from None
    return found


def why(home: Path, refusal: str) -> Refusal:
    """One refusal by its id, or by the beginning of it. Raises UsageError where there is none, or several."""
    found = [one for one in refusals(home) if one.id.startswith(refusal)]
    if len(found) != 1:
        raise UsageError(f"refusal {refusal}: got {len(found)} of that id in {home / FILE}; want one")
    return found[0]
