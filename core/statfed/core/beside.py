"""Descriptions in TOML, read once into the frozen objects that the code works with.

A module's prose stands in the file of the same name beside it: `wages.toml` beside `wages.py`.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from statfed.core.errors import UsageError
from statfed.core.section import describe, read_toml

T = TypeVar("T")

closed = with_config(ConfigDict(extra="forbid"))
"""Decorator of a dataclass that is read from TOML: a key that it has no field for is an error."""


def beside(module: str) -> Path:
    """The TOML file beside a module. module: its `__file__`."""
    return Path(module).with_suffix(".toml")


def read_as(path: Path, kind: type[T], known: str) -> T:
    """The table in a TOML file as a dataclass or model. known: the keys that it may have, in words.

    Raises UsageError naming the file and the key, what was got and what is wanted.
    """
    table = read_toml(path, "description")
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        raise UsageError(describe(error, str(path), known)) from None
