"""Laws of a private method's budget: its asks, charged to a real ledger, against what was set aside for them."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from statfed.client.guard.ledger import Ledger
from statfed.client.guard.register import point
from statfed.core.errors import Refused
from statfed.core.method import Adaptive, Ask, Fixed
from statfed.core.privacy.accountant import Event
from statfed.core.privacy.accountant import epsilon as composed
from statfed.core.resolve import Resolved
from statfed.core.table import Size
from statfed.core.terms import Privacy, Terms
from statfed.lab.laws.check import Broken, holds
from statfed.lab.laws.walk import Step, steps

if TYPE_CHECKING:
    import pandas as pd

LIFETIME = 1000.0
CLOSE = 1e-9


def _walked(terms: Terms, frame: "pd.DataFrame") -> list[Step]:
    """The asks of one private run at one holder. Raises Broken on one that its budget does not have."""
    found = []
    for step in steps(terms, {terms.holders[0]: frame}):
        try:
            step.study.scheduled(step.ask, step.number)
        except Refused as error:
            raise Broken(str(error)) from None
        found.append(step)
    budget = found[0].study.budget if found else None
    if isinstance(budget, Fixed):
        order = budget.order
        made = tuple(step.ask.name for step in found)
        holds(made == order, f"budget: got asks {', '.join(made)}; want those announced, {', '.join(order)}")
    return found


def private_form(terms: Terms, frame: "pd.DataFrame") -> list[str]:
    """The asks of a private run, each with finite noise and a finite cost."""
    found = []
    for step in _walked(terms, frame):
        paid = step.paid[terms.holders[0]]
        if paid is None:
            raise Broken(f"{step.ask.name}: costs nothing; want a price")
        if paid.noise is not None:
            for key, deviation in paid.noise.std().items():
                finite = np.isfinite(deviation).all()
                holds(finite, f"{step.ask.name}: {key}: no finite bound; want one, for noise follows from it")
        cost = composed([paid.event], _privacy(terms).delta)
        holds(math.isfinite(cost), f"{step.ask.name}: costs epsilon {cost}; want a finite one")
        found.append(step.ask.name)
    return [f"{name} ({found.count(name)} times)" for name in dict.fromkeys(found)]


def accounted(terms: Terms, frame: "pd.DataFrame") -> str:
    """A private run's asks, charged to a ledger: in one attempt, and in two, the first of which broke."""
    made = _walked(terms, frame)
    study, size = made[0].study, _size(frame, terms)
    events = [_event(step, terms) for step in made]
    privacy = _privacy(terms)
    reserved = study.reservation(size)
    if reserved is None:
        raise Broken("budget: sets nothing aside for a private study; want what it costs")
    claimed = reserved.epsilon(privacy.epsilon, privacy.delta)
    within = claimed <= privacy.epsilon * (1 + CLOSE)
    holds(within, f"budget: claims epsilon {claimed:.6g}; want at most {privacy.epsilon:g}")
    spent = _charged(study, size, [(events, 0)])
    if isinstance(study.budget, Adaptive):
        within = spent <= privacy.epsilon * (1 + CLOSE)
        holds(within, f"budget: {len(made)} asks cost epsilon {spent:.6g}; want at most {privacy.epsilon:g}")
        return f"{len(made)} asks: epsilon {spent:.4g} of {privacy.epsilon:g}"
    alike = math.isclose(spent, claimed, rel_tol=CLOSE)
    holds(alike, f"budget: all asks cost epsilon {spent:.6g}; want the claimed {claimed:.6g}")
    _in_order(study)
    for broke in sorted({1, len(events) - 1} & set(range(1, len(events)))):
        again = _charged(study, size, [(events[:broke], 0), (events[broke:], broke)])
        alike = math.isclose(again, claimed, rel_tol=CLOSE)
        holds(alike, f"budget: in two attempts epsilon {again:.6g}; want the claimed {claimed:.6g}")
    try:
        _charged(study, size, [(events[:1], 0), (events, 0)])
    except Refused:
        return f"{len(made)} asks: epsilon {spent:.4g} of {privacy.epsilon:g}"
    raise Broken("budget: all asks are charged again after the first of them; want attempts to cost no more than one")


def _privacy(terms: Terms) -> Privacy:
    if terms.privacy is None:
        raise ValueError("a budget without privacy")
    return terms.privacy


def _size(frame: "pd.DataFrame", terms: Terms) -> Size:
    from statfed.lab.laws.frames import size_of

    return size_of(frame, terms.codebook)


def _event(step: Step, terms: Terms) -> Event:
    paid = step.paid[terms.holders[0]]
    if paid is None:
        raise Broken(f"{step.ask.name}: costs nothing; want a price")
    return paid.event


def _charged(study: Resolved, size: Size, attempts: Sequence[tuple[Sequence[Event], int]]) -> float:
    """What a ledger says that a study cost, over its attempts. attempts: events charged, and asks done before."""
    privacy = _privacy(study.terms)
    with tempfile.TemporaryDirectory(prefix="statfed-check-") as folder:
        path = Path(folder) / "ledger.sqlite"
        point(path.parent, path.with_name("register.sqlite"))  # a machine of its own: this is no holder's ledger
        with Ledger(path, dataset="example", unit=privacy.unit, epsilon=LIFETIME, delta=1e-5) as ledger:
            run = "run"
            for number, (events, done) in enumerate(attempts, 1):
                run = "run" if number == 1 else f"run~{number}"
                reserved = study.reservation(size, done)
                if reserved is None:
                    raise Broken("budget: sets nothing aside for a private study; want what it costs")
                ledger.set_aside(run, study.digest, reserved)
                for at, event in enumerate(events, 1):
                    ledger.charge(run, study.digest, at, event)
                ledger.release(run)
            found = ledger.spending(run, delta=privacy.delta).study_epsilon
    return math.inf if found is None else found


def _in_order(study: Resolved) -> None:
    """Raises Broken unless another order than the announced one is refused, and one ask more than all."""
    budget = study.budget
    if not isinstance(budget, Fixed):
        return
    order = budget.order
    wrong = [(name, 1) for name in dict.fromkeys(order) if name != order[0]]
    for name, number in [*wrong, (order[-1], len(order) + 1)]:
        try:
            study.scheduled(Ask(name), number)
        except Refused:
            continue
        raise Broken(f"budget: {name} as ask number {number}: got an answer; want a refusal")
