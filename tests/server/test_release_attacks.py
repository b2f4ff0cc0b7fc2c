"""Attacks of the comparison: what is read off messages, what figures tell of one record, which cells break rules."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import make_codebook
from statfed.core.scenario import Figure, Figures, World
from statfed.core.terms import parse_condition
from statfed.lab.compare import release, views

CODEBOOK = make_codebook(
    {
        "columns": {
            "region": {"type": "category", "categories": ["a", "b"]},
            "income": {"type": "number", "low": 0, "high": 1000},
            "employed": {"type": "boolean"},
        }
    }
)


def world() -> World:
    rng = np.random.default_rng(1)

    def office(size: int) -> pd.DataFrame:
        region = rng.choice(["a", "b"], size)
        return pd.DataFrame({"region": region, "income": rng.uniform(0, 100, size), "employed": rng.random(size) < 0.5})

    small = office(12)
    small.loc[5, "income"] = 900.0
    return World({"large": office(60), "small": small}, CODEBOOK, "synthetic")


def test_figures_are_read_off_fixed_point_words_and_not_off_masked_ones() -> None:
    rng = np.random.default_rng(2)
    clear = np.array([0.0, 12.5, -3.25, 17.0, 12.5])
    figures = views.figures_in([clear])
    assert figures.tolist() == [3.25, 12.5, 17.0]
    words = np.round(clear * 2.0**20).astype(np.int64).view(np.uint64)
    assert views.read_off([words], figures) == 1.0
    masked = words + rng.integers(0, 2**64, 5, dtype=np.uint64)
    assert views.read_off([masked], figures) == 0.0
    assert views.read_off([masked, words[:3]], figures) == pytest.approx(2 / 3)


def test_all_that_is_sent_in_the_clear_is_read_wherever_it_stands() -> None:
    clear = [np.array(3543), np.array([[3, 64], [17, 1024]])]
    assert views.read_off(clear, views.figures_in(clear)) == 1.0


def test_small_counts_are_not_found_among_the_bytes_of_a_ciphertext() -> None:
    sealed = np.random.default_rng(3).integers(0, 256, 3544, np.uint8)
    assert views.read_off([sealed], np.arange(1.0, 90.0)) == 0.0


def test_holder_values_look_at_each_holders_own_messages() -> None:
    clear = {"a": [[np.array([1.5, 2.5])]], "b": [[np.array([7.0])]]}
    assert views.holder_values(clear, clear) == 1.0
    assert views.holder_values({"a": clear["b"], "b": clear["a"]}, clear) == 0.0
    assert views.holder_values({}, clear) == 0.0


def test_a_killed_holder_answers_so_many_messages_and_then_none() -> None:
    fault = views.silent_from("b", 3)
    assert [fault("b", None) for _ in range(4)] == [None, None, "killed", "killed"]
    assert fault("a", None) is None
    assert fault.happened


def test_a_holder_that_is_not_asked_again_has_not_vanished() -> None:
    fault = views.silent_from("b", 3)
    assert [fault(name, None) for name in ("b", "b", "a", "a")] == [None] * 4
    assert not fault.happened


def test_the_most_exposed_record_is_the_outlier_of_the_smallest_holder() -> None:
    assert release.exposed(world()) == ("small", 5)


def test_worlds_differ_in_the_target_alone() -> None:
    drawn = world()
    less = release.without(drawn, "small", 5)
    assert len(less.holders["small"]) == 11
    assert less.holders["small"]["income"].max() < 101
    assert less.holders["large"] is drawn.holders["large"]
    other = release.changed(drawn, "small", 5)
    assert other is not None
    assert (other.holders["small"]["region"] != drawn.holders["small"]["region"]).tolist() == [
        i == 5 for i in range(12)
    ]


def test_all_records_of_the_targets_unit_leave_with_it() -> None:
    book = make_codebook({"columns": {"p": {"type": "id", "role": "unit"}, "x": {"type": "number"}}})
    frame = pd.DataFrame({"p": ["u", "v", "u"], "x": [1.0, 2.0, 3.0]})
    less = release.without(World({"h": frame}, book, "synthetic"), "h", 0)
    assert less.holders["h"]["p"].tolist() == ["v"]


def test_exact_figures_always_tell_and_noise_hides_by_its_size() -> None:
    drawn = world()
    other = release.without(drawn, "small", 5)

    def exact(one: World, _: int) -> Figures:
        return {"total": Figure(float(sum(frame["income"].sum() for frame in one.holders.values())))}

    def noisy(scale: float) -> release.Tell:
        def tell(one: World, number: int) -> Figures:
            value = exact(one, 0)["total"].value or 0.0
            return {"total": Figure(value + np.random.default_rng(number).normal(0, scale))}

        return tell

    def constant(one: World, _: int) -> Figures:
        return {"total": Figure(1.0)}

    assert release.game(exact, exact, drawn, other, 40) == 1.0
    assert release.game(constant, exact, drawn, other, 40) == 0.5
    little, much = (release.game(noisy(scale), exact, drawn, other, 60) for scale in (200.0, 20_000.0))
    assert little > 0.99
    assert 0.35 < much < 0.65


def test_a_figure_that_is_suppressed_in_one_world_alone_tells_them_apart() -> None:
    drawn = world()

    def tell(one: World, _: int) -> Figures:
        return {"cell": Figure(1.0 if len(one.holders["small"]) == 12 else None)}

    assert release.game(tell, tell, drawn, release.without(drawn, "small", 5), 2) == 1.0


def test_area_under_the_curve_counts_ties_half() -> None:
    assert release.auc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == pytest.approx(3.5 / 4)


def test_cells_with_few_records_behind_them_are_counted_when_they_are_shown() -> None:
    frame = pd.DataFrame({"region": ["a"] * 20 + ["b"] * 3, "employed": [True] * 15 + [False] * 8, "income": 1.0})

    def count(rows: Sequence[Mapping[str, object]], by: list[str], *where: str) -> int:
        return release.too_few(rows, by, frame, [parse_condition(one, CODEBOOK) for one in where], 10)

    shown = [{"region": "a", "count": 20}, {"region": "b", "count": 3}]
    assert count(shown, ["region"]) == 1
    assert count([{"region": "b", "count": None}], ["region"]) == 0
    assert count(shown, ["region"], "employed = true") == 0  # 15 in a, none in b
    assert count(shown, ["region"], "employed = false") == 2  # 5 and 3
    assert count([{"employed": "false", "mean": 1.0}], ["employed"]) == 1
    assert count(shown, ["region"], "region in a,b", "income >= 1") == 1
    assert count(shown, ["region"], "region != b") == 0


def test_figures_that_differ_by_the_order_of_a_sum_alone_are_alike() -> None:
    one = {"a": Figure(0.1 + 0.2, 0.0, 1.0), "b": Figure(None)}
    assert release.alike(one, {"a": Figure(0.3, 0.0, 1.0), "b": Figure(None)})
    assert not release.alike(one, {"a": Figure(0.3001, 0.0, 1.0), "b": Figure(None)})
    assert not release.alike(one, {"a": Figure(0.3, 0.0, 1.0), "b": Figure(1.0)})
    assert not release.alike(one, {"a": Figure(0.3, 0.0, 1.1), "b": Figure(None)})
    assert not release.alike(one, {"a": Figure(0.3, 0.0, 1.0)})
