"""What takes records together, measured without pooling: a propensity model, and attacks within holders."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from statfed.core.errors import Refused, UsageError
from statfed.core.method import Ask, read_question
from statfed.core.synthetic import utility
from statfed.core.synthetic.attacks import predicates
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.evaluation import Asked
from statfed.core.synthetic.measured import Measured, auc, of_auc
from statfed.core.synthetic.membership import rare_scores, rarity
from statfed.core.synthetic.packing import packed
from statfed.core.synthetic.propensity import binned_auc
from statfed.core.terms import Privacy, Terms
from statfed.federation import Federation
from statfed.federation.evaluation.apart import evaluate_apart
from statfed.strategies.analyses._synthetic_table import in_order
from statfed.strategies.analyses.propensity import follows
from tests.federate import federate
from tests.federation.test_synthetic import KEPT, KEYS, LIKE, SECRETS, USED, N, book, holders
from tests.synthetic_people import CODEBOOK, people, read, shuffled

FEW = people(150, 9)
ONE_LEVEL = people(400, 8).assign(region="A")


def asked(name: str, synthetic: pd.DataFrame, apart: str = "part = kept", **options: Any) -> Any:
    table: dict[str, Any] = {"table": packed(read(synthetic)), "records": len(synthetic), "apart": apart}
    return federate(name, list(holders().values()), book(), **table, **options)


@pytest.mark.parametrize("interactions", [True, False])
@pytest.mark.parametrize("made", [LIKE, shuffled(USED, 4), ONE_LEVEL], ids=["like", "shuffled", "separated"])
def test_the_propensity_model_is_that_of_the_pooled_records(made: pd.DataFrame, interactions: bool) -> None:
    """Also where a level is in one table alone, so that its coefficient grows until the fit ends."""
    synthetic, fresh = asked("propensity", made, interactions=interactions).tables["models"]
    for row, other in ((synthetic, made), (fresh, KEPT)):
        pooled, p = utility._fitted(read(USED), read(other), interactions, read(made))
        assert (row["made_from"], row["others"], row["parameters"]) == (N, len(other), pooled.parameters)
        assert row["pmse"] == pytest.approx(pooled.value, abs=1e-8)
        exact, _ = auc(p[N:], p[:N])
        assert abs(row["auc"] - exact) <= row["auc_off_by"] + 1e-12
        assert row["auc_off_by"] < 0.01 or made is not LIKE


@pytest.mark.parametrize("count", [450, 200, 40], ids=["all products", "products of groups", "no products"])
def test_the_figures_are_those_of_the_pooled_evaluation(count: int) -> None:
    """With as many fresh records as synthetic ones the baselines are the same, too."""
    used, kept, like = (frame.iloc[:count] for frame in (USED, KEPT, LIKE))
    frames = {f"h{i}": pd.concat([used.assign(part="used")[i::2], kept.assign(part="kept")[i::2]]) for i in range(2)}
    with Federation(frames, book(), seed=1) as federation:
        wanted = Asked("public-release", KEYS, SECRETS, measures=("pmse", "s-pmse", "logistic-auc", "propensity-auc"))
        found = evaluate_apart(federation, read(like), wanted, np.random.default_rng(1), apart="part = kept")
    apart = {one.name: one for one in found.measured}
    three = read(used), read(like), read(kept)
    for one in utility.propensity(*three, np.random.default_rng(1)):
        mine = apart[one.name]
        assert (mine.value, mine.baseline, mine.excess) == pytest.approx(
            (one.value, one.baseline, one.excess), abs=1e-8
        )
        assert (mine.note, mine.about, mine.n) == (one.note, one.about, one.n)
    area = utility.logistic_auc(*three, np.random.default_rng(1))
    assert apart["logistic-auc"].low <= area.value <= apart["logistic-auc"].high  # type: ignore[operator]
    assert dict(found.left_out).keys() == {"propensity-auc"}


def test_fresh_records_of_another_number_are_scaled_to_the_synthetic_ones() -> None:
    """Two samples of one population have pMSE in proportion to c (1 - c) / N: Monte Carlo over samples."""
    given = utility.Propensity(0.0, 9, 300, 900)
    made: list[Any] = []
    want: list[Any] = []
    for seed in range(12):
        own = read(people(600, 100 + seed))
        many, few = (read(people(size, 200 + seed)) for size in (1200, 300))
        larger, smaller = (utility._fitted(own, each, interactions=False)[0] for each in (many, few))
        made.append(utility.propensity_measured(given, larger)[0].baseline)
        want.append(smaller.value)
    assert np.mean(made) == pytest.approx(np.mean(want), rel=0.3)
    unscaled = np.mean(made) * (1200 * 600 / 1800**3) / (300 * 600 / 900**3)
    assert abs(unscaled - np.mean(want)) > 0.3 * np.mean(want)


def test_an_area_of_counts_is_that_of_scores_with_ties() -> None:
    rng = np.random.default_rng(3)
    scores = np.round(rng.normal(size=300), 1), np.round(rng.normal(0.5, 1, 200), 1)
    edges = np.arange(-3, 4, 0.1) + 0.05
    counts = [np.bincount(np.searchsorted(edges, each, side="right"), minlength=len(edges) + 1) for each in scores]
    value, error, bound = binned_auc(counts[1].tolist(), counts[0].tolist())
    assert (value, error) == pytest.approx(auc(scores[1], scores[0]))
    ties = (scores[1][:, None] == scores[0][None, :]).mean()
    assert bound == pytest.approx(ties / 2)


def slow(own: Coded, synthetic: Coded, size: int) -> tuple[list[int], list[int]]:
    """Attempts and successes, record by record: uniques by levels, and predicates."""
    own = own.take(np.lexsort([own.columns[name] for name in reversed(own.names)])).drawn(
        size, np.random.default_rng(1)
    )
    names = ("edu", "region", "employed")
    rows, others = ([tuple(int(t.columns[n][i]) for n in names) for i in range(t.count)] for t in (own, synthetic))
    tried, hits = [own.count], [sum(rows.count(row) == 1 and others.count(row) == 1 for row in rows)]
    for width in (1, 3, 5):
        made = predicates(synthetic, np.random.default_rng(1), 60, width)
        count = 0
        for one in made:
            true = 0
            for i in range(own.count):
                true += bool(one.holds(own.take(np.array([i])))[0])
            count += true == 1
        tried.append(len(made))
        hits.append(count)
    return tried, hits


def test_successes_within_holders_add_up_to_the_obvious_loop() -> None:
    frames = {name: frame.iloc[: 40 + 10 * i] for i, (name, frame) in enumerate(holders(2).items())}
    frames["c"] = holders()["c"].iloc[-25:]  # all apart: not attacked
    assert set(frames["c"]["part"]) == {"kept"}
    frames = {name: pd.concat([frame, holders()[name].iloc[-30:]]) for name, frame in frames.items() if name != "c"} | {
        "c": frames["c"]
    }
    options: dict[str, Any] = {"keys": ["edu", "region", "employed"], "predicates": 60, "apart": "part = kept"}
    table: dict[str, Any] = {"table": packed(read(FEW)), "records": len(FEW)}
    rows: Any = federate("synthetic-within", list(frames.values()), book(), **table, **options).tables["attacks"]
    for side, part in (("made from", "used"), ("apart", "kept")):
        wanted = np.zeros((2, 4), int)
        for name in "ab":
            size = int(frames[name]["part"].value_counts().min())
            own = frames[name][frames[name]["part"] == part].drop(columns="part")
            wanted += np.array(slow(read(own), read(FEW), size))
        mine = [(row["tried"], row["succeeded"]) for row in rows if row["records"] == side]
        assert mine == list(zip(*wanted.tolist(), strict=True))
        assert sum(hit for _, hit in mine) > 0


def test_uniques_within_holders_are_at_least_those_of_all() -> None:
    table: dict[str, Any] = {"table": packed(read(FEW)), "records": len(FEW), "keys": ["edu", "region", "employed"]}
    used = USED.iloc[:300]
    own = [used.iloc[i::3] for i in range(3)]
    one_holder, three = (
        federate("synthetic-within", frames, CODEBOOK, **table).tables["attacks"] for frames in ([used], own)
    )
    pairs: list[tuple[Any, Any]] = list(zip(one_holder, three, strict=True))
    for one, more in pairs:
        assert more["succeeded"] >= one["succeeded"]
    assert pairs[0][1]["succeeded"] > pairs[0][0]["succeeded"]


MANY, STRANGERS = people(1800, 20), people(3600, 21)


def membership(planted: float) -> Measured:
    """Of three holders, the first one's rarest records standing verbatim in the synthetic data, as a share of these."""
    made = people(len(MANY), 22)
    own = MANY.iloc[::3]
    far = rarity(read(own), read(own))
    rows = own.iloc[np.argsort(-far)[: round(planted * len(made))]]
    made = pd.concat([made.iloc[len(rows) :], rows])
    frames = [pd.concat([MANY.assign(part="used")[i::3], STRANGERS.assign(part="kept")[i::3]]) for i in range(3)]
    table: dict[str, Any] = {"table": packed(read(made)), "records": len(made), "apart": "part = kept"}
    result = federate("synthetic-within", frames, book(), **table, keys=["age"], predicates=5)
    (row,) = result.tables["membership"]
    return of_auc("membership", "risk", row["auc"], row["std_error"], row["members"] + row["others"])  # type: ignore[arg-type,operator]


def test_rare_records_of_one_holder_that_stand_in_the_data_are_found_and_fresh_ones_are_not() -> None:
    fresh, planted = membership(0.0), membership(0.02)
    assert fresh.low < 0.5 < fresh.high  # type: ignore[operator]
    assert planted.low > 0.5  # type: ignore[operator]
    assert planted.value > fresh.value + 0.1


def test_the_area_of_holders_is_the_mean_over_their_members() -> None:
    """Against ranks of each holder's own scores."""
    parts = []
    for frame in holders().values():
        made, kept = (in_order(read(frame[frame["part"] == part].drop(columns="part"))) for part in ("used", "kept"))
        score, inside = rare_scores(made, read(LIKE), kept, np.random.default_rng(1), 0.3)
        ranks = rankdata(score)
        m, n = int(inside.sum()), int((~inside).sum())
        parts.append((m, (ranks[inside].sum() - m * (m + 1) / 2) / n))
    (row,) = asked("synthetic-within", LIKE, keys=list(KEYS), rare=0.3).tables["membership"]
    assert row["members"] == sum(m for m, _ in parts)
    assert row["auc"] == pytest.approx(sum(wins for _, wins in parts) / sum(m for m, _ in parts))


ASKED: dict[str, dict[str, Any]] = {"propensity": {}, "synthetic-within": {"keys": KEYS}}


def test_holders_with_rules_do_not_answer_and_noise_has_no_form() -> None:
    common: dict[str, Any] = {"table": packed(read(FEW)), "records": len(FEW), "apart": "part = kept"}
    frames = {name: frame.iloc[::5] for name, frame in holders(3).items()}
    with Federation(frames, book(), rules="standard", protection="secure-aggregation") as federation:
        for name, more in ASKED.items():
            with pytest.raises(Refused, match=r"populations|rules|judge"):
                federation.ask(name, **common, **more)
    for name, more in ASKED.items():
        terms = Terms(method=name, options={**common, **more}, codebook=book(), holders=("a",), seed=1)
        with pytest.raises(UsageError, match="no differentially private form"):
            read_question(terms.model_copy(update={"privacy": Privacy(epsilon=1.0)}))


def test_asks_of_another_model_are_refused_by_the_holder() -> None:
    options = {"table": packed(read(FEW)), "records": len(FEW), "apart": "part = kept", "interactions": False}
    method, question = read_question(
        Terms(method="propensity", options=options, codebook=book(), holders=("a",), seed=1)
    )
    cells = method.parts(question, Ask("levels"))["levels"].shape[1]
    there = np.ones(cells, np.int64)
    right = {"versus": np.array(0), "there": there, "products": np.array(0)}
    q = 1 + 2 + 5 + 2 + 8 + 2
    step = Ask("step", {**right, "coefficients": np.zeros(q)})
    assert method.parts(question, step)["score"].shape == (q,)
    for wrong in (
        {"coefficients": np.zeros(q + 1)},
        {"there": there[1:]},
        {"versus": np.array(2)},
        {"products": np.array(1)},
        {"products": np.array(7)},
    ):
        with pytest.raises(UsageError):
            method.parts(question, Ask("step", {**step.arrays, **wrong}))
    edges = Ask("spread", {**step.arrays, "edges": np.array([0.2, 0.2]), "share": np.array(0.5)})
    with pytest.raises(UsageError, match="edges"):
        method.parts(question, edges)

    other = Ask("step", {**step.arrays, "there": there - np.eye(cells, dtype=np.int64)[0]})
    assert follows(question, [Ask("levels"), step], step) == ""
    assert "other features" in follows(question, [Ask("levels"), step], other)
    assert "50 at most" in follows(question, [Ask("levels"), *[step] * 50], step)
    assert "after spread" in follows(question, [Ask("levels"), Ask("spread", edges.arrays)], step)
    assert "second time" in follows(question, [Ask("levels")], Ask("levels"))
