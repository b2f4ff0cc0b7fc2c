"""`mst` and `aim`: what is asked, by whom it is chosen, and what the noisy counts are, against the pooled records."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Ask, Question, load_method, read_question
from statfed.core.privacy.spending import price
from statfed.core.result import Result
from statfed.core.terms import Privacy, Terms
from statfed.lab.laws.frames import codebook_of, holder_table
from statfed.lab.laws.walk import finished, steps
from statfed.strategies.analyses import _structure
from statfed.strategies.synthesis import aim, mst

BOOK = codebook_of(
    {
        "a": {"type": "category", "categories": ["x", "y", "z"], "required": True},
        "b": {"type": "boolean", "required": True},
        "c": {"type": "integer", "low": 0, "high": 9},
        "d": {"type": "category", "categories": ["p", "q"], "required": True},
        "who": {"type": "id", "role": "unit"},
    }
)


def people(count: int = 3000, seed: int = 0) -> pd.DataFrame:
    """b follows a, c follows b, d is by itself; a tenth miss c."""
    rng = np.random.default_rng(seed)
    a = rng.integers(3, size=count)
    b = rng.random(count) < np.array([0.1, 0.5, 0.95])[a]
    c = np.where(b, rng.integers(5, 10, count), rng.integers(0, 5, count)).astype(float)
    return pd.DataFrame(
        {
            "a": np.array(["x", "y", "z"])[a],
            "b": b,
            "c": np.where(rng.random(count) < 0.1, np.nan, c),
            "d": rng.choice(["p", "q"], count),
            "who": [f"w{i // 2}" for i in range(count)],
        }
    )


def terms(method: str, holders: int = 1, codebook: Codebook = BOOK, privacy: Any = None, **options: Any) -> Terms:
    names = tuple(f"h{i + 1}" for i in range(holders))
    asked = Privacy.model_validate(privacy or {"epsilon": 4.0, "noise": "central"})
    return Terms(method=method, options=options, codebook=codebook, holders=names, seed=1, privacy=asked)


def question(method: str, **more: Any) -> Question[Any]:
    return read_question(terms(method, **more))[1]


def over(method: str, parts: list[pd.DataFrame], seed: int = 1, **more: Any) -> Result:
    made = terms(method, len(parts), **more)
    found = finished(made, dict(zip(made.holders, parts, strict=True)), seed=seed)
    assert isinstance(found, Result)
    return found


def pairs_of(result: Result) -> set[tuple[str, str]]:
    return {(str(row["first"]), str(row["second"])) for row in result.tables["margins"] if row["level"] == "chosen"}


@pytest.mark.parametrize("method", ["mst", "aim"])
def test_holders_together_get_what_one_with_all_records_gets_with_the_same_noise(method: str) -> None:
    frame = people()
    pooled, dealt = over(method, [frame]), over(method, [frame.iloc[i::3] for i in range(3)])
    assert dealt.tables == pooled.tables
    assert dealt.facts == pooled.facts


def test_the_tree_has_the_pairs_that_depend_and_aim_more_of_them() -> None:
    frame = people()
    tree = pairs_of(over("mst", [frame]))
    assert {("a", "b"), ("b", "c")} <= tree
    assert len(tree) == 3
    assert pairs_of(over("aim", [frame], more=2)) > tree


@pytest.mark.parametrize("unit", ["record", "person"])
def test_counts_are_off_by_the_noise_that_is_stated(unit: str) -> None:
    frame = people()
    privacy = {"epsilon": 2.0, "noise": "central", "unit": unit}
    privacy |= {"max_records_per_unit": 2} if unit == "person" else {}
    off = []
    for seed in range(6):
        found = over("mst", [frame], seed, privacy=privacy)
        groups = {(str(row["column"]), int(row["cell"] or 0)): int(row["group"] or 0) for row in found.tables["groups"]}
        codes = {"a": frame["a"].map({"x": 0, "y": 1, "z": 2}), "b": frame["b"].astype(int)}
        fine = {name: np.array([groups[name, int(code)] for code in values]) for name, values in codes.items()}
        for row in found.tables["margins"]:
            if row["level"] == "chosen" and (row["first"], row["second"]) == ("a", "b"):
                shape = (fine["a"].max() + 1, fine["b"].max() + 1)
                place = np.unravel_index(int(row["cell"] or 0), shape)
                true = int(((fine["a"] == place[0]) & (fine["b"] == place[1])).sum())
                off.append((float(row["count"] or 0) - true) / float(row["std_error"] or 1))
            if row["level"] == "single" and row["first"] == "d":
                true = int((frame["d"] == "pq"[int(row["cell"] or 0)]).sum())
                off.append((float(row["count"] or 0) - true) / float(row["std_error"] or 1))
    assert len(off) > 40
    low, high = (float(stats.chi2.ppf(p, len(off))) for p in (1e-4, 1 - 1e-4))
    assert low < float(np.square(off).sum()) < high


def test_noise_covers_all_records_of_a_person() -> None:
    ask = Ask("single", share=0.2)
    one = price(question("mst"), ask, None, 1)
    more = question("mst", privacy={"epsilon": 4.0, "noise": "central", "unit": "person", "max_records_per_unit": 3})
    many = price(more, ask, None, 1)
    assert one is not None
    assert one.noise is not None
    assert many is not None
    assert many.noise is not None
    ratio = many.noise.std()["m0"][0] / one.noise.std()["m0"][0]
    assert np.sqrt(1 + 1 / 9 + 1 / 9) * 3 == pytest.approx(
        ratio, rel=0.05
    )  # 3, 1 and 1 records in three cells at worst


@pytest.mark.parametrize("method", ["mst", "aim"])
def test_one_record_changes_one_cell_of_each_margin_by_one(method: str) -> None:
    frame = people(200)
    for step in steps(terms(method), {"h1": frame}):
        before, after = (step.sent(holder_table(one, BOOK)) for one in (frame.iloc[1:], frame))
        for name, part in step.parts.items():
            change = np.abs(after[name] - before[name])
            assert change.max() <= part.bound == 1.0
            assert np.count_nonzero(change) <= 1
            assert part.single


@pytest.mark.parametrize("method", ["mst", "aim"])
def test_the_whole_budget_is_spent_and_no_more(method: str) -> None:
    shares = [
        step.ask.share for step in steps(terms(method, more=1) if method == "aim" else terms(method), {"h1": people()})
    ]
    assert sum(shares) == pytest.approx(1.0)


def test_exact_counts_say_of_nothing_what_they_are_so_that_no_rules_let_them_out() -> None:
    exact = terms("mst").model_copy(update={"privacy": None})
    method, asked = read_question(exact)
    assert all(part.what is None for part in method.parts(asked, Ask("single")).values())
    found = finished(exact, {"h1": people(200)})
    assert isinstance(found, Result)
    assert found.undeclared
    assert found.facts["records"] == 200


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"groups": np.zeros(3, np.int64), "pairs": np.array([[0, 1]])}, "got int64 of shape"),
        ({"groups": np.zeros(18, np.float64), "pairs": np.array([[0, 1]])}, "got float64 of shape"),
        ({"groups": np.full(18, 7), "pairs": np.array([[0, 1]])}, "one for each of 3 cells, from 0 on"),
        ({"groups": np.full(18, -1), "pairs": np.array([[0, 1]])}, "one for each of 3 cells, from 0 on"),
        ({"groups": np.zeros(18, np.int64), "pairs": np.array([[1, 0]])}, "no two columns in their order"),
        ({"groups": np.zeros(18, np.int64), "pairs": np.array([[0, 9]])}, "no two columns in their order"),
        ({"groups": np.zeros(18, np.int64), "pairs": np.array([[0, 1], [0, 1]])}, "got one twice"),
        ({"groups": np.zeros(18, np.int64), "pairs": np.zeros((0, 2), np.int64)}, "want two whole numbers for each"),
        ({"groups": np.zeros(18, np.int64)}, "want two whole numbers for each"),
    ],
)
def test_arrays_that_a_coordinator_makes_up_are_refused(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_method("mst").parts(question("mst"), Ask("chosen", arrays))


def test_options_that_do_not_fit_are_refused() -> None:
    for options, message in (
        ({"shares": (0.5, 0.5, 0.5)}, "want three above 0 that add up to 1"),
        ({"columns": ["who"]}, "who: got type id"),
        ({"columns": ["nobody"]}, "nobody"),
    ):
        with pytest.raises(UsageError, match=message):
            question("mst", **options)


def fitted_by(module: Any, method: str, frame: pd.DataFrame, codebook: Codebook = BOOK, **more: Any) -> Any:
    def ask(analysis: str, **options: Any) -> Result:
        assert analysis == method
        return over(analysis, [frame], codebook=codebook, **more, **options)

    return module.fit(ask, codebook, module.Options())


@pytest.mark.parametrize(("method", "module"), [("mst", mst), ("aim", aim)])
def test_records_have_the_margins_of_the_original_up_to_noise(method: str, module: Any) -> None:
    frame = people()
    model = fitted_by(module, method, frame, privacy={"epsilon": 20.0, "noise": "central"})
    made = module.generate(model, BOOK, len(frame), np.random.default_rng(1))
    assert list(made) == ["a", "b", "c", "d"]
    original = {
        "a": frame["a"].map({"x": 0, "y": 1, "z": 2}).to_numpy(),
        "b": frame["b"].to_numpy().astype(int),
        "c": frame["c"].fillna(10).to_numpy().astype(int),
    }
    made |= {"c": np.where(np.isnan(made["c"]), 10, made["c"]).astype(int)}
    for one, two in (("a", "b"), ("b", "c")):
        shape = (3 if one == "a" else 2, 11)
        both = [
            np.bincount(np.ravel_multi_index((each[one], each[two]), shape), minlength=np.prod(shape))
            for each in (original, made)
        ]
        assert np.abs(both[0] - both[1]).sum() / 2 / len(frame) < 0.03
    independent = np.abs(np.subtract.outer([0.1, 0.5, 0.95], [0.52])).mean()
    gap = made["b"][made["a"] == 2].mean() - made["b"][made["a"] == 0].mean()
    assert gap > 2 * independent


def test_the_same_counts_give_the_same_model_and_a_seed_the_same_records() -> None:
    frame = people(800)
    one, other = (fitted_by(aim, "aim", frame) for _ in range(2))
    assert one == other
    first, again = (aim.generate(one, BOOK, 100, np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(first[name], again[name], equal_nan=name == "c") for name in first)


@pytest.mark.parametrize("module", [mst, aim])
def test_one_column_a_constant_one_and_many_categories(module: Any) -> None:
    method = module.__name__.rpartition(".")[2]
    rng = np.random.default_rng(7)
    one = codebook_of({"k": {"type": "category", "categories": [f"k{i}" for i in range(500)], "required": True}})
    frame = pd.DataFrame({"k": [f"k{i}" for i in np.minimum(rng.geometric(0.05, 2000), 499)]})
    model = fitted_by(module, method, frame, one)
    assert model["pairs"] == []
    made = module.generate(model, one, 2000, rng)["k"]
    assert abs(np.median(made) - np.median([int(k[1:]) for k in frame["k"]])) < 4

    levels = {"type": "category", "categories": list(one.columns["k"].levels), "required": True}
    both = codebook_of(
        {"k": levels, "same": {"type": "category", "categories": ["only"], "required": True}, "b": "boolean"}
    )
    frame["same"], frame["b"] = "only", [int(k[1:]) > 12 for k in frame["k"]]
    model = fitted_by(module, method, frame, both)
    assert model["pairs"] == [["k", "b"]]
    made = module.generate(model, both, 2000, rng)
    assert (made["same"] == 0).all()
    low, high = made["b"][made["k"] < 8].mean(), made["b"][made["k"] > 16].mean()
    assert high - low > 0.4


def test_a_model_that_is_none_is_refused() -> None:
    model = fitted_by(mst, "mst", people(300))
    broken: list[dict[str, Any]] = [{}, {**model, "cliques": []}, {**model, "columns": {}}]
    broken.append({**model, "cliques": [{**model["cliques"][0], "shares": [1.0]}, *model["cliques"][1:]]})
    broken.append({**model, "cliques": [{**one, "parent": 5} for one in model["cliques"]]})
    for one in broken:
        with pytest.raises(UsageError, match="got one that cannot be read"):
            mst.generate(one, BOOK, 10, np.random.default_rng(0))


def test_all_pairs_are_looked_at_coarsely_and_told() -> None:
    result = over("mst", [people()], coarse=2)
    coarse = {(row["first"], row["second"]) for row in result.tables["margins"] if row["level"] == "coarse"}
    assert coarse == set(combinations("abcd", 2))
    axes, told = _structure.told_of(result, BOOK, 100)
    assert [axis.name for axis in axes] == ["a", "b", "c", "d"]
    assert all(counts.shape == (2, 2) for counts, _ in told.pairs.values())
    assert told.total == pytest.approx(3000, abs=200)
