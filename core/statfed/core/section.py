"""Tables of the files that people write: strict, immutable, with errors that say what was got and what is wanted."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from statfed.core.errors import UsageError, harmless
from statfed.core.names import meant

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
"""Of holders and other parties."""
Unit = Literal["record", "person"]
MOST_NESTED = 50
"""Tables and lists within one another in what is read: more is no study, and deeper than Python can go."""
_QUOTED = 80
"""Characters of a value in a message."""


class Section(BaseModel):
    """A table of a file: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Strict(Section):
    """A table whose values are taken as they are written: true is no number, 1 is no switch, "10" is no count."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, given: object) -> object:
        """Lists, of which a file has no other kind than arrays, as tuples."""
        if not isinstance(given, dict):
            return given
        return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The table in a TOML file. Raises UsageError when there is none or it cannot be read."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{what} file not found: {path}") from None
    except (ValueError, OSError) as error:  # also of a number too long to read
        raise UsageError(f"{path}: not a readable TOML file: {error}") from None
    except RecursionError:
        raise UsageError(f"{path}: not a readable TOML file: nested too deeply") from None
    if deep(table):
        raise UsageError(f"{path}: got tables nested more than {MOST_NESTED} deep; want fewer")
    return table


def deep(value: object) -> bool:
    """Are tables and lists nested deeper than any file or message has them? Without recursion: that is what depth
    attacks."""
    level = [value]
    for _ in range(MOST_NESTED):
        level = [
            item
            for one in level
            if isinstance(one, dict | list | tuple)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def describe(error: ValidationError, where: str, known: str, model: type[BaseModel] | None = None) -> str:
    """A validation error as lines of `where: key: got ...; want ...`.

    known: what is wanted instead of unknown keys; model: what was validated, to say which key was meant. Values are cut
    short, and those of no printable length are not shown.
    """
    lines, found = [], error.errors()
    for item in found:
        if item["type"] == "too_short" and any(other["loc"][:-1] == item["loc"] for other in found):
            continue  # what is wrong with its entries is said
        key = harmless(".".join(str(part) for part in item["loc"]), 4 * _QUOTED)
        subject = f"{where}: {key}" if key else where
        got = item.get("input")
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):  # of a model, of a dataclass
            near = meant(item["loc"][-1], _fields(model, item["loc"][:-1]))
            lines.append(f"{subject}: unknown key; want {known}{near}")
        elif item["type"] == "missing":
            lines.append(f"{subject}: missing; want a value")
        elif item["type"] in ("too_short", "too_long"):
            side, ctx = ("most", "max_length") if item["type"] == "too_long" else ("least", "min_length")
            facts = item.get("ctx", {})
            got = facts.get("actual_length") or 0 if side == "least" else "more"
            lines.append(f"{subject}: got {got} entries; want at {side} {facts[ctx]}")
        elif item["type"] == "value_error":
            lines.append(f"{subject}: {item['msg'].removeprefix('Value error, ')}")
        else:
            want = item["msg"].removeprefix("Input should be ").removeprefix("a valid ")
            near = meant(got, re.findall(r"'([^']*)'", want)) if item["type"] == "literal_error" else ""
            lines.append(f"{subject}: got {shown(got)}; want {want}{near}")
    return "\n".join(lines)


def shown(value: object) -> str:
    """A value as a message quotes it: cut short, and told by its type where it cannot be written out.

    >>> shown("x" * 200)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."
    """
    try:
        text = repr(value[: 4 * _QUOTED] if isinstance(value, str | bytes) else value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes, or nested too deeply
        return f"a value of type {type(value).__name__} that is too long to show"
    return text if len(text) <= _QUOTED else text[: _QUOTED - 3] + "..."


def _fields(model: Any, path: Sequence[object]) -> tuple[str, ...]:
    """Keys of the table at `path` of a model; none where it is not known."""
    below = list(path)
    if isinstance(model, type) and issubclass(model, BaseModel):
        if not below:
            return tuple(field.alias or name for name, field in model.model_fields.items())
        found = {field.alias or name: field for name, field in model.model_fields.items()}.get(str(below[0]))
        return () if found is None else _fields(found.annotation, below[1:])
    inner = [one for one in get_args(model) if one is not type(None)]
    if not inner or get_origin(model) is Literal:
        return ()
    rest = below if get_origin(model) in (Union, UnionType, Annotated) else below[1:]  # a key, or a place in a list
    return tuple(name for one in inner for name in _fields(one, rest))


def apply_override(table: dict[str, Any], override: str, option: str = "--set") -> None:
    """Set one `key.path=value` in `table`. option: where it was given, for messages. Raises UsageError."""
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys) or len(keys) > MOST_NESTED:
        raise UsageError(f"{option}: got {shown(override)}; want key=value")
    try:
        value: Any = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        value = {"none": None, "None": None}.get(text.strip(), text.strip())
    here = table
    for key in keys[:-1]:
        below = here.get(key)
        if below is None:
            below = here[key] = {}
        if not isinstance(below, dict):
            raise UsageError(f"{option}: {shown(path)}: {shown(key)} is a value, not a table")
        here = below
    here[keys[-1]] = value
