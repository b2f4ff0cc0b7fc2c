"""A case's facts as a TOML file, `case.toml`, and as questions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from statfed.core import toml
from statfed.core.errors import UsageError
from statfed.core.scenario import Case
from statfed.core.section import apply_override, describe, read_toml

FACTS = tuple(Case.model_fields)


def read_case(path: Path, overrides: Sequence[str] = ()) -> Case:
    """The case in a TOML file, after `key=value` overrides.

    Raises UsageError naming the key, what was got and what is wanted.
    """
    return make_case(read_toml(path, "case"), overrides, str(path))


def make_case(table: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "case") -> Case:
    """A case from a mapping of facts, after `key=value` overrides. Raises UsageError as `read_case` does."""
    facts = dict(table)
    for override in overrides:
        apply_override(facts, override)
    try:
        return Case.model_validate(facts)
    except ValidationError as error:
        raise UsageError(describe(error, where, f"one of {', '.join(FACTS)}", Case)) from None


def answered(fact: str, text: str) -> Any:
    """The value of one fact from what a person typed; "none" where there is none.

    Raises UsageError naming the fact, what was got and what is wanted.
    """
    unset = text.strip().lower() in ("none", "") and Case.model_fields[fact].default is None
    given = None if unset else text.strip()
    return getattr(make_case({fact: given}), fact)


def choices(fact: str) -> tuple[str, ...]:
    """The words that a fact may be; none for numbers and free text."""
    annotation = Case.model_fields[fact].annotation
    if annotation is bool:
        return ("yes", "no")
    return tuple(get_args(annotation)) if get_origin(annotation) is Literal else ()


def written(case: Case, comments: bool = False) -> str:
    """The case as TOML. comments: with what each fact means and may be. An epsilon that is not set stays out."""
    lines = []
    for fact, info in Case.model_fields.items():
        value = getattr(case, fact)
        if comments:
            lines += [f"# {line}" for line in wrap(info.description or "", 110)]
            words = choices(fact) if info.annotation is not bool else ()
            lines += [f"# one of {', '.join(words)}"] if words else []
        if value is not None:
            lines.append(toml.line(fact, value))
        elif comments:
            lines.append(f"# {fact} = 1.0")
        lines += [""] if comments else []
    return "\n".join(lines).rstrip() + "\n"


def template() -> str:
    """A commented case.toml with every fact at its default."""
    head = (
        "# The facts of a case, for `statfed recommend --case case.toml`. Every fact has a default: the one below.\n\n"
    )
    return head + written(Case(), comments=True)
