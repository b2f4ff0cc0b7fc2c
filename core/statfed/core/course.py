"""The course of an exact study: which ask may come after which, so that a holder answers what an honest run could send.

A method's first ask follows from the question alone: both ends have it from `coordinate`. Later ones follow from
totals, which a holder under a protection does not see; a method says with `follows(question, before, ask)` what it can
know of them all the same, such as how often they come and which arrays stay as they are. A method that says nothing
makes each ask once. Asks of differentially private studies are held to their budget instead, those of training to their
schedule.
"""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from statfed.core.errors import Refused
from statfed.core.method import Ask, Question

Follows = Callable[[Question[Any], Sequence[Ask], Ask], str]


def check_course(question: Question[Any], before: Sequence[Ask], ask: Ask) -> None:
    """Raises Refused where `ask` cannot come after the asks `before` that were answered. Looks at no data."""
    if not before:
        first = next(question.method.coordinate(question))
        same = first.name == ask.name and set(first.arrays) == set(ask.arrays)
        if not same or any(not np.array_equal(first.arrays[name], ask.arrays[name]) for name in first.arrays):
            raise Refused(f"ask: got {ask.name} first; want {first.name}, with the arrays that the study begins with")
        return
    follows: Follows | None = getattr(question.method, "follows", None)
    why = follows(question, before, ask) if follows else _once(before, ask)
    if why:
        raise Refused(f"ask: {why}")


def _once(before: Sequence[Ask], ask: Ask) -> str:
    made = any(one.name == ask.name for one in before)
    return f"got {ask.name} a second time; want each ask once" if made else ""


def digest_of(ask: Ask) -> str:
    """SHA-256 of all that an ask says: its name, its share of the budget, its arrays."""
    found = sha256(json.dumps([ask.name, float(ask.share)]).encode())
    for name, array in sorted(ask.arrays.items()):
        made = np.ascontiguousarray(array)
        found.update(json.dumps([name, made.dtype.str, made.shape]).encode())
        found.update(made.tobytes())
    return found.hexdigest()
