"""Kinds of input have the right records or a refusal without a value: a record lost, a hang, a traceback, a leak."""

import pytest

from tests.inputs.cases import Case, cases
from tests.inputs.trial import outcomes

EACH = 24
"""Of the many that differ in the form they are kept in alone, every so manyth is tried at every run of the tests."""


@pytest.fixture(scope="module")
def every() -> tuple[Case, ...]:
    """All cases; finding them takes longer than importing this file should."""
    return tuple(cases())


def test_a_part_of_all_inputs_is_read_right_or_refused(every: tuple[Case, ...]) -> None:
    """Everything about files and databases, and of texts and values a fixed part."""
    some = [case for i, case in enumerate(every) if case.part in ("Files and folders", "Databases") or i % EACH == 0]
    assert [f"{one.case.fault}, {one.case.form}: {one.fault}" for one in outcomes(some) if one.fault] == []


@pytest.mark.whole
def test_all_inputs_are_read_right_or_refused(every: tuple[Case, ...]) -> None:
    assert [f"{one.case.fault}, {one.case.form}: {one.fault}" for one in outcomes(every) if one.fault] == []
