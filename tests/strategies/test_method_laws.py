"""Every method that is found, of statistics and of training, under every law of `statfed.lab.laws.methods`.

A new built-in takes part with an entry in `statfed.lab.laws.universe`; one of another package brings its `example`.
"""

from typing import Any

import pytest

from statfed.core.discovery import plugins
from statfed.core.errors import UsageError
from statfed.core.method import load_method, methods, package_of, read_question
from statfed.lab.laws.check import Broken, Law, judge
from statfed.lab.laws.methods import Subject, laws_of
from statfed.lab.laws.universe import EXAMPLES, NOISE, TRAINING, examples_of


def examples(name: str) -> int:
    return 1 if name in plugins(package_of(name)) else len(examples_of(name))


GUARDED = {"declared", "bounded", "private bounds", "private", "budget"}
"""Laws that noise and rules rest on: of every example in every run of the tests."""


def marks(law: Law[Subject], number: int, example: int, name: str) -> Any:
    """The other laws take turns with the examples of a method: one each, and all of them before a release."""
    return () if law.id in GUARDED or example == number % examples(name) else pytest.mark.whole


CASES = [
    pytest.param(
        Subject(name, load_method(name), example),
        law,
        id=f"{name}-{example}-{law.id}",
        marks=marks(law, number, example, name),
    )
    for name in sorted(methods())
    for example in range(examples(name))
    for number, law in enumerate(laws_of(name))
]


def test_every_built_in_method_has_an_example() -> None:
    built_in = {name for name in methods() if name not in plugins(package_of(name))}
    assert {*EXAMPLES, *TRAINING} == built_in
    with pytest.raises(Broken, match="got none of no-such-method"):
        examples_of("no-such-method")


@pytest.mark.parametrize(("subject", "law"), CASES)
def test_a_method_keeps_a_law(subject: Subject, law: Law[Subject]) -> None:
    (check,) = judge([law], subject, lambda *_: None)
    assert check.passed is not False, check.detail
    if law.id not in ("private", "budget"):  # not every example of a method can be asked with noise
        assert check.passed, check.detail


@pytest.mark.parametrize("name", sorted(methods()))
def test_a_method_with_a_budget_has_an_example_that_can_be_asked_with_noise(name: str) -> None:
    subject = Subject(name, load_method(name))
    private = 0
    for case in subject.cases:
        try:
            read_question(subject.terms(case, privacy=NOISE))
        except UsageError:
            continue
        private += 1
    assert bool(private) == hasattr(subject.module, "budget")
