"""`statfed audit`: what is wrong is an exit code and the number of an entry, and an exported crate proves as much."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.core.identity import create_identity
from statfed.core.pilot import audit
from statfed.core.pilot.crosscheck import RECEIVED, REPLIED, SENT
from statfed.core.pilot.witness import HEADS, Noted


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
    about: audit.Facts = {"run": "r1", "study": "ab" * 32, "step": "admit", "digest": "aa"}
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
    place = tmp_path / "trade" / "studies" / "0007"
    (place / "decisions").mkdir(parents=True)
    body = {"number": 7, "digest": "ab" * 32, "title": "Mean age"}
    (place / "proposal.json").write_text(json.dumps({"body": body}))
    decision = {"choice": "approved", "party": "istat", "at": "2026-01-01T00:00:00Z"}
    (place / "decisions" / "istat.json").write_text(json.dumps({"body": decision}))
    (place / "runs" / "r1").mkdir(parents=True)
    answer: dict[str, Any] = {
        "run": "r1",
        "created": "2026-01-01T00:00:00Z",
        "study_digest": "ab" * 32,
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
        "study": "ab" * 32,
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
