"""One parser under many inputs: every outcome is an answer or an error that is documented, within bounds of work.

Work is counted in calls of functions, not in seconds, so that an outcome does not depend on the machine; where no
function is called (a regular expression that backtracks, a number with a million digits) processor time of the process
is the bound. Memory is the growth of the process.
"""

import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from statfed.core.errors import StatfedError

MOST_CALLS = 5_000_000
MOST_SECONDS = 30.0
MOST_GROWTH = 1 << 30
MOST_TEXT = 20_000
"""Of one input: calls, seconds of processor time; of all inputs of a parser: bytes; of a message: characters."""
CANARIES = ("CANARY", "8675309")
"""Parts of values of records that no message may repeat."""


class TooMuch(BaseException):
    """An input that takes more work than any has to; no handler of errors catches it."""


@dataclass(frozen=True)
class Target:
    """A parser or reader. inputs: what it is tried on; bombs: further inputs, tried first; read: what reads one, with
    a folder of its own for files. share: of the examples that a cheap one gets;
    counted: are its calls? Processor time alone is bounded where the work is that of others."""

    name: str
    inputs: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    bombs: tuple[Any, ...] = ()
    share: float = 1.0
    counted: bool = True


@dataclass
class Outcome:
    """What came out. faults: what should not have, each with the input that showed it; growth: of the process, bytes;
    seconds: most processor time of an input."""

    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    most_calls: int = 0
    growth: int = 0
    seconds: float = 0.0

    def fault(self, what: str, shown: object) -> None:
        self.outcomes["fault"] += 1
        self.faults.setdefault(what, repr(shown)[:2000])


def tried(target: Target, count: int, folder: Path) -> Outcome:
    """Try a target on its bombs and on `count` inputs, the same every time."""
    outcome, before = Outcome(), _memory()
    for bomb in target.bombs:
        _one(target, bomb, folder, outcome)

    @settings(
        max_examples=max(1, round(count * target.share)),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def run(given: Any) -> None:
        _one(target, given, folder, outcome)

    run()
    outcome.growth = _memory() - before
    if outcome.growth > MOST_GROWTH:
        outcome.fault(f"memory grew by {outcome.growth >> 20} MiB", target.name)
    return outcome


def _one(target: Target, given: Any, folder: Path, outcome: Outcome) -> None:
    outcome.tried += 1
    calls, started = [0], time.process_time()
    try:
        with _bounded(calls, counted=target.counted):
            target.read(given, folder)
        outcome.outcomes["read"] += 1
    except StatfedError as error:
        outcome.outcomes[type(error).__name__] += 1
        if any(canary in str(error) for canary in CANARIES):
            outcome.fault("a message has a value of a record", (given, str(error)))
        if len(str(error)) > MOST_TEXT:
            outcome.fault(f"a message of {len(str(error)):,} characters", given)
    except TooMuch as error:
        outcome.fault(f"too much work: {error}", given)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        where = f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at else ""
        outcome.fault(f"{type(error).__name__} at {where}", (given, str(error)[:300]))
    outcome.seconds = max(outcome.seconds, time.process_time() - started)
    outcome.most_calls = max(outcome.most_calls, calls[0])


@contextmanager
def _bounded(calls: list[int], *, counted: bool) -> Iterator[None]:
    """Raises TooMuch in the block where it takes too much work."""

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            calls[0] += 1
            if calls[0] > MOST_CALLS:
                sys.setprofile(None)
                raise TooMuch(f"more than {MOST_CALLS:,} calls")

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooMuch(f"more than {MOST_SECONDS:g} s of processor time")

    kept = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    sys.setprofile(count if counted else None)
    try:
        yield
    finally:
        sys.setprofile(None)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, kept)


def _memory() -> int:
    """Most bytes that this process has had at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
