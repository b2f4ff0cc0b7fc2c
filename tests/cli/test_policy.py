"""`statfed policy`, `statfed holder`, `statfed codebook pin` and `--rules`, as a holder's people type them."""

import json
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.client.data.drafting import to_toml
from statfed.client.guard.explaining import keys, terms_in, verdict
from statfed.client.guard.policy import Dataset, Parties, load_policy, write_policy
from statfed.client.holder import Holder
from statfed.core.codebook import load_codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.identity import Identity
from statfed.core.pilot.proposals import Proposal, make_proposal
from statfed.core.study import make_study
from statfed.federation import Federation
from statfed.federation.homes import policy_of
from tests.universe import CODEBOOK, people

Call = Callable[[str], Result]
INIT = "policy init --data people.parquet --name office --home home"
STUDY = """
method = "mean"
codebook = "people.codebook.toml"
options = {{ columns = ["income"] }}
holders = {{ office = "x", b = "y", c = "z" }}
{more}
[protection]
name = "{protection}"
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `statfed` in a folder with data and a codebook. No command ends in a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    people(400).to_parquet("people.parquet")
    Path("people.codebook.toml").write_text(to_toml(CODEBOOK))

    def run(words: str) -> Result:
        result = CliRunner().invoke(app, shlex.split(words))
        assert "internal error" not in result.stderr, result.stderr
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("template", ["strict", "standard"])
def test_a_policy_begins_from_a_template_and_the_holder_opens_with_it(call: Call, template: str) -> None:
    made = call(f"{INIT} --template {template} --codebook people.codebook.toml")
    assert made.exit_code == 0, made.stderr
    policy = Holder(Path("home")).policy
    assert policy.dataset.codebooks == (load_codebook(Path("people.codebook.toml")).digest(),)
    assert (policy.dataset.records, policy.budget.unit) == (400, "person")
    assert policy.allow.without_privacy == (template == "standard")
    assert Path("home/policy.toml").stat().st_mode & 0o777 == 0o600
    again = call(f"{INIT} --template {template} --codebook people.codebook.toml")
    assert again.exit_code == 2
    assert "exists; want a home without a policy" in again.stderr
    assert document(call("policy check --home home --json"))["findings"] == [
        "identity.key: none yet; want statfed identity"
    ]


def test_a_template_that_pins_wants_a_codebook_that_the_data_fit(call: Call) -> None:
    assert "--codebook: got none for standard" in call(f"{INIT} --template standard").stderr
    text = Path("people.codebook.toml").read_text().replace("200000", "10")
    Path("narrow.codebook.toml").write_text(text)
    said = call(f"{INIT} --template standard --codebook narrow.codebook.toml")
    assert said.exit_code == 2
    assert "income: got values above the codebook's bound" in said.stderr
    assert not Path("home/policy.toml").exists()


def test_a_rehearsal_is_checked_as_what_it_is(call: Call) -> None:
    assert call(f"{INIT} --template rehearsal").exit_code == 0
    found = document(call("policy check --home home --json"))["findings"]
    for key in (
        "refusals.explain",
        "allow.public_seed",
        "allow.protections",
        "allow.without_privacy",
        "minimum.holders",
    ):
        assert any(one.startswith(key) for one in found), key
    Path("home/policy.toml").chmod(0o644)
    said = call("policy check --home home")
    assert said.exit_code == 2
    assert "chmod 600 home/policy.toml" in said.stderr


def test_explain_says_what_would_be_refused_and_why_without_reading_data(call: Call) -> None:
    call(f"{INIT} --template standard --codebook people.codebook.toml")
    Path("people.parquet").unlink()
    Path("good.toml").write_text(STUDY.format(more="", protection="secure-aggregation"))
    Path("bad.toml").write_text(STUDY.format(more="seed = 1", protection="plain"))
    assert "would be admitted" in call("policy explain good.toml --home home").stdout
    said = call("policy explain bad.toml --home home")
    assert said.exit_code == 3
    assert "protection: got plain, not allowed" in said.stdout
    assert "seed: got a public seed" in said.stdout
    shown = call("policy explain --home home").stdout
    assert "exact figures: at most 5,000" in shown
    assert "what they tell: one text, no reason" in shown


def proposed(study: Path) -> Path:
    """A signed proposal of a study file, beside it."""
    terms, now = terms_in(study), datetime.now(UTC).replace(microsecond=0)
    proposal = Proposal(
        pilot="trade",
        number=7,
        title="",
        purpose="",
        method=terms.method,
        parties=terms.holders,
        study="{}",
        terms=terms.model_dump_json(),
        digest=terms.digest(),
        runs=1,
        made=now,
        until=now + timedelta(days=1),
        protocol=1,
    )
    made = study.with_suffix(".json")
    made.write_text(make_proposal(proposal, Identity.ephemeral("coordinator")).text)
    return made


def test_every_reason_is_told_at_once_with_the_key_that_decides_it(call: Call) -> None:
    call(f"{INIT} --template strict --codebook people.codebook.toml")
    path = Path("home/policy.toml")
    path.write_text(path.read_text().replace("columns = 1000 ", "columns = 3 ").replace("asks = 200", "asks = 1"))
    Path("bad.toml").write_text(
        STUDY.format(more='where = ["age >= 18"]\nseed = 1', protection="plain")
        .replace('"mean"', '"ols"')
        .replace('columns = ["income"]', 'formula = "income ~ exp(age)"')
        .replace("office", "a")
    )
    wanted = {
        "limits.columns", "allow.protections", "allow.functions", "allow.without_privacy", "allow.public_seed", "",
    }  # fmt: skip
    for study in ("bad.toml", proposed(Path("bad.toml"))):
        said = call(f"policy explain {study} --home home --json")
        assert said.exit_code == 3
        assert {one["key"] for one in json.loads(said.stdout)["reasons"]} == wanted
    shown = call("policy explain bad.toml --home home").stdout
    assert "in the policy: limits.columns" in shown
    assert "nothing admits it; the study has to change" in shown  # it does not name this holder


def test_a_proposal_that_was_changed_or_is_none_is_not_explained(call: Call) -> None:
    call(f"{INIT} --template standard --codebook people.codebook.toml")
    Path("good.toml").write_text(STUDY.format(more="", protection="secure-aggregation"))
    assert document(call(f"policy explain {proposed(Path('good.toml'))} --home home --json"))["admitted"]
    text = Path("good.json").read_text()
    Path("good.json").write_text(text.replace("secure-aggregation", "secret-aggregation"))
    said = call("policy explain good.json --home home")
    assert said.exit_code == 2
    assert "does not fit its signature" in said.stderr
    Path("good.json").write_text("[" * 2000)
    assert "got no readable JSON" in call("policy explain good.json --home home").stderr


def test_a_study_that_waits_for_a_person_or_has_a_standing_approval_is_said_to(call: Call) -> None:
    call(f"{INIT} --template standard --codebook people.codebook.toml")
    Path("good.toml").write_text(STUDY.format(more="", protection="secure-aggregation"))
    terms, policy = terms_in(Path("good.toml")), load_policy(Path("home/policy.toml"))
    assert "standing approval (monthly means)" in verdict(policy, terms, "monthly means").lines()[0]
    assert "in a pilot once people here have approved it" in verdict(policy, terms, "").lines()[0]
    assert "approv" not in verdict(policy, terms).lines()[0]
    refused = terms.model_copy(update={"seed": 1})
    assert verdict(policy, refused, "monthly means").approval is None  # none goes beyond the policy


def test_each_key_of_a_policy_is_explained_by_name_or_by_section(call: Call) -> None:
    call(f"{INIT} --template standard --codebook people.codebook.toml")
    assert "most distinct exact figures" in call("policy explain --key limits.figures --home home").stdout
    said = document(call("policy explain --key limits --key parties --home home --json"))["keys"]
    assert {"limits.asks", "parties"} <= {one["key"] for one in said}
    assert all(one["what"] for one in said)
    assert "want one of holder.name" in call("policy explain --key limits.figure --home home").stderr
    written = Path("home/policy.toml").read_text()
    assert {key.rpartition(".")[2] for key in keys() if key != "parties"} <= set(
        re.findall(r"^(?:# )?(\w+)", written, re.M)
    )


def test_a_study_is_rehearsed_from_the_terminal_with_what_the_docs_say(call: Call) -> None:
    call(f"{INIT} --template standard --codebook people.codebook.toml")
    noise = "[privacy]\nepsilon = 1\nunit = 'person'\n"
    Path("good.toml").write_text(STUDY.format(more="", protection="secure-aggregation") + noise)
    found = document(call("policy rehearse good.toml --home home --records 50 --json"))
    docs = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    (line,) = (line for line in docs.splitlines() if line.startswith("| `policy rehearse STUDY`"))
    assert all(f'"{key}"' in line for key in found)
    assert (found["answer"], found["cost"]["more"]) == ("runs", 3)
    Path("bad.toml").write_text(STUDY.format(more="", protection="plain") + noise)
    said = call("policy rehearse bad.toml --home home --records 50")
    assert said.exit_code == 3
    for part in ("would be refused", "protection: got plain", "What would leave here", "with noise", "Who learns what"):
        assert part in said.stdout, part


OPERATORS = {"eq", "isAnyOf", "lteq"}


@pytest.mark.parametrize("template", ["strict", "standard", "rehearsal"])
def test_an_odrl_offer_has_what_the_standard_wants_and_no_secret(call: Call, template: str) -> None:
    call(f"{INIT} --template {template} --codebook people.codebook.toml --dataset secret-name")
    path = Path("home/policy.toml")
    text = path.read_text().replace("minimum_frequency = 10", "minimum_frequency = 7654")
    path.write_text(re.sub(r"(?m)^records = (10|1) ", "records = 7653 ", text))
    assert "7653" in path.read_text()
    said = call("policy export --home home -o policy.jsonld")
    assert said.exit_code == 0, said.stderr
    written = Path("policy.jsonld").read_text()
    for secret in ("7654", "7653", "people.parquet", "secret-name"):
        assert secret not in written
    offer = json.loads(written)
    assert offer["@context"][0] == "http://www.w3.org/ns/odrl.jsonld"
    assert offer["@type"] == "Offer"
    assert all(offer[key] for key in ("uid", "profile", "assigner", "target"))  # an Offer wants each
    assert len(offer["permission"]) == (1 if template == "strict" else 2)
    for rule in offer["permission"]:
        assert isinstance(rule["action"], str)  # one action a rule
        for one in rule["constraint"]:
            assert set(one) == {"leftOperand", "operator", "rightOperand"}
            assert one["operator"] in OPERATORS
    private = {one["leftOperand"]: one["rightOperand"] for one in offer["permission"][0]["constraint"]}
    epsilon = {"strict": "1", "standard": "3", "rehearsal": "20"}[template]
    assert private["statfed:lifetimeEpsilon"] == {"@value": epsilon, "@type": "xsd:decimal"}
    assert ("statfed:method" in private) == (template != "rehearsal")
    assert call("policy export --home home -o policy.jsonld").exit_code == 2  # no file is replaced unasked


def test_a_codebook_is_pinned_beside_others_or_instead_of_them(call: Call) -> None:
    call(f"{INIT} --template standard --codebook people.codebook.toml")
    text = Path("people.codebook.toml").read_text()
    Path("new.codebook.toml").write_text(text.replace("200000", "300000"))
    old, new = (load_codebook(Path(f"{name}.codebook.toml")).digest() for name in ("people", "new"))
    assert document(call("codebook pin new.codebook.toml --home home --json"))["codebooks"] == [old, new]
    assert load_policy(Path("home/policy.toml")).dataset.codebooks == (old, new)
    assert "# SHA-256 digests of the codebooks" in Path("home/policy.toml").read_text()
    call("codebook pin new.codebook.toml --home home --only")
    assert load_policy(Path("home/policy.toml")).dataset.codebooks == (new,)


def ask(rules: str, **more: Any) -> Federation:
    holders = {name: people(300, seed) for seed, name in enumerate(("a", "b", "c"))}
    return Federation(holders, CODEBOOK, rules=rules, protection="secure-aggregation", **more)  # type: ignore[arg-type]


def test_simulated_holders_under_standard_answer_the_ordinary_and_refuse_without_a_reason(tmp_path: Path) -> None:
    with ask("standard", workspace=tmp_path / "ws") as federation:
        assert federation.count(by="sex").to_dict()
        with pytest.raises(Refused) as caught:
            federation.count(by="sex", where="income >= 199999")
        assert "minimum" not in str(caught.value)
        ids = re.findall(r"refusal ([0-9a-f]{12})", str(caught.value))
        assert len(ids) >= 1
        with pytest.raises(Refused, match="weight: got hours"):
            federation.mean("income", weight="hours")
    told = [
        CliRunner().invoke(app, ["holder", "why", name, "--home", str(home)])
        for home in (tmp_path / "ws" / "tables").iterdir()
        if (home / "refusals.jsonl").exists()
        for name in ids
    ]
    assert any("minimum frequency" in one.stdout for one in told if one.exit_code == 0)
    (home, *_) = (home for home in (tmp_path / "ws" / "tables").iterdir() if (home / "refusals.jsonl").exists())
    listed = CliRunner().invoke(app, ["holder", "refusals", "--home", str(home), "--json"])
    assert [one["method"] for one in json.loads(listed.stdout)["refusals"]] == ["count"]


def test_simulated_holders_under_strict_answer_with_noise_only() -> None:
    with ask("strict") as federation:
        with pytest.raises(Refused, match="without differential privacy is not allowed"):
            federation.count()
        noise = {"epsilon": 1.0, "noise": "shared", "unit": "person"}
        assert federation.count(privacy=noise).to_dict()


def test_an_implausible_rule_of_simulated_holders_is_wrong_usage() -> None:
    study = make_study({"method": "count", "holders": {"a": "a.csv"}, "simulation": {"disclosure": {"p_percent": 0.1}}})
    with pytest.raises(UsageError, match=r"simulation.disclosure: p_percent: implausible: got 0.1; want 1 to 100"):
        policy_of(study, "a", Dataset(id="a", path="a.csv", records=9, persons=9), Parties(), ())


def test_rules_of_the_command_line_reach_the_simulated_holders(call: Call) -> None:
    for name in "abc":
        people(300, ord(name)).to_parquet(f"{name}.parquet")
    words = (
        "analyse count --codebook people.codebook.toml --holder a=a.parquet --holder b=b.parquet --holder c=c.parquet"
    )
    said = call(f"{words} --rules standard")
    assert said.exit_code == 3
    assert "protection: got plain, not allowed" in said.stderr
    answered = call(f"{words} --rules standard --protect secure-aggregation")
    assert answered.exit_code == 0
    said_once = " ".join(answered.stdout.split())  # lines are as long as the terminal is wide
    assert re.search(r"exact figures given, .*: a \d+ of 5,000, b \d+ of 5,000, c", said_once)


def test_a_private_study_wants_a_codebook_that_was_not_drafted_from_the_data(call: Call) -> None:
    words = "analyse count --holder a=people.parquet --privacy epsilon=1"
    said = call(words)
    assert said.exit_code == 2
    assert "codebook that is drafted from the data" in said.stderr
    assert "statfed codebook infer" in said.stderr
    assert call(f"{words} --codebook people.codebook.toml").exit_code == 0


def test_a_draft_that_an_exact_question_left_is_no_codebook_for_a_private_one() -> None:
    with Federation({"a": people(100), "b": people(100, 1)}) as federation:
        federation.count()
        assert federation.codebook is not None
        with pytest.raises(UsageError, match="drafted from the data"):
            federation.count(privacy=1.0)
        with pytest.raises(UsageError, match="drafted from the data"):
            federation.count(privacy={"margin_of_error": 50.0})
    with Federation({"a": people(100), "b": people(100, 1)}, federation.codebook) as checked:
        assert checked.count(privacy=1.0).to_dict()


def test_writing_a_policy_keeps_what_it_says(call: Call) -> None:
    call(f"{INIT} --template strict --codebook people.codebook.toml")
    path = Path("home/policy.toml")
    before = load_policy(path)
    write_policy(before, path)
    assert load_policy(path) == before
