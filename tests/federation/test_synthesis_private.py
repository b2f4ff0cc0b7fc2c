"""Private synthetic data across holders: fitted under a protection, charged, saved, read again and drawn from."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from statfed.core.errors import StatfedError, UsageError
from statfed.federation.federation import Federation
from statfed.federation.synthetic import fit, load_synthesizer

BOOK = {
    "columns": {
        "job": {"type": "category", "categories": ["none", "part", "full"], "required": True},
        "hours": {"type": "integer", "low": 0, "high": 60},
        "who": {"type": "id", "role": "unit"},
    }
}


def people(count: int = 900) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    job = rng.integers(3, size=count)
    hours = np.array([0, 20, 40])[job] + np.where(job > 0, rng.integers(-5, 6, count), 0)
    jobs = np.array(["none", "part", "full"])[job]
    return pd.DataFrame({"job": jobs, "hours": hours, "who": [f"p{i}" for i in range(count)]})


def test_holders_fit_a_private_model_together_and_its_records_follow_theirs(tmp_path: Path) -> None:
    frame = people()
    holders = {name: frame.iloc[i::3] for i, name in enumerate("abc")}
    privacy = {"epsilon": 6.0, "noise": "shared", "unit": "person", "max_records_per_unit": 1}
    with Federation(holders, BOOK, seed=1, protection="secure-aggregation") as asked:
        model = fit(asked, "mst", {}, privacy=privacy)
    origin = model.fitted.origin
    assert 0 < origin["epsilon"] <= 6.0
    assert (origin["unit"], origin["noise"], origin["holders"]) == ("person", "shared", ["a", "b", "c"])
    assert len(origin["runs"]) == 1  # one study, one approval, one charge
    model.save(tmp_path / "model.json")
    read = load_synthesizer(tmp_path / "model.json")
    made, again = read.sample(900, seed=4), model.sample(900, seed=4)
    pd.testing.assert_frame_equal(made, again)
    for job, usual in (("none", 0), ("part", 20), ("full", 40)):
        assert made.loc[made["job"] == job, "hours"].astype(float).median() == pytest.approx(usual, abs=6)
        assert (made["job"] == job).mean() == pytest.approx((frame["job"] == job).mean(), abs=0.06)


@pytest.mark.parametrize("method", ["mst", "aim"])
def test_a_fit_without_epsilon_is_refused_and_exact_counts_leave_no_holder_with_rules(method: str) -> None:
    with Federation({"a": people(60), "b": people(60)}, BOOK, rules="standard") as asked:
        with pytest.raises(UsageError, match="got no epsilon"):
            fit(asked, method, {})
        with pytest.raises(StatfedError):
            asked.ask(method)
