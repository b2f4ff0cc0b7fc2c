"""Models in a file, predictions for new records, and training from Python."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core import VERSION
from statfed.core.errors import UsageError
from statfed.federation import Federation
from statfed.federation.answers import Answer, load_answer
from statfed.federation.models import TrainedModel, load_model, save_model, saved
from statfed.federation.trained import NumberScores, Scores
from tests.strategies.training.tables import CODEBOOK, people, study_of, trained, written


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    folder = tmp_path_factory.mktemp("world")
    holders = written(folder, {"a": people(150, 1), "b": people(100, 2)})
    study = study_of(holders, "employed", ["age", "region", "since"], holdout=0.2, rounds=5, where=["age >= 18"])
    return folder, trained(study, runs=folder / "runs", references=True)


def test_a_saved_model_predicts_what_the_model_in_the_run_predicts(world: tuple[Path, Answer]) -> None:
    folder, answer = world
    new = people(60, 9)
    path = save_model(answer, folder / "some" / "model")
    loaded = load_model(path)
    found = loaded.predict(new)
    pd.testing.assert_frame_equal(found, saved(answer).predict(new))
    pd.testing.assert_frame_equal(found, load_model(folder / "runs" / answer.run).predict(new))
    new.to_parquet(folder / "new.parquet")
    pd.testing.assert_frame_equal(found, loaded.predict(folder / "new.parquet"))
    new.drop(columns=["wave", "longer"]).to_csv(folder / "new.csv", index=False)
    pd.testing.assert_frame_equal(found, loaded.predict(str(folder / "new.csv")))
    assert list(found) == ["prediction", "probability_false", "probability_true"]
    np.testing.assert_allclose(found.probability_false + found.probability_true, 1.0)
    assert ((found.probability_true > 0.5) == found.prediction).all()
    card = loaded.card
    assert card["privacy"] is None
    assert "without differential privacy" in card["statement"]
    assert (card["study_digest"], card["version"], card["where"]) == (answer.study_digest, VERSION, ["age >= 18.0"])
    assert card["scores"][0]["name"] == "model"


def test_predictions_are_those_of_the_models_parameters_by_hand(tmp_path: Path) -> None:
    holders = written(tmp_path, {"a": people(100, 1)})
    line = {"name": "dense", "hidden": 1}
    answer = trained(study_of(holders, "income", ["age", "old"], rounds=5, model=line))
    weights = answer.result.arrays["model"].astype(float)
    new = people(40, 5)
    by_hand = np.column_stack([new.age / 50 - 1, new.old]) @ weights[:2] + weights[2]
    np.testing.assert_allclose(saved(answer).predict(new).prediction, 100 + 100 * by_hand.clip(-1, 1), rtol=1e-5)


def test_rows_that_miss_a_feature_have_no_prediction_and_rows_stay_in_their_order(
    world: tuple[Path, Answer],
) -> None:
    model, new = saved(world[1]), people(30, 9)
    whole = model.predict(new)
    new["age"] = new.age.astype(float)
    new.loc[[3, 17], "age"] = np.nan
    new.loc[5, "region"] = ""
    new.index = new.index + 100
    found = model.predict(new)
    missing = found.prediction.isna()
    assert list(found.index[missing]) == [103, 105, 117]
    assert found.loc[missing].isna().all(axis=None)
    pd.testing.assert_frame_equal(found[~missing], whole.set_index(new.index)[~missing])
    nothing = model.predict(new[:0])
    assert len(nothing) == 0
    assert list(nothing) == list(found)


WRONG: dict[str, tuple[str, Any]] = {
    r"age: got values above the codebook's bound; want at most 100 \(for example 130\)": ("age", 130),
    "region: got a category outside the codebook; want one of north, south, west": ("region", "east"),
    "since: got values below the codebook's bound; want at least 2000-01-01": ("since", pd.Timestamp("1990-01-01")),
    "age: got values that are not whole numbers": ("age", "old"),
}


@pytest.mark.parametrize("message", WRONG)
def test_values_that_the_model_never_saw_are_refused_by_column_and_never_clipped(
    message: str, world: tuple[Path, Answer]
) -> None:
    column, value = WRONG[message]
    new = people(10, 9).astype({column: object})
    new.loc[4, column] = value
    if column == "age":
        new["age"] = new.age.astype(str)
    with pytest.raises(UsageError, match=message):
        saved(world[1]).predict(new)
    with pytest.raises(UsageError, match=f"{column}: not a column of the data"):
        saved(world[1]).predict(new.drop(columns=column))


def test_scores_on_new_records_are_of_those_that_have_a_target(world: tuple[Path, Answer]) -> None:
    model, new = saved(world[1]), people(200, 9)
    new["employed"] = new.employed.astype("boolean")
    new.loc[:19, "employed"] = pd.NA
    found = model.score(new)
    assert isinstance(found, Scores)
    predicted = model.predict(new).prediction
    assert found.accuracy == pytest.approx((predicted == new.employed)[20:].mean())
    with pytest.raises(UsageError, match="got no record with all features and the target"):
        model.score(new[:20])


def test_damaged_files_and_those_of_other_versions_are_refused(world: tuple[Path, Answer], tmp_path: Path) -> None:
    path = save_model(world[1], tmp_path / "m")
    vector, card = saved(world[1]).vector, dict(saved(world[1]).card)

    def written_as(what: dict[str, Any], vector: Any = vector) -> Path:
        with path.open("wb") as file:
            np.savez(file, vector=vector, card=np.frombuffer(json.dumps(what).encode(), np.uint8))
        return path

    assert load_model(written_as(card)).card == card
    form = {**card["form"], "samples": 2}
    for what, message in (
        ({**card, "format": "statfed.model/0"}, "got format statfed.model/0; want statfed.model/1"),
        ({**card, "form": form, "version": "0.1"}, "made by version 0.1, which reads columns in another way"),
        ({k: v for k, v in card.items() if k != "codebook"}, "damaged"),
        ({**card, "hidden": 3}, "damaged .*got parameters of shape"),
        ({**card, "model": "gpt"}, "damaged .*unknown model"),
        ([], "got format none"),
    ):
        with pytest.raises(UsageError, match=message):
            load_model(written_as(what))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="reads columns in another way"):
        load_model(written_as(card, np.full_like(vector, np.nan)))
    for raw in (b"", b"PK no archive", b"\x80\x04"):
        path.write_bytes(raw)
        with pytest.raises(UsageError, match="not a saved model, or damaged"):
            load_model(path)
    np.savez(tmp_path / "old.npz", vector=vector)
    with pytest.raises(UsageError, match="not a saved model"):
        load_model(tmp_path / "old.npz")
    with pytest.raises(UsageError, match="no such file; want a saved model"):
        load_model(tmp_path / "none")


def test_a_run_stored_with_references_is_read_back_and_its_json_is_valid(world: tuple[Path, Answer]) -> None:
    folder, answer = world
    again = load_answer(folder / "runs" / answer.run)
    assert again.training == answer.training
    kinds = [one.kind for one in answer.candidates]
    assert kinds == ["federated", "pooled", "local", "local", "glm", "majority"]
    json.dumps(answer.to_dict(), allow_nan=False)
    union = answer.result.tables["scores"][0]
    assert answer.candidates[0].scores.accuracy == pytest.approx(union["accuracy"])
    assert answer.test_records == union["count"]
    assert answer.rounds[-1].accuracy == pytest.approx(union["accuracy"])
    with pytest.raises(UsageError, match="got an answer without a model in it"):
        saved(again)


def test_a_number_is_compared_with_least_squares_and_the_mean(tmp_path: Path) -> None:
    holders = written(tmp_path, {"a": people(200, 1), "b": people(200, 2)})
    line = {"name": "dense", "hidden": 1}
    study = study_of(holders, "income", ["age", "region"], holdout=0.3, rounds=40, model=line)
    answer = trained(study, references=True)
    found = {one.id: one.scores for one in answer.trained.numbers}
    assert list(found) == ["federated", "pooled", "local/a", "local/b", "glm", "mean"]
    assert found["federated"].rmse == pytest.approx(answer.result.tables["scores"][0]["rmse"], rel=1e-5)
    assert 7 < found["glm"].rmse <= found["federated"].rmse + 0.5 < found["mean"].rmse
    assert answer.rounds[-1].rmse == pytest.approx(found["federated"].rmse)
    assert not answer.candidates
    json.dumps(answer.to_dict(), allow_nan=False)


def test_training_from_python_takes_frames_and_gives_scores_predictions_and_a_file(tmp_path: Path) -> None:
    frames = {name: people(150, i) for i, name in enumerate("abc", 1)}
    with Federation(frames, CODEBOOK, seed=1, protection="secure-aggregation") as fed:
        plain = fed.train("mlp", target="employed", features=["age", "region"], rounds=5, hidden=None)
        private = fed.train(
            {"name": "dense", "hidden": 1}, target="employed", features="age", epsilon=5.0, rounds=5, where="age >= 18"
        )
        assert (plain.answer.terms.method, private.answer.terms.method) == ("local-sgd", "dp-fedsgd")
        assert private.answer.terms.privacy is not None
        assert len(plain.scores) == 2
        new = people(50, 9)
        pd.testing.assert_frame_equal(fed.predict(plain, new), plain.predict(new))
        pd.testing.assert_frame_equal(fed.predict(private.save(tmp_path / "m"), new), private.predict(new))
        assert isinstance(plain.score(new), Scores)
        number = fed.train("dense", target="income", features=["age"], rounds=2)
        assert isinstance(number, TrainedModel)
        assert isinstance(number.score(new), NumberScores)
        assert "epsilon 5 at delta 1e-05 per record" in load_model(tmp_path / "m").card["statement"]
        with pytest.raises(UsageError, match="epsilon, privacy: got both"):
            fed.train(target="employed", features="age", epsilon=1.0, privacy={"epsilon": 1.0})
