"""What a check says of a plugin: one row a law."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from statfed.core.progress import Progress

S = TypeVar("S")


class Broken(Exception):
    """A law does not hold. The message says what was got and what is wanted."""


class Lacking(Exception):
    """What a plugin should have and may do without."""


@dataclass(frozen=True)
class Check:
    """One law. passed: None is a warning; detail: what was looked at, or what is wrong."""

    id: str
    title: str
    passed: bool | None
    detail: str = ""


@dataclass(frozen=True)
class Law(Generic[S]):
    """test: looks at a subject and says what it looked at. Raises Broken, Lacking or whatever the plugin raises."""

    id: str
    title: str
    test: Callable[[S], str]


def judge(laws: Sequence[Law[S]], subject: S, progress: Progress) -> list[Check]:
    """Every law in order, each on its own: what one of them meets does not keep the next from being tested."""
    found = []
    for number, law in enumerate(laws):
        progress("laws", number, len(laws))
        found.append(_judged(law, subject))
    progress("laws", len(laws), len(laws))
    return found


def _judged(law: Law[S], subject: S) -> Check:
    try:
        return Check(law.id, law.title, True, law.test(subject))
    except Broken as error:
        return Check(law.id, law.title, False, str(error))
    except Lacking as error:
        return Check(law.id, law.title, None, str(error))
    except Exception as error:  # noqa: BLE001  # whatever a plugin raises breaks the law that it is raised under
        return Check(law.id, law.title, False, f"{type(error).__name__}: {error}")


def holds(true: object, otherwise: str) -> None:
    """Raises Broken unless `true`."""
    if not true:
        raise Broken(otherwise)
