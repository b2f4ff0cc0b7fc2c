"""Linkage scenarios in a comparison: linkages are the techniques, and what one cannot work out is not released."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import make_codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import UsageError
from statfed.core.scenario import EXACT, Figure, Figures, Level, Matching, Profile, Success, World, private
from statfed.lab.compare import block, statistics
from statfed.lab.compare.block import techniques
from statfed.lab.compare.harness import Comparison, plan
from statfed.lab.compare.trial import Cell, Technique, Trial
from statfed.scenarios._measures import median_relative_error

CODEBOOK = make_codebook(
    {
        "columns": {
            "id": {"type": "id"},
            "region": {"type": "category", "categories": ["a", "b", "c"]},
            "loans": {"type": "integer", "low": 0, "high": 1000},
        }
    }
)
SUPPRESS = Level("suppress", "small cells are withheld", disclosure=Rules())


def world(profile: Profile, seed: int) -> World:
    """An office and a bank with 200 units in common; region c is rare."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(500).astype(str)
    office = pd.DataFrame({"id": ids[:300], "region": rng.choice(["a", "b", "c"], 300, p=[0.6, 0.38, 0.02])})
    bank = pd.DataFrame({"id": rng.permutation(ids[100:400]), "loans": rng.integers(0, 1000, 300)})
    return World({"office": office, "bank": bank}, CODEBOOK, "synthetic", public={"holders": ("office", "bank")})


def compute(ask: Any, public: Mapping[str, Any]) -> Figures:
    found: dict[str, float | None] = dict.fromkeys(("size", "loans", *"abc"))
    if ask.gives("table"):
        table = ask("table", rows=["region"], share=0.4)
        found |= {str(row["region"]): row.get("count") for row in table.tables[table.main]}
        if None in (found["a"], found["b"], found["c"]):
            return {name: Figure(value) for name, value in found.items()}
    (row,) = ask("count", share=0.3).tables["matched"]
    found["size"] = row["count"]
    if ask.gives("total"):
        total = ask("total", columns=["loans"], share=0.3)
        found["loans"] = total.tables[total.main][0]["total"]
    return {name: Figure(value) for name, value in found.items()}


def pooled(drawn: World) -> dict[str, float]:
    both = drawn.holders["office"].merge(drawn.holders["bank"], on="id")
    counts = {region: float((both["region"] == region).sum()) for region in "abc"}
    return {"size": float(len(both)), "loans": float(both["loans"].sum())} | counts


TOY = SimpleNamespace(
    world=world,
    compute=compute,
    pooled=pooled,
    MATCHED=Matching("id"),
    LEVELS=(EXACT, SUPPRESS, private(1.0)),
    SUCCESS=Success("median relative error", median_relative_error, 1e-9),
)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    """Every technique on the toy, by its id; one of them probed."""
    bench = statistics.opened(TOY, "quick", 1, tmp_path_factory.mktemp("toy"))
    found: list[Trial] = []

    def probed(trial: Trial) -> Mapping[str, float]:
        return bench.probed(trial) if trial.cell.technique.id == "helper, exact" else {}

    block._tried(
        replace(bench, probed=probed),
        [Cell("toy", "quick", technique, 1) for technique in techniques(TOY)],
        found.append,
    )
    assert not bench.alone
    return {trial.cell.technique.id: trial for trial in found}


def test_every_linkage_is_tried_at_every_level_and_no_protection(trials: Mapping[str, Trial]) -> None:
    linkages = ("ecdh", "fuzzy", "helper")
    assert set(trials) >= {f"{name}, {level.id}" for name in linkages for level in TOY.LEVELS}
    assert not {"plain, exact", "secure-aggregation, exact"} & set(trials)


def test_figures_are_those_of_the_plain_join_as_far_as_a_linkage_goes(trials: Mapping[str, Trial]) -> None:
    exact = pooled(world("quick", 1))
    helped, alone = trials["helper, exact"], trials["ecdh, exact"]
    assert {name: figure.value for name, figure in helped.figures.items()} == exact
    assert (helped.reached, helped.suppressed, helped.local) == (True, 0.0, None)
    assert {name: figure.value for name, figure in alone.figures.items()} == exact | dict.fromkeys("abc")
    assert alone.suppressed == pytest.approx(3 / 5)
    assert {role.role for role in helped.roles} == {"holder", "third party", "coordinator"}
    assert {row.role for row in helped.learns} >= {"coordinator", "helper"}


def test_a_level_with_a_minimum_frequency_withholds_small_cells_of_the_join(trials: Mapping[str, Trial]) -> None:
    trial, exact = trials["helper, suppress"], trials["helper, exact"]
    shown = {name: figure.value for name, figure in exact.figures.items()}
    small = {name for name in "abc" if 0 < float(shown[name] or 0) < 10}
    assert small
    assert {name for name in "abc" if trial.figures[name].value is None} >= small
    assert (exact.measures["violations"], trial.measures["violations"]) == (len(small), 0.0)


def test_noise_of_a_level_is_the_linkages_own(trials: Mapping[str, Trial]) -> None:
    for name in ("ecdh", "helper"):
        trial = trials[f"{name}, epsilon-1"]
        assert (trial.status, trial.reason) == ("done", "")
        assert trial.error is not None
        assert trial.error > 0
        assert trial.epsilon is None  # somebody sees the exact figure: no epsilon holds against everybody
    assert trials["fuzzy, epsilon-1"].status == "not-applicable"


def test_a_linkage_that_the_key_does_not_suit_says_why(trials: Mapping[str, Trial]) -> None:
    assert {trials[f"fuzzy, {level.id}"].status for level in TOY.LEVELS} == {"not-applicable"}
    assert "block: got none" in trials["fuzzy, exact"].reason


def test_one_of_the_matched_is_told_by_an_exact_size(trials: Mapping[str, Trial]) -> None:
    assert trials["helper, exact"].measures["leakage.release_membership_auc"] == 1.0


def test_holders_under_a_template_refuse_and_that_is_a_result(tmp_path: Path) -> None:
    bench = statistics.opened(TOY, "quick", 1, tmp_path)
    found: list[Trial] = []
    technique = Technique("helper", EXACT.under("standard"))
    block._tried(bench, [Cell("toy", "quick", technique, 1)], found.append)
    assert found[0].status == "not-applicable"
    assert found[0].reason.startswith("refused by holders' rules: ")


def test_linkages_are_not_tried_where_none_are_matched() -> None:
    with pytest.raises(UsageError, match=r"got helper, of no technique of these scenarios; want wages: homomorphic"):
        plan(Comparison(scenarios=("wages",), protections=("helper",)))
