"""Tables of every method on screens of any width: no key, no figure and no row is lost."""

import io
import re
from typing import Any

import pytest

from statfed.cli import _answers, _output
from statfed.cli._tables import Column, rendered
from statfed.core.result import Result
from tests.federate import federate, split
from tests.universe import CODEBOOK, EXAMPLES, people

FRAMES = split(people(400, 3), 2)
ASKED = [
    *((name, options) for name, examples in EXAMPLES.items() for options in examples),
    ("survival", {"time": "duration", "event": "event", "group": ["sex", "region"], "restricted_to": 20}),
    ("cox", {"time": "duration", "event": "event", "covariates": "age + C(sex)", "strata": ["region"]}),
    ("histogram", {"column": "income", "bins": 4, "by": ["sex"]}),
]


@pytest.fixture(scope="module", params=range(len(ASKED)), ids=lambda place: f"{ASKED[place][0]}-{place}")
def result(request: pytest.FixtureRequest) -> Result:
    name, options = ASKED[request.param]
    return federate(name, FRAMES, CODEBOOK, **options)


def shown(result: Result, width: int | None, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a screen of this width shows; None: a pipe."""
    if width is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    made = io.StringIO()
    monkeypatch.setattr(_answers, "out", _output._Screen(file=made))
    _answers.show_tables(result)
    return made.getvalue()


def cells(result: Result, name: str) -> set[str]:
    """All that a table's columns hold, as texts without blanks."""
    rows = result.tables[name][: _answers.SHOWN_ROWS]
    keys = _answers._shown(result.tables[name], result.places(name))
    return {"".join(_answers._cell(row.get(key), key in result.by).split()) for row in rows for key in keys} - {""}


@pytest.mark.parametrize("width", [40, 60, 80, 200, None])
def test_every_column_of_every_method_is_shown_whatever_the_width(
    result: Result, width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(result, width, monkeypatch)
    tables = text.split("\nobservations ")[0]
    if width:
        assert max(map(len, tables.split("\n"))) <= width
    assert "…" not in text
    plain = re.sub(r"\s", "", text)
    for name, rows in result.tables.items():
        heads = [key.split("_") for key in _answers._shown(rows, result.places(name))]
        assert all(word in text for words in heads for word in words), name
        numbers = {cell for cell in cells(result, name) if re.fullmatch(r"-?[\d.,e+-]+", cell)}
        assert {number for number in numbers if number not in plain} == set(), name
        for key in result.places(name):
            values = {str(row[key]) for row in rows[: _answers.SHOWN_ROWS] if isinstance(row.get(key), str)}
            assert {value for value in values if "".join(value.split()) not in plain and width not in (40, 60)} == set()
    if width is None:
        assert "(more columns)" not in text


def test_every_table_of_every_method_declares_what_says_which_row_it_is(result: Result) -> None:
    read = Result.from_dict(result.to_dict())
    for name, rows in result.tables.items():
        places = result.places(name)
        if len(rows) > 1:
            found = [tuple(row.get(key) for key in places) for row in rows]
            assert len(set(found)) == len(found), name
        assert read.places(name) == places


@pytest.mark.parametrize("width", [1, 12, 20, 40])
def test_keys_that_are_wider_than_the_screen_are_broken_or_told_row_by_row(width: int) -> None:
    columns = [
        Column("occupation", ("craft and related trades workers", "managers"), key=True),
        Column("a very long head", ("1", "2"), number=True),
        Column("total", ("1,234,567,890.5", "7"), number=True),
    ]
    made = io.StringIO()
    console = _output._Screen(file=made, width=width, force_terminal=True, color_system=None)
    for part in rendered("cells", columns, console):
        console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))
    text = made.getvalue()
    assert "1,234,567,890.5" in text
    assert "managers" in text
    whole = re.sub(r"\s", "", text)
    assert whole.count("7") >= 2 or "total: 7" in text


def test_the_table_of_epsilons_keeps_holder_and_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    made = io.StringIO()
    monkeypatch.setattr(_answers, "out", _output._Screen(file=made, width=40, force_terminal=True, color_system=None))
    row: dict[str, Any] = {"holder": "statistics-office-north", "unit": "record", "n": "100000"}
    row |= {key: f"{place}2345.6789" for place, key in enumerate(("sigma", "this query", "so far", "of"), 1)}
    _answers._filled("Epsilon", [row], words=("holder", "unit"))
    assert all(value in made.getvalue() for value in ("12345.6789", "42345.6789", "100000"))
