"""Logs of several parties held against each other: what one has noted of another is in the other's log, or was.

Each finding is proved by signatures alone. Logs are taken as `audit.verify` found them; of one that is wrong, the
entries before the first wrong one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from statfed.core.pilot.audit import COORDINATOR, Checked, Entry, Head
from statfed.core.pilot.witness import Noted, noted

RECEIVED, ANSWERED = "received", "answered"
SENT, REPLIED = "sent", "replied"


@dataclass(frozen=True)
class Contradiction:
    """What two logs say that cannot both be. whose: the log that it stands in; at: its entry; what: in words."""

    whose: str
    at: int
    what: str


def cross_check(logs: Sequence[Checked]) -> tuple[Contradiction, ...]:
    """Contradictions between logs, the first of each pair of log and log that it is about."""
    return tuple(dict.fromkeys((*_same_owner(logs), *_heads(logs), *_messages(logs))))


def _same_owner(logs: Sequence[Checked]) -> Iterator[Contradiction]:
    """Two logs of one key have to be one log, of which one may go on."""
    first: dict[str, Checked] = {}
    for log in logs:
        if log.owner is None:
            continue
        other = first.setdefault(log.owner.key, log)
        for mine, theirs in zip(log.entries, other.entries, strict=False):
            if mine.hash != theirs.hash:
                yield Contradiction(
                    log.owner.name, mine.seq, f"{log.path} and {other.path} are two histories of {log.owner.name}"
                )
                break
        if len(log.entries) > len(other.entries):
            first[log.owner.key] = log


def _heads(logs: Sequence[Checked]) -> Iterator[Contradiction]:
    """Heads that others have noted, against the logs that they are of, and against each other."""
    of: dict[str, Checked] = {}
    for log in logs:
        if log.owner is not None and len(log.entries) >= len(of[log.owner.key].entries if log.owner.key in of else ()):
            of[log.owner.key] = log
    seen: dict[tuple[str, int], tuple[str, str]] = {}
    names: dict[str, set[str]] = {}
    said: set[tuple[str, str]] = set()
    for log in logs:
        for entry, one in _noted(log):
            who, head = log.owner.name if log.owner else str(log.path), one.head
            names.setdefault(one.whose, set()).add(head.key)
            what = _against(of.get(head.key), one, who)
            other = seen.setdefault((head.key, head.seq), (head.hash, who))
            if what is None and other[0] != head.hash and _signed(head):
                what = f"{one.whose} has shown {other[1]} and {who} two different entries {head.seq}, both signed"
            if what is not None and (who, one.whose) not in said:
                said.add((who, one.whose))
                yield Contradiction(who, entry.seq, what)
    for log in logs:
        if log.owner and (known := names.get(log.owner.name)) and log.owner.key not in known:
            yield Contradiction(
                log.owner.name, 0, f"others know {log.owner.name} by another key than that of {log.path}: not its log"
            )


def _against(log: Checked | None, one: Noted, who: str) -> str | None:
    """What is wrong with a head, given the log that it is of; None where nothing is."""
    head, whose = one.head, one.whose
    if log is not None and head.seq < len(log.entries):
        mine = log.entries[head.seq]
        if (mine.hash, mine.signature) == (head.hash, head.signature):
            return None
        if mine.hash == head.hash and _signed(head):
            return None
    if not _signed(head):
        return f"{who} has noted a head of {whose} that {whose} has not signed"
    if log is None:
        return None
    if head.seq < len(log.entries):
        return (
            f"equivocation: entry {head.seq} of {whose}'s log is another than the one that {who} has noted, and both "
            f"are signed by {whose}"
        )
    if log.wrong is None:
        return (
            f"truncated: {whose}'s log ends with entry {len(log.entries) - 1}; {who} has noted its entry {head.seq}, "
            f"signed by {whose}"
        )
    return None


def _messages(logs: Sequence[Checked]) -> Iterator[Contradiction]:
    """A message that a party has received, or the coordinator a reply, stands in the log of whoever sent it, before
    the head that came with it."""
    whole = {log.owner.key: log for log in logs if log.owner is not None and log.wrong is None}
    sent = {key: {str(e.facts.get("digest")): e.seq for e in _of(log, SENT, ANSWERED)} for key, log in whole.items()}
    for log in logs:
        if log.owner is None:
            continue
        done: set[str] = set()
        for entry in _of(log, RECEIVED, REPLIED):
            whose = COORDINATOR if entry.kind == RECEIVED else str(entry.facts.get("from"))
            heads = [one.head for one in noted(entry) if one.whose == whose and one.head.key in whole]
            if not heads or whose in done or heads[0].seq >= len(whole[heads[0].key].entries):
                continue
            at = sent[heads[0].key].get(str(entry.facts.get("digest")))
            if at is None or at > heads[0].seq:
                done.add(whose)
                yield Contradiction(
                    log.owner.name,
                    entry.seq,
                    f"{log.owner.name} has a message of {whose} that {whose} has not recorded",
                )


def _of(log: Checked, *kinds: str) -> Iterable[Entry]:
    return (entry for entry in log.entries if entry.kind in kinds)


def _noted(log: Checked) -> Iterator[tuple[Entry, Noted]]:
    return ((entry, one) for entry in log.entries for one in noted(entry))


@lru_cache(maxsize=65536)
def _signed(head: Head) -> bool:
    return head.signed()
