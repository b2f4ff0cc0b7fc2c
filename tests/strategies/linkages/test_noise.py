"""Noise on what `helper` opens: what it is added to, its law, its event, and what has none."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from statfed.core.errors import UsageError
from statfed.core.linkage import Units
from statfed.core.method import Ask, read_question
from statfed.core.privacy.accountant import DiscreteLaplace, singles
from statfed.core.randomness import stream
from statfed.core.terms import Privacy, Terms
from statfed.strategies.linkages import _noise, helper
from statfed.strategies.linkages._noise import Noisy
from tests.federate import table_of
from tests.strategies.linkages.joined import agreed, run
from tests.strategies.linkages.test_joined import CODEBOOK, HAD, THREE, TWO, joined

PRIVACY = Privacy(epsilon=1.0)
PURE = Privacy(epsilon=0.5, delta=0.0)
CASES: tuple[tuple[int, str, dict[str, Any]], ...] = (
    (2, "table", {"rows": ["sector"], "columns": ["region"]}),
    (3, "table", {"rows": ["sector"], "columns": ["size", "region"]}),
    (2, "table", {"rows": ["region"], "columns": ["sector"], "value": "income"}),
    (2, "total", {"columns": ["income", "x2"], "by": ["region", "sector"]}),
    (3, "mean", {"columns": ["x2"], "by": ["size", "region"]}),
    (2, "total", {"columns": ["age"]}),
)


def plan_of(method: str, holders: int, privacy: Privacy = PRIVACY, **options: Any) -> Noisy:
    """What is opened of an analysis of two or three holders."""
    names = "abc"[:holders]
    given = {"reveal": "totals", "method": method, "options": options, "codebook": CODEBOOK, "privacy": privacy}
    read = helper.Options.model_validate(given | {"columns": {name: HAD[name] for name in names}})
    plan = helper.Setting.of(agreed(dict.fromkeys(names, 400), read)).plan
    assert isinstance(plan, Noisy)
    return plan


def analysed(holders: int, method: str, **options: Any) -> Any:
    made = TWO if holders == 2 else THREE
    units = {
        name: Units({"id": [str(i) for i in frame["id"]]}, {c: frame[c].to_numpy(np.float64) for c in HAD[name]})
        for name, frame in made.items()
    }
    columns = {name: HAD[name] for name in made}
    given: dict[str, Any] = {"reveal": "totals", "method": method, "options": options, "codebook": CODEBOOK}
    return run(units, columns=columns, privacy=PRIVACY, **given).outcome


@pytest.mark.parametrize(("holders", "method", "options"), CASES, ids=str)
def test_what_gets_noise_is_what_the_horizontal_method_sums_over_the_plain_join(
    holders: int, method: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    outcome = Noisy.outcome

    def watched(self: Noisy, found: Any, driven: Any) -> Any:
        opened.append(found)
        return outcome(self, found, driven)

    monkeypatch.setattr(Noisy, "drawn", lambda self, _: np.zeros(self.shape, np.uint64))
    monkeypatch.setattr(Noisy, "outcome", watched)
    assert analysed(holders, method, **options).result is not None
    plain = joined(TWO if holders == 2 else THREE)
    terms = Terms(
        method=method, options=options, codebook=CODEBOOK, holders=("a",), seed=None, privacy=Privacy(epsilon=1)
    )
    read, question = read_question(terms)
    wanted = read.contribute(table_of(plain.assign(event=plain.get("event", 0)), CODEBOOK), question, Ask("noisy"))
    plan = plan_of(method, holders, **options)
    start = 0
    for name, part in plan.parts.items():
        size = int(np.prod(part.shape))
        found, grid = opened[0][start : start + size], plan.noise.grid(name)
        exact = np.asarray(wanted[name], np.float64).reshape(-1) / grid
        assert np.abs(found - exact).max() < (1e-12 if part.integer else 1.001), name
        start += size


def test_noise_has_the_law_that_is_charged() -> None:
    """The law by scipy, the scale of the event that ledgers are charged, of all that a party draws for one release."""
    plan = plan_of("table", 2, PURE, rows=["region"], columns=["sector"])
    ((event, often),) = singles([plan.noise.event()])
    assert isinstance(event, DiscreteLaplace)
    assert (event.sensitivity, often) == (1, 1)
    assert plan.noise.epsilon(1, 0.0) <= 0.5
    drawn = np.concatenate([plan.drawn(stream(3, "noise", i)).view(np.int64) for i in range(2_000)])
    law = stats.dlaplace(1 / event.scale)
    bins = np.arange(-8, 9)
    counted = Counter(np.clip(drawn, -8, 8).tolist())
    expected = law.pmf(bins)
    expected[0], expected[-1] = law.cdf(-8), law.sf(7)
    found = np.array([counted[int(one)] for one in bins])
    assert stats.chisquare(found, expected * len(drawn)).pvalue > 1e-4
    halved = stats.dlaplace(2 / event.scale)  # the test would notice half of the noise
    half = halved.pmf(bins)
    half[0], half[-1] = halved.cdf(-8), halved.sf(7)
    assert stats.chisquare(found, half * len(drawn)).pvalue < 1e-9


def test_both_computing_parties_add_all_of_the_noise() -> None:
    units = {name: Units({"id": ["x", name, *map(str, range(20))]}) for name in "ab"}
    off = [(run(units, privacy=PURE).outcome.size or 0) - 21 for _ in range(120)]
    variance = run(units, privacy=PURE).outcome.std["size"] ** 2
    one = _noise.planned(None, PURE)[0].std(1)["size"] ** 2
    assert variance == pytest.approx(2 * one)
    assert np.var(off) == pytest.approx(variance, rel=0.6)
    assert abs(np.mean(off)) < 4 * np.sqrt(variance / len(off))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"reveal": "pairs", "to": ("a",)}, "got noise for pairs"),
        ({"cap": 10}, r"cap: got 10 with \[privacy\]; want at least every holder's public size"),
    ],
)
def test_what_noise_would_not_cover_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises((UsageError, ValueError), match=said):
        run({name: Units({"id": [str(i) for i in range(20)]}) for name in "ab"}, privacy=PRIVACY, **given)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("ols", {"formula": "income ~ age"}, r"got \[privacy\]; want one of table, total, mean"),
        ("covariance", {"columns": ["income", "age"]}, r"got \[privacy\]; want one of table, total, mean"),
        ("total", {"columns": ["income"], "population": 1000}, "population"),
        ("total", {"columns": ["income", "age"]}, "columns of one holder at a time"),
    ],
)
def test_analyses_without_noise_on_shares_are_refused(method: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        analysed(2, method, **options)


@pytest.mark.parametrize("reveal", ["size", "totals"])
def test_who_learns_what_says_that_the_helper_sees_the_number_of_matches_without_noise(reveal: str) -> None:
    more: dict[str, Any] = {}
    if reveal == "totals":
        columns = {name: HAD[name] for name in "ab"}
        more = {"method": "table", "options": {"rows": ["region"]}, "codebook": CODEBOOK, "columns": columns}
    options = helper.Options(reveal=reveal, privacy=PRIVACY, **more)
    rows = helper.learns(agreed({"a": 10, "b": 10}, options), reveal)  # type: ignore[arg-type]
    of = {(row.role, row.learns): row.protected_by for row in rows}
    assert "epsilon does not hold" in of["helper", "the number of matches, exactly"]
    told = [by for (role, what), by in of.items() if role == "coordinator" and "with noise" in what]
    assert told == [
        "noise at the holder: epsilon 1 per record over all sums, by each of the first two holders on its "
        "share, so twice"
    ]
    assert not any(role == "coordinator" and by == "none" for (role, _), by in of.items())
