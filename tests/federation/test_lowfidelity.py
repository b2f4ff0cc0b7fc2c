"""Checks of a synthetic file before it is given away: what each of them catches."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.federation.federation import Federation
from statfed.federation.lowfidelity import Given, check, passed, to_dict
from statfed.federation.synthetic import Synthesizer, fit, load_synthesizer
from tests.synthetic_people import CODEBOOK, people

N = 60


def book(**columns: Any) -> Codebook:
    told = CODEBOOK.model_dump(mode="json", exclude_defaults=True)
    return make_codebook({"columns": told["columns"] | columns, "rules": ["age >= 18 or employed = false"]})


BOOK = book(person={"type": "id"})


@pytest.fixture(scope="module")
def model() -> Synthesizer:
    with Federation({"own": people(N, 1).assign(person="p")}, BOOK, seed=1) as federation:
        return fit(federation, "dummy", {})


def written(model: Synthesizer, folder: Path, frame: pd.DataFrame | None = None) -> Path:
    model.write_parquet(model.sample(N, 1) if frame is None else frame, folder / "s.parquet")
    return folder / "s.parquet"


def failed(file: Path, **given: Any) -> set[str]:
    return {one.name for one in check(file, Given(**({"codebook": BOOK} | given))) if one.kept is False}


def test_what_a_model_drew_from_no_data_passes(model: Synthesizer, tmp_path: Path) -> None:
    model.save(tmp_path / "m.json")
    again = load_synthesizer(tmp_path / "m.json")
    frame = model.sample(N, 1)
    frame["income"] = frame["income"].round(2)
    file = written(model, tmp_path, frame)
    found = check(file, Given(BOOK, again, decimals=2, original=N + 1))
    assert [one.name for one in found if one.kept is not True] == []
    assert passed(found)
    assert json.loads(json.dumps(to_dict(file, found)))["passed"] is True
    assert pd.read_parquet(file).equals(frame)


def test_what_nobody_said_is_open_and_no_pass(model: Synthesizer, tmp_path: Path) -> None:
    found = check(written(model, tmp_path), Given(BOOK))
    opened = {one.name for one in found if one.kept is None}
    assert opened == {"decimals", "provenance", "origin", "codebook", "records"}


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        ({"person": "p1"}, {"identifiers"}),
        ({"shoe": 1.0}, {"columns"}),
        ({"age": 96}, {"values"}),
        ({"edu": "9"}, {"values"}),
        ({"age": 16, "employed": True}, {"rules"}),
        ({"income": 1.125}, {"decimals"}),
    ],
)
def test_a_file_that_was_changed_is_caught(
    model: Synthesizer, tmp_path: Path, change: dict[str, Any], caught: set[str]
) -> None:
    frame = model.sample(N, 1)
    frame["income"] = frame["income"].round(2)
    assert failed(written(model, tmp_path, frame.assign(**change)), model=model, decimals=2) == caught


def test_records_of_others_and_other_numbers_are_caught(model: Synthesizer, tmp_path: Path) -> None:
    plain = tmp_path / "real.parquet"
    people(N, 1).assign(employed=False).to_parquet(plain)
    assert failed(plain, model=model) == {"label"}
    other = Synthesizer(replace(model.fitted, model={**model.fitted.model, "missing": 0.5}))
    assert failed(written(other, tmp_path), model=model) == {"provenance"}
    assert failed(written(model, tmp_path), original=N) == {"records"}
    assert failed(written(model, tmp_path), columns=("age", "edu")) == {"columns"}


def test_a_drafted_codebook_and_an_unsaid_origin_are_caught_and_exact_answers_left_to_look_at(
    model: Synthesizer, tmp_path: Path
) -> None:
    for key, value, caught in (("codebook_drafted", True, "codebook"), ("kind", "", "origin")):
        maker = Synthesizer(replace(model.fitted, origin={**model.fitted.origin, key: value}))
        assert failed(written(maker, tmp_path), model=maker) == {caught}
    with Federation({"own": people(200, 1)}, seed=1) as drafting:
        drafted = fit(drafting, "margins", {"columns": ["region", "employed"]})
    found = {one.name: one.kept for one in check(written(drafted, tmp_path), Given(drafted.fitted.codebook, drafted))}
    assert (found["codebook"], found["origin"]) == (False, None)
    told = book(age={"type": "integer", "low": 0, "high": 120, "required": True})
    assert failed(written(model, tmp_path), codebook=told, model=model) == {"codebook"}


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.parquet").write_text("age\n1\n")
    with pytest.raises(UsageError, match="cannot be read"):
        check(tmp_path / "s.parquet", Given(BOOK))
