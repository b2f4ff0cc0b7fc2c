"""Studies: files of format 1 are what they were, wrong keys are named, margins of error, defaults of privacy."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from statfed.core import toml
from statfed.core.codebook import make_codebook
from statfed.core.errors import UsageError
from statfed.core.resolve import resolve
from statfed.core.study import Study, Target, load_study, make_study, noisy_parts, old_keys
from statfed.core.terms import Privacy
from tests.conftest import TOY, toy_study
from tests.federate import codebook_of
from tests.office import query
from tests.spender import installed

FILES = {"a": "a.csv", "b": "b.csv"}
OFFICES = ["office-1", "office-2", "office-3", "office-4"]
SENSORS: dict[str, Any] = {"scenario": "time-use", "holders": 3}
LOCAL: dict[str, Any] = {"scenario": "time-use", "holders": 3, "method": "local-sgd", "seed": 1}
THEN = {"rounds": 10, "learning_rate": 0.1}
"""What a training study of format 1 meant where it said nothing."""
MEAN: dict[str, Any] = {"options": {"columns": ["x"]}, "holders": FILES}

CASES: dict[str, tuple[dict[str, Any], list[str], dict[str, Any]]] = {
    "a statistic": ({"analysis": "mean", **MEAN, "seed": 3}, [], {"method": "mean", **MEAN, "seed": 3}),
    "a private statistic": (
        {"analysis": "mean", **MEAN, "privacy": {"epsilon": 1.0}},
        [],
        {"method": "mean", **MEAN, "privacy": {"epsilon": 1.0, "delta": 1e-6, "max_records_per_unit": 1}},
    ),
    "a statistic, other values by old keys": (
        {"analysis": "mean", **MEAN},
        ["analysis=total", "options.columns=['y']"],
        {"method": "total", **MEAN, "options": {"columns": ["y"]}},
    ),
    "a statistic, its method by the new key": (
        {"analysis": "mean", **MEAN},
        ["method=total"],
        {"method": "total", **MEAN},
    ),
    "training that says nothing": (
        {"scenario": "time-use"},
        [],
        {**LOCAL, "holders": OFFICES, "options": THEN},
    ),
    "training": (
        {
            **SENSORS,
            "title": "Sensors",
            "seed": 7,
            "rounds": 4,
            "timeout": 60.0,
            "start": "earlier",
            "data": {"source": "generated"},
            "model": {"name": "cnn", "hidden": 8},
            "training": {"local_epochs": 2, "batch_size": 16, "learning_rate": 0.2, "momentum": 0.5},
            "strategy": {"name": "fedprox", "proximal_mu": 0.1},
            "protection": {"name": "secure-aggregation", "minimum_holders": 3},
            "simulation": {"lifetime_epsilon": 5.0},
        },
        [],
        {
            **LOCAL,
            "title": "Sensors",
            "seed": 7,
            "timeout": 60.0,
            "start": "earlier",
            "data": {"source": "generated"},
            "options": {
                "rounds": 4,
                "model": {"name": "cnn", "hidden": 8},
                "strategy": {"name": "fedprox", "proximal_mu": 0.1},
                "local_epochs": 2,
                "batch_size": 16,
                "learning_rate": 0.2,
                "momentum": 0.5,
            },
            "protection": {"name": "secure-aggregation", "minimum_holders": 3},
            "simulation": {"lifetime_epsilon": 5.0},
        },
    ),
    "gradient descent, with keys of [training] that it never used": (
        {
            **SENSORS,
            "training": {"method": "dp-fedsgd", "sampling_rate": 0.5, "local_epochs": 3, "batch_size": 9},
            "privacy": {"epsilon": 2.0, "clipping_norm": 0.7},
        },
        [],
        {
            **LOCAL,
            "method": "dp-fedsgd",
            "options": THEN | {"sampling_rate": 0.5, "clipping_norm": 0.7},
            "privacy": {"epsilon": 2.0, "delta": 1e-5, "max_records_per_unit": 256},
        },
    ),
    "a sampling rate that local training never used": (
        {**SENSORS, "training": {"sampling_rate": 0.5, "update_norm": 2.0}},
        [],
        {**LOCAL, "options": THEN | {"update_norm": 2.0}},
    ),
    "private training": (
        {**SENSORS, "privacy": {"unit": "person", "epsilon": 2.0, "clipping_norm": 0.5}},
        [],
        {
            **LOCAL,
            "options": THEN | {"clipping_norm": 0.5},
            "privacy": {"unit": "person", "epsilon": 2.0, "delta": 1e-5, "max_records_per_unit": 256},
        },
    ),
    "training, other values by old keys": (
        {**SENSORS, "rounds": 4, "training": {"batch_size": 16}, "privacy": {"epsilon": 2.0}},
        [
            "rounds=9",
            "training.batch_size=32",
            "training.learning_rate=0.5",
            "model.hidden=16",
            "strategy.name=fedadam",
            "privacy.clipping_norm=2.0",
            "privacy.epsilon=3",
            "seed=4",
        ],
        {
            **LOCAL,
            "seed": 4,
            "options": {
                "rounds": 9,
                "batch_size": 32,
                "learning_rate": 0.5,
                "model": {"hidden": 16},
                "strategy": {"name": "fedadam"},
                "clipping_norm": 2.0,
            },
            "privacy": {"epsilon": 3.0, "delta": 1e-5, "max_records_per_unit": 256},
        },
    ),
    "training, other values by new keys": (
        {**SENSORS, "rounds": 4, "model": {"hidden": 8}},
        ["options.rounds=9", "options.model.name=cnn", "options.batch_size=32"],
        {**LOCAL, "options": THEN | {"rounds": 9, "model": {"hidden": 8, "name": "cnn"}, "batch_size": 32}},
    ),
    "another training method by the old key": (
        {**SENSORS, "rounds": 4, "training": {"batch_size": 16, "weight_decay": 0.1}, "privacy": {"epsilon": 2.0}},
        ["training.method=dp-fedsgd", "training.sampling_rate=0.5"],
        {
            **LOCAL,
            "method": "dp-fedsgd",
            "options": THEN | {"rounds": 4, "weight_decay": 0.1, "sampling_rate": 0.5},
            "privacy": {"epsilon": 2.0, "delta": 1e-5, "max_records_per_unit": 256},
        },
    ),
    "a study of the present format, other values by old keys": (
        {**LOCAL, "options": {"rounds": 4, "batch_size": 16}},
        ["rounds=9", "training.learning_rate=0.5", "strategy.name=fedadam"],
        {
            **LOCAL,
            "options": {"rounds": 9, "batch_size": 16, "learning_rate": 0.5, "strategy": {"name": "fedadam"}},
        },
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_a_study_of_format_1_is_the_same_study_in_the_present_one(what: str, tmp_path: Path) -> None:
    old, overrides, new = CASES[what]
    before = copy.deepcopy(old)
    found, wanted = make_study(old, overrides), make_study(new)
    assert found == wanted
    assert old == before
    assert make_study(found.model_dump(mode="json")) == found  # and what is written is read back
    path = tmp_path / "study.toml"
    path.write_text(toml.dumps(old), encoding="utf-8")
    assert load_study(path, overrides) == wanted
    assert old_keys(old) or "method" not in old or overrides
    assert not old_keys(found.model_dump(mode="json"))


def test_what_a_training_study_leaves_out_is_filled_in_for_format_1_alone() -> None:
    """Defaults of training have changed since: an old file goes on to mean what it meant."""
    new = make_study({"scenario": "time-use", "method": "local-sgd", "holders": 2})
    assert (new.options, new.seed) == ({}, None)
    with pytest.raises(UsageError, match="study: holders: missing"):
        make_study({"scenario": "time-use", "method": "local-sgd"})
    assert "options" not in make_study({"method": "count", "holders": FILES}).model_dump(exclude_defaults=True)


def test_old_keys_are_told_with_what_they_are_read_as() -> None:
    assert old_keys({"analysis": "mean"}) == ("analysis as method",)
    assert old_keys({"method": "mean", "options": {"model": 1}, "privacy": {"epsilon": 1}}) == ()
    told = old_keys(
        {"rounds": 1, "training": {"method": "dp-fedsgd"}, "strategy": {}, "privacy": {"clipping_norm": 1.0}}
    )
    assert told == (
        "training.method as method",
        "rounds as options.rounds",
        "training as options",
        "strategy as options.strategy",
        "privacy.clipping_norm as options.clipping_norm",
    )


# ---- wrong keys


@pytest.mark.parametrize(
    ("table", "overrides", "key"),
    [
        ({"analysis": "mean", **MEAN, "bogus": 1}, [], "bogus"),
        ({"method": "mean", **MEAN, "bogus": 1}, [], "bogus"),
        ({**SENSORS, "bogus": 1}, [], "bogus"),
        ({**SENSORS, "privacy": {"epsilon": 1.0, "bogus": 1}}, [], "privacy: bogus"),
        ({**SENSORS, "privacy": {"epsilon": 1.0, "clipping_norm": 1.0, "bogus": 1}}, [], "privacy: bogus"),
        ({**SENSORS, "protection": {"bogus": 1}}, [], "protection.bogus"),
        ({**SENSORS, "simulation": {"bogus": 1}}, [], "simulation.bogus"),
        ({"analysis": "mean", **MEAN, "disclosure": {"bogus": 1}}, [], "disclosure.bogus"),
        (SENSORS, ["bogus=1"], "bogus"),
        (SENSORS, ["privacy.epsilon=1", "privacy.bogus=1"], "privacy: bogus"),
        ({"analysis": "mean", **MEAN}, ["protection.bogus=1"], "protection.bogus"),
    ],
)
def test_an_unknown_key_is_named_in_either_format(table: dict[str, Any], overrides: list[str], key: str) -> None:
    with pytest.raises(UsageError, match=f"^study: {key}: unknown key; want only keys listed in docs/study.md"):
        make_study(table, overrides)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"training": {"bogus": 1}}, "bogus"),
        ({"training": {"learning_rate": 0.1, "sampling_rat": 1}}, "sampling_rat"),
        ({"model": {"bogus": 1}}, "model.bogus"),
        ({"strategy": {"bogus": 1}}, "strategy.bogus"),
        ({"options": {"bogus": 1}}, "bogus"),
        ({"options": {"sampling_rate": 0.5}}, "sampling_rate"),  # by its present name it is not left out
    ],
)
def test_an_unknown_option_of_training_is_named_when_the_study_is_read(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=f"local-sgd: {key}: unknown key; want one of target, features, model"):
        resolve(toy_study(**changes).terms(TOY.codebook))


def test_a_clipping_norm_is_no_option_of_a_statistic() -> None:
    study = make_study({"analysis": "mean", **MEAN, "privacy": {"epsilon": 1.0, "clipping_norm": 1.0}})
    with pytest.raises(UsageError, match="mean: clipping_norm: unknown key"):
        resolve(study.terms(codebook_of({"x": ("number", 0, 1)})))


@pytest.mark.parametrize("value", ["many", [1], {"a": 1}])
@pytest.mark.parametrize("key", ["training", "options", "privacy", "model"])
def test_a_table_that_is_none_is_wrong_usage_and_nothing_worse(key: str, value: Any) -> None:
    with pytest.raises(UsageError):
        resolve(make_study({**SENSORS, key: value}).terms(TOY.codebook))


# ---- privacy


def private(method: str, given: Mapping[str, Any]) -> Privacy | Target:
    found = make_study({"method": method, "holders": FILES, "privacy": given}).privacy
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("method", "delta", "records"), [("local-sgd", 1e-5, 256), ("dp-fedsgd", 1e-5, 256), ("mean", 1e-6, 1)]
)
@pytest.mark.parametrize("kind", [{"epsilon": 2.0}, {"margin_of_error": 5.0}])
def test_privacy_has_the_defaults_of_its_method(
    method: str, delta: float, records: int, kind: Mapping[str, Any]
) -> None:
    found = private(method, kind)
    assert (found.delta, found.max_records_per_unit) == (delta, records)
    given = private(method, {**kind, "delta": 1e-7, "max_records_per_unit": 3})
    assert (given.delta, given.max_records_per_unit) == (1e-7, 3)
    assert private(method, {**kind, "noise": "shared"}).colluders == 1


def test_defaults_are_those_of_the_method_in_the_end_and_stay_when_a_study_is_changed() -> None:
    study = make_study({"analysis": "mean", **MEAN}, ["privacy.epsilon=1", "method=local-sgd"])
    assert study.privacy == Privacy(epsilon=1.0, delta=1e-5, max_records_per_unit=256)
    assert study.replace(title="other").privacy == study.privacy
    kept = Study(method="local-sgd", holders=FILES, privacy=Privacy(epsilon=1.0))
    assert kept.privacy == Privacy(epsilon=1.0)  # what is a Privacy already says all of itself


def test_errors_of_privacy_are_those_of_the_kind_that_was_meant() -> None:
    with pytest.raises(UsageError, match="study: privacy: epsilon: got -1; want greater than 0"):
        private("mean", {"epsilon": -1})
    with pytest.raises(UsageError, match="study: privacy: margin_of_error: got 0; want greater than 0"):
        private("mean", {"margin_of_error": 0})
    with pytest.raises(UsageError, match="epsilon: unknown key"):
        private("mean", {"margin_of_error": 5, "epsilon": 1})


# ---- margins of error


def test_a_margin_of_error_is_reached_and_not_by_much_more() -> None:
    from statfed.core.privacy.noise import error

    codebook = codebook_of({"x": ("number", 0, 100)})
    study = make_study({"method": "count", "holders": FILES, "privacy": {"margin_of_error": 20.0}})
    terms = study.terms(codebook)
    assert terms.privacy is not None
    parts, times = noisy_parts(terms)
    assert times == 1
    width = error(parts, terms.privacy, 2)[next(iter(parts))].max()
    assert 20.0 * 0.97 < width <= 20.0


@pytest.mark.parametrize("method", ["local-sgd", "dp-fedsgd"])
@pytest.mark.parametrize("options", [{}, {"holdout": 0.2}])
def test_training_has_no_margin_of_error_and_says_so(method: str, options: dict[str, Any]) -> None:
    """Also where scores are a noisy sum: the budget is not theirs alone."""
    study = toy_study(training={"method": method, "batch_size": 16}, privacy={"margin_of_error": 5.0}, options=options)
    with pytest.raises(UsageError, match=f"margin of error: {method} does not answer by one noisy sum; want epsilon"):
        study.terms(TOY.codebook)


@pytest.mark.parametrize("adaptive", [True, False])
def test_a_study_of_several_asks_has_no_margin_of_error(adaptive: bool) -> None:
    with installed(), pytest.raises(UsageError, match="does not answer by one noisy sum"):
        noisy_parts(query(method="outsider", options={"adaptive": adaptive}, privacy={"epsilon": 1.0}))


@pytest.mark.parametrize("holders", [0, 10_001, 10**12, 10**40])
def test_a_number_of_holders_that_no_study_has_is_refused_and_not_counted_up_to(holders: int) -> None:
    with pytest.raises(UsageError, match=r"holders: got .*; want 1 to 10,000"):
        make_study({"scenario": "time-use", "holders": holders})


def test_a_number_of_thousands_of_digits_and_tables_of_thousands_of_levels_are_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    for text in ("holders = " + "9" * 5_000, "a = " + "[" * 5_000 + "]" * 5_000):
        path.write_text(text)
        with pytest.raises(UsageError, match="not a readable TOML file"):
            load_study(path)


def test_a_codebook_with_more_categories_than_any_has_is_refused() -> None:
    column = {"type": "category", "categories": [str(i) for i in range(100_001)]}
    with pytest.raises(UsageError, match=r"columns\.region\.categories: .*want .*at most 100000"):
        make_codebook({"columns": {"region": column}})


def test_rules_of_simulated_holders_are_templates_by_name() -> None:
    assert make_study({"scenario": "time-use", "holders": 2}).simulation.rules == "none"
    assert (
        make_study({"scenario": "time-use", "holders": 2, "simulation": {"rules": "strict"}}).simulation.rules
        == "strict"
    )
    with pytest.raises(UsageError, match=r"simulation.rules: got 'lax'; want 'none', 'standard' or 'strict'"):
        make_study({"scenario": "time-use", "holders": 2, "simulation": {"rules": "lax"}})
