"""A stored answer that was damaged is refused as such, whatever is in the place of what."""

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statfed.core.errors import UsageError
from statfed.core.study import make_study
from statfed.federation import Answer, Options, load_answer, run_study
from statfed.federation.report import render

WRONG: tuple[Any, ...] = (None, 5, "x", [], {}, [1], {"a": 1})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    folder = tmp_path_factory.mktemp("stored")
    pd.DataFrame({"income": range(40), "sex": ["f", "m"] * 20}).to_parquet(folder / "a.parquet")
    asked = {"method": "mean", "options": {"columns": ["income"], "by": ["sex"]}, "disclosure": "standard"}
    study = make_study(asked | {"holders": {"a": str(folder / "a.parquet")}})
    answer = run_study(study, Options(keep=folder / "runs"))
    return folder / "runs" / answer.run, answer


def places(value: Any, path: Sequence[Any] = ()) -> Iterator[Sequence[Any]]:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from places(value[key], (*path, key))


def test_an_answer_that_was_kept_is_read_back(kept: tuple[Path, Answer]) -> None:
    folder, answer = kept
    assert load_answer(folder).to_dict() == answer.to_dict()


def test_whatever_is_wrong_in_a_stored_answer_is_an_error_of_it_or_harmless(kept: tuple[Path, Answer]) -> None:
    folder, answer = kept
    path = folder / "result.json"
    whole = json.loads(path.read_text())
    refused = 0
    for place in places(whole):
        if len(place) > 3 or place[0] in ("study", "terms"):
            continue
        for wrong in WRONG:
            changed = copy.deepcopy(whole)
            at = changed
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = wrong
            path.write_text(json.dumps(changed))
            try:
                found = load_answer(folder)
            except UsageError as error:
                refused += folder.name in str(error)
            else:
                assert f"{found.seconds:.2f}"
                assert json.dumps(found.to_dict())
    path.write_text(json.dumps(whole))
    assert refused > 500
    assert render(load_answer(folder)) == render(answer)
