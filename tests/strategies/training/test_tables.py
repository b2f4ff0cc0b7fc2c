"""Training on tables: what a column becomes, what is left out, what is refused, and that every kind is learnt."""

from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from statfed.client.data.tables import connect, inspect, open_table
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.core.records import Records
from statfed.core.table import Size, Table
from statfed.strategies.learning.inputs import Inputs, make_inputs, records_of
from statfed.strategies.learning.losses import losses, mean_loss
from tests.strategies.training.tables import CODEBOOK, people, study_of, trained, written


def read(
    frame: pd.DataFrame, folder: Path, inputs: Inputs, apart: float = 0.0, codebook: Codebook = CODEBOOK
) -> tuple[Records, NDArray[np.bool_]]:
    """A frame as a holder reads it, converted under the codebook."""
    frame.to_parquet(folder / "t.parquet")
    with connect(str(folder / "t.parquet"), folder) as source:
        found = inspect(source, codebook, inputs.columns)
        assert not found.mismatches
        return records_of(open_table(source, codebook, (), inputs.columns, plain=found.plain), inputs, apart)


def windows(frame: pd.DataFrame, features: list[str], folder: Path, codebook: Codebook = CODEBOOK) -> NDArray[Any]:
    return read(frame, folder, make_inputs(codebook, features, "employed"), codebook=codebook)[0].windows


def test_numbers_dates_and_truths_are_themselves_and_a_category_one_column_a_level(tmp_path: Path) -> None:
    frame = people(40, 1)
    found = windows(frame, ["age", "income", "since", "old", "region"], tmp_path)
    assert found.shape == (40, 7, 1)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0, 0], frame.age)
    np.testing.assert_allclose(found[:, 1, 0], frame.income, rtol=1e-6)
    np.testing.assert_array_equal(found[:, 2, 0], (pd.to_datetime(frame.since) - pd.Timestamp("1970-01-01")).dt.days)
    np.testing.assert_array_equal(found[:, 3, 0], frame.old)
    np.testing.assert_array_equal(found[:, 4:, 0], pd.get_dummies(frame.region).to_numpy(np.float32))


@pytest.mark.parametrize("name", ["mlp", "dense"])
def test_models_get_single_values_scaled_by_public_bounds_and_indicators_as_they_are(name: str, tmp_path: Path) -> None:
    from statfed.core.discovery import load

    frame, features = people(40, 1), ["age", "since", "old", "region"]
    form = make_inputs(CODEBOOK, features, "employed").form
    found = load("statfed.strategies.models", name, "model").prepare(windows(frame, features, tmp_path), form)
    low, high = (pd.Timestamp(day) for day in ("2000-01-01", "2012-01-01"))
    days = (pd.to_datetime(frame.since) - low) / (high - low) * 2 - 1
    want = np.column_stack([frame.age / 50 - 1, days, frame.old, pd.get_dummies(frame.region)])
    np.testing.assert_allclose(found, want.astype(float), atol=1e-5)


def test_arrays_and_texts_of_several_lengths_become_channels(tmp_path: Path) -> None:
    frame = people(10, 1)
    frame.loc[0, "job"] = "Köchin \u2014 Küche"
    waves = windows(frame, ["wave"], tmp_path)
    np.testing.assert_array_equal(waves[:, 0], np.stack(list(frame.wave)))
    texts = windows(frame, ["job", "remark"], tmp_path)
    assert texts.shape == (10, 2, 40)
    told = [bytes(row.astype(np.uint8)).decode("latin-1") for row in texts[:, 0]]
    assert told[0] == "Köchin ? Küche".ljust(40)
    assert told[1:] == [text.ljust(40) for text in frame.job[1:]]


def test_values_far_from_zero_keep_their_differences(tmp_path: Path) -> None:
    codebook = make_codebook(
        {"columns": {"t": {"type": "number", "low": 1e9, "high": 1e9 + 8}, "employed": {"type": "boolean"}}}
    )
    frame = pd.DataFrame({"t": 1e9 + np.arange(9), "employed": True})
    found = windows(frame, ["t"], tmp_path, codebook)
    np.testing.assert_array_equal(found[:, 0, 0], np.arange(9) - 4)  # float32 alone would tell none of them apart
    assert make_inputs(codebook, ["t"], "employed").form.channels[0].low == -4


def test_targets_are_class_numbers_or_scaled_to_within_one(tmp_path: Path) -> None:
    frame = people(40, 1)
    for target, want in (("employed", frame.employed), ("kind", frame.kind.map(["driver", "nurse", "clerk"].index))):
        inputs = make_inputs(CODEBOOK, ["age"], target)
        records, _ = read(frame, tmp_path, inputs)
        np.testing.assert_array_equal(records.labels, want)
    for target, scaled in (("income", frame.income / 100 - 1), ("age", frame.age / 50 - 1)):
        inputs = make_inputs(CODEBOOK, ["region"], target)
        records, _ = read(frame, tmp_path, inputs)
        assert records.labels.dtype == np.float32
        np.testing.assert_allclose(records.labels, scaled, atol=1e-6)
        assert inputs.form.outputs == 1


def test_the_loss_is_half_the_squared_error_of_each_record_or_its_cross_entropy() -> None:
    torch.manual_seed(0)
    outputs, y = torch.randn(5, 1), torch.randn(5)
    torch.testing.assert_close(losses(outputs, y), (outputs[:, 0] - y) ** 2 / 2)
    torch.testing.assert_close(mean_loss(outputs, y), ((outputs[:, 0] - y) ** 2).mean() / 2)
    logits, classes = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    want = torch.stack([torch.logsumexp(row, 0) - row[k] for row, k in zip(logits, classes, strict=True)])
    torch.testing.assert_close(losses(logits, classes), want)
    with pytest.raises((ValueError, RuntimeError)):
        losses(torch.randn(5, 2), y)  # would count a record twice


def test_records_that_miss_a_feature_or_the_target_are_left_out(tmp_path: Path) -> None:
    frame = people(30, 1)
    frame["age"] = frame.age.astype(float)
    frame.loc[:4, "age"] = np.nan
    frame.loc[5:7, "region"] = None
    frame.loc[8, "region"] = ""
    frame["employed"] = frame.employed.astype("boolean")
    frame.loc[9, "employed"] = pd.NA
    found = windows(frame, ["age", "region"], tmp_path)
    np.testing.assert_array_equal(found[:, 0, 0], frame.age[10:])


REFUSED: dict[str, tuple[list[str], str]] = {
    "features: free: got no bounds; want low and high in the codebook": (["age", "free"], "employed"),
    "target: free: got no bounds; want low below high": (["age"], "free"),
    "target: one: got one level; want two or more": (["age"], "one"),
    "target: since: got type date; want category, boolean, number or integer": (["age"], "since"),
    "target: job: got type text": (["age"], "job"),
    "features: got 'none'; want one of id, age": (["none"], "employed"),
    "target: got 'none'; want one of id, age": (["age"], "none"),
    "target: got none; want a column": (["age"], ""),
    "features: got none; want one column or more": ([], "employed"),
    "id: got role unit; want columns that describe a record": (["id"], "employed"),
    r"got single values \(age\) and arrays \(wave\); want one kind": (["age", "wave"], "employed"),
    r"got texts \(job\) and single values \(age\)": (["job", "age"], "employed"),
    r"got arrays of different lengths: wave \(16\), longer \(20\)": (["wave", "longer"], "employed"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_columns_that_no_model_can_be_trained_on_are_refused_by_name(message: str) -> None:
    features, target = REFUSED[message]
    with pytest.raises(UsageError, match=message):
        make_inputs(CODEBOOK, features, target)


MISFITS: dict[str, dict[str, Any]] = {
    "features: got the target age among them": {"target": "age", "features": ["age"]},
    "features: got age more than once": {"target": "employed", "features": ["age", "age"]},
    r"got cnn for single values \(age\); want mlp": {"target": "kind", "features": "age", "model": {"name": "cnn"}},
    "got text for age, which is none": {"target": "kind", "features": "age", "model": {"name": "text"}},
    "got text for wave, which is none": {"target": "kind", "features": "wave", "model": {"name": "text"}},
    "got mlp for the text job; want text": {"target": "kind", "features": "job"},
    "got dense for the text job": {"target": "kind", "features": "job", "model": {"name": "dense"}},
    "got cnn for the text job": {"target": "kind", "features": "job", "model": {"name": "cnn"}},
    "unknown model: got 'gpt'": {"target": "kind", "features": "age", "model": {"name": "gpt"}},
}


@pytest.mark.parametrize("message", MISFITS)
def test_what_does_not_fit_the_model_is_refused_before_anything_is_spent(message: str, tmp_path: Path) -> None:
    holders = written(tmp_path, {"a": people(20, 1)})
    with pytest.raises(UsageError, match=message):
        trained(study_of(holders, **MISFITS[message]))


def test_data_that_do_not_fit_the_codebook_are_refused_by_column(tmp_path: Path) -> None:
    wrong = people(20, 1)
    wrong.loc[0, "age"] = 300
    holders = written(tmp_path, {"a": people(20, 2), "b": wrong})
    with pytest.raises(Exception, match="age: got values above the codebook's bound"):
        trained(study_of(holders, "employed", ["age"]), references=True)


LEARNT: dict[str, tuple[str, Any, dict[str, Any], float]] = {
    "single values": ("employed", ["age", "region", "since", "old"], {"model": {"name": "mlp"}}, 0.75),
    "linear": ("employed", ["age", "region"], {"model": {"name": "mlp", "hidden": 1}}, 0.7),
    "dense": ("employed", ["age", "region"], {"model": {"name": "dense", "hidden": 8}}, 0.75),
    "windows": ("employed", "wave", {"model": {"name": "mlp", "hidden": 16}}, 0.9),
    "convolutions": (
        "employed",
        "wave",
        {"model": {"name": "cnn", "hidden": 8}, "momentum": 0.9, "batch_size": 16},
        0.9,
    ),
    "texts": ("kind", ["job", "remark"], {"model": {"name": "text", "hidden": 1}}, 0.95),
}


@pytest.mark.parametrize("name", LEARNT)
def test_every_kind_of_column_is_learnt(name: str, tmp_path: Path) -> None:
    target, features, options, least = LEARNT[name]
    holders = written(tmp_path, {"a": people(200, 1), "b": people(100, 2)})
    result = trained(study_of(holders, target, features, holdout=0.25, rounds=15, **options)).result
    model, majority = result.tables["scores"]
    assert model["accuracy"] > max(least, majority["accuracy"])  # type: ignore[operator, type-var]
    assert 40 < model["count"] < 110  # type: ignore[operator]


def test_a_number_is_learnt_in_its_own_unit(tmp_path: Path) -> None:
    holders = written(tmp_path, {"a": people(300, 1), "b": people(200, 2)})
    study = study_of(
        holders, "income", ["age", "region"], holdout=0.25, rounds=40, model={"name": "dense", "hidden": 1}
    )
    model, mean = trained(study).result.tables["scores"]
    assert 7.0 < model["rmse"] < 10.0  # type: ignore[operator]  # noise of 8 in the data
    assert mean["rmse"] > 1.5 * model["rmse"]  # type: ignore[operator]
    assert model["r2"] > 0.6  # type: ignore[operator]


@pytest.mark.parametrize("method", ["local-sgd", "dp-fedsgd"])
def test_a_holder_without_a_complete_record_contributes_nothing(method: str, tmp_path: Path) -> None:
    empty = people(50, 3)
    empty["region"] = None
    private = {"privacy": {"epsilon": 8.0}} if method == "dp-fedsgd" else {}
    more: dict[str, Any] = {"holdout": 0.2, "rounds": 2, "model": {"hidden": 1}, **private}
    holders = written(tmp_path, {"a": people(80, 1), "b": empty})
    result = trained(study_of(holders, "employed", ["age", "region"], method, **more)).result
    if method == "local-sgd":
        assert result.tables["scores"][0]["count"] < 30  # type: ignore[operator]  # of a alone
    alone = trained(study_of({"b": holders["b"]}, "employed", ["age", "region"], **{**more, "privacy": None})).result
    start = trained(study_of({"b": holders["b"]}, "employed", ["age", "region"], rounds=1, model={"hidden": 1})).result
    np.testing.assert_array_equal(alone.arrays["model"], start.arrays["model"])
    assert alone.tables["scores"][0]["count"] == 0


def test_a_class_that_no_record_has_and_one_class_alone_are_trained_and_scored(tmp_path: Path) -> None:
    nurses = people(80, 1)
    nurses["kind"] = "nurse"
    holders = written(tmp_path, {"a": nurses})
    answer = trained(study_of(holders, "kind", ["age"], holdout=0.3, rounds=3), references=True)
    rows = {row["class"]: row for row in answer.result.tables["classes"]}
    assert rows["judge"]["count"] == 0
    assert rows["judge"]["recall"] is None
    assert answer.result.tables["scores"][0]["accuracy"] == 1.0
    assert {one.kind for one in answer.candidates} >= {"federated", "pooled", "majority"}


def test_kept_apart_are_whole_units_by_a_rule_that_other_units_do_not_change(tmp_path: Path) -> None:
    frame = people(400, 1, each=4)
    inputs = make_inputs(CODEBOOK, ["age"], "employed", units=True)
    _, apart = read(frame, tmp_path, inputs, 0.3)
    sides = frame.assign(apart=apart).groupby("id").apart.agg(["min", "max"])
    assert (sides["min"] == sides["max"]).all()
    assert 0.2 < apart.mean() < 0.4
    some = frame[100:].sample(frac=1, random_state=1)
    _, again = read(some, tmp_path, inputs, 0.3)
    np.testing.assert_array_equal(again, apart[some.index])


def test_without_units_one_record_more_is_one_more_on_one_side_and_equal_records_are_on_both(tmp_path: Path) -> None:
    frame = pd.DataFrame({"old": [True, False] * 300, "employed": [True] * 600})
    inputs = make_inputs(CODEBOOK, ["old"], "employed")

    def sides(some: pd.DataFrame) -> tuple[list[int], list[int]]:
        records, apart = read(some, tmp_path, inputs, 0.25)
        old = records.windows[:, 0, 0].astype(int)
        return np.bincount(old[apart], minlength=2).tolist(), np.bincount(old[~apart], minlength=2).tolist()

    (apart, fitted), (apart_less, fitted_less) = sides(frame), sides(frame.drop(17))
    assert all(50 < count < 100 for count in apart)  # one side for all equal records would be 0 or 300
    lost = [a - b for a, b in zip(apart + fitted, apart_less + fitted_less, strict=True)]
    assert sorted(lost) == [0, 0, 0, 1]


def test_records_without_a_unit_are_refused_where_persons_are_protected_and_else_their_own(tmp_path: Path) -> None:
    frame = people(50, 1)
    frame.loc[3:6, "id"] = None
    inputs = make_inputs(CODEBOOK, ["age"], "employed", units=True)
    records, _ = read(frame, tmp_path, inputs, 0.3)
    assert len(np.unique(records.persons)) == 50
    with pytest.raises(UsageError, match="id: got records without a unit"):
        read(frame, tmp_path, make_inputs(CODEBOOK, ["age"], "employed", required=True))


def test_an_empty_table_has_inputs_of_the_right_shape() -> None:
    engine = ibis.duckdb.connect(threads=1)
    engine.raw_sql("create table t (age bigint, employed boolean)")
    inputs = make_inputs(CODEBOOK, ["age", "region"][:1], "employed")
    records, apart = records_of(Table(engine.table("t"), CODEBOOK, size=Size(1, 1)), inputs, 0.2)
    assert records.windows.shape == (0, 1, 1)
    assert records.labels.dtype == np.int64
    assert len(apart) == 0
