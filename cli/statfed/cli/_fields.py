"""From the fields of an options model to command-line options, and from their texts back to values."""

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from typer.core import TyperOption

from statfed.cli._names import Choice
from statfed.core.errors import UsageError
from statfed.core.section import shown


def option_of(key: str, field: FieldInfo) -> TyperOption:
    """The option `--key` of a field; its value arrives under `option_key`."""
    flag = f"--{key.replace('_', '-')}"
    shape = _shape(field.annotation)
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    shown = "" if default in (None, (), {}, False) else f" [default: {_text(default)}]"
    kind: dict[str, Any] = {"metavar": shape.upper()}
    if shape == "flag":
        kind = {"is_flag": True, "default": None}
        flag = f"{flag}/--no-{key.replace('_', '-')}" if default else flag
    elif choices := _choices(field.annotation):
        kind = {"type": Choice(choices)}
    return TyperOption(
        param_decls=[f"option_{key}", flag],
        required=field.is_required(),
        help=f"{field.description or ''}{shown}",
        rich_help_panel="Options",
        **kind,
    )


def _members(annotation: Any) -> tuple[Any, ...]:
    """A type without None, as its union members."""
    if get_origin(annotation) in (None, tuple, dict, Literal):
        return (annotation,)
    return tuple(member for member in get_args(annotation) if member is not type(None)) or (annotation,)


def _choices(annotation: Any) -> list[str] | None:
    members = _members(annotation)
    if all(get_origin(member) is Literal for member in members):
        return [str(value) for member in members for value in get_args(member)]
    return None


def _shape(annotation: Any) -> str:
    members = _members(annotation)
    if bool in members:
        return "flag"
    if any(get_origin(member) is tuple for member in members):
        return "list"
    if any(get_origin(member) is dict or member is dict for member in members):
        return "json"
    return "number" if set(members) <= {int, float} else "text"


def value_of(key: str, field: FieldInfo, text: Any) -> Any:
    """What the user typed, as pydantic wants it: lists split at commas, JSON read, the rest as it is."""
    shape = _shape(field.annotation)
    if shape == "list":
        return [part.strip() for part in str(text).split(",") if part.strip()]
    if shape == "json":
        try:
            return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
        except (ValueError, OSError, RecursionError) as error:
            raise UsageError(f"--{key}: got {shown(text)}; want JSON, or @file with JSON ({error})") from None
    return text


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
