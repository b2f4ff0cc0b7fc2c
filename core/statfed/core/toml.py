"""TOML as this system writes it: a value a line, whatever it holds, so that a comment can stand behind it.

What is written reads back equal through tomllib. `statfed.core.study.read_toml` reads files.
"""

from collections.abc import Mapping
from typing import Any

import tomli_w


def dumps(table: Mapping[str, Any]) -> str:
    """A table as TOML. Keys without a value are left out: TOML has none, and they are the defaults.

    >>> print(dumps({"rounds": 3, "privacy": {"epsilon": 1.0}, "note": None}))
    rounds = 3
    <BLANKLINE>
    [privacy]
    epsilon = 1.0
    <BLANKLINE>
    """
    text = tomli_w.dumps(_given(table), indent=0)  # strings have their line ends escaped: those left are of arrays
    return text.replace("[\n", "[").replace(",\n]", "]").replace(",\n", ", ")


def literal(value: object) -> str:
    """A value as it stands behind the equals sign; a table in braces.

    >>> literal({"a b": ["x", 1]})
    '{ "a b" = ["x", 1] }'
    """
    return dumps({"v": [[value]]})[len("v = [[") : -len("]]\n")]  # only within arrays are tables sure to be in braces


def line(key: str, value: object, comment: str = "") -> str:
    """One key with its value and what is said about it.

    >>> line("epsilon", 1.0, "over the whole life")
    'epsilon = 1.0  # over the whole life'
    """
    return dumps({key: 0}).removesuffix("0\n") + literal(value) + _comment(comment)


def header(*path: str, comment: str = "") -> str:
    """The line that opens a table.

    >>> header("columns", "a b")
    '[columns."a b"]'
    """
    table: dict[str, Any] = {}
    for key in reversed(path):
        table = {key: table}
    return dumps(table).rstrip("\n") + _comment(comment)


def _comment(text: str) -> str:
    return "  # " + " ".join(text.split()) if text else ""


def _given(value: Any) -> Any:
    """`value` without the keys that have none."""
    if isinstance(value, Mapping):
        return {key: _given(item) for key, item in value.items() if item is not None}
    return [_given(item) for item in value] if isinstance(value, list | tuple) else value
