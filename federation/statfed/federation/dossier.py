"""What a coordinator or a party of a pilot can show of what was done there: one JSON document, beside the log itself.

It is made of files that are signed or were released, and never of data, keys, or a party's policy, whose thresholds are
secret.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from statfed.client.guard.ledger import read_only
from statfed.core import VERSION
from statfed.core.errors import LedgerCorrupt, UsageError
from statfed.core.pilot import PROTOCOL
from statfed.core.pilot.audit import Checked, Entry
from statfed.core.pilot.bundle import bundle_digest
from statfed.core.pilot.crosscheck import ANSWERED, RECEIVED, REPLIED, SENT
from statfed.core.pilot.witness import noted

FORMAT = "statfed.audit/1"
STUDIES = "studies"
_SIGNED = ("roster.json", "pilot.kit")
_OF_STUDY = ("proposal.json", "decision.json", "decisions/*.json", "people/*.json")
_OF_ANSWER = (
    "run",
    "created",
    "analysis",
    "study_title",
    "study_digest",
    "privacy",
    "disclosure",
    "learns",
    "spending",
    "accountant",
    "versions",
)


def documents(folder: Path, study: int | None = None) -> dict[str, Path]:
    """The signed documents of a folder, by the names under which they are exported. study: of one alone."""
    found = {name: folder / name for name in _SIGNED if (folder / name).is_file()}
    for place in sorted((folder / STUDIES).glob("*")):
        if place.name.isdecimal() and (study is None or int(place.name) == study):
            for pattern in _OF_STUDY:
                found |= {str(path.relative_to(folder)): path for path in sorted(place.glob(pattern))}
    return found


def dossier(folder: Path, log: Checked, study: int | None = None) -> dict[str, Any]:
    """The document. study: of one alone, besides the log, which is whole or proves nothing.

    Raises UsageError where the folder has no such study, or a document cannot be read.
    """
    signed = {name: _json(path) for name, path in documents(folder, study).items()}
    studies: dict[str, dict[str, Any]] = {}
    for name, document in signed.items():
        if name.startswith(f"{STUDIES}/"):
            number, _, rest = name.removeprefix(f"{STUDIES}/").partition("/")
            studies.setdefault(str(int(number)), {})[rest] = document
    if study is not None and str(study) not in studies:
        known = ", ".join(sorted(studies, key=int)) or "none"
        raise UsageError(f"--study: got {study}; want one that is known here: {known}")
    digests = {digest_of(one) for one in studies.values()} if study is not None else None
    return {
        "format": FORMAT,
        "exported": now(),
        "versions": {"statfed": VERSION, "protocol": PROTOCOL, "bundle": bundle_digest(), "flwr": version("flwr")},
        "owner": log.owner.facts() if log.owner else None,
        "log": {
            "entries": len(log.entries),
            "wrong": log.wrong,
            "notes": list(log.notes),
            "head": log.head.facts() if log.head else None,
            "others": [one.facts() for one in _newest(log).values()],
        },
        "signed": {name: document for name, document in signed.items() if not name.startswith(f"{STUDIES}/")},
        "studies": studies,
        "runs": runs_of(log, digests),
        "disclosure": [one for one in _answers(folder) if digests is None or one.get("study_digest") in digests],
        "ledger": _ledger(folder),
    }


def runs_of(log: Checked, studies: set[str] | None = None) -> list[dict[str, Any]]:
    """What the log says of each run. studies: digests of those that are wanted; all, if None."""
    found: dict[str, dict[str, Any]] = {}
    last: dict[str, str] = {}
    for entry in log.entries:
        if entry.kind in (SENT, RECEIVED) and "run" in entry.facts:
            run = last[_with(entry)] = str(entry.facts["run"])
            made = {"run": run, "study": entry.facts.get("study"), "begun": entry.time, "messages": 0, "errors": 0}
            one = found.setdefault(run, made | {"parties": [], "released": False})
            one["messages"] += 1
            one["released"] |= entry.facts.get("step") == "release"
            if entry.kind == SENT and entry.facts.get("to") not in one["parties"]:
                one["parties"].append(entry.facts.get("to"))
        elif entry.kind in (ANSWERED, REPLIED) and _with(entry) in last:
            one = found[last[_with(entry)]]
            one["errors"] += entry.facts.get("outcome") == "error"
            if "ledger" in entry.facts:
                one["ledger"] = entry.facts["ledger"]
        else:
            continue
        one["ended"] = entry.time
    return [one for one in found.values() if studies is None or one["study"] in studies]


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _with(entry: Entry) -> str:
    """The other end of a message, as an entry names it: a party has only one."""
    return str(entry.facts.get("to", entry.facts.get("from", "")))


def _newest(log: Checked) -> dict[str, Any]:
    """The newest head of each other that the log has noted, by key."""
    found: dict[str, Any] = {}
    for entry in log.entries:
        for one in noted(entry):
            if one.head.key not in found or found[one.head.key].head.seq < one.head.seq:
                found[one.head.key] = one
    return found


def digest_of(study: Mapping[str, Any]) -> str:
    """The study's name in logs and ledgers, as its proposal has it."""
    try:
        return str(study["proposal.json"]["body"]["digest"])
    except (KeyError, TypeError):
        return ""


def _answers(folder: Path) -> Iterator[dict[str, Any]]:
    """Of each answer that lies at a coordinator: who learned what, by which rules, and what it cost. No figures."""
    for place in (*folder.glob("runs/*/result.json"), *folder.glob(f"{STUDIES}/*/runs/*/result.json")):
        answer = _json(place)
        heads = {name: head for one in answer.get("sums", ()) for name, head in one.get("ledger_heads", {}).items()}
        yield {name: answer.get(name) for name in _OF_ANSWER} | {"ledger_heads": heads}


def _ledger(home: Path) -> dict[str, Any] | None:
    """A party's ledger: its head, and what was spent. None where it holds no data, or was never asked."""
    path = home / "ledger.sqlite"
    if not path.exists():
        return None
    try:
        with read_only(path) as ledger:
            head = ledger.verify()
            return {"dataset": ledger.dataset, "unit": ledger.unit, "head": head, "spending": asdict(ledger.spending())}
    except LedgerCorrupt as error:
        return {"wrong": str(error)}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no table")
    except (OSError, ValueError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else "no JSON document"
        raise UsageError(f"{path}: cannot be read ({what}); want it as it was written") from None
    return found
