"""A few faults on real processes, and that what is wrong after one would be seen; all of them: benchmarks/faults.py."""

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.injecting import FAULTS
from tests.faults.trial import Case, Outcome, cases, judge, suite
from tests.faults.world import HOLDERS, world

SHORT = (
    ("coordinator's command", "killed", "in a sum", "exact"),
    ("coordinator's command", "killed", "after admission", "private"),
    ("hub", "killed, started again", "between sums", "exact"),
    ("SuperNode", "killed", "in a sum", "private"),
    ("runner", "killed", "before admission", "private"),
    ("holder", "its parent process killed, started again", "before admission", "private"),
    ("holder", "no room on disk for seconds", "after admission", "private"),
    ("line of a holder", "cut for seconds", "in a sum", "exact"),
    ("line of a holder", "doubles every byte for seconds", "after admission", "private"),
)


def _short() -> list[Case]:
    kinds = {(one.role, one.what): one for one in FAULTS}
    return [
        Case(number, kinds[role, what], moment, study, HOLDERS[number % 3], 1.5, 0.0)
        for number, (role, what, moment, study) in enumerate(SHORT, 1)
    ]


@pytest.mark.whole
@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc")
@pytest.mark.timeout(1500)
def test_no_fault_costs_a_sum_twice_or_loses_what_was_paid_for(tmp_path: Path) -> None:
    with world(tmp_path / "pilot") as pilot:
        found = list(suite(pilot, _short()))
        assert not [one for one in found if not one.well]
        assert all(one.whole for one in found)
        assert len({pid for role in pilot.up for pid in pilot.processes(role)["all"]}) == 2 + 3 * 4  # and no others


def test_every_kind_of_fault_comes_at_every_moment_before_any_comes_twice() -> None:
    chosen = cases(500, 1)
    assert chosen == cases(500, 1)
    assert chosen[:50] != cases(50, 2)
    seen = Counter((one.fault.role, one.fault.what, one.moment) for one in chosen)
    assert set(seen.values()) <= {2, 3}
    assert {one.study for one in chosen} == {"exact", "private", "training", "encrypted"}


PAID = Counter({("charge", 1, "event"): 1})


class _Told:
    """What a pilot has after a fault, made up."""

    def __init__(self, cost: dict[str, Counter[tuple[str, int, str]]], estimate: float | None) -> None:
        self._cost, self._estimate = cost, estimate

    def cost(self, run: str) -> dict[str, Counter[tuple[str, int, str]]]:
        return self._cost

    def held(self, run: str) -> int:
        return 0

    def intact(self) -> bool:
        return True

    def pooled(self) -> float:
        return 50.0

    def result(self, run: str) -> dict[str, object] | None:
        return None if self._estimate is None else {"estimates": [{"estimate": self._estimate, "std_error": 0.0}]}


@pytest.mark.parametrize(
    ("how", "paid", "estimate", "wrong"),
    [
        ("alone", PAID, 50.0, ""),
        ("refused", Counter(), None, ""),
        ("alone", PAID + PAID, 50.0, "doubled"),
        ("resumed", PAID + Counter({("charge", 1, "another event"): 1}), 50.0, "doubled"),
        ("alone", Counter(), 50.0, "drift"),
        ("refused", PAID, None, "drift"),
        ("refused", PAID, None, "lost"),
        ("alone", PAID, 50.1, "wrong"),
        ("alone", PAID, None, "wrong"),
    ],
)
def test_what_is_wrong_after_a_fault_is_seen(
    how: str, paid: Counter[tuple[str, int, str]], estimate: float | None, wrong: str
) -> None:
    outcome = Outcome(Case(1, FAULTS[0], "in a sum", "exact", "istat", 1.0, 0.0), how, run="run")
    told = _Told(dict.fromkeys(HOLDERS, paid), estimate)
    judge(told, outcome, dict.fromkeys(HOLDERS, PAID))  # type: ignore[arg-type]
    assert outcome.well == (not wrong)
    assert not wrong or getattr(outcome, wrong)
