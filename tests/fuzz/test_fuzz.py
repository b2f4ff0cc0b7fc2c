"""Whatever is written, sent or damaged, it is read or refused as documented: no traceback, hang or value of a record.

STATFED_FUZZ=1000 tries so many inputs a parser instead of a few; `python -m tests.fuzz` prints the table.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import commands, messages, papers, records, stored, texts, trial
from tests.fuzz.__main__ import all_tried, heads, row
from tests.fuzz.trial import Target, tried

COUNT = int(os.environ.get("STATFED_FUZZ", "0"))
GROUPS: dict[str, tuple[Callable[[Path], tuple[Target, ...]], int]] = {
    "texts": (lambda _: texts.TARGETS, 24),
    "records": (records.targets, 3),
    "stored": (stored.targets, 24),
    "commands": (lambda _: commands.TARGETS, 6),
    "papers": (papers.targets, 24),
    "messages": (messages.targets, 60),
}
"""Targets, and the inputs that each gets in every run of the tests."""


def _without_faults(group: str, folder: Path, count: int, record: Callable[[str, object], None]) -> None:
    made, _ = GROUPS[group]
    outcomes = all_tried(made(folder), count)
    print("\n".join([heads(), *(row(name, outcome) for name, outcome in outcomes.items())]))  # noqa: T201
    record("inputs tried", sum(outcome.tried for outcome in outcomes.values()))
    assert {name: outcome.faults for name, outcome in outcomes.items() if outcome.faults} == {}
    assert all(outcome.tried for outcome in outcomes.values())


@pytest.mark.parametrize("group", GROUPS)
def test_mutated_input_is_read_or_refused_as_documented(
    group: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    _without_faults(group, tmp_path, COUNT or GROUPS[group][1], record_property)


@pytest.mark.whole
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", GROUPS)
def test_much_mutated_input_is_read_or_refused_as_documented(
    group: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    _without_faults(group, tmp_path, COUNT or 500, record_property)


def test_the_trial_finds_a_traceback_a_value_in_a_message_and_endless_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MOST_CALLS", 10_000)

    def crash(_given: object, _folder: Path) -> None:
        raise KeyError("x")

    def tell(_given: object, _folder: Path) -> None:
        from statfed.core.errors import UsageError

        raise UsageError("got CANARY7391; want a number")

    def work(_given: object, _folder: Path) -> None:
        source = random.Random(1)
        while True:
            source.choice((1, 2))

    some = texts.TARGETS[0].inputs
    for read, what in ((crash, "KeyError at test_fuzz.py"), (tell, "a value of a record"), (work, "too much work")):
        assert any(what in fault for fault in tried(Target("x", some, read), 1, tmp_path).faults)
