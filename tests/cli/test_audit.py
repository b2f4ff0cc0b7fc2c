"""`statfed audit`: what is wrong is an exit code and the number of an entry, and an exported crate proves as much."""

import hashlib
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from statfed.cli._output import out, table
from statfed.cli.main import app
from statfed.core import VERSION
from statfed.core.identity import create_identity, load_identity
from statfed.core.pilot import PROTOCOL, audit
from statfed.core.pilot.crosscheck import RECEIVED, REPLIED, SENT
from statfed.core.pilot.papers import make_roster, read_roster
from statfed.core.pilot.proposals import (
    Decision,
    Proposal,
    make_decision,
    make_proposal,
    read_decision,
    read_proposal,
)
from statfed.core.pilot.witness import HEADS, Noted
from tests.conftest import toy_terms

TERMS = toy_terms()


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command beside a coordinator's folder and two homes that have joined; its JSON document."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> Any:
        found = CliRunner().invoke(app, [*words, "--json"])
        assert found.exit_code == code, found.output
        return json.loads(found.stdout)

    hub = run("pilot", "init", "trade", "--host", "127.0.0.1", "--port", "1")["words"]
    said = [run("pilot", "request", "--name", name, "--home", name)["words"] for name in ("istat", "cbs")]
    given = [word for one in (hub, *said) for word in ("--words", one)]
    run("pilot", "sign", "istat.request", "cbs.request", *given[2:])
    for place, name in enumerate(("istat", "cbs")):
        others = given[:2] + given[2 * (2 - place) : 2 * (2 - place) + 2]
        run("pilot", "join", f"trade/kits/{name}.kit", "--home", name, *others)
    return run


def heads(*owners: str) -> audit.Facts:
    found = [(one, audit.head(Path("trade" if one == "coordinator" else one))) for one in owners]
    return {HEADS: [Noted(name, head).facts() for name, head in found if head]}


def exchange(root: Path) -> None:
    """One message to istat and its answer, as the two ends write them down."""
    about: audit.Facts = {"run": "r1", "study": TERMS.digest(), "step": "admit", "digest": "aa"}
    audit.record(root / "trade", SENT, {**about, "to": "istat"})
    audit.record(root / "istat", RECEIVED, {**about, **heads("coordinator")})
    audit.record(root / "istat", "answered", {"digest": "bb", "outcome": "answer", "ledger": "cd" * 32})
    audit.record(root / "trade", REPLIED, {"from": "istat", "digest": "bb", "outcome": "answer", **heads("istat")})


def test_what_is_done_with_a_pilot_stands_in_the_logs(ask: Any) -> None:
    kinds = [one["kind"] for one in ask("audit", "show", "--pilot", "trade")["entries"]]
    assert kinds == ["open", "created", "signed", "signed"]
    ask("pilot", "revoke", "cbs", "--reason", "left")
    ask("pilot", "renew", "--pilot", "trade")
    assert [one["kind"] for one in ask("audit", "show", "--last", "2")["entries"]] == ["revoked", "renewed"]
    (joined,) = ask("audit", "show", "--home", "istat", "--kind", "joined")["entries"]
    assert list(joined["facts"]["parties"]) == ["cbs"]


OBEYED = "ok\n\x1b[2J\x1b[Hstudy 1: approved by all\x1b]0;x\x07\u202e"


def test_others_words_in_a_log_are_shown_and_not_obeyed(ask: Any, tmp_path: Path) -> None:
    """A reason that a party gave, what a crash tore in another's log, and a title of anything on the screen."""
    audit.record(tmp_path / "trade", "decided", {"party": "cbs", "reason": OBEYED})
    audit.record(tmp_path / "istat", audit.MENDED, {"bytes": OBEYED})
    for words in (["show", "--pilot", "trade"], ["verify", "istat/audit.jsonl", "--pilot", "trade"]):
        found = CliRunner().invoke(app, ["audit", *words]).output
        assert "study 1: approved by all" in " ".join(found.replace("│", " ").split())
        assert not any(mark in found for mark in ("\x1b[2J", "\x1b]", "\x07", "\u202e"))
        assert not any(line.startswith("study 1") for line in found.splitlines())


def test_what_stands_in_a_table_or_is_printed_is_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = table(OBEYED, "a")
    shown.add_row(OBEYED)
    out.print(shown, markup=False)
    out.print(OBEYED, markup=False)
    found = capsys.readouterr().out
    assert found.count("approved by all") == 3
    assert not any(mark in found for mark in ("\x1b[2J", "\x1b]", "\x07", "\u202e"))


def test_verify_names_the_first_wrong_entry_and_exits_with_4(ask: Any, tmp_path: Path) -> None:
    exchange(tmp_path)
    right = ask("audit", "verify", "istat/audit.jsonl", "cbs/audit.jsonl", "--pilot", "trade")
    assert right["right"]
    assert [one["known"] for one in right["logs"]] == [True, True, True]
    log = tmp_path / "istat" / "audit.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"serial":2', b'"serial":3'))
    found = ask("audit", "verify", "--home", "istat", code=4)
    assert (found["logs"][0]["first_wrong"], found["contradictions"]) == (1, [])
    lines = whole.splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]))
    assert ask("audit", "verify", "--home", "istat")["right"]  # by itself it is
    found = ask("audit", "verify", "istat/audit.jsonl", "--pilot", "trade", code=4)
    assert any("truncated: istat's log" in one["what"] for one in found["contradictions"])
    assert ask("audit", "verify", "nowhere.jsonl", code=2)["error"]["kind"] == "UsageError"


def test_a_log_of_a_known_name_has_to_be_by_the_pinned_key(ask: Any, tmp_path: Path) -> None:
    strange = tmp_path / "elsewhere"
    strange.mkdir()
    create_identity(strange)
    (strange / "pilot.toml").write_text('[pilot]\nname = "trade"\nparty = "cbs"\n')
    audit.record(strange, "did", {})
    found = ask("audit", "verify", "elsewhere/audit.jsonl", "--home", "istat", code=4)
    assert "another key" in found["logs"][1]["wrong"]


@pytest.fixture
def study(tmp_path: Path, ask: Any) -> None:
    """A study, decided on by istat, and its answer, as they lie at the coordinator."""
    exchange(tmp_path)
    place, at = tmp_path / "trade" / "studies" / "0007", datetime(2026, 1, 1, tzinfo=UTC)
    signed = make_proposal(
        Proposal(
            pilot="trade",
            number=7,
            title="Mean age",
            purpose="",
            method=TERMS.method,
            parties=(*TERMS.holders, "istat"),
            study="{}",
            terms=TERMS.model_dump_json(),
            digest=TERMS.digest(),
            runs=1,
            made=at,
            until=at + timedelta(days=1),
            protocol=PROTOCOL,
        ),
        load_identity(tmp_path / "trade", "", {}),
    )
    istat = load_identity(tmp_path / "istat", "istat", {})
    said = make_decision(
        Decision(
            pilot="trade",
            number=7,
            proposal=signed.id,
            study=TERMS.digest(),
            party="istat",
            choice="approved",
            since=at,
            until=at + timedelta(days=1),
            runs=1,
            rounds=1,
            keys={},
            at=at,
        ),
        istat,
    )
    told: audit.Facts = {"number": 7, "proposal": signed.id, "study": TERMS.digest()}
    for home, names in (("trade", ("decisions/istat.json",)), ("istat", ("decision.json", "people/anna.json"))):
        place = tmp_path / home / "studies" / "0007"
        audit.record(tmp_path / home, "proposed", told)
        if home == "istat":
            audit.record(tmp_path / home, "said", {"by": "anna", "choice": "approved", **told})
        audit.record(tmp_path / home, "decided", said.decision.model_dump(mode="json"))
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(said.text)
        (place / "proposal.json").write_text(signed.text)
    place = tmp_path / "trade" / "studies" / "0007"
    (place / "runs" / "r1").mkdir(parents=True)
    answer: dict[str, Any] = {
        "run": "r1",
        "created": "2026-01-01T00:00:00Z",
        "study_digest": TERMS.digest(),
        "disclosure": {"rule": "n"},
    }
    answer |= {"estimates": [{"estimate": 41.5}], "sums": [{"ledger_heads": {"istat": "ef" * 32}}], "learns": []}
    (place / "runs" / "r1" / "result.json").write_text(json.dumps(answer))


def crate(name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(name) as archive:
        return {one.split("/", 1)[1]: archive.read(one) for one in archive.namelist()}


def test_an_exported_crate_is_a_bag_that_describes_itself_as_its_profiles_want(ask: Any, study: None) -> None:
    ask("audit", "export", "-o", "out.zip", "--pilot", "trade", "--study", "7")
    files = crate("out.zip")
    for manifest in ("manifest-sha512.txt", "tagmanifest-sha512.txt"):
        listed = {line[130:]: line[:128] for line in files[manifest].decode().splitlines()}
        assert {name: hashlib.sha512(files[name]).hexdigest() for name in listed} == listed
        assert set(listed) == {
            name
            for name in files
            if name.startswith("data/") == manifest.startswith("manifest") and name != "tagmanifest-sha512.txt"
        }
    assert files["bagit.txt"].startswith(b"BagIt-Version: 1.0\n")
    assert b"External-Identifier: urn:uuid:" in files["bag-info.txt"]
    for folder in ("data/", "data/workflow/"):
        graph = json.loads(files[f"{folder}ro-crate-metadata.json"])["@graph"]
        things = {one["@id"]: one for one in graph}
        assert len(things) == len(graph)
        root = things["./"]
        assert things["ro-crate-metadata.json"]["about"] == {"@id": "./"}
        assert {"name", "description", "datePublished", "license", "mainEntity"} <= set(root)
        named = {ref["@id"] for one in graph for value in one.values() for ref in refs(value)}
        assert {one for one in named if not one.startswith("http")} <= {*things, "workflow/ro-crate-metadata.json"}
        for one in graph:
            if one["@type"] == "File" or "File" in one["@type"]:
                assert folder + one["@id"] in files
    things = {one["@id"]: one for one in json.loads(files["data/ro-crate-metadata.json"])["@graph"]}
    assert things["./"]["conformsTo"] == {"@id": "https://w3id.org/5s-crate/0.4"}
    assert things["ro-crate-metadata.json"]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.2"}
    parts = {ref["@id"] for ref in things["./"]["hasPart"]}
    assert {f"data/{one}" for one in parts if not one.endswith("/")} == {
        name for name in files if name.startswith("data/") and not name.startswith("data/workflow/")
    } - {"data/ro-crate-metadata.json"}
    actions = [things[ref["@id"]] for ref in things["./"]["mentions"]]
    (run,) = [one for one in actions if one["@type"] == "CreateAction"]
    assert run["object"] == {"@id": "studies/0007/proposal.json"}
    assert run["instrument"] == things["./"]["mainEntity"]
    checks = {one["additionalType"]["@id"].rpartition("#")[2] for one in actions if "additionalType" in one}
    assert checks == {"SignOff", "DisclosureCheck", "CheckValue", "GenerateCheckValue"}


def repacked(made: str, files: dict[str, bytes]) -> None:
    """A crate of these files, with manifests that fit them: all that its carrier can do without anybody's key."""
    for manifest, payload in (("manifest-sha512.txt", True), ("tagmanifest-sha512.txt", False)):
        names = [name for name in files if name.startswith("data/") == payload and not name.startswith("tagmanifest")]
        files[manifest] = "".join(f"{hashlib.sha512(files[name]).hexdigest()}  {name}\n" for name in names).encode()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"crate/{name}", content)


EDITS = [
    ("trade", "audit.json", b'"released": false', b'"released": true'),
    ("trade", "audit.json", b'"choice": "approved"', b'"choice": "refused"'),
    ("trade", "audit.json", b"{\n", b'{\n  "format": "another",\n'),
    ("trade", "audit.json", b"{\n", b'{\n  "trusted": true,\n'),
    ("trade", "roster.json", b'"serial": 2', b'"serial": 1'),
    ("trade", "studies/0007/proposal.json", b"Mean age", b"Mean pay"),
    ("trade", "studies/0007/decisions/istat.json", b'"approved"', b'"refused"'),
    ("trade", "studies/0007/decisions/istat.json", None, None),
    ("trade", "studies/0007/decisions/cbs.json", None, b"studies/0007/decisions/istat.json"),
    ("trade", "ro-crate-metadata.json", b"by istat", b"by cbs"),
    ("trade", "studies/007/decisions/istat.json", None, b"studies/0007/decisions/istat.json"),
    ("trade", "workflow/bundle.zip", b"PK", b"PL"),
    ("trade", "workflow/ro-crate-metadata.json", b"statfed bundle", b"another"),
    ("trade", "notes.txt", None, b"data/audit.json"),
    ("istat", "pilot.kit", b'"serial": 2', b'"serial": 3'),
    ("istat", "pilot.kit", None, None),
    ("istat", "studies/0007/proposal.json", None, None),
    ("istat", "studies/0007/decision.json", b'"runs": 1', b'"runs": 9'),
    ("istat", "studies/0007/people/anna.json", b'"approved"', b'"refused"'),
]


@pytest.mark.parametrize(("whose", "name", "old", "new"), EDITS)
def test_what_lies_in_a_crate_fits_its_log_whatever_its_manifest_says(
    ask: Any, study: None, whose: str, name: str, old: bytes | None, new: bytes | None
) -> None:
    ask("audit", "export", "-o", "out.zip", "--pilot" if whose == "trade" else "--home", whose)
    files = crate("out.zip")
    repacked("same.zip", files)
    same = ask("audit", "verify", "same.zip", "--home", "cbs")
    assert any("the exporter's word alone" in one for one in same["logs"][1]["notes"])
    place = f"data/{name}"
    if old is not None and new is not None:
        assert old in files[place]
        files[place] = files[place].replace(old, new, 1)
    elif new is None:
        del files[place]
    else:
        files[place] = next(content for one, content in files.items() if one.endswith(new.decode()))
    repacked("edited.zip", files)
    found = ask("audit", "verify", "edited.zip", "--home", "cbs", code=4)
    assert name in found["logs"][1]["wrong"]
    assert found["logs"][1]["first_wrong"] is None  # the log itself is right


@pytest.mark.parametrize("kind", ["roster.json", "proposal.json", "decisions/istat.json"])
def test_a_document_that_was_signed_and_is_not_the_logs_is_named(ask: Any, study: None, kind: str) -> None:
    """Signed by the right key, and another than the log has: what only its owner can make."""
    ask("audit", "export", "-o", "out.zip", "--pilot", "trade")
    files, place = crate("out.zip"), kind if kind == "roster.json" else f"studies/0007/{kind}"
    text, who = files[f"data/{place}"].decode(), "istat" if "istat" in kind else "trade"
    identity = load_identity(Path(who), "", {})
    if kind == "roster.json":
        roster, _ = read_roster(text, "")
        text = make_roster(roster.model_copy(update={"participants": roster.participants[:1]}), identity)
    elif kind == "proposal.json":
        proposal = read_proposal(text, "").proposal.model_copy(update={"runs": 9})
        text = make_proposal(proposal, identity).text
    else:
        decision = read_decision(text, "").decision.model_copy(update={"runs": 9})
        text = make_decision(decision, identity).text
    files[f"data/{place}"] = text.encode()
    repacked("edited.zip", files)
    found = ask("audit", "verify", "edited.zip", "--home", "cbs", code=4)
    assert found["logs"][1]["wrong"] == f"{place}: is another than the log has"


def test_a_crate_that_says_it_is_of_another_version_is_not_let_through_by_that(ask: Any, study: None) -> None:
    ask("audit", "export", "-o", "out.zip", "--pilot", "trade")
    files = crate("out.zip")
    for name, old, new in (
        ("audit.json", f'"statfed": "{VERSION}"', '"statfed": "9"'),
        ("ro-crate-metadata.json", "by istat", "by cbs"),
    ):
        files[f"data/{name}"] = files[f"data/{name}"].replace(old.encode(), new.encode())
    repacked("edited.zip", files)
    found = ask("audit", "verify", "edited.zip", "--home", "cbs", code=4)
    assert "by its own word 9 has made it" in found["logs"][1]["wrong"]


def test_a_crate_of_one_study_says_which_documents_are_not_in_it(ask: Any, study: None, tmp_path: Path) -> None:
    audit.record(tmp_path / "trade", "proposed", {"number": 8, "proposal": "ab" * 32, "study": "ab" * 32})
    ask("audit", "export", "-o", "out.zip", "--pilot", "trade", "--study", "7")
    found = ask("audit", "verify", "out.zip", "--home", "cbs")
    assert "not in it: documents of the studies 8, which the log has" in found["logs"][1]["notes"]


def refs(value: Any) -> list[dict[str, str]]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict) and "@id" in one]


def test_plain_json_in_a_crate_has_who_learned_what_and_no_figures_keys_or_policies(ask: Any, study: None) -> None:
    ask("audit", "export", "-o", "out.zip", "--pilot", "trade")
    files = crate("out.zip")
    plain = json.loads(files["data/audit.json"])
    assert plain["studies"]["7"]["decisions/istat.json"]["body"]["choice"] == "approved"
    assert plain["disclosure"][0]["ledger_heads"] == {"istat": "ef" * 32}
    assert plain["runs"][0] | {"begun": "", "ended": ""} == {
        "run": "r1",
        "study": TERMS.digest(),
        "begun": "",
        "ended": "",
        "messages": 1,
        "errors": 0,
        "parties": ["istat"],
        "released": False,
    }
    together = b"".join(files.values())
    assert b"41.5" not in together
    for secret in (*Path("trade").rglob("*.key"), Path("istat/identity.key")):
        assert secret.read_bytes().strip() not in together
    ask("audit", "export", "-o", "out.zip", "--pilot", "trade", code=2)
    ask("audit", "export", "-o", "other", "--pilot", "trade", "--study", "8", code=2)


@pytest.mark.parametrize("target", ["out.zip", "out"])
def test_crates_are_verified_like_logs_and_edits_of_any_file_are_found(ask: Any, study: None, target: str) -> None:
    ask("audit", "export", "-o", target, "--pilot", "trade")
    ask("audit", "export", "-o", "party.zip", "--home", "istat")
    assert ask("audit", "verify", target, "party.zip", "--home", "cbs")["right"]
    for name in ("data/audit.json", "data/studies/0007/proposal.json", "data/audit.jsonl"):
        edited("edited", target, name)
        found = ask("audit", "verify", "edited", "--home", "istat", code=4)
        assert "edited" in found["logs"][1]["wrong"]


def edited(to: str, crate: str, name: str) -> None:
    """A copy of a crate with one letter of one file changed."""
    if Path(crate).is_dir():
        for one in Path(crate).rglob("*"):
            if one.is_file():
                place = Path(to) / one.relative_to(crate)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(one.read_bytes())
        (Path(to) / name).write_bytes((Path(to) / name).read_bytes().replace(b"a", b"b", 1))
        return
    with zipfile.ZipFile(crate) as archive, zipfile.ZipFile(to, "w") as made:
        for member in archive.namelist():
            content = archive.read(member)
            made.writestr(member, content.replace(b"a", b"b", 1) if member.endswith(name) else content)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "x/../../y"])
def test_a_crate_whose_manifest_leads_elsewhere_is_refused(ask: Any, name: str) -> None:
    with zipfile.ZipFile("bad.zip", "w") as made:
        made.writestr("bad/manifest-sha512.txt", f"{'0' * 128}  {name}\n")
        made.writestr("bad/data/audit.jsonl", b"")
    assert "manifest that is none" in ask("audit", "verify", "bad.zip", code=2)["error"]["message"]


def test_accepting_another_history_stays_in_the_log(ask: Any) -> None:
    ask("audit", "accept", "nobody", "--reason", "x", "--home", "istat", code=2)
    done = ask("audit", "accept", "coordinator", "--reason", "its disk was lost", "--home", "istat")
    (entry,) = ask("audit", "show", "--home", "istat", "--kind", "accepted")["entries"]
    assert (entry["seq"], entry["facts"]["reason"]) == (done["entry"], "its disk was lost")
