"""Logs of several parties held against each other: what one has noted of another is in the other's log, or was.

Each finding says what signatures prove, and `against` whom: whoever has signed both sides of it. Where one side is
somebody's word alone, either of the two may be wrong, and the words say so. A head counts as that of the named party
only where its key is that party's: as the caller knows it, else as the party's own log has it. Whatever somebody
writes into its own log under another's name convicts nobody else.

Logs are taken as `audit.verify` found them; of one that is wrong, the entries before the first wrong one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from statfed.core.pilot.audit import COORDINATOR, Checked, Entry, Head
from statfed.core.pilot.witness import Noted, noted

RECEIVED, ANSWERED = "received", "answered"
SENT, REPLIED = "sent", "replied"
JOINED, SIGNED = "joined", "signed"
Owners = Mapping[str, str | None]
"""Keys by name; None for a name that several keys claim."""


@dataclass(frozen=True)
class Contradiction:
    """What two logs say that cannot both be. whose: the log that it stands in; at: its entry; what: in words; against:
    who has signed both sides of it; empty where it is one of two, and signatures do not tell which."""

    whose: str
    at: int
    what: str
    against: str = ""


def cross_check(logs: Sequence[Checked], keys: Mapping[str, str] | None = None) -> tuple[Contradiction, ...]:
    """Contradictions between logs, the first of each kind of each pair of log and log that it is about.

    keys: those that the caller knows, by name.
    """
    read = [log for log in logs if log.owner is not None]
    owners = _owners(read, keys or {})
    return tuple(
        dict.fromkeys(
            (*_names(read, owners), *_same_owner(read, owners), *_heads(read, owners), *_messages(read, owners))
        )
    )


def _owners(logs: Sequence[Checked], keys: Mapping[str, str]) -> Owners:
    """Whose key is which: as the caller knows it, else as logs say it of themselves."""
    claimed: dict[str, set[str]] = {}
    for log in logs:
        name, key = _owner(log)
        claimed.setdefault(name, set()).add(key)
    return {name: min(found) if len(found) == 1 else None for name, found in claimed.items()} | dict(keys)


def _called(whose: str, key: str, owners: Owners) -> str:
    """The name of a key's owner, where it is known; with the key where that is somebody's word."""
    if owners.get(whose, key) != key or any(known == key and name != whose for name, known in owners.items()):
        return f"whoever has key {key[:16]}"
    return whose if whose in owners else f"{whose} (key {key[:16]})"


def _names(logs: Sequence[Checked], owners: Owners) -> Iterator[Contradiction]:
    """A name is one party's."""
    for name in (name for name, key in owners.items() if key is None):
        paths = ", ".join(str(log.path) for log in logs if _owner(log)[0] == name)
        yield Contradiction(name, 0, f"{paths}: logs of {name} by several keys; one at most is its own: compare keys")


def _same_owner(logs: Sequence[Checked], owners: Owners) -> Iterator[Contradiction]:
    """Two logs of one key have to be one log, of which one may go on."""
    first: dict[str, Checked] = {}
    for log in logs:
        name, key = _owner(log)
        other = first.setdefault(key, log)
        for mine, theirs in zip(log.entries, other.entries, strict=False):
            if mine.hash != theirs.hash:
                who = _called(name, key, owners)
                yield Contradiction(name, mine.seq, f"{log.path} and {other.path} are two histories of {who}", who)
                break
        if len(log.entries) > len(other.entries):
            first[key] = log


def _heads(logs: Sequence[Checked], owners: Owners) -> Iterator[Contradiction]:
    """Heads that others have noted, against the logs that they are of, and against each other."""
    of: dict[str, Checked] = {}
    for log in logs:
        key = _owner(log)[1]
        if key not in of or len(log.entries) >= len(of[key].entries):
            of[key] = log
    seen: dict[tuple[str, int], tuple[str, str]] = {}
    said: set[tuple[str, str, str]] = set()
    called = cache(lambda whose, key: _called(whose, key, owners))
    for log in logs:
        who, pins = _owner(log)[0], _pinned(log)
        for entry, one in _noted(log):
            head, whose = one.head, called(one.whose, one.head.key)
            found = list(_misnamed(one, who, pins, owners))
            if not found:
                found = list(_against(of.get(head.key), head, whose, who))
                other, by = (
                    seen.setdefault((head.key, head.seq), (head.hash, who)) if _signed(head) else (head.hash, who)
                )
                if other != head.hash and not any(against == whose for _, against in found):
                    what = f"{whose} has shown {by} and {who} two different entries {head.seq}, both signed by key"
                    found.append((f"{what} {head.key[:16]}", whose))
            for what, against in found:
                if (who, one.whose, against) not in said:
                    said.add((who, one.whose, against))
                    yield Contradiction(who, entry.seq, what, against)


def _misnamed(one: Noted, who: str, pins: Mapping[str, set[str]], owners: Owners) -> Iterator[tuple[str, str]]:
    """What is wrong with the name of a head's owner, and against whom that is.

    pins: the keys that `who`, by its own log, has ever had for each name.
    """
    key, whose, mine = one.head.key, one.whose, pins.get(one.whose, set())
    known = owners.get(whose)
    if mine and key not in mine:
        yield f"{who} has noted a head as {whose}'s by key {key[:16]}, which by its own log is not {whose}'s", who
    elif known is not None and key != known and known not in mine:
        yield (
            f"{who} has noted a head as {whose}'s by key {key[:16]}, another key than {whose}'s here, {known[:16]}: "
            f"one of the two is not {whose}'s, or it has had both; compare keys with {whose}",
            "",
        )


def _against(log: Checked | None, head: Head, whose: str, who: str) -> Iterator[tuple[str, str]]:
    """What is wrong with a head, given the log that it is of, and against whom that is."""
    mine = log.entries[head.seq] if log is not None and head.seq < len(log.entries) else None
    if mine is not None and (mine.hash, mine.signature) == (head.hash, head.signature):
        return
    if not _signed(head):
        yield f"{who} has noted a head of {whose} that {whose} has not signed", who
    elif mine is not None and mine.hash != head.hash:
        yield (
            f"equivocation: entry {head.seq} of {whose}'s log is another than the one that {who} has noted, and both "
            f"are signed by {whose}",
            whose,
        )
    elif mine is None and log is not None and log.wrong is None:
        yield (
            f"truncated: {whose}'s log ends with entry {len(log.entries) - 1}; {who} has noted its entry {head.seq}, "
            f"signed by {whose}: {log.path} is an older copy, or entries were taken out",
            "",
        )


def _messages(logs: Sequence[Checked], owners: Owners) -> Iterator[Contradiction]:
    """A message that a party has received, or the coordinator a reply, stands in the log of whoever sent it, before
    the head that came with it. That it came is the receiver's word alone."""
    whole = {_owner(log)[1]: log for log in logs if log.wrong is None}
    sent: dict[str, dict[tuple[str, str], int]] = {}
    for key, log in whole.items():
        for entry in _of(log, SENT, ANSWERED):  # the first of several alike
            to = str(entry.facts.get("to", COORDINATOR))
            sent.setdefault(key, {}).setdefault((str(entry.facts.get("digest")), to), entry.seq)
    for log in logs:
        who, pins, done = _owner(log)[0], _pinned(log), set[str]()
        for entry in _of(log, RECEIVED, REPLIED):
            whose = COORDINATOR if entry.kind == RECEIVED else str(entry.facts.get("from"))
            heads = [
                one.head
                for one in noted(entry)
                if one.whose == whose and one.head.key in whole and not [*_misnamed(one, who, pins, owners)]
            ]
            if not heads or whose in done or heads[0].seq >= len(whole[heads[0].key].entries):
                continue
            to = who if entry.kind == RECEIVED else COORDINATOR
            at = sent.get(heads[0].key, {}).get((str(entry.facts.get("digest")), to))
            if at is None or at > heads[0].seq:
                done.add(whose)
                whose = _called(whose, heads[0].key, owners)
                yield Contradiction(
                    who,
                    entry.seq,
                    f"{who} says that it has a message of {whose} that {whose} has not recorded: {whose} has left it "
                    f"out, or {who} has made it up",
                )


def _pinned(log: Checked) -> dict[str, set[str]]:
    """The keys that a log's owner, as it says there, has ever had for each name."""
    found: dict[str, set[str]] = {}
    for entry in _of(log, JOINED, SIGNED):
        facts = entry.facts
        if entry.kind == SIGNED:
            pairs = [(facts.get("name"), facts.get("identity"))]
        else:
            parties = facts.get("parties")
            pairs = [(COORDINATOR, facts.get("coordinator"))]
            pairs += list(parties.items()) if isinstance(parties, Mapping) else []
        for name, key in pairs:
            found.setdefault(str(name), set()).add(str(key))
    return found


def _owner(log: Checked) -> tuple[str, str]:
    """Name and key, as the log itself says."""
    assert log.owner is not None  # noqa: S101  others were left out
    return log.owner.name, log.owner.key


def _of(log: Checked, *kinds: str) -> Iterable[Entry]:
    return (entry for entry in log.entries if entry.kind in kinds)


def _noted(log: Checked) -> Iterator[tuple[Entry, Noted]]:
    return ((entry, one) for entry in log.entries for one in noted(entry))


@lru_cache(maxsize=65536)
def _signed(head: Head) -> bool:
    return head.signed()
