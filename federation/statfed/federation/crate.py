"""A log and what belongs to it as a Five Safes RO-Crate: a BagIt bag whose payload describes itself in JSON-LD.

Sources: Five Safes RO-Crate 0.4 (Soiland-Reyes et al. 2023), which asks for RO-Crate 1.2; RFC 8493 for the bag. The
workflow is what every run carries: the bundle that names installed modules. Runs are its `CreateAction`s, decisions of
the parties the sign-offs, the release's rules the disclosure checks, and the check of the log's chain a check of
values. Persons are not known here: who asks and who decides are organisations.
"""

import hashlib
import json
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from statfed.core import VERSION
from statfed.core.pilot.audit import FILE
from statfed.core.pilot.bundle import bundle, bundle_digest
from statfed.federation.dossier import digest_of

PROFILE = "https://w3id.org/5s-crate/0.4"
WORKFLOW_PROFILE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
SPECIFICATION, OLDER = "https://w3id.org/ro/crate/1.2", "https://w3id.org/ro/crate/1.1"
LICENCE = "https://spdx.org/licenses/Apache-2.0.html"
METADATA, PLAIN = "ro-crate-metadata.json", "audit.json"
STATUS = "http://schema.org/{}ActionStatus"
SHP = "https://w3id.org/shp#{}"
SHA512 = "https://www.iana.org/assignments/named-information#sha-512"
_WORKFLOW, _PROJECT, _RULES = "workflow/", "#project", "#agreement"

Thing = dict[str, Any]


def bag(dossier: Mapping[str, Any], log: Path, documents: Mapping[str, Path]) -> dict[str, bytes]:
    """The files of the bag, by name. dossier: as `statfed.federation.dossier` makes it; documents: by name."""
    payload = {FILE: log.read_bytes(), PLAIN: _text(dossier), f"{_WORKFLOW}bundle.zip": bundle()}
    payload |= {name: path.read_bytes() for name, path in documents.items()}
    payload[f"{_WORKFLOW}{METADATA}"] = _text(_workflow())
    payload[METADATA] = _text(_crate(dossier, payload))
    files = {f"data/{name}": content for name, content in sorted(payload.items())}
    size = sum(map(len, files.values()))
    tags = {
        "bagit.txt": b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n",
        "bag-info.txt": (
            f"External-Identifier: {uuid.uuid4().urn}\nBagging-Date: {dossier['exported'][:10]}\n"
            f"Bag-Software-Agent: statfed {VERSION}\nPayload-Oxum: {size}.{len(files)}\n"
        ).encode(),
        "manifest-sha512.txt": _manifest(files),
    }
    return files | tags | {"tagmanifest-sha512.txt": _manifest(tags)}


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a bag as a folder, which must not be there."""
    target.mkdir(mode=0o700)
    for name, content in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)


def write_zip(target: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Write a bag as a zip archive with one folder of this name."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(f"{name}/{path}", content)


def _crate(dossier: Mapping[str, Any], payload: Mapping[str, bytes]) -> Thing:
    """The metadata file."""
    owner = dossier["owner"]
    pilot, exported = owner["pilot"], dossier["exported"]
    organisations = {name: f"#organisation-{name}" for name in _organisations(dossier)}
    proposals = _proposals(dossier, payload)
    runs = [_run(one, proposals.get(str(one["study"])), organisations["coordinator"]) for one in dossier["runs"]]
    here = organisations[owner["name"]]
    actions = [
        *runs,
        *_sign_offs(dossier, organisations),
        *_disclosure_checks(dossier, here),
        _chain_check(dossier, here),
        _manifests(exported, here),
    ]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Audit of {owner['name']} in the pilot {pilot}",
        "description": f"Signed log of {owner['name']} ({dossier['log']['entries']} entries), with what it is about: "
        "documents of the pilot, studies and decisions, who learned what, by which rules and at what cost. No data.",
        "datePublished": exported,
        "license": _ref("#access"),
        "conformsTo": _ref(PROFILE),
        "publisher": _ref(here),
        "sourceOrganization": _ref(_PROJECT),
        "mainEntity": _ref(_WORKFLOW),
        "hasPart": [_ref(name) for name in sorted(payload) if not name.startswith(_WORKFLOW)] + [_ref(_WORKFLOW)],
        "mentions": [_ref(one["@id"]) for one in actions],
    }
    return {
        "@context": f"{SPECIFICATION}/context",
        "@graph": [
            {
                "@id": METADATA,
                "@type": "CreativeWork",
                "about": _ref("./"),
                "conformsTo": _ref(SPECIFICATION),
            },
            root,
            {"@id": PROFILE, "@type": "Profile", "name": "Five Safes RO-Crate profile"},
            {
                "@id": "#access",
                "@type": "CreativeWork",
                "name": "As the parties of the pilot agreed",
                "description": "Names of parties, digests and sizes of messages; not for publication without consent.",
            },
            {
                "@id": _WORKFLOW,
                "@type": "Dataset",
                "name": "Bundle of every run: names installed modules, holds no code",
                "conformsTo": _ref(WORKFLOW_PROFILE),
                "hasPart": [_ref(f"{_WORKFLOW}bundle.zip"), _ref(f"{_WORKFLOW}{METADATA}")],
            },
            {
                "@id": _PROJECT,
                "@type": "Project",
                "name": f"Pilot {pilot}",
                "member": [_ref(one) for one in organisations.values()],
            },
            *(
                {"@id": place, "@type": "Organization", "name": name, "memberOf": _ref(_PROJECT)}
                for name, place in organisations.items()
            ),
            {"@id": _RULES, "@type": "CreativeWork", "name": f"Policies of the parties of {pilot}; each keeps its own"},
            {"@id": SHA512, "@type": "DefinedTerm", "name": "sha-512 algorithm"},
            {"@id": "#study", "@type": "FormalParameter", "name": "study", "additionalType": "File"},
            *(_file(name, content) for name, content in sorted(payload.items())),
            *actions,
        ],
    }


def _workflow() -> Thing:
    """The metadata file of the nested Workflow RO-Crate, whose profile asks for RO-Crate 1.1."""
    return {
        "@context": f"{OLDER}/context",
        "@graph": [
            {
                "@id": METADATA,
                "@type": "CreativeWork",
                "about": _ref("./"),
                "conformsTo": [_ref(OLDER), _ref(WORKFLOW_PROFILE)],
            },
            {
                "@id": "./",
                "@type": "Dataset",
                "name": "statfed bundle",
                "description": "Names the modules that are installed at each party; holds no code",
                "datePublished": "1980-01-01",
                "license": _ref(LICENCE),
                "mainEntity": _ref("bundle.zip"),
                "hasPart": _ref("bundle.zip"),
            },
            {
                "@id": LICENCE,
                "@type": "CreativeWork",
                "name": "Apache License 2.0",
                "description": "Of the bundle; see the root of this crate for the rest",
            },
            {
                "@id": "bundle.zip",
                "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
                "name": "Federated study",
                "description": f"SHA-256 {bundle_digest()}: the only bundle that a party takes",
                "contentSize": str(len(bundle())),
                "programmingLanguage": _ref("#flower"),
                "encodingFormat": "application/zip",
            },
            {
                "@id": "#flower",
                "@type": "ComputerLanguage",
                "name": "Flower app bundle",
                "url": _ref("https://flower.ai/"),
                "version": version("flwr"),
            },
        ],
    }


def _file(name: str, content: bytes) -> Thing:
    """A data entity. Its digest is in the bag's manifest."""
    said = {FILE: "Signed log, one entry a line", PLAIN: "All of this as one JSON document"}
    form = {".json": "application/json", ".jsonl": "application/jsonl", ".zip": "application/zip"}
    thing: Thing = {
        "@id": name,
        "@type": "File",
        "name": name,
        "description": said.get(name, "As it was signed, or as every run carries it"),
        "contentSize": str(len(content)),
        "encodingFormat": form.get(Path(name).suffix, "application/json"),
    }
    return thing | ({"exampleOfWork": _ref("#study")} if name.endswith("proposal.json") else {})


def _proposals(dossier: Mapping[str, Any], payload: Iterable[str]) -> dict[str, str]:
    """The file of each proposal, by the digest of its study."""
    files = {int(name.split("/")[1]): name for name in payload if name.endswith("/proposal.json")}
    return {
        digest_of(study): files[int(number)] for number, study in dossier["studies"].items() if int(number) in files
    }


def _run(run: Mapping[str, Any], proposal: str | None, coordinator: str) -> Thing:
    """A run as the workflow's execution."""
    state = "Completed" if run["released"] and not run["errors"] else "Failed"
    return {
        "@id": f"#run-{uuid.uuid5(uuid.NAMESPACE_URL, str(run['run']))}",
        "@type": "CreateAction",
        "name": f"Run {run['run']} of study {run['study']}: {run['messages']} messages, {run['errors']} errors",
        "actionStatus": STATUS.format(state),
        "startTime": run["begun"],
        "endTime": run["ended"],
        "agent": _ref(coordinator),
        "instrument": _ref(_WORKFLOW),
        "object": _ref(proposal) if proposal else [],
        "result": _ref(FILE),
    }


def _sign_offs(dossier: Mapping[str, Any], organisations: Mapping[str, str]) -> list[Thing]:
    """Each party's decision on each study."""
    found = []
    for number, study in sorted(dossier["studies"].items(), key=lambda item: int(item[0])):
        for name, document in sorted(study.items()):
            body = document.get("body", {})
            if not isinstance(body, Mapping) or "choice" not in body or body.get("party") not in organisations:
                continue
            state = "Completed" if body["choice"] == "approved" else "Failed"
            found.append(
                {
                    "@id": f"#sign-off-{number}-{name.removesuffix('.json').replace('/', '-')}",
                    "@type": "AssessAction",
                    "additionalType": _ref(SHP.format("SignOff")),
                    "name": f"Study {number}: {body['choice']} by {body['party']}",
                    "endTime": str(body.get("at", dossier["exported"])),
                    "object": [_ref("./"), _ref(_WORKFLOW), _ref(_PROJECT)],
                    "instrument": _ref(_RULES),
                    "agent": _ref(organisations[body["party"]]),
                    "actionStatus": STATUS.format(state),
                }
            )
    return found


def _disclosure_checks(dossier: Mapping[str, Any], agent: str) -> list[Thing]:
    """The release's rules, which ran before a result was given."""
    return [
        {
            "@id": f"#disclosure-{uuid.uuid5(uuid.NAMESPACE_URL, str(one['run']))}",
            "@type": "AssessAction",
            "additionalType": _ref(SHP.format("DisclosureCheck")),
            "name": f"Disclosure control of run {one['run']}: {json.dumps(one['disclosure'], sort_keys=True)[:200]}",
            "endTime": str(one["created"]),
            "object": _ref("./"),
            "agent": _ref(agent),
            "actionStatus": STATUS.format("Completed"),
        }
        for one in dossier["disclosure"]
    ]


def _chain_check(dossier: Mapping[str, Any], agent: str) -> Thing:
    """Was the log right when it was exported?"""
    wrong = dossier["log"]["wrong"]
    return {
        "@id": "#check-log",
        "@type": "AssessAction",
        "additionalType": _ref(SHP.format("CheckValue")),
        "name": f"Hash chain and signatures of the log: {wrong or 'as they were written'}",
        "endTime": dossier["exported"],
        "object": [_ref("./"), _ref(FILE)],
        "agent": _ref(agent),
        "actionStatus": STATUS.format("Failed" if wrong else "Completed"),
    }


def _manifests(exported: str, agent: str) -> Thing:
    return {
        "@id": "#manifests",
        "@type": "UpdateAction",
        "additionalType": _ref(SHP.format("GenerateCheckValue")),
        "name": "BagIt manifests written",
        "startTime": exported,
        "object": _ref("./"),
        "instrument": _ref(SHA512),
        "agent": _ref(agent),
        "actionStatus": STATUS.format("Completed"),
    }


def _organisations(dossier: Mapping[str, Any]) -> list[str]:
    """Everybody that is named."""
    names = {"coordinator", dossier["owner"]["name"], *(one["whose"] for one in dossier["log"]["others"])}
    names |= {name for run in dossier["runs"] for name in run["parties"]}
    bodies = [d.get("body", {}) for study in dossier["studies"].values() for d in study.values()]
    return sorted(names | {str(body["party"]) for body in bodies if isinstance(body, Mapping) and "party" in body})


def _manifest(files: Mapping[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha512(content).hexdigest()}  {name}\n" for name, content in files.items()).encode()


def _ref(place: str) -> Thing:
    return {"@id": place}


def _text(document: object) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
