"""What is written as TOML reads back equal, by tomllib, whatever is in it; and comments stay comments."""

import math
import tomllib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statfed.core import toml
from tests.awkward import texts

SCALARS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts()
EDGES = [-0.0, 0.0, 1e300, 5e-324, 2**63, -(2**200), 'q"\\', "\n\r\n", "\x7f", "\x00", "", "]\n", "é\u2028"]
VALUES = st.recursive(
    SCALARS | st.sampled_from(EDGES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(), inner, max_size=4),
    max_leaves=12,
)
COMMENTS = st.text("ab#\"'[]{}=\n\r é\t")
TABLES = st.dictionaries(texts(), VALUES, max_size=5)
DEEP: dict[str, Any] = {"a.b": {"": {}, 'q"': {"x y": [[], [{}], [1, {"z": [{"long": "l" * 120}]}]]}}, "last": -0.0}
MANY: dict[str, Any] = {"tables": [{"name": "l" * 90, "n": [1, 2]}, {"name": "short"}], "after": 1}


def same(found: object, wanted: object) -> bool:
    """Equal and of one type, zeros with their sign."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return found.keys() == wanted.keys() and all(same(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(same(a, b) for a, b in zip(found, wanted, strict=True))
    if isinstance(wanted, float) and isinstance(found, float):
        return found == wanted and math.copysign(1.0, found) == math.copysign(1.0, wanted)
    return type(found) is type(wanted) and found == wanted


@settings(max_examples=300, deadline=None)
@given(table=TABLES)
@example(table=DEEP)
@example(table=MANY)
@example(table={"edges": EDGES, "empty": {}, "deep": {"a": {"b": {}}}})
def test_tables_read_back_equal(table: dict[str, Any]) -> None:
    assert same(tomllib.loads(toml.dumps(table)), table)


@settings(max_examples=300, deadline=None)
@given(key=texts(), value=VALUES, path=st.lists(texts(), min_size=1, max_size=3), comment=COMMENTS)
@example(key="", value=DEEP, path=["", "a.b"], comment="said")
def test_lines_under_a_header_read_back_equal_with_any_comment(
    key: str, value: Any, path: list[str], comment: str
) -> None:
    written = [toml.header(*path, comment=comment), toml.line(key, value, comment), toml.line(f"{key}2", value)]
    assert not any("\n" in one for one in written)
    wanted: dict[str, Any] = {key: value, f"{key}2": value}
    for part in reversed(path):
        wanted = {part: wanted}
    assert same(tomllib.loads("\n".join(written)), wanted)
    assert same(tomllib.loads(f"v = {toml.literal(value)}")["v"], value)


def test_keys_without_a_value_are_left_out_at_every_depth() -> None:
    table = {"none": None, "a": {"none": None, "b": {"none": None}}, "list": [{"none": None, "x": 1}], "t": (1, (2,))}
    assert tomllib.loads(toml.dumps(table)) == {"a": {"b": {}}, "list": [{"x": 1}], "t": [1, [2]]}
    assert toml.literal(table["a"]) == "{ b = {} }"


def test_an_array_with_nothing_in_a_place_is_no_toml() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        toml.dumps({"x": [1, None]})


def test_every_value_takes_one_line() -> None:
    assert toml.dumps({"a": ["x", [1, 2], {"k": [True]}], "b": []}) == 'a = ["x", [1, 2], { k = [true] }]\nb = []\n'
