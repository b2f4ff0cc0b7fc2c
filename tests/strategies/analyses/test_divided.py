"""Sums that one record is divided over: what is read from them, what a record changes, and how large their noise is."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.method import Ask, Question, read_question
from statfed.core.privacy.noise import plan
from statfed.core.terms import Privacy, Terms
from statfed.strategies.analyses import _divided, _estimates, mean, ratio, total
from tests.federate import codebook_of, table_of

CODEBOOK = codebook_of(
    {
        "x": ("number", 0, 100),
        "below": ("number", -50, 0),
        "both": ("number", -30, 60),
        "high": ("number", 900, 1000),
        "w": ("number", 0, 7),
        "g": ["a", "b"],
    }
)


def frame(n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    made = pd.DataFrame(
        {
            "x": rng.uniform(0, 100, n),
            "below": rng.uniform(-50, 0, n),
            "both": rng.uniform(-30, 60, n),
            "high": rng.uniform(900, 1000, n),
            "w": rng.uniform(0, 7, n),
            "g": rng.choice(["a", "b"], n),
        }
    )
    made.loc[:4, ["x", "below", "both", "high"]] = np.nan
    return made


def question_of(method: str, where: str = "central", **options: Any) -> Question[Any]:
    terms = Terms(
        method=method,
        options=options,
        codebook=CODEBOOK,
        holders=("a", "b"),
        seed=1,
        privacy=Privacy.model_validate({"epsilon": 1.0, "noise": where}),
    )
    return read_question(terms)[1]


CASES: list[tuple[Any, dict[str, Any]]] = [
    *((module, {"columns": [column]}) for module in (total, mean) for column in ("x", "below", "both", "high")),
    (total, {"columns": ["x"], "weight": "w"}),
    (mean, {"columns": ["both"], "weight": "w"}),
    (ratio, {"numerator": "x", "denominator": "high"}),
    (ratio, {"numerator": "both", "denominator": "x", "weight": "w"}),
]


@pytest.mark.parametrize(("module", "options"), CASES)
def test_numbers_sums_and_products_are_read_from_the_entries(module: Any, options: dict[str, Any]) -> None:
    question = question_of(module.__name__.rpartition(".")[2], by=["g"], **options)
    sent = module.contribute(table_of(frame(), CODEBOOK), question, Ask("noisy"))
    (form,) = _estimates.noisy_forms(question, module._estimand(question))
    zero = {name: np.zeros(array.shape) for name, array in sent.items()}
    found = _divided.read(form, sent, zero, 2, "_0")
    data = frame().dropna()
    w = data["w"] if "weight" in options else pd.Series(1.0, data.index)
    y = data[options["numerator"] if module is ratio else options["columns"][0]]
    x = data[options["denominator"]] if module is ratio else pd.Series(1.0, data.index)
    if module is total:
        y, w = y * w, pd.Series(1.0, data.index)
    y = y - found.mu * x
    for name, values in {
        "count": x * 0 + 1,
        "y": w * y,
        "x": w * x,
        "yy": w * w * y * y,
        "yx": w * w * y * x,
        "xx": w * w * x * x,
    }.items():
        wanted = values.groupby(data["g"]).sum().to_numpy()
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-9, atol=1e-6)
    assert found.records == pytest.approx(40)


@pytest.mark.parametrize(("module", "options"), CASES)
def test_one_record_changes_all_entries_together_by_no_more_than_it_says(module: Any, options: dict[str, Any]) -> None:
    question = question_of(module.__name__.rpartition(".")[2], by=["g"], **options)
    parts = module.parts(question, Ask("noisy"))
    ends = pd.DataFrame(
        {
            "x": [0.0, 100, 50, 100],
            "below": [-50.0, 0, -25, -50],
            "both": [-30.0, 60, 15, 0],
            "high": [900.0, 1000, 950, 900],
            "w": [0.0, 7, 3, 7],
            "g": ["a", "b", "a", "b"],
        }
    )
    for i in range(len(ends)):
        sent = module.contribute(table_of(ends.iloc[[i]], CODEBOOK), question, Ask("noisy"))
        for name, part in parts.items():
            moved = np.abs(sent[name]).ravel() / np.broadcast_to(part.bound, part.shape).ravel()
            assert moved.sum() <= 1.0 + 1e-9, name
            assert part.single or part.together == (1.0, 1.0)


@pytest.mark.parametrize("where", ["central", "shared"])
@pytest.mark.parametrize(("column", "largest"), [("x", 100), ("below", 50), ("both", 60), ("high", 1000)])
def test_totals_have_within_a_fifth_the_noise_of_the_best_central_mechanism(
    where: str, column: str, largest: float
) -> None:
    """It was three times that, half of the budget having gone to the number of records."""
    question = question_of("total", where, columns=[column])
    shares = 7 if where == "shared" else 1
    assert question.privacy is not None
    std = plan(total.parts(question, Ask("noisy")), question.privacy, 1, shares).std(8)
    (form,) = _estimates.noisy_forms(question, total._estimand(question))
    found = _divided.read(form, {name: np.zeros(array.shape) for name, array in std.items()}, std, 1, "_0")
    assert found.total_noise[0] <= 1.2 * np.sqrt(2) * largest
