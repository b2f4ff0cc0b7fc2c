"""Holders together make synthetic data as good as those of one with all records; noise hides who was among them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from statfed.core.synthesis import Model
from statfed.core.synthetic.coded import Coded, joined
from statfed.core.synthetic.membership import membership
from statfed.core.synthetic.utility import margins
from statfed.core.terms import Privacy, Protection, Terms
from statfed.federation.synthetic import own_table
from statfed.lab.laws.walk import finished
from statfed.strategies.synthesis import _graphical, cart
from tests.federate import codebook_of, federate, split

BOOK = codebook_of(
    {
        "region": {"type": "category", "categories": list("nswe"), "required": True},
        "age": {"type": "integer", "low": 0, "high": 15, "required": True},
        "job": {"type": "category", "categories": ["none", "part", "full"], "required": True},
        "hours": {"type": "integer", "low": 0, "high": 20},
        "urban": {"type": "boolean", "required": True},
        "pay": {"type": "number", "low": 0, "high": 100},
    }
)
COUNT, CLASSES = 1500, 21


def people(count: int, seed: int, rare: float = 0.0) -> pd.DataFrame:
    """Columns that follow each other in a chain; of `rare` of the records each column is any value there can be."""
    rng = np.random.default_rng(seed)
    region = rng.choice(4, count, p=[0.4, 0.3, 0.2, 0.1])
    age = np.clip(rng.normal(5 + region, 2, count).round(), 0, 15)
    job = np.where(age > 8, 0, rng.choice(3, count, p=[0.2, 0.3, 0.5]))
    hours = np.where(job == 0, 0, np.clip(rng.normal(6 * job, 1, count).round(), 1, 20))
    urban = rng.random(count) < np.where(region == 0, 0.9, 0.3)
    pay = np.where(job == 0, 0.0, np.minimum(2 * hours * np.exp(rng.normal(0, 0.4, count)), 100))
    odd = rng.random(count) < rare
    hours, pay = np.where(odd, rng.integers(0, 21, count), hours), np.where(odd, rng.uniform(0, 100, count), pay)
    job, age = np.where(odd, rng.integers(3, size=count), job), np.where(odd, rng.integers(16, size=count), age)
    jobs = np.array(["none", "part", "full"])[job]
    return pd.DataFrame(
        {"region": np.array(list("nswe"))[region], "age": age.astype(int), "job": jobs, "hours": hours}
        | {"urban": urban, "pay": pay}
    )


def model_of(method: str, parts: list[pd.DataFrame], seed: int, kept: dict[Any, Any], epsilon: float = 2.0) -> Model:
    """What is fitted by one holder, or by several that share the noise, under the noise that a holder would pay for.
    kept: contributions to asks that were made before, as noise of every seed is drawn anew."""
    noise, protection = ("central", "plain") if len(parts) == 1 else ("shared", "secure-aggregation")
    terms = Terms(
        method=method,
        options={"classes": CLASSES},
        codebook=BOOK,
        holders=tuple(f"h{i}" for i in range(len(parts))),
        seed=1,
        privacy=Privacy(epsilon=epsilon, noise=noise),
        protection=Protection(name=protection),
    )
    found = finished(terms, dict(zip(terms.holders, parts, strict=True)), seed=seed, kept=kept)
    return _graphical.model(found, BOOK, CLASSES)


def records(model: Model, count: int, seed: int) -> Coded:
    return Coded(BOOK, dict(_graphical.generate(model, BOOK, count, np.random.default_rng(seed))))


@pytest.mark.parametrize(("method", "seeds"), [("mst", 4), ("aim", 3)])
def test_five_holders_are_as_good_as_one_with_all_records_and_better_than_each_by_itself(
    method: str, seeds: int
) -> None:
    """Distances of pairs of columns differ by less than their standard error over draws of the noise."""
    frame = people(COUNT, 1)
    original = own_table(frame, BOOK)
    dealt = [frame.iloc[i::5] for i in range(5)]

    def off(table: Coded) -> float:
        return margins(original, table, None, np.random.default_rng(0)).value

    def over(parts: list[pd.DataFrame]) -> NDArray[np.float64]:
        kept: dict[Any, Any] = {}
        made = [records(model_of(method, parts, seed, kept), COUNT, seed) for seed in range(1, seeds + 1)]
        return np.array([off(one) for one in made])

    one, five = over([frame]), over(dealt)
    error = np.sqrt((one.var(ddof=1) + five.var(ddof=1)) / seeds)
    assert abs(one.mean() - five.mean()) < error < 0.02
    apart = joined(*(records(model_of(method, [part], i, {}), len(part), i) for i, part in enumerate(dealt)))
    assert five.max() < off(apart)


@pytest.mark.parametrize("method", ["mst", "aim"])
def test_without_noise_structure_and_margins_of_five_holders_are_those_of_the_pooled_records(method: str) -> None:
    frame = people(400, 2)
    pooled, dealt = (federate(method, parts, BOOK, classes=CLASSES) for parts in ([frame], split(frame, 5, seed=3)))
    assert pooled.tables == dealt.tables
    one, five = (_graphical.model(found, BOOK, CLASSES) for found in (pooled, dealt))
    assert len(one["pairs"]) >= len(BOOK.columns) - 1
    assert one == five


def test_membership_of_planted_rare_records_is_told_by_trees_without_noise_and_not_by_aim_at_epsilon_1() -> None:
    members, others = people(800, 4, rare=0.05), people(1600, 5, rare=0.05)
    original, fresh = own_table(members, BOOK), own_table(others, BOOK)

    def ask(analysis: str, **options: Any) -> Any:
        return federate(analysis, split(members, 5), BOOK, **options)

    copied = cart.fit(ask, BOOK, cart.Options(smallest=1, depth=12, classes=24))
    copies = Coded(BOOK, dict(cart.generate(copied, BOOK, 800, np.random.default_rng(1))))
    noisy = records(model_of("aim", [members.iloc[i::5] for i in range(5)], 1, {}, epsilon=1.0), 800, 1)
    told, hidden = (membership(original, made, fresh, np.random.default_rng(2)) for made in (copies, noisy))
    assert told.low is not None, (told, hidden)
    assert told.low > 0.6
    assert hidden.low is not None
    assert hidden.high is not None
    assert hidden.low < 0.5 < hidden.high
    assert hidden.value < 0.56
