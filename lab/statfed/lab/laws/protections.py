"""`check_protection`: every law of `statfed.core.protection`, of an installed protection by its name."""

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from statfed.core.applicability import obstacles
from statfed.core.card import TOPICS, card_of
from statfed.core.discovery import load
from statfed.core.progress import Progress, silent
from statfed.core.protection import PACKAGE, Cost, Disclosure, Requirements
from statfed.core.section import NAME, Section
from statfed.core.terms import Privacy, Protection, Terms
from statfed.lab.laws import guards, sums
from statfed.lab.laws.check import Broken, Check, Lacking, Law, holds, judge
from statfed.lab.laws.sums import Subject
from statfed.lab.laws.universe import CODEBOOK, people
from statfed.lab.samples import Kind, sample


def _contract(subject: Subject) -> str:
    module = subject.module
    for name in ("TITLE", "TRUST", "REQUIRES", "Options", "third_parties", "party", "coordinator", "learns"):
        holds(hasattr(module, name), f"{name}: missing; want it, as statfed.core.protection says")
    holds(isinstance(module.TITLE, str) and module.TITLE.strip(), "TITLE: want one line")
    trust = module.TRUST
    holds(
        isinstance(trust, tuple) and trust and all(isinstance(one, str) and one for one in trust),
        f"TRUST: got {trust!r}; want a tuple of assumptions: no protection holds under none",
    )
    requires = module.REQUIRES
    holds(isinstance(requires, Requirements), f"REQUIRES: got {type(requires).__name__}; want Requirements")
    holds(requires.cost in get_args(Cost), f"REQUIRES.cost: got {requires.cost!r}; want one of {get_args(Cost)}")
    holds(
        isinstance(module.Options, type) and issubclass(module.Options, Section),
        "Options: want a subclass of statfed.core.section.Section",
    )
    try:
        options = module.Options()
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        raise Broken(f"Options: {keys}: no default; want one for every option") from None
    third = module.third_parties(options)
    named = isinstance(third, tuple) and all(isinstance(one, str) and NAME.fullmatch(one) for one in third)
    holds(named, f"third_parties: got {third!r}; want a tuple of names")
    holds(
        bool(third) == bool(requires.third_parties),
        f"REQUIRES.third_parties: got {requires.third_parties!r} for {', '.join(third) or 'no'} parties; want who "
        "they are, in words, or nothing where there are none",
    )
    for name in ("third_parties", "party", "coordinator", "learns"):
        holds(callable(getattr(module, name)), f"{name}: want a function")
    return f"{len(module.Options.model_fields)} options, {len(third)} parties beside the holders"


def samples(name: str, holders: int) -> Iterator[tuple[str, Terms]]:
    """Studies of statistics and of training, exact and with noise, as far as they apply."""
    noise = {
        "": None,
        " with noise": Privacy(epsilon=1),
        " with shared noise": Privacy.model_validate({"epsilon": 1, "noise": "shared"}),
    }
    for kind in get_args(Kind):
        for suffix, privacy in noise.items():
            terms = sample(kind, holders, Protection(name=name), privacy)
            if not obstacles(terms):
                yield kind + suffix, terms


def _learns(subject: Subject) -> str:
    told = []
    for kind, terms in samples(subject.name, subject.fewest + 1):
        rows = list(subject.module.learns(terms))
        holds(rows, f"{kind}: got no rows; want what each role learns")
        for row in rows:
            filled = isinstance(row, Disclosure) and row.role and row.learns and row.protected_by
            holds(filled, f"{kind}: got {row!r}; want a Disclosure with role, learns and protected_by")
        holds(
            any("coordinator" in row.role for row in rows),
            f"{kind}: got rows of {', '.join(row.role for row in rows)}; want one of the coordinator",
        )
        told.append(kind)
    kinds = {kind.partition(" with")[0] for kind in told}
    missing = {"a statistic", "training"} - kinds
    holds(not missing, f"{' and '.join(sorted(missing))}: does not apply without noise; want a protection of sums")
    return ", ".join(told)


def _analysis(subject: Subject) -> str:
    from statfed.lab.laws.frames import dealt
    from statfed.lab.laws.runs import asked, same

    frames = dealt(people(200, seed=1), None, subject.fewest)
    options = {"columns": ["income", "age"], "by": ["sex"]}
    found, clear = (asked("mean", options, CODEBOOK, frames, name).to_dict() for name in (subject.name, "plain"))
    # fixed point: steps of 2^-19 of the largest value of a record at the worst, so 7 digits of a mean
    return f"mean: {same(found, clear, 1e-7, 1e-9)} figures as under plain"


def _training(subject: Subject) -> str:
    from statfed.lab.laws.runs import trained

    found, clear = trained(subject.name, subject.fewest), trained("plain", subject.fewest)
    off = float(np.abs(found - clear).max())
    # a step of 32-bit words is 2^-29 of 16 times the records; two rounds of training stretch that a little
    holds(off <= 1e-5, f"got parameters that are off by {off:.2g}; want those of a run under plain")
    return f"two rounds: {len(clear)} parameters within {max(off, 1e-12):.1g} of those under plain"


def _card(subject: Subject) -> str:
    card = card_of(subject.module)
    if not card.questions:
        raise Lacking("brings none: want CARD, the questions that it raises, by topic of statfed.core.card")
    left = [topic for topic in TOPICS if topic not in card.topics()]
    if left:
        raise Lacking(f"has no question on {', '.join(left)}")
    return f"{len(card.questions)} questions on every topic"


CONTRACT: Law[Subject] = Law("contract", "The module has what the contract asks for, of the right kind", _contract)
LAWS: tuple[Law[Subject], ...] = (
    CONTRACT,
    *sums.LAWS,
    *guards.LAWS,
    Law("learns", "Who learns what is told of statistics and of training", _learns),
    Law("analysis", "An analysis over the wire gives what it gives under plain", _analysis),
    Law("training", "A training over the wire gives what it gives under plain", _training),
    Law("card", "It brings the questions that it raises", _card),
)


def check_protection(name: str, progress: Progress = silent) -> list[Check]:
    """Every law on the protection `name`, built-in or from outside; the contract alone where it breaks that.

    Raises UsageError on an unknown name, and where a plugin cannot be imported.
    """
    module: Any = load(PACKAGE, name, "protection")
    subject = Subject(name, module)
    first = judge((CONTRACT,), subject, silent)
    if not first[0].passed:
        return first
    return first + judge(LAWS[1:], subject, progress)
