"""Scores on units kept apart: right, within the budget, of bounded persons, with standard errors that hold."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from statfed.client.guard.ledger import read_only
from statfed.core.disclosure import Rules
from statfed.core.errors import UsageError
from statfed.core.method import Ask, Question, Total, read_question
from statfed.core.privacy.accountant import epsilon, event_from_json
from statfed.core.randomness import stream
from statfed.core.resolve import Resolved, resolve
from statfed.core.result import Result
from statfed.core.table import Size, Table
from statfed.federation.models import saved
from statfed.strategies.learning import prepared as prepared_module
from statfed.strategies.learning import scores
from statfed.strategies.learning.inputs import records_of
from statfed.strategies.learning.prepared import Prepared, entries
from tests.strategies.training.tables import CODEBOOK, people, study_of, trained, written
from tests.strategies.training.test_fedsgd import chaotic

HOLDERS = ("a", "b", "c")
LOCAL = {"epsilon": 3.0, "noise": "local"}
SHARED = {"epsilon": 3.0, "noise": "shared"}
HIDDEN = {"name": "secure-aggregation", "minimum_holders": 3}


@pytest.fixture(scope="module")
def holders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return written(tmp_path_factory.mktemp("tables"), {n: people(120, i, each=3) for i, n in enumerate(HOLDERS, 1)})


def kept_apart(holders: Mapping[str, str], share: float) -> pd.DataFrame:
    """The records that the rule keeps apart, found by the rule's own definition."""
    import hashlib

    def far(unit: str) -> bool:
        digest = hashlib.blake2b(unit.encode(), digest_size=4, person=b"statfed.holdout").digest()
        return int.from_bytes(digest, "big") < share * 2**32

    union = pd.concat([pd.read_parquet(path) for path in holders.values()], ignore_index=True)
    return union[union.id.map(far)]


@pytest.mark.parametrize("protection", ["plain", "secure-aggregation"])
def test_exact_scores_are_those_of_the_model_on_the_union_of_the_units_kept_apart(
    holders: dict[str, str], protection: str
) -> None:
    study = study_of(holders, "kind", ["job"], model={"name": "text", "hidden": 1}, holdout=0.3, rounds=2,
                     protection={"name": protection})  # fmt: skip
    answer = trained(study)
    union = kept_apart(holders, 0.3)
    predicted = saved(answer).predict(union).prediction
    model, majority = answer.result.tables["scores"]
    accuracy = float((predicted == union.kind).mean())
    assert model["count"] == majority["count"] == len(union) == answer.result.facts["observations"]
    assert model["accuracy"] == pytest.approx(accuracy)
    assert model["std_error"] == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / len(union)))
    assert model["macro_f1"] == pytest.approx(f1_score(union.kind, predicted, average="macro"))
    assert majority["accuracy"] == pytest.approx(union.kind.value_counts().max() / len(union))
    told = {(row["class"], row["predicted"]): row["count"] for row in answer.result.tables["confusion"]}
    assert told == {(t, p): int(((union.kind == t) & (predicted == p)).sum()) for t, p in told}


def test_exact_errors_of_a_number_are_those_on_the_union_of_the_units_kept_apart(holders: dict[str, str]) -> None:
    answer = trained(study_of(holders, "income", ["age", "region"], holdout=0.3, rounds=5, model={"hidden": 1}))
    union = kept_apart(holders, 0.3)
    off = saved(answer).predict(union).prediction - union.income
    model, mean = answer.result.tables["scores"]
    rmse = math.sqrt((off**2).mean())
    assert model["count"] == len(union)
    assert model["rmse"] == pytest.approx(rmse, rel=1e-5)
    assert model["mae"] == pytest.approx(off.abs().mean(), rel=1e-5)
    deviations = union.income - union.income.mean()
    assert model["r2"] == pytest.approx(1 - (off**2).sum() / (deviations**2).sum(), rel=1e-5)
    assert model["std_error"] == pytest.approx((off**2).std(ddof=0) / math.sqrt(len(off)) / 2 / rmse, rel=1e-4)
    assert mean["rmse"] == pytest.approx(union.income.std(ddof=0), rel=1e-5)


def resolved(
    privacy: dict[str, Any] | None, target: str = "kind", method: str = "dp-fedsgd", features: Any = "age", **more: Any
) -> Resolved:
    protection = HIDDEN if privacy and privacy.get("noise") == "shared" else {"name": "plain"}
    given = {"holdout": 0.25, "model": {"hidden": 1}, "protection": protection, "privacy": privacy} | more
    return resolve(study_of(dict.fromkeys(HOLDERS, "x"), target, features, method, **given).terms(CODEBOOK))


def table_of(study: Resolved, arrays: Mapping[str, list[dict[str, NDArray[Any]]]], seed: int) -> Any:
    """The result that the coordinator makes of holders' exact arrays, with the study's own noise."""
    ask, each = Ask("evaluate"), next(iter(arrays.values()))
    parts, paid = study.parts(ask), study.price(ask, Size(100, 100))
    if paid is None or paid.noise is None:
        total = Total({name: np.sum([one[name] for one in each], 0) for name in parts})
    else:
        units = [paid.noise.units(one, stream(seed, i, "noise")) for i, one in enumerate(each)]
        summed = {name: np.sum([one[name] for one in units], 0) for name in parts}
        total = Total(paid.noise.values(summed, stream(seed)), paid.noise.std(len(each)))
    return scores._scored(study.question, Result("m", "", {}), total).tables["scores"]


def answered(rng: np.random.Generator, table: NDArray[np.float64], count: int) -> dict[str, NDArray[Any]]:
    """Counts of one holder's records that fall into cells of these probabilities."""
    confusion = rng.multinomial(count, table.ravel()).reshape(table.shape)
    right = int(np.trace(confusion))
    return {"answers": np.array([confusion.sum() - right, right]), "confusion": confusion}


@pytest.mark.parametrize("privacy", [None, LOCAL, SHARED], ids=["exact", "local", "shared"])
def test_standard_errors_of_accuracy_are_the_spread_of_repeated_studies(privacy: dict[str, Any] | None) -> None:
    study, rng = resolved(privacy), np.random.default_rng(1)
    table = np.array([[30, 5, 2, 1], [4, 25, 3, 1], [2, 6, 18, 1], [1, 0, 0, 1]]) / 100
    found = [table_of(study, {"x": [answered(rng, table, 400) for _ in HOLDERS]}, seed) for seed in range(400)]
    for row, true in ((0, np.trace(table)), (1, table.sum(1).max())):
        values = np.array([rows[row]["accuracy"] for rows in found])
        errors = np.array([rows[row]["std_error"] for rows in found])
        assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.12)
        assert values.mean() == pytest.approx(true, abs=4 * values.std() / 20 + (0.01 if row else 0.0))
        assert (np.abs(values - true) < 1.96 * errors).mean() > 0.9


@pytest.mark.parametrize("privacy", [None, LOCAL, SHARED], ids=["exact", "local", "shared"])
def test_standard_errors_of_the_root_mean_squared_error_are_the_spread_of_repeated_studies(
    privacy: dict[str, Any] | None,
) -> None:
    study, rng = resolved(privacy, "income"), np.random.default_rng(1)
    names = study.parts(Ask("evaluate"))

    def holder() -> dict[str, NDArray[Any]]:
        y, off = rng.uniform(-0.9, 0.9, 2000), rng.normal(0, 0.3, 2000).clip(-1, 1)
        sums = {"squared": off**2, "absolute": np.abs(off), "y": y, "yy": y**2, "fourth": off**4}
        return {"records": np.array(2000), **{name: np.array(sums[name].sum()) for name in names if name in sums}}

    found = [table_of(study, {"x": [holder() for _ in HOLDERS]}, seed) for seed in range(300)]
    for row, true in ((0, 30.0), (1, 100 * 0.9 / math.sqrt(3))):
        values = np.array([rows[row]["rmse"] for rows in found])
        errors = np.array([rows[row]["std_error"] for rows in found])
        wide = 1.0 if row else 0.12  # of uniform deviations the fourth moment is not a normal law's
        assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=wide)
        assert values.mean() == pytest.approx(true, abs=5 * values.std() / math.sqrt(300))


@pytest.mark.parametrize(
    ("method", "unit", "noise"),
    [
        ("dp-fedsgd", "record", "local"),
        ("dp-fedsgd", "person", "local"),
        ("dp-fedsgd", "person", "shared"),
        ("local-sgd", "record", "local"),
        ("local-sgd", "person", "local"),
    ],
)
def test_training_and_scores_together_are_charged_at_most_the_claimed_epsilon(
    holders: dict[str, str], tmp_path: Path, method: str, unit: str, noise: str
) -> None:
    privacy = {"epsilon": 3.0, "unit": unit, "noise": noise, "max_records_per_unit": 2}
    protection = HIDDEN if noise == "shared" else {"name": "plain"}
    study = study_of(holders, "employed", ["age"], method, holdout=0.3, rounds=3, model={"hidden": 1},
                     privacy=privacy, protection=protection)  # fmt: skip
    answer = trained(study, workspace=tmp_path)
    question = resolve(answer.terms).question
    fits = next(a for a in question.method.budget(question).asks if a.name == "fit")  # type: ignore[attr-defined]
    assert fits.times == 3
    for spent in answer.spending:
        (ledger,) = tmp_path.glob(f"tables/{spent.holder}-*/ledger.sqlite")
        with read_only(ledger) as opened:
            events = [event_from_json(entry.event) for entry in opened.entries() if entry.kind == "charge"]
        assert len(events) == 4
        assert events[-1] == scores.beside(question)[0]
        together = epsilon(events, 1e-5)
        assert together == pytest.approx(spent.study_epsilon)
        assert 0.97 * 3.0 < together <= 3.0
        assert epsilon(events[:3], 1e-5) < together
        assert spent.disclosures == 0


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[tuple[pd.DataFrame, NDArray[np.bool_]]]:
    """Whose records holders read, in every form that they keep, and which are kept apart. Persons are numbered in the
    order of their ids, alike in all forms, since each has records of everybody."""
    found: list[tuple[pd.DataFrame, NDArray[np.bool_]]] = []
    original = records_of

    def noted(table: Table, inputs: Any, apart: float = 0.0) -> Any:
        records, side = original(table, inputs, apart)
        found.append((pd.DataFrame({"id": records.persons}), side))
        return records, side

    monkeypatch.setattr(prepared_module, "records_of", noted)
    return found


def test_of_a_person_the_scores_look_at_no_more_records_than_agreed_and_training_at_no_one_they_look_at(
    holders: dict[str, str], looked_at: list[tuple[pd.DataFrame, NDArray[np.bool_]]]
) -> None:
    privacy = {"epsilon": 8.0, "unit": "person", "max_records_per_unit": 2}
    study = study_of({"a": holders["a"]}, "employed", ["age"], "dp-fedsgd", holdout=0.3, rounds=2,
                     model={"hidden": 1}, privacy=privacy)  # fmt: skip
    trained(study)
    (fit, fit_apart), (scored, scored_apart) = looked_at  # of all records, and of two a person
    assert fit.id.value_counts().max() == 3
    assert scored.id.value_counts().max() == 2
    assert set(fit.id[fit_apart]) == set(scored.id[scored_apart])
    assert not set(fit.id[~fit_apart]) & set(scored.id[scored_apart])


@pytest.mark.parametrize("target", ["employed", "income"])
@pytest.mark.parametrize("size", [1.0, 1e19, 3e38])
def test_no_model_makes_a_record_count_for_more_than_its_bound_or_tells_that_it_is_not_finite(
    target: str, size: float
) -> None:
    study = resolved(LOCAL, target, features=["age", "old"], model={"name": "dense", "hidden": 4})
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60) if target == "employed" else rng.uniform(-1, 1, 60).astype(np.float32)
    data = Prepared(rng.normal(size=(60, 2)).astype(np.float32), y, np.arange(60), np.ones(60, np.bool_))
    vector = (size * np.sign(rng.normal(size=entries(study.question)))).astype(np.float32)
    ask = Ask("evaluate", {"vector": vector})

    def sums(some: Prepared) -> Mapping[str, NDArray[Any]]:
        return scores.evaluated(Table(None, CODEBOOK, kept={prepared_module.prepared: some}), study.question, ask)

    whole = sums(data)
    for gone in range(0, 60, 7):
        less = sums(data.select(np.arange(60) != gone))
        for name, part in study.parts(Ask("evaluate")).items():
            moved = np.abs(np.asarray(whole[name]) - less[name])
            assert np.isfinite(moved).all()
            assert moved.max() <= float(np.max(part.bound)) + 1e-12
            assert not part.single or np.count_nonzero(moved) <= 1


def test_no_model_makes_rounding_move_more_than_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed in one block, the records beside a record decide its last bit, and this model makes that its class: one
    record more or less then moves dozens of answers."""
    study = resolved(LOCAL, "employed")
    monkeypatch.setattr(scores, "loaded", lambda *_: chaotic(119, 32))
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 119)).astype(np.float32), rng.integers(0, 2, 300)
    data = Prepared(x, y, np.arange(300), np.ones(300, np.bool_))

    def confusion(some: Prepared) -> NDArray[np.int64]:
        table = Table(None, CODEBOOK, kept={prepared_module.prepared: some})
        ask = Ask("evaluate", {"vector": np.zeros(1, np.float32)})
        return np.asarray(scores.evaluated(table, study.question, ask)["confusion"], np.int64)

    whole = confusion(data)
    for gone in (0, 7, 150, 298, 299):
        assert np.abs(whole - confusion(data.select(np.arange(300) != gone))).sum() == 1


def test_rules_that_keep_the_confusion_back_leave_the_accuracy(holders: dict[str, str]) -> None:
    rules = Rules(minimum_frequency=2, dominance_k=None, p_percent=None, residual_df=None, parameters_per_record=None)
    study = study_of(holders, "kind", ["age"], holdout=0.3, rounds=2, model={"hidden": 1},
                     simulation={"disclosure": rules.model_dump()}, codebook=None)  # fmt: skip
    codebook = CODEBOOK.model_copy(
        update={
            "columns": {
                **CODEBOOK.columns,
                "kind": CODEBOOK.columns["kind"].model_copy(update={"categories": dict.fromkeys(KINDS, "")}),
            }
        }
    )
    result = trained(study, codebook=codebook).result
    (row,) = result.tables["scores"]
    assert row["name"] == "model"
    assert 0.0 < row["accuracy"] < 1.0  # type: ignore[operator]
    assert "confusion" not in result.tables
    assert "scores without confusion: " in result.notes[0]
    assert "minimum frequency" in result.notes[0]


KINDS = ("driver", "nurse", "clerk")


def test_rules_that_keep_all_scores_back_leave_the_model_with_a_note(holders: dict[str, str]) -> None:
    rules = Rules(minimum_frequency=40, dominance_k=None, p_percent=None, residual_df=None, parameters_per_record=None)
    study = study_of(holders, "income", ["age"], holdout=0.2, rounds=2, model={"hidden": 1},
                     simulation={"disclosure": rules.model_dump()})  # fmt: skip
    result = trained(study).result
    assert list(result.tables) == ["model"]
    assert np.isfinite(result.arrays["model"]).all()
    assert "no scores on units kept apart: " in result.notes[0]
    assert (
        "what leaves is declared: absolute, fourth, squared, y, yy" in result.notes[0]
    )  # nobody says how records weigh


def test_asks_that_a_study_does_not_make_are_refused() -> None:
    for study, ask in ((resolved(None, holdout=0.0, method="local-sgd"), "evaluate"), (resolved(LOCAL), "else")):
        with pytest.raises(UsageError, match=f"ask: got {ask}"):
            study.parts(Ask(ask))
    with pytest.raises(UsageError, match="ask: got answers"):
        resolved(LOCAL, "income").parts(Ask("answers"))


def test_scores_without_a_record_or_with_nothing_but_noise_are_empty_and_not_an_error() -> None:
    for privacy in (None, LOCAL):
        for target in ("kind", "income"):
            question: Question[Any] = read_question(resolved(privacy, target).terms)[1]
            for sign in (0, -3):
                arrays = {
                    name: np.full(part.shape, sign, np.int64 if part.integer else np.float64)
                    for name, part in scores.parts(question, "evaluate").items()
                }
                rows = scores._scored(question, Result("m", "", {}), Total(arrays)).tables["scores"]
                assert all(row["count"] == 0 for row in rows)
                assert {value for row in rows for value in row.values()} == {rows[0]["name"], rows[1]["name"], 0, None}
