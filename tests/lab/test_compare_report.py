"""The comparison's report: figures shown are those of the tables, nothing is dropped, hostile names stay text."""

import csv
import itertools
import math
import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from statfed.lab.compare.report import Section, exports, frontier, heat, render, warnings, write_report
from statfed.lab.compare.report.columns import columns
from statfed.lab.compare.tables import NAMES, Summary, Tables, Tried, summary
from tests.comparison import ABOUT, FORMULA, HOSTILE, LEVELS, PROTECTIONS, SEEDS, tables, trials

SECTIONS = (Section("Recommended", (HOSTILE,), ("Case", "Technique"), ((HOSTILE, "plain"), ("other", FORMULA))),)
VOID = {"meta", "br", "input", "img", "link", "hr"}


class Page(HTMLParser):
    """Every element with its attributes, and rows of technique tables as column to (text, value)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.rows: dict[tuple[str, str, str], dict[str, tuple[str, str | None]]] = {}
        self.heat: list[str] = []
        self.open: list[str] = []
        self._section, self._row, self._cell, self._word = "", ("", "", ""), "", False
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.seen.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = found.get("id", "")
        if "data-technique" in found:
            self._row = (self._section, found["data-profile"], found["data-technique"])
            self.rows[self._row] = {}
        self._cell = found.get("data-c", "") if tag == "td" else self._cell
        if self._cell and tag == "td":
            self.rows[self._row][self._cell] = ("", found.get("data-v"))
        self._word = tag == "span" and found.get("class") == "word"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._cell = "" if tag == "td" else self._cell
        self._word = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            text, value = self.rows[self._row][self._cell]
            self.rows[self._row][self._cell] = (text + data, value)
        if self._word:
            self.heat.append(data)


@pytest.fixture(scope="module")
def made() -> Tables:
    return tables()


@pytest.fixture(scope="module")
def html(made: Tables) -> str:
    return render(made, ABOUT, sections=SECTIONS, measures={"income-tables": HOSTILE})


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_standard_error_is_that_of_scipy() -> None:
    values = [0.3, 1.7, -2.0, 4.5]
    found = summary([None, *values])
    assert found is not None
    assert (found.mean, found.error) == pytest.approx((np.mean(values), stats.sem(values)))
    assert found.n == 4
    assert summary([2.0]) == Summary(2.0, None, 1)
    assert summary([1.0, math.inf]) == Summary(math.inf, None, 2)
    assert summary([None]) is None


def test_summaries_over_seeds_are_those_of_pandas(made: Tables) -> None:
    frame = pd.DataFrame(made.trials)
    groups = frame[frame["status"] == "done"].groupby(["scenario", "profile", "protection", "options", "level"])
    for tried in made.tried:
        if not tried.done:
            continue
        group: Any = groups.get_group((tried.scenario, tried.profile, tried.protection, tried.options, tried.level))
        for name in ("error", "local", "bias", "wall", "memory_mib"):
            found = tried.column(name)
            assert found is not None
            assert found.n == len(group)
            assert found.mean == pytest.approx(group[name].mean())
            if found.error is not None:
                assert found.error == pytest.approx(group[name].sem(), abs=1e-15)


def test_measures_that_some_seeds_lack_are_means_over_those_that_have_them(made: Tables) -> None:
    tried = made.find("income-tables", "exact")
    assert tried is not None
    assert tried.measure("dropout.finished") == Summary(1.0, 0.0, 2)
    assert tried.measure("no.such") is None


def test_epsilon_is_the_largest_of_any_seed_and_none_without_privacy(made: Tables) -> None:
    private, exact = made.find("income-tables", "epsilon-1"), made.find("income-tables", "exact")
    assert private is not None
    assert exact is not None
    assert private.epsilon == Summary(0.99, None, 3)
    assert exact.epsilon is None


def test_bytes_of_a_role_are_summed_over_its_parties(made: Tables) -> None:
    tried = made.find("income-tables", "exact", "homomorphic-encryption")
    assert tried is not None
    assert tried.role("holder", "sent") == Summary(4 * 20_000 * 16, 0.0, 3)
    assert tried.role("third party", "sent") == Summary(1200.0, 0.0, 3)
    plain = made.find("income-tables", "exact")
    assert plain is not None
    assert plain.role("third party", "sent") is None


def test_tables_of_frames_are_those_of_rows(made: Tables) -> None:
    frames = Tables.of({name: pd.DataFrame(getattr(made, name)) for name in NAMES})
    assert exports.markdown(frames, ABOUT, {}) == exports.markdown(made, ABOUT, {})
    assert render(frames, ABOUT) == render(made, ABOUT)


def test_a_failed_seed_is_no_seed_on_which_the_purpose_was_reached(made: Tables) -> None:
    words = {(t.scenario, t.protection, t.level): t.word for t in made.tried}
    assert words["income-tables", "plain", "exact"] == "reached"
    assert words["income-tables", "secure-aggregation", "exact"] == "partly reached"
    assert words["income-tables", "homomorphic-encryption", "epsilon-10"] == "failed"
    assert words["income-tables", "multi-party", "suppress"] == "not applicable"
    assert words["time-use", "plain", "epsilon-1"] == "not reached"


def test_every_technique_and_every_trial_is_on_the_page(made: Tables, page: Page, html: str) -> None:
    assert len(page.rows) == len(made.tried)
    everything = [attrs for tag, attrs in page.seen if tag == "td" and attrs.get("class", "").startswith("status ")]
    assert len(everything) == len(made.tried) + len(made.trials)
    assert html.count("TimeoutError: 600 s") >= 2 * len(SEEDS)
    tried = len(made.tried)
    lines = heat.lines(made)
    assert len(page.heat) == sum(len(line.cells) for line in lines)
    assert sum(word != "not tried" for word in page.heat) == tried
    assert {"reached", "not reached", "partly reached", "not applicable", "failed", "partly reached, 1 failed"} <= set(
        page.heat
    )


def test_figures_on_the_page_are_the_figures_of_the_tables(made: Tables, page: Page) -> None:
    ids = dict(zip(exports.names(made, ABOUT), itertools.count(), strict=False))
    for tried in made.tried:
        row = page.rows[f"s{ids[tried.scenario]}", tried.profile, tried.id]
        for column in columns(made.of_scenario(tried.scenario)):
            text, value = row[column.id]
            found = column.read(tried)
            assert text == column.text(tried)
            assert value == (None if found is None else str(found.mean))
    row = page.rows[f"s{ids['income-tables']}", "quick", "plain, epsilon-1"]
    assert row["error"] == ("0.0132 ± 0.00064", str(summary([0.0121, 0.0132, 0.0143]).mean))  # type: ignore[union-attr]
    assert row["epsilon"][0] == "0.99"
    assert row["sent.holder"][0] == "80.0\u00a0KB"
    assert row["overhead"][0] == "1.04× ± 0.01×"
    assert row["leakage.membership_auc"][0] == "0.51"


def test_modelled_times_are_called_modelled(html: str, made: Tables) -> None:
    assert "Time on lines, MODELLED" in html
    assert "Time on lines, MODELLED" in exports.markdown(made, ABOUT, {})


def test_a_page_holds_one_script_and_loads_nothing(page: Page, html: str) -> None:
    assert [tag for tag, _ in page.seen if tag in ("script", "img", "link", "iframe", "object")] == ["script"]
    for _, attrs in page.seen:
        assert not [key for key in attrs if key.startswith("on") or key in ("src", "srcset", "style")]
        assert attrs.get("href", "#").startswith("#")
    policy = next(
        attrs["content"] for _, attrs in page.seen if "Content-Security-Policy" in attrs.get("http-equiv", "")
    )
    assert "default-src 'none'" in policy
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html.replace("http://example.org", ""))
    ids = [attrs["id"] for _, attrs in page.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.seen:
        if attrs.get("href", "") not in ("", "#"):
            assert attrs["href"][1:] in ids


def test_hostile_names_stay_text(html: str, made: Tables) -> None:
    assert "<img" not in html
    assert "alert(1)</script>" not in html
    assert "{{ 7 * 7 }}" in html
    text = exports.markdown(made, ABOUT, {}, SECTIONS)
    assert "\\<script\\>alert" in text
    assert not re.search(r"(?<!\\)<", text)
    for line in text.splitlines():  # one row of a table is one line with as many cells as its head
        assert not line.startswith("second line")


def test_markdown_tables_have_as_many_cells_in_every_row(made: Tables) -> None:
    text = exports.markdown(made, ABOUT, {}, SECTIONS)
    width = None
    for line in text.splitlines():
        if not line.startswith("|"):
            width = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        assert width in (None, cells)
        width = cells


def test_entries_and_scenarios_without_description_are_shown(html: str, made: Tables) -> None:
    assert "linkage-entry: Linkage of two registers" in html
    assert "an entry of the inventory" in html
    assert "No description of this scenario is installed" in render(made, {})
    assert "an entry of the inventory" in exports.markdown(made, ABOUT, {})


def test_an_empty_comparison_is_a_page(tmp_path: Path) -> None:
    written = write_report(Tables(), {}, tmp_path)
    assert all(path.is_file() for path in written)
    assert "No trial is in the tables" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_warnings_say_what_was_averaged_together(made: Tables) -> None:
    rows = [dict(row) | {"machine": f"machine {i % 2}"} for i, row in enumerate(made.trials)]
    told = " ".join(warnings(Tables(rows)))
    assert "Trials of 2 machines are averaged together: machine 0, machine 1." in told
    assert "9 of 122 trials failed" in told


def test_csv_files_have_every_row_and_no_formula(made: Tables, tmp_path: Path) -> None:
    written = write_report(made, ABOUT, tmp_path)
    assert {path.name for path in written} == {
        *(f"{name}.csv" for name in NAMES), "summary.csv", "reproduction.csv", "report.html", "report.md",
    }  # fmt: skip
    for name in NAMES:
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file))
        rows = getattr(made, name)
        assert len(found) == len(rows)
        for one, row in zip(found, rows, strict=True):
            for key, value in row.items():
                if isinstance(value, float):
                    assert float(one[key]) == value
        assert not [value for one in found for value in one.values() if value and value[0] in "=@+"]
    summaries = pd.read_csv(tmp_path / "summary.csv")
    chosen = summaries[(summaries.scenario == "income-tables") & (summaries.protection == "plain")]
    error = chosen[(chosen.level == "epsilon-1") & (chosen.figure == "error")].iloc[0]
    assert error["mean"] == pytest.approx(0.0132)
    assert error["standard_error"] == pytest.approx(stats.sem([0.0121, 0.0132, 0.0143]))


def slow_front(points: list[tuple[float, ...] | None]) -> list[bool]:
    """By the definition, coordinate by coordinate."""
    good = []
    for i, mine in enumerate(points):
        beaten = mine is None
        for j, other in enumerate(points):
            if mine is not None and other is not None and i != j:
                worse = any(o > m for o, m in zip(other, mine, strict=True))
                better = any(o < m for o, m in zip(other, mine, strict=True))
                beaten = beaten or (better and not worse)
        good.append(not beaten)
    return good


@pytest.mark.parametrize("seed", range(20))
def test_the_frontier_is_that_of_brute_force(seed: int) -> None:
    random_ = random.Random(seed)
    values = (0.0, 0.5, 1.0, 2.0, math.inf)
    points: list[tuple[float, ...] | None] = [
        None if random_.random() < 0.1 else tuple(random_.choice(values) for _ in range(4)) for _ in range(40)
    ]
    assert frontier.pareto(points) == slow_front(points)


def test_what_nothing_came_out_of_is_not_on_the_frontier(made: Tables) -> None:
    tried = made.tried
    best = frontier.optimal(tried)
    assert not [one.id for one, good in zip(tried, best, strict=True) if good and not one.done]
    plain, masked = made.find("income-tables", "exact"), made.find("income-tables", "exact", "secure-aggregation")
    assert plain is not None
    assert masked is not None
    assert all(frontier.optimal([plain, masked]))  # the one is cheaper, the other shows no single contribution
    assert frontier.objectives(Tried("x", "quick", "exact", "plain", "{}", (), made), frontier.AXES[1].read) is None


def points_of(svg: str) -> Iterator[dict[str, str]]:
    for found in re.finditer(r'<svg class="point ([^"]*)" x="([\d.]+)%" y="([\d.]+)"[^>]*>', svg):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', found[0]))
        yield attributes | {"y": found[3], "x": found[2]}


def test_plots_have_every_technique_with_a_figure_in_the_order_of_the_figures(made: Tables) -> None:
    tried = made.of_scenario("income-tables")
    drawn = [one for one in tried if one.done]
    plots = {axis.id: str(svg) for axis, svg in frontier.plots("k", tried, "error")}
    assert set(plots) == {"epsilon", "overhead", "sent", "wall", "memory", "wan-office"}  # of remote none was measured
    for svg in plots.values():
        points = list(points_of(svg))
        assert len(points) == len(drawn)
        for one, other in itertools.pairwise(sorted(points, key=lambda p: float(p["data-y"]))):
            assert float(one["y"]) >= float(other["y"])
        known = [p for p in points if p["data-x"]]
        for one, other in itertools.pairwise(sorted(known, key=lambda p: float(p["data-x"]))):
            assert float(one["x"]) <= float(other["x"])
        assert {p["data-best"] for p in points} == {"0", "1"}
    right = max(float(p["x"]) for p in points_of(plots["epsilon"]) if p["data-x"])
    assert all(float(p["x"]) > right for p in points_of(plots["epsilon"]) if not p["data-x"])


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1e3), (0.4, 0.6), (5.0, 5.0), (0.0, 0.0)])
def test_scales_keep_figures_inside_and_have_ticks(low: float, high: float) -> None:
    found = frontier.scale([low, high])
    assert 0 <= found(low) <= found(high) <= 1
    assert all(0 <= found(tick) <= 1 for tick in found.ticks())
    assert 1 <= len(found.ticks()) <= 10


def test_shades_follow_error_over_tolerance() -> None:
    trial = next(t for t in trials() if t.status == "done" and t.cell.technique.level.id == "epsilon-1")
    for error, css, figure in ((0.0, "h0", "0×"), (0.02, "h2", "1×"), (0.021, "h3", "1.1×"), (1.0, "h5", "50×"),
                               (math.inf, "h5", "nothing released"), (-0.3, "h0", "0×")):  # fmt: skip
        trial.error, trial.reached = error, error <= 0.02
        cell = heat.cell(Tables.of_trials([trial]).tried[0])
        assert (cell.css, cell.figure) == (css, figure)


def browser_of(tmp_path: Path) -> Any:
    from tests.browser import PROGRAM, browser

    if PROGRAM is None:
        pytest.skip("no Chromium is installed")
    return browser(tmp_path)


def test_in_a_browser_plots_are_drawn_tables_sort_and_nothing_is_complained_of(
    made: Tables, html: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    with browser_of(tmp_path) as page:
        page.open(file)
        assert page.evaluate("document.documentElement.classList.contains('js')")
        drawn = "[...document.querySelectorAll('.pane:not([hidden]) .point')].map(p => p.getBoundingClientRect())"
        inside = f"{drawn}.every(b => b.width > 5 && b.height > 5 && b.left > 0)"
        many = sum(len([t for t in made.of_scenario(s) if t.column("error")]) for s in ("income-tables", "time-use"))
        assert page.evaluate(f"{drawn}.length") == many + 1  # and the one of scenario `hostile`
        assert page.evaluate(inside)

        page.evaluate("document.querySelector('input[value=wall]').click()")
        panes = "document.querySelectorAll('.plots')[1].querySelectorAll('.pane:not([hidden])')"
        shown = f"[...{panes}].map(pane => pane.dataset.axis)"
        assert page.evaluate(shown) == ["epsilon"]
        page.evaluate("document.querySelectorAll('.plots')[1].querySelector('input[value=wall]').click()")
        assert page.evaluate(shown) == ["wall"]

        order = "[...document.querySelectorAll('.techniques')[1].tBodies[0].rows].map(r => r.dataset.technique)"
        column = "document.querySelectorAll('.techniques')[1].querySelectorAll('thead button.sort')[4]"
        page.evaluate(f"{column}.click()")
        up = page.evaluate(order)
        found = {t.id: t.column("error") for t in made.of_scenario("income-tables")}
        errors = {name: error.mean for name, error in found.items() if error is not None}
        known = [errors[name] for name in up if name in errors]
        assert known == sorted(known)
        assert set(up[len(known) :]) == set(found) - set(errors)
        page.evaluate(f"{column}.click()")
        down = [errors[name] for name in page.evaluate(order) if name in errors]
        assert down == sorted(known, reverse=True)
        assert page.evaluate(f"{column}.closest('th').getAttribute('aria-sort')") == "descending"

        page.evaluate("document.querySelector('td.failed[data-tip]').focus()")
        assert page.evaluate("document.querySelector('#tip').hidden") is False
        assert page.evaluate("document.querySelector('#tip').textContent") == HOSTILE
        key = "document.querySelectorAll('.plots')[1].querySelector('button.key')"
        page.evaluate(f"{key}.click()")
        hidden = "document.querySelectorAll('.plots')[1].querySelectorAll('.pane[data-axis=wall] .point.off').length"
        assert page.evaluate(hidden) == len(LEVELS)
        page.evaluate("document.querySelectorAll('.plots')[1].querySelector('.point:not(.off)').dispatchEvent(new "
                      "MouseEvent('click', {bubbles: true}))")  # fmt: skip
        assert page.evaluate("document.querySelectorAll('tr.found').length") == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        for scheme, least in (("light", 4.5), ("dark", 4.5)):
            page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            pairs = page.evaluate(
                "[...document.querySelectorAll('table.heat td')].map(d => { const w = d.querySelector('.word'), "
                "s = getComputedStyle(w), b = getComputedStyle(d).backgroundColor; "
                "return [s.color, s.backgroundColor === 'rgba(0, 0, 0, 0)' ? b : s.backgroundColor] })"
            )
            assert min(contrast(*pair) for pair in pairs if "0, 0, 0, 0" not in pair[1]) >= least
        assert page.problems == []
        assert page.requests == [file.as_uri()]


def contrast(one: str, other: str) -> float:
    """Ratio of contrast of two colours `rgb(r, g, b)` (WCAG 2.1)."""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_the_fabricated_comparison_has_all_that_can_happen(made: Tables) -> None:
    assert {row["status"] for row in made.trials} == {"done", "not-applicable", "failed"}
    assert {one.word for one in made.tried} == {
        "reached", "partly reached", "not reached", "not applicable", "failed",
    }  # fmt: skip
    assert {one.protection for one in made.tried} == {*PROTECTIONS, HOSTILE}
