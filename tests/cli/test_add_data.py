"""`statfed holder add-data`: from data to a policy in one step, as a party of a pilot types it."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.client.data.drafting import to_toml
from statfed.client.guard.policy import load_policy
from statfed.client.holder import Holder
from statfed.client.third_party import load_party
from statfed.core.codebook import load_codebook
from tests.universe import CODEBOOK, people

Ask = Callable[..., Any]
ADD = "holder add-data people.parquet --codebook people.codebook.toml --home istat"


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run `statfed ... --json` beside data and a codebook; wants an exit code and gives the document."""
    monkeypatch.chdir(tmp_path)
    people(400).to_parquet("people.parquet")
    Path("people.codebook.toml").write_text(to_toml(CODEBOOK))

    def run(words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [*shlex.split(words), "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if code == 0 else json.loads(result.stdout)["error"]["message"]

    return run


@pytest.fixture
def joined(ask: Ask) -> Ask:
    """A pilot of two holders and a key holder, whose party `istat` has joined."""
    hub = ask("pilot init trade --host hub.example")
    words = {"coordinator": hub["words"]}
    for name, more in (("istat", ""), ("cbs", ""), ("key-holder", "--third-party")):
        words[name] = ask(f"pilot request --name {name} --home {name} {more}")["words"]
    told = {name: f"--words '{one}'" for name, one in words.items()}
    parties = " ".join(told[name] for name in ("istat", "cbs", "key-holder"))
    kits = ask(f"pilot sign istat.request cbs.request key-holder.request {parties}")["kits"]
    others = " ".join(told[name] for name in ("coordinator", "cbs", "key-holder"))
    ask(f"pilot join {kits['istat']} --home istat {others}")
    return ask


def test_the_name_is_that_of_the_pilot_and_the_codebook_is_pinned(joined: Ask) -> None:
    made = joined(ADD)
    assert (made["holder"], made["template"], made["records"]) == ("istat", "standard", 400)
    policy = Holder(Path("istat")).policy
    assert policy.dataset.path == str(Path("people.parquet").absolute())  # referred to, from wherever it is run
    assert policy.dataset.codebooks == (load_codebook(Path("people.codebook.toml")).digest(),)
    assert Path("istat/policy.toml").stat().st_mode & 0o777 == 0o600
    assert "want istat" in joined(f"{ADD} --name insee", code=2)


def test_what_this_pilot_could_not_do_under_the_policy_is_said(joined: Ask) -> None:
    found = joined(ADD)["findings"]
    assert any(one.startswith("minimum.holders: trade has 2 data holders") for one in found), found
    assert any("homomorphic-encryption wants a key holder" in one and "key-holder" in one for one in found), found
    Path("istat/policy.toml").unlink()
    found = joined(f"{ADD} --third-party key-holder")["findings"]
    assert not any("homomorphic-encryption" in one for one in found), found
    assert load_policy(Path("istat/policy.toml")).allow.third_parties == ("key-holder",)


def test_a_request_is_enough_for_the_name_and_without_one_it_is_asked_for(ask: Ask) -> None:
    assert "want --name, or statfed pilot request" in ask(ADD, code=2)
    assert not Path("istat").exists()
    ask("pilot request --name istat --home istat")
    assert ask(ADD)["holder"] == "istat"


def test_data_that_do_not_fit_leave_nothing_behind(ask: Ask) -> None:
    Path("people.codebook.toml").write_text(to_toml(CODEBOOK).replace("200000", "10"))
    said = ask(f"{ADD} --name istat --copy", code=2)
    assert "income: got values above the codebook's bound" in said
    assert not Path("istat").exists()


def test_a_copy_is_its_owners_alone_and_never_takes_a_place(ask: Ask) -> None:
    Path("people.parquet").chmod(0o644)
    ask(f"{ADD} --name istat --copy")
    copy = Path("istat/people.parquet")
    assert copy.read_bytes() == Path("people.parquet").read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert load_policy(Path("istat/policy.toml")).dataset.path == "people.parquet"
    before = copy.read_bytes()
    people(300, 1).to_parquet("people.parquet")
    assert "is there" in ask(f"{ADD} --replace --copy", code=2)
    assert copy.read_bytes() == before


@pytest.mark.parametrize("kind", ["folder", "copied-folder", "database"])
def test_folders_and_databases_are_data_too(ask: Ask, kind: str) -> None:
    if kind == "database":
        with duckdb.connect("all.duckdb") as made:
            made.execute("create table people as select * from 'people.parquet'")
        source = "duckdb:///all.duckdb?table=people"
        assert "want a file or a folder" in ask(ADD.replace("people.parquet", f"'{source}'") + " --name i --copy", 2)
    else:
        source = "parts"
        Path(source).mkdir()
        people(250).to_parquet("parts/a.parquet")
        people(150, 1).assign(person=[f"q{i}" for i in range(150)]).to_parquet("parts/b.parquet")
    more = "--copy" if kind == "copied-folder" else ""
    assert ask(ADD.replace("people.parquet", f"'{source}'") + f" --name istat {more}")["records"] == 400
    with Holder(Path("istat")).ledger() as ledger:
        assert ledger.dataset == "istat"
    if more:
        assert [one.stat().st_mode & 0o777 for one in sorted(Path("istat/parts").iterdir())] == [0o600, 0o600]


def test_a_newer_state_keeps_policy_ledger_and_budget_and_other_data_are_refused(ask: Ask) -> None:
    ask(f"{ADD} --name istat --epsilon 2")
    with Holder(Path("istat")).ledger() as ledger:
        ledger.disclose("run", "s" * 64, 1, "mean", figures=3)
        head = ledger.head()
    people(500, 3).to_parquet("newer.parquet")
    newer = ADD.replace("people.parquet", "newer.parquet")
    assert "--replace for a newer state" in ask(newer, code=2)
    assert "the policy is kept" in ask(f"{newer} --replace --template strict", code=2)
    assert "kept as it is" in ask(f"{newer} --replace --epsilon 9", code=2)
    made = ask(f"{newer} --name istat --replace")
    assert made["records"] == 500
    policy = load_policy(Path("istat/policy.toml"))
    assert (policy.dataset.id, policy.budget.epsilon) == ("istat", 2.0)
    with Holder(Path("istat")).ledger() as ledger:
        assert ledger.head() == head
    Path("record.codebook.toml").write_text(to_toml(CODEBOOK).replace('role = "unit"', ""))
    said = ask(f"{newer.replace('people.codebook', 'record.codebook')} --name istat --replace", code=2)
    assert "want one per person" in said


def test_a_policy_that_was_lost_is_written_anew_with_the_budget_of_the_ledger(ask: Ask) -> None:
    ask(f"{ADD} --name istat --epsilon 2 --dataset labour-force")
    with Holder(Path("istat")).ledger() as ledger:
        ledger.disclose("run", "s" * 64, 1, "mean", figures=3)
    Path("istat/policy.toml").unlink()
    assert "got a ledger of labour-force" in ask(f"{ADD} --name istat --dataset other", code=2)
    ask(f"{ADD} --name istat")
    policy = load_policy(Path("istat/policy.toml"))
    assert (policy.dataset.id, policy.budget.epsilon) == ("labour-force", 2.0)  # not the template's 3


def test_a_third_party_gets_its_file_with_its_request_and_no_data(ask: Ask) -> None:
    ask("pilot request --name key-holder --third-party --home keys")
    party = load_party(Path("keys/party.toml"))
    assert (party.party.name, party.allow.protections) == ("key-holder", ("homomorphic-encryption",))
    assert party.allow.minimum_holders == 3
    said = ask(ADD.replace("istat", "keys"), code=2)
    assert "third party, which holds no data" in said
    assert not Path("keys/policy.toml").exists()
    said = ask("pilot request --name office --third-party --home office", code=2)
    assert "want some of fuzzy, helper, homomorphic-encryption, multi-party" in said
    assert not Path("office").exists()
    ask("pilot request --name office --third-party --protection multi-party --home office")
    Path("office/party.toml").write_text(Path("office/party.toml").read_text().replace("= 3", "= 5"))
    ask("pilot request --name office --third-party --protection multi-party --home office")  # again: kept
    assert load_party(Path("office/party.toml")).allow.minimum_holders == 5
    ask("pilot request --name helper --third-party --home helps")
    assert load_party(Path("helps/party.toml")).allow.protections == ("fuzzy", "helper")
    assert load_party(Path("helps/party.toml")).allow.minimum_holders == 2
    assert "holds data" not in ask("pilot request --name x --protection multi-party --home x", code=2)
