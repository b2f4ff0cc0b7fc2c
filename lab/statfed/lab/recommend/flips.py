"""A case with one fact changed: for the sensitivity of a recommendation, and for what would let something through."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from statfed.core.scenario import Case

_WORDS = ("output", "partitioning", "coordinator", "sensitivity", "recurrence", "identifier", "skills")
_TENFOLD = ("records", "numbers", "bandwidth")


@dataclass(frozen=True)
class Changed:
    """A case in which `fact` is `value`. text: the change in words, from "if" on."""

    fact: str
    value: str
    text: str
    case: Case


def changes(case: Case) -> tuple[Changed, ...]:
    """Every case that differs from this one in one fact, in the order of the facts.

    Words take each other value; numbers a tenth and ten times; parties one less, one more and three; epsilon none, or 1
    where there is none. Facts that decide nothing here (title, latency) stay.
    """
    found = []
    for fact in Case.model_fields:
        for value, text in _values(case, fact):
            said = str(value).lower() if isinstance(value, bool) else "none" if value is None else f"{value}"
            found.append(Changed(fact, said, f"if {text}", case.model_copy(update={fact: value})))
    return tuple(found)


def _values(case: Case, fact: str) -> Iterator[tuple[Any, str]]:
    now = getattr(case, fact)
    if fact in _WORDS:
        for value in get_args(Case.model_fields[fact].annotation):
            if value != now:
                yield value, _SAID.get((fact, value), f"{fact} is {value}")
    elif fact in _TENFOLD:
        for value in (now * 10, now / 10 if fact == "bandwidth" else now // 10):
            if value >= 1 or (fact == "bandwidth" and value > 0):
                yield value, f"{fact} is {value:g} instead of {now:g}"
    elif isinstance(now, bool):
        yield not now, _SAID[fact, not now]
    elif fact == "parties":
        for value in sorted({now - 1, now + 1, max(3, now)} - {0, now}):
            yield value, f"{value} organisation{'s take' if value > 1 else ' takes'} part instead of {now}"
    elif fact == "epsilon":
        if now is None:
            yield 1.0, "an epsilon of 1 is required"
        else:
            yield None, "no epsilon is required"
            for value in (now * 10, now / 10):
                yield float(f"{value:g}"), f"the total epsilon is {value:g} instead of {now:g}"


_SAID: dict[tuple[str, Any], str] = {
    ("third_party", True): "an independent third party joins",
    ("third_party", False): "no independent third party can be found",
    ("exact", True): "results have to be exact",
    ("exact", False): "results need not be exact",
    ("dominance", True): "one or two units may dominate a figure",
    ("dominance", False): "no unit dominates a figure",
    ("dropout", True): "a holder may be away while the computation runs",
    ("dropout", False): "all holders stay until the end",
    ("coordinator", "trusted"): "the coordinator is trusted with contributions",
    ("coordinator", "honest-but-curious"): "the coordinator follows the protocol but is curious",
    ("coordinator", "malicious"): "the coordinator may deviate from the protocol",
    ("sensitivity", "low"): "single contributions are of low sensitivity",
    ("sensitivity", "moderate"): "single contributions are of moderate sensitivity",
    ("sensitivity", "high"): "single contributions are of high sensitivity",
    ("recurrence", "once"): "it is done once",
    ("recurrence", "yearly"): "it is done every year",
    ("recurrence", "monthly"): "it is done every month",
    ("recurrence", "continuous"): "it is done all the time",
}
