"""What lies in an exported crate beside the log, against the log: a manifest can be made anew by anybody, the log not.

Documents have to be those that the log has: a kit by its digest, a proposal by its id, a decision by what it says, each
with a signature by the key that the log names. `audit.json` and the crate's metadata are made again from these, and
compared. What nothing in the log speaks of is said to be the exporter's word.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from statfed.core import VERSION
from statfed.core.errors import UsageError, harmless
from statfed.core.pilot.audit import COORDINATOR, FILE, Checked, Entry
from statfed.core.pilot.bundle import bundle
from statfed.core.pilot.documents import LARGEST
from statfed.core.pilot.papers import read_roster
from statfed.core.pilot.proposals import read_decision, read_proposal
from statfed.federation.crate import METADATA, PLAIN, WORKFLOW, metadata, text_of, workflow_metadata
from statfed.federation.dossier import STUDIES, derived

_MOST = 2**28
"""Bytes of a file that is read whole."""
_WORD = "the exporter's word alone"
_EXPORTERS = {"exported", "versions", "disclosure", "ledger"}
Read = Callable[[str], bytes]


def beside(log: Checked, sizes: Mapping[str, int], read: Read) -> tuple[str | None, tuple[str, ...]]:
    """What is wrong with the files of a crate beside its log, the first that is, and what cannot be checked.

    sizes: of all its payload, by name; read: one of them. The log was right.
    """
    if large := [name for name, size in sizes.items() if name != FILE and size > _MOST]:
        return f"{harmless(large[0], 200)}: got more than {_MOST:,} bytes; want an exported crate", ()
    try:
        found: dict[str, Any] = {}
        for name in sorted(set(sizes) - {FILE, PLAIN, METADATA, f"{WORKFLOW}bundle.zip", f"{WORKFLOW}{METADATA}"}):
            _document(log, name, read(name))
            found[name] = json.loads(read(name))
        _complete(log, found)
        return None, tuple(_made(log, found, sizes, read))
    except UsageError as error:
        return harmless(str(error)), ()
    except KeyError as error:
        return f"{error.args[0]} is missing", ()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return f"{PLAIN} or {METADATA} cannot be read", ()


def _document(log: Checked, name: str, content: bytes) -> None:
    """Raise UsageError unless a document is the one that the log has."""
    place, text = PurePosixPath(name), content[: LARGEST + 1].decode("utf-8", "replace")
    if name == "pilot.kit":
        _same(name, sha256(content).hexdigest(), _last(log, name, "joined").facts.get("kit"))
    elif name == "roster.json":
        roster, key = read_roster(text, name)
        _same(name, key, _key(log))
        told = {one.name: one.model_dump(mode="json") for one in roster.participants}
        _same(name, told, _participants(log))
    elif found := re.fullmatch(f"{STUDIES}/([0-9]{{4,7}})/(.+)", name):
        number = int(found[1])
        _same(name, found[1], f"{number:04d}")
        _of_study(log, name, number, place.parts[2:], text)
    else:
        raise UsageError(f"{name}: is nothing that an exported crate has")


def _of_study(log: Checked, name: str, number: int, place: tuple[str, ...], text: str) -> None:
    """The same of a document of a study."""
    party = place[-1].removesuffix(".json")
    if place == ("proposal.json",):
        signed = read_proposal(text, name)
        told = _last(log, name, "proposed", number=number).facts
        _same(name, (signed.id, signed.proposal.digest), (told.get("proposal"), told.get("study")))
        _same(name, signed.key, _key(log) if _office(log) else _last(log, name, "joined").facts.get("coordinator"))
        _same(name, signed.proposal.number, number)
    elif place == ("decision.json",) and not _office(log):
        said = read_decision(text, name)
        _same(name, said.decision.model_dump(mode="json"), _last(log, name, "decided", number=number).facts)
        _same(name, said.key, _key(log))
    elif len(place) == 2 and place[0] == "decisions" and _office(log):
        said = read_decision(text, name)
        _same(
            name, said.decision.model_dump(mode="json"), _last(log, name, "decided", number=number, party=party).facts
        )
        keys = {str(one.facts.get("identity")) for one in _all(log, "signed", name=party)}
        if said.key not in keys:
            raise UsageError(f"{name}: is by another key than any that the log has of {party}")
    elif len(place) == 2 and place[0] == "people" and not _office(log):
        decision = read_decision(text, name).decision
        told = _last(log, name, "said", number=number, by=party).facts
        _same(
            name,
            (decision.number, decision.proposal, decision.choice),
            (told.get("number"), told.get("proposal"), told.get("choice")),
        )
    else:
        raise UsageError(f"{name}: is nothing that an exported crate has")


def _complete(log: Checked, found: Collection[str]) -> None:
    """Raise UsageError where a document is missing that the log has: of the pilot, or of a study that is here."""
    want = {"roster.json"} if _office(log) else {"pilot.kit"} if any(_all(log, "joined")) else set[str]()
    numbers = {int(PurePosixPath(name).parts[1]) for name in found if name.startswith(f"{STUDIES}/")}
    for number in numbers:
        folder = f"{STUDIES}/{number:04d}"
        want.add(f"{folder}/proposal.json")
        for one in _all(log, "decided", number=number):
            want.add(f"{folder}/decisions/{one.facts.get('party')}.json" if _office(log) else f"{folder}/decision.json")
        want |= {f"{folder}/people/{one.facts.get('by')}.json" for one in _all(log, "said", number=number)}
    if missing := sorted(want - set(found)):
        raise UsageError(f"{missing[0]} is missing")


def _made(log: Checked, found: Mapping[str, Any], sizes: Mapping[str, int], read: Read) -> Iterator[str]:
    """Check what the exporter has made of log and documents; tell what cannot be checked. Raises UsageError."""
    content = read(PLAIN)
    plain: dict[str, Any] = json.loads(content.decode("utf-8", "surrogatepass"))
    if content != text_of(plain):  # or a key may stand in it twice
        raise UsageError(f"{PLAIN}: is not in the form in which it is exported")
    want = [_plain(derived(log, found, alone=alone)) for alone in (False, True)]
    told = {name: plain.get(name) for name in want[0]}
    if told not in want:
        wrong = next(name for name in told if told[name] not in [one[name] for one in want])
        raise UsageError(f"{PLAIN}: {wrong} is not what the log and the documents say")
    yield f"not in the log: exported, versions, disclosure and ledger of {PLAIN} are {_WORD}"
    if set(plain) - set(told) != _EXPORTERS:
        raise UsageError(f"{PLAIN}: got other keys than it is exported with")
    rest = {name: size for name, size in sizes.items() if name != METADATA}
    made = {
        f"{WORKFLOW}bundle.zip": bundle(),
        f"{WORKFLOW}{METADATA}": text_of(workflow_metadata(str(plain["versions"].get("flwr")))),
        METADATA: text_of(metadata(plain, rest)),
    }
    if differing := [name for name, content in made.items() if read(name) != content]:
        by = str(plain["versions"].get("statfed"))
        hint = (
            "" if by == VERSION else f" {VERSION}; by its own word {harmless(by, 40)} has made it: verify it with that"
        )
        raise UsageError(f"{differing[0]}: is not what is made of the log and the documents by statfed{hint}")
    if any("/people/" in name for name in found):
        yield "not in the log: keys of people; compare them with [approval] people of that party's policy"
    here = {int(PurePosixPath(name).parts[1]) for name in found if name.startswith(f"{STUDIES}/")}
    proposed = {one.facts.get("number") for one in _all(log, "proposed")}
    if gone := sorted(str(number) for number in proposed - here):
        yield f"not in it: documents of the studies {', '.join(gone)}, which the log has"


def _same(name: str, got: object, want: object) -> None:
    if got != want:
        raise UsageError(f"{name}: is another than the log has")


def _all(log: Checked, kind: str, **facts: object) -> Iterator[Entry]:
    for entry in log.entries:
        if entry.kind == kind and all(entry.facts.get(name) == value for name, value in facts.items()):
            yield entry


def _last(log: Checked, document: str, kind: str, **facts: object) -> Entry:
    """What the log last says of a document. Raises UsageError where it says nothing."""
    found = None
    for found in _all(log, kind, **facts):  # noqa: B007
        pass
    if found is None:
        raise UsageError(f"{document}: is nothing that the log has, which has no entry {kind!r} of it")
    return found


def _participants(log: Checked) -> dict[str, Any]:
    """Who takes part, as the coordinator's log says."""
    found: dict[str, Any] = {}
    for entry in log.entries:
        if entry.kind == "signed":
            found[str(entry.facts.get("name"))] = dict(entry.facts)
        elif entry.kind == "revoked":
            found.pop(str(entry.facts.get("name")), None)
    return found


def _office(log: Checked) -> bool:
    return log.owner is not None and log.owner.role == COORDINATOR


def _key(log: Checked) -> str:
    return log.owner.key if log.owner else ""


def _plain(document: object) -> Any:
    return json.loads(json.dumps(document))
