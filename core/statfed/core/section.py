"""Tables of the files that people write: strict, immutable, with errors that say what was got and what is wanted."""

import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from statfed.core.errors import UsageError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
"""Of holders and other parties."""
Unit = Literal["record", "person"]


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
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{what} file not found: {path}") from None
    except (ValueError, OSError) as error:  # also of a number too long to read
        raise UsageError(f"{path}: not a readable TOML file: {error}") from None
    except RecursionError:
        raise UsageError(f"{path}: not a readable TOML file: nested too deeply") from None


def describe(error: ValidationError, where: str, known: str) -> str:
    """A validation error as lines of `where: key: got ...; want ...`. known: what is wanted instead of unknown keys."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        subject = f"{where}: {key}" if key else where
        got = item.get("input")
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):  # of a model, of a dataclass
            lines.append(f"{subject}: unknown key; want {known}")
        elif item["type"] == "missing":
            lines.append(f"{subject}: missing; want a value")
        elif item["type"] == "value_error":
            lines.append(f"{subject}: {item['msg'].removeprefix('Value error, ')}")
        else:
            want = item["msg"].removeprefix("Input should be ").removeprefix("a valid ")
            lines.append(f"{subject}: got {got!r}; want {want}")
    return "\n".join(lines)


def apply_override(table: dict[str, Any], override: str) -> None:
    """Set one `key.path=value` in `table`."""
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise UsageError(f"--set: got {override!r}; want key=value")
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
            raise UsageError(f"--set: {path}: {key} is a value, not a table")
        here = below
    here[keys[-1]] = value
