"""Charts say what the result does: one curve a group, whatever the column is called, with axes, legend and limits."""

import html
import re

import pandas as pd
import pytest

from statfed.core.result import Basis, Result
from statfed.federation.report import figures
from statfed.federation.report.steps import MOST_GROUPS, Group, Step, steps
from tests.federate import federate, split
from tests.universe import CODEBOOK, EXAMPLES, people

FRAMES = split(people(500, 5), 2)


def drawn(markup: str) -> dict[str, str]:
    """Path of each curve, by its group."""
    found = re.findall(r'<g class="curve" data-group="([^"]*)">.*?<path class="line [^"]*" d="([^"]*)">', markup)
    assert len(found) == markup.count('class="curve"')
    return {html.unescape(name): path for name, path in found}


def lines(path: str) -> list[tuple[int, float]]:
    """Pieces of a path: number of steps, and height at the end."""
    pieces = [piece for piece in path.split("M") if piece]
    return [(piece.count("V"), float(re.split(r"[,V]", piece.strip())[-1])) for piece in pieces]


@pytest.mark.parametrize("column", ["sex", "group", "time_of_day", "region"])
def test_survival_draws_one_step_line_a_group_whatever_its_column_is_called(column: str) -> None:
    named = [frame.rename(columns={"sex": column} if column not in ("region", "sex") else {}) for frame in FRAMES]
    columns = {column if name == "sex" and column != "region" else name: c for name, c in CODEBOOK.columns.items()}
    codebook = CODEBOOK.model_copy(update={"columns": columns})
    result = federate("survival", named, codebook, time="duration", event="event", group=[column])
    markup = figures.of(result)["Survival"]
    curves, rows = drawn(markup), pd.DataFrame([dict(row) for row in result.tables["curve"]])
    assert list(curves) == list(dict.fromkeys(rows[column]))
    for name, path in curves.items():
        mine = rows[rows[column] == name]
        ((count, end),) = lines(path)
        assert count == len(mine)
        assert end == pytest.approx(230 - 200 * mine["survival"].iloc[-1], abs=0.06)
        assert '<text class="label" x="15.0%"' in markup
        risks = re.findall(r'class="tick risk"[^>]*>([^<]*)<', markup)
        assert f"{mine['at_risk'].iloc[0]:,.0f}" in risks
    assert markup.count('class="band') == len(curves)
    assert markup.count('class="key"') == len(curves)
    assert re.findall(r'class="axis [xy]"[^>]*>([^<]*)<', markup) == ["Probability of survival", "time"]
    assert "Number at risk" in markup


def test_curves_of_two_group_columns_and_of_none_and_of_a_result_read_back() -> None:
    both = federate("survival", FRAMES, CODEBOOK, time="duration", event="event", group=["sex", "region"])
    assert len(drawn(figures.of(both)["Survival"])) == 6
    assert figures.of(Result.from_dict(both.to_dict())) == figures.of(both)
    alone = figures.of(federate("survival", FRAMES, CODEBOOK, time="duration", event="event"))["Survival"]
    assert (list(drawn(alone)), alone.count('class="key"')) == ([""], 0)
    strata = {"time": "duration", "event": "event", "covariates": "age", "strata": ["sex"]}
    baseline = figures.of(federate("cox", FRAMES, CODEBOOK, **strata))["Baseline survival"]
    assert list(drawn(baseline)) == ["f", "m"]


def test_a_figure_that_is_withheld_breaks_the_line_and_many_groups_are_counted() -> None:
    made = [Step(1.0, 0.9), Step(2.0, None), Step(3.0, 0.5), Step(4.0, 0.4)]
    path = drawn(steps("k", "Survival", "x", "y", [Group("", tuple(made))]))[""]
    assert [count for count, _ in lines(path)] == [1, 1]
    many = [Group(f"<g{n}>", (Step(1.0, 1 - n / 50),)) for n in range(30)]
    markup = steps("k", "Survival", "x", "y", many)
    assert len(drawn(markup)) == MOST_GROUPS
    assert "6 more are in the table" in markup
    assert "<g1>" not in markup


def test_a_histogram_is_drawn_for_each_group_on_common_axes() -> None:
    result = federate("histogram", FRAMES, CODEBOOK, column="income", bins=5, by=["sex"])
    made = figures.of(result)
    assert list(made) == ["Distribution: f", "Distribution: m"]
    assert [markup.count('class="bar') for markup in made.values()] == [5, 5]
    heights = [float(h) for markup in made.values() for h in re.findall(r'height="([\d.]+)"><title>', markup)]
    assert max(heights) == pytest.approx(186, abs=0.1)
    one = figures.of(federate("histogram", FRAMES, CODEBOOK, column="income", bins=5))["Distribution"]
    assert one.count('class="bar') == 5
    assert re.findall(r'class="axis [xy]"[^>]*>([^<]*)<', one)[0] == "value"


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_charts_of_every_method_have_axes_and_a_mark_for_every_row(name: str) -> None:
    for options in EXAMPLES[name]:
        result = federate(name, FRAMES, CODEBOOK, **options)
        for caption, markup in figures.of(result).items():
            assert markup.count('class="axis x"') == 1, caption
            labels = re.findall(r'class="label" x="0"[^>]*>([^<]*)<', markup)
            if caption == "Estimates with 95 % intervals":
                rows = result.tables[result.main]
                assert markup.count("<circle") == len(rows)
                assert len(set(labels)) == len(labels) == len(rows)


def test_rows_of_a_table_without_a_declared_group_are_never_joined() -> None:
    rows: list[dict[str, str | float | int | bool | None]] = [
        {"area": area, "time": t, "survival": 1 - t / 10} for area in "abc" for t in (1.0, 2.0)
    ]
    result = Result("own", "", {"curve": rows}, basis={"curve": Basis(("area",), ("time",), own=("survival",))})
    assert list(drawn(figures.of(result)["Survival"])) == ["a", "b", "c"]
