"""A rehearsal tells what a study would do, from codebooks, policy and ledger; it writes nothing and tells no data."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from statfed.client.data.tables import connect, inspect
from statfed.client.guard.beginning import begin
from statfed.client.guard.policy import load_policy, write_policy
from statfed.client.holder import Holder
from statfed.client.third_party import write_party
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.conditions import parse_where
from statfed.core.privacy.accountant import Gaussian
from statfed.core.study import make_study
from statfed.core.terms import Terms
from statfed.federation.generated import generated
from statfed.federation.rehearsal import rehearse
from statfed.federation.rehearsed import Rehearsal
from tests.universe import CODEBOOK, people

PRIVATE = {"epsilon": 1.0, "unit": "person"}
SECURE = "secure-aggregation"


def terms(
    method: str = "mean",
    options: dict[str, Any] | None = None,
    protection: str = SECURE,
    codebooks: dict[str, Codebook] | None = None,
    **more: Any,
) -> Terms:
    """What the coordinator of a pilot proposes."""
    table = {
        "method": method,
        "options": {"columns": ["hours"]} if options is None else options,
        "holders": ["a", "b", "c"],
        "engine": "pilot",
        "codebook": "people.codebook.toml",
        "codebooks": dict.fromkeys(codebooks or {}, "other.codebook.toml"),
        "protection": {"name": protection},
        **more,
    }
    return make_study(table).terms(CODEBOOK, codebooks)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A holder `a` under a template, with 400 records of a seed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATFED_REGISTER", str(tmp_path / "register.sqlite"))

    def make(template: Any = "standard", seed: int = 0) -> Path:
        folder = tmp_path / f"{template}-{seed}"
        folder.mkdir(mode=0o700)
        people(400, seed).to_parquet(folder / "people.parquet")
        begin(folder, template, str(folder / "people.parquet"), CODEBOOK, "a")
        return folder

    return make


def told(rehearsal: Rehearsal) -> dict[str, Any]:
    """All of a rehearsal but times and traffic, which signatures and masks move by some bytes."""
    found = rehearsal.model_dump(exclude={"seconds", "own_seconds", "sent"})
    return found | {"sums": [{**one, "bytes": 0} for one in found["sums"]]}


def test_a_rehearsal_changes_no_byte_of_the_home_or_the_register(home: Callable[..., Path], tmp_path: Path) -> None:
    folder = home()
    with Holder(folder).ledger() as ledger:
        ledger.reserve("old", "s" * 64, 1, Gaussian(noise_multiplier=20.0))
        ledger.charge("old", "s" * 64, 1, Gaussian(noise_multiplier=20.0))
    for name in ("releases.sqlite", "refusals.jsonl", "approvals.json"):
        (folder / name).touch(mode=0o600)
    files = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    assert {"ledger.sqlite", "register.sqlite", "policy.toml"} <= {path.name for path in files}
    for study in (terms(privacy=PRIVATE), terms("count", {"by": ["sex"]})):
        rehearse(study, folder, 200)
        assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == files


def test_what_is_told_depends_on_no_data(home: Callable[..., Path]) -> None:
    study = terms("count", {"by": ["sex"]}, where=["age >= 18"])
    first = rehearse(study, home())
    assert first.answer == "runs"
    gone = home(seed=1)
    (gone / "people.parquet").unlink()
    without = rehearse(study, gone)
    assert without.misfits
    assert without.answer == "refused"
    assert told(without) == {**told(first), "misfits": without.misfits}


def test_data_that_do_not_fit_the_studys_codebook_are_said_without_a_value(home: Callable[..., Path]) -> None:
    folder = home()
    people(400).assign(hours=79.125).assign(age=119).to_parquet(folder / "people.parquet")
    found = rehearse(terms("count", {"by": ["sex"]}, where=["age >= 18", "hours > 1"], privacy=PRIVATE), folder)
    assert found.misfits is not None
    assert any("age: got values above the codebook's bound" in one for one in found.misfits)
    assert "119" not in " ".join(found.lines())
    assert found.answer == "refused"


def test_what_would_leave_is_told_although_the_policy_refuses_it(home: Callable[..., Path]) -> None:
    study = terms("total", {"columns": ["hours"], "by": ["sex"]}, "plain")
    found = rehearse(study, home("strict"))
    assert {one.key for one in found.reasons} == {"allow.protections", "allow.without_privacy"}
    assert (found.answer, found.completed) == ("refused", True)
    (first, second) = found.sums
    assert (first.ask, second.ask) == ("sums", "squares")
    kinds = {part.part: (part.kind, part.shape) for part in first.parts}
    assert kinds["count"] == ("numbers of records by sex", (1, 2))
    assert kinds["y"] == ("sums of values over records", (1, 2))
    assert first.noise == "none"
    assert first.numbers == sum(math.prod(part.shape) for part in first.parts)
    assert found.cost is not None
    assert found.cost.figures == first.numbers + second.numbers
    assert any("each holder" in row.learns or "every holder" in row.learns for row in found.learns)


def test_the_budget_is_that_of_the_true_ledger(home: Callable[..., Path]) -> None:
    folder = home()
    cost = rehearse(terms(privacy=PRIVATE), folder).cost
    assert cost is not None
    assert cost.epsilon == pytest.approx(1.0, rel=1e-3)
    assert cost.more == 3
    assert cost.left == pytest.approx(3.0, rel=1e-3)
    with Holder(folder).ledger() as ledger:
        for run in ("one", "two", "three"):
            ledger.reserve(run, "s" * 64, 1, Gaussian(noise_multiplier=4.0))
            ledger.charge(run, "s" * 64, 1, Gaussian(noise_multiplier=4.0))
    after = rehearse(terms(privacy={**PRIVATE, "epsilon": 2.5}), folder)
    assert after.cost is not None
    assert after.cost.more == 0
    assert after.answer == "refused"
    assert any(one.startswith("budget: ") for one in after.obstacles)
    assert after.completed  # what would leave is told all the same
    assert after.sums[0].noise == "here"


def test_figures_that_the_data_would_not_give_any_more_are_said(home: Callable[..., Path]) -> None:
    folder = home()
    policy = load_policy(folder / "policy.toml")
    limits = policy.limits.model_copy(update={"figures": 27})
    write_policy(policy.model_copy(update={"limits": limits}), folder / "policy.toml")
    with Holder(folder).ledger() as ledger:
        ledger.disclose("old", "s" * 64, 1, "count", figures=25, what="x")
    found = rehearse(terms("count", {}), folder)
    assert found.answer == "refused"
    assert any(one.startswith("limits.figures") for one in found.obstacles)


def test_this_holders_rules_decide_in_the_rehearsal_and_say_so(home: Callable[..., Path]) -> None:
    by = {"columns": ["hours"], "by": ["region", "sex", "stratum"]}
    found = rehearse(terms(options=by), home())
    assert (found.answer, found.completed) == ("depends", False)
    assert any("minimum frequency" in one for one in found.kept_back)
    assert found.sums[-1].refused == 1
    assert rehearse(terms(options=by), home("rehearsal")).answer == "runs"


@pytest.mark.parametrize("protection", ["homomorphic-encryption", "multi-party"])
def test_protections_with_third_parties_are_rehearsed(home: Callable[..., Path], protection: str) -> None:
    found = rehearse(terms("count", {"by": ["sex"]}, protection, privacy=PRIVATE), home(), 200)
    assert found.completed
    assert [one.key for one in found.reasons] == ["allow.third_parties"]
    assert found.third_parties
    assert found.sent > 0


def test_a_third_party_sees_its_own_part(tmp_path: Path) -> None:
    write_party(tmp_path, "key-holder", ["homomorphic-encryption"])
    study = terms("count", {"by": ["sex"]}, "homomorphic-encryption", privacy=PRIVATE)
    found = rehearse(study, tmp_path, 200)
    assert (found.party, found.answer, found.misfits, found.cost) == ("key-holder", "runs", None, None)
    assert found.sent > 0
    other = rehearse(terms("count", {"by": ["sex"]}), tmp_path, 200)
    assert [one.key for one in other.reasons] == ["allow.protections", ""]


def test_training_is_rehearsed_for_a_few_rounds_and_costs_all_of_them(home: Callable[..., Path]) -> None:
    model = {"model": {"name": "dense", "hidden": 1}, "features": ["age", "sex"], "target": "employed"}
    found = rehearse(terms("dp-fedsgd", {**model, "rounds": 40}, privacy=PRIVATE), home())
    assert found.rounds == (2, 40)
    assert [(one.ask, one.times) for one in found.sums] == [("fit", 2)]
    assert found.sums[0].parts[0].kind == "a model or its change, from training"
    assert found.cost is not None
    assert found.cost.epsilon == pytest.approx(1.0, rel=0.05)
    assert found.answer == "runs"


def test_holders_with_other_codebooks_and_conditions_are_rehearsed(home: Callable[..., Path]) -> None:
    table = CODEBOOK.model_dump(mode="json")
    table["columns"]["extra"] = {"type": "date", "low": "2020-01-01", "high": "2020-12-31"}
    where, other = ["age >= 30 and age < 33"], {"b": make_codebook(table)}
    study = terms("count", {"by": ["sex"]}, codebooks=other, where=where, privacy=PRIVATE)
    assert rehearse(study, home()).answer == "runs"


def test_no_home_and_a_study_that_cannot_be(tmp_path: Path) -> None:
    assert rehearse(terms()).answer == "runs"
    found = rehearse(terms(holders=["a", "b"]))
    assert (found.answer, found.completed, found.stopped) == ("refused", False, "")
    assert found.reasons


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"holders": tuple(f"h{i}" for i in range(500))}, "500 holders"),
        ({"codebook": {"type": "array", "length": 10**9, "low": 0, "high": 1}}, "values to generate"),
    ],
)
def test_a_study_that_is_proposed_to_take_a_machine_down_is_not_tried(changes: dict[str, Any], told: str) -> None:
    study = terms("count", {"by": ["sex"]}, "plain", privacy=PRIVATE)
    if "codebook" in changes:
        table = CODEBOOK.model_dump(mode="json")
        table["columns"]["bomb"] = changes["codebook"]
        read = {"features": ["bomb"], "target": "employed", "model": {"name": "dense", "hidden": 1}, "rounds": 2}
        study = study.model_copy(
            update={"codebook": make_codebook(table), "method": "local-sgd", "options": read, "privacy": None}
        )
    else:
        study = study.model_copy(update=changes)
    found = rehearse(study)
    assert told in found.untried
    assert (found.answer, found.obstacles) == ("depends", ())


def test_a_rehearsal_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statfed.federation.rehearsal.LONGEST", -1.0)
    found = rehearse(terms("count", {"by": ["sex"]}, privacy=PRIVATE))
    assert "given up" in found.untried
    assert found.answer == "depends"


def test_arrays_that_a_study_does_not_read_are_not_generated(home: Callable[..., Path]) -> None:
    table = CODEBOOK.model_dump(mode="json")
    table["columns"]["bomb"] = {"type": "array", "length": 10**9}
    study = terms("count", {"by": ["sex"]}, privacy=PRIVATE).model_copy(update={"codebook": make_codebook(table)})
    assert rehearse(study).answer == "runs"


@pytest.mark.parametrize(
    "changes",
    [{"method": "steal"}, {"options": {"columns": ["nothing"]}}, {"options": {"x": 1}}, {"protection": {"name": "no"}}],
)
def test_a_proposal_that_cannot_be_read_here_is_refused_and_can_still_be_looked_at(
    home: Callable[..., Path], changes: dict[str, Any]
) -> None:
    table = terms().model_dump(mode="json") | changes
    found = rehearse(Terms.model_validate(table), home("strict"))
    assert (found.answer, found.records) == ("refused", 0)
    assert len(found.obstacles) == 1
    assert len(found.lines()) == 2


EVERY = make_codebook(
    {
        "columns": {
            "open": {"type": "number"},
            "above": {"type": "number", "low": 3.5},
            "whole": {"type": "integer", "low": 0, "high": 9, "missing": [9.0], "required": True},
            "below": {"type": "integer", "high": -5},
            "born": {"type": "date", "low": "1999-12-30", "high": "2000-01-02"},
            "any-day": {"type": "date"},
            "yes": {"type": "boolean"},
            "code": {"type": "category", "categories": ["01", "02", "99"], "missing": ["99"]},
            "name": {"type": "text", "length": 3},
            "signal": {"type": "array", "length": 4, "low": -1, "high": 1},
            "w": {"type": "integer", "low": 0, "high": 4, "role": "weight"},
            "rep": {"type": "number", "low": 0, "high": 2, "role": "replicate"},
            "half": {"type": "category", "categories": ["x", "y"], "role": "stratum"},
            "cluster": {"type": "id", "role": "psu"},
            "who": {"type": "id", "role": "unit"},
            "key": {"type": "number", "role": "record-key"},
            "point": {"type": "number", "low": 5, "high": 5},
            "huge": {"type": "number", "low": -1.7e308, "high": 1.7e308},
            "long": {"type": "integer", "low": -1e300, "high": 1e300},
            "last": {"type": "date", "low": "9999-12-01"},
        }
    }
)


def test_generated_records_fit_every_type_and_role_of_a_codebook(tmp_path: Path) -> None:
    table = generated(EVERY, 300, "a", EVERY.columns, positive=("whole",))
    for name, made in (("made", table), ("unread", generated(EVERY, 300, "a", ()))):
        pq.write_table(made, tmp_path / f"{name}.parquet")
        with connect(f"{name}.parquet", tmp_path) as source:
            assert inspect(source, EVERY, tuple(EVERY.columns)).mismatches == ()
    assert table.equals(generated(EVERY, 300, "a", EVERY.columns, positive=("whole",)))
    other = generated(EVERY, 300, "b", ("who",))
    assert not set(other["who"].to_pylist()) & set(table["who"].to_pylist())  # persons of one holder alone
    strata = {
        (unit, half) for unit, half in zip(*(table[name].to_pylist() for name in ("cluster", "half")), strict=True)
    }
    assert len({unit for unit, _ in strata}) == len(strata)  # a sampling unit lies in one stratum


@pytest.mark.parametrize(
    "where",
    [
        "whole in 3,4",
        "whole >= 7",
        "open = 2.5",
        "born = 2000-01-01",
        "any-day > 1970-01-05 and any-day <= 1970-01-07",
        "yes = true",
        "code != 01",
        "open is null",
        "below < -900 or below = -5",
    ],
)
def test_half_of_the_records_meet_conditions_that_uniform_ones_would_miss(tmp_path: Path, where: str) -> None:
    from statfed.client.data.tables import open_table

    clauses = parse_where([where], EVERY)
    pq.write_table(generated(EVERY, 100, "a", EVERY.columns, clauses), tmp_path / "made.parquet")
    with connect("made.parquet", tmp_path) as source:
        found = open_table(source, EVERY, clauses, ("w",)).expr.count().to_pyarrow().as_py()
    assert found >= 50
