"""Synthetic data by questions to holders: fitted, saved, sampled, and evaluated without pooling the original."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.synthetic import targets
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.evaluation import Asked
from statfed.core.synthetic.measured import wilson
from statfed.core.synthetic.packing import packed, unpacked
from statfed.federation import Federation
from statfed.federation.evaluation import rows, to_dict
from statfed.federation.evaluation.apart import CLASSES, evaluate_apart
from statfed.federation.synthetic import fit, frame_of, load_synthesizer
from statfed.strategies.analyses.marginals import axes_for
from tests.synthetic_people import CODEBOOK, people, read, shuffled

N = 900
USED, KEPT, LIKE = people(N, 1), people(N, 2), people(N, 3)
KEYS, SECRETS = ("age", "edu", "region"), ("employed", "income")


def book() -> Codebook:
    """With a column that says which records the data were made from."""
    told = CODEBOOK.model_dump(mode="json", exclude_defaults=True)
    told["columns"]["part"] = {"type": "category", "categories": ["used", "kept"], "required": True}
    return make_codebook(told)


def holders(count: int = 3) -> dict[str, pd.DataFrame]:
    everybody = pd.concat([USED.assign(part="used"), KEPT.assign(part="kept")])
    return {name: everybody.iloc[i::count] for i, name in enumerate("abc"[:count])}


def evaluated(synthetic: pd.DataFrame, **more: Any) -> dict[tuple[str, str], dict[str, object]]:
    with Federation(holders(), book(), protection="secure-aggregation", seed=1) as federation:
        asked = Asked("public-release", KEYS, SECRETS)
        found = evaluate_apart(
            federation, read(synthetic), asked, np.random.default_rng(1), apart="part = kept", **more
        )
    json.dumps(to_dict(found, {}), allow_nan=False)
    assert any("charged" in note for note in found.notes) == ("privacy" in more)
    return {(str(row["name"]), str(row["about"])): dict(row) for row in rows(found)}


def test_margins_and_attacks_are_those_of_the_pooled_records() -> None:
    """The same cells and the same attacks on all records together; nearest records at one distance are drawn."""
    found, synthetic = evaluated(LIKE), read(LIKE)
    axes = axes_for(CODEBOOK, synthetic.names, CLASSES)
    distances = []
    for i, first in enumerate(synthetic.names):
        for second in synthetic.names[i + 1 :]:
            counts = []
            for table in (read(USED), synthetic):
                codes = [axes[n].places(table.columns[n], table.missing(n)) for n in (first, second)]
                sizes = [axes[n].size for n in (first, second)]
                counts.append(np.bincount(np.ravel_multi_index(codes, sizes), minlength=int(np.prod(sizes))) / N)
            distances.append(np.abs(counts[0] - counts[1]).sum() / 2)
    assert found["margins", "2 columns at a time"]["value"] == pytest.approx(np.mean(distances), abs=1e-12)
    for name, make in (("disco", 1), ("tcap", 0)):
        row = found[name, "employed by age, edu, region"]
        open_, right = targets.unanimous(synthetic, synthetic, read(USED), KEYS, "employed")
        tried = np.ones(N, bool) if make else open_
        assert row["n"] == int(tried.sum())
        assert row["value"] == pytest.approx(wilson(int(right.sum()), int(tried.sum()))[0])


def test_a_copy_is_found_without_pooling_and_a_fresh_sample_is_not() -> None:
    copy, like = evaluated(USED), evaluated(LIKE)
    assert copy["copies", "all columns"]["excess_low"] > 0.9  # type: ignore[operator]
    assert copy["inference", "employed from 4 columns"]["excess_low"] > 0.9  # type: ignore[operator]
    assert like["copies", "all columns"]["excess_low"] < 0.02  # type: ignore[operator]
    assert like["inference", "employed from 4 columns"]["excess_low"] < 0.1  # type: ignore[operator]


def test_models_of_holders_and_of_synthetic_records_are_compared() -> None:
    apart = evaluated(shuffled(USED, 4), models=("ols income ~ age + C(edu)",))
    assert apart["coefficients", "ols income ~ age + C(edu)"]["value"] < 0.3  # type: ignore[operator]


def test_noise_is_in_the_intervals_of_attacks() -> None:
    plain, noisy = evaluated(LIKE), evaluated(LIKE, privacy={"epsilon": 1.0, "noise": "shared"})

    def width(found: dict[tuple[str, str], dict[str, object]]) -> float:
        row = found["copies", "all columns"]
        return float(row["high"]) - float(row["low"])  # type: ignore[arg-type]

    assert width(noisy) > 3 * width(plain)


def test_holders_with_rules_answer_no_exact_question_about_a_table_of_the_askers() -> None:
    with Federation(holders(), book(), rules="standard") as federation, pytest.raises(Refused):
        federation.ask(
            "synthetic-risk", table=packed(read(LIKE)), records=N, keys=KEYS, secrets=SECRETS, apart="part = kept"
        )
    with Federation(holders(), book(), rules="standard") as federation, pytest.raises(Refused):
        federation.ask("marginals", columns=KEYS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-8], "no packed table|another size"),
        (lambda text: "?" + text, "no packed table"),
        (lambda _: packed(read(LIKE).take(np.arange(5))), "another size"),
    ],
)
def test_a_damaged_table_is_refused(change: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        unpacked(change(packed(read(LIKE))), CODEBOOK, read(LIKE).names, N)  # type: ignore[operator]


def test_packing_keeps_a_table_and_refuses_values_outside_the_codebook() -> None:
    table = read(LIKE)
    again = unpacked(packed(table), CODEBOOK, table.names, N)
    assert all(np.array_equal(table.columns[n], again.columns[n], equal_nan=n == "income") for n in table.names)
    wrong = Coded(CODEBOOK, {**table.columns, "edu": np.full(N, 7)})
    with pytest.raises(UsageError, match="edu"):
        unpacked(packed(wrong), CODEBOOK, table.names, N)


def test_dummy_records_fit_the_codebook_and_look_at_nothing(tmp_path: Path) -> None:
    with Federation({"a": USED.iloc[:5]}, CODEBOOK) as federation:
        model = fit(federation, "dummy", {"missing": 0.1})
        assert federation.last is None
    model.save(tmp_path / "m.json")
    again = load_synthesizer(tmp_path / "m.json")
    frame = again.sample(2000, seed=1)
    assert frame.equals(model.sample(2000, seed=1))
    assert read(frame).count == 2000
    assert frame["income"].isna().mean() == pytest.approx(0.1, abs=0.03)
    assert not frame["age"].isna().any()
    assert frame["age"].mean() == pytest.approx((16 + 95) / 2, abs=2.5)


def test_records_from_tables_have_the_margins_that_were_told() -> None:
    with Federation({"a": USED.iloc[:450], "b": USED.iloc[450:]}, CODEBOOK) as federation:
        model = fit(federation, "margins", {"columns": "edu,region,employed"})
    assert model.fitted.origin["left_out"] == [n for n in CODEBOOK.columns if n not in ("edu", "region", "employed")]
    assert "3 columns, without" in model.summary()
    drawn = frame_of(model.coded(200_000, 1))
    told = pd.crosstab(USED["edu"], USED["employed"], normalize=True)
    made = pd.crosstab(drawn["edu"], drawn["employed"].astype(bool), normalize=True)
    assert np.abs(told.to_numpy() - made.to_numpy()).max() < 0.005


def test_a_model_that_cannot_be_drawn_from_was_paid_for_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from statfed.strategies.synthesis import margins

    def refused(*_: Any) -> Any:
        raise UsageError("got tables whose zeros leave no cell")

    monkeypatch.setattr(margins, "generate", refused)
    with Federation({"a": USED}, CODEBOOK) as federation:
        model = fit(federation, "margins", {"columns": "edu,region"}, {"epsilon": 1.0, "noise": "central"})
    assert "left_out" not in model.fitted.origin
    assert model.fitted.model["columns"] == ["edu", "region"]
    with pytest.raises(UsageError, match="leave no cell"):
        model.sample(5)


def test_a_suppressed_cell_is_not_taken_for_zero() -> None:
    with Federation({"a": USED.iloc[:450], "b": USED.iloc[450:]}, CODEBOOK, disclosure="standard") as federation:
        model = fit(federation, "margins", {"columns": "edu,region", "margins": [["edu", "region"]]})
    (table,) = model.fitted.model["tables"]
    assert None in table["counts"]
    drawn = frame_of(model.coded(100_000, 1))
    counts = pd.crosstab(drawn["edu"], drawn["region"]).reindex(index=list("01234"), columns=list("ABCDEFGH"))
    hidden = [value is None for value in table["counts"]]
    assert counts.to_numpy().ravel()[hidden].min() > 0


@pytest.mark.parametrize(
    ("method", "options", "privacy", "message"),
    [
        ("dummy", {}, 1.0, "looks at no data"),
        ("cart", {}, 1.0, "no differentially private form"),
        ("dumy", {}, None, "dummy"),
        ("dummy", {"misssing": 1}, None, "missing"),
        ("margins", {"columns": "age"}, None, "age"),
    ],
)
def test_what_does_not_go_together_is_refused(
    method: str, options: dict[str, object], privacy: float | None, message: str
) -> None:
    with Federation({"a": USED}, CODEBOOK) as federation, pytest.raises(UsageError, match=message):
        fit(federation, method, options, privacy)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_bytes(b"\xff\x00")
    for name in ("a.json", "b.json", "c.json"):
        with pytest.raises(UsageError, match=name):
            load_synthesizer(tmp_path / name)
