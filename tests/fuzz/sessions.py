"""Runs in memory of which every message and reply is kept, to be sent again with something wrong in them."""

import copy
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from flwr.app import Message
from flwr.serverapp import Grid

from statfed.core.codebook import make_codebook
from statfed.core.progress import Progress, silent
from statfed.core.resolve import Resolved, resolve_applicable
from statfed.core.study import make_study
from statfed.federation.run import Options, run_study
from statfed.server._flwr import copied
from statfed.server.driver import Driven, drive
from statfed.server.engine import Deployment, R, Session
from statfed.server.grid import inprocess

CANARY = 8675309.0
"""One holder's largest income; no message may repeat it."""
CODEBOOK = make_codebook(
    {
        "columns": {
            "region": {"type": "category", "categories": ["A", "B"]},
            "income": {"type": "number", "low": 0, "high": 10_000_000},
            "age": {"type": "integer", "low": 0, "high": 120},
        }
    }
)
STUDIES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("mean", {"columns": ["income"]}, "plain"),
    ("glm", {"formula": "age ~ region", "family": "poisson"}, "plain"),
    ("count", {"by": ["region"]}, "secure-aggregation"),
    ("mean", {"columns": ["income", "age"], "by": ["region"]}, "secure-aggregation"),
    ("mean", {"columns": ["age"]}, "homomorphic-encryption"),
    ("mean", {"columns": ["age"]}, "multi-party"),
)
"""Methods with their options, and the protections that they run under."""


def twin(message: Message) -> Message:
    """A message of which everything can be changed."""
    made = copied(message)
    vars(made)["_metadata"] = copy.copy(message.metadata)
    return made


@dataclass(frozen=True)
class Sent:
    """One message to a party and its reply. home: the party's folder."""

    party: str
    home: Path
    message: Message
    reply: Message


@dataclass(frozen=True)
class Recording:
    """A run that ended well. sent: in order; result: its tables as they were released by nobody yet."""

    study: Resolved
    run: str
    nodes: Mapping[str, int]
    sent: tuple[Sent, ...]

    def again(self, change: Callable[[Sequence[Message]], Iterable[Message]] = tuple) -> Driven:
        """Drive the study anew on the kept replies. change: of each batch of them."""
        session = Session(cast(Grid, _Replaying(self, change)), self.nodes)
        return drive(session, self.study, self.run, timeout=1.0, progress=silent)


class _Replaying:
    """Answers with what the parties answered: coordinators draw nothing, so that their messages are the same again."""

    def __init__(self, recording: Recording, change: Callable[[Sequence[Message]], Iterable[Message]]) -> None:
        self._change = change
        self._left: dict[int, deque[Message]] = {node: deque() for node in recording.nodes.values()}
        for one in recording.sent:
            self._left[recording.nodes[one.party]].append(one.reply)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        due = [self._left[message.metadata.dst_node_id] for message in messages]
        return list(self._change([twin(queue.popleft()) for queue in due if queue]))


@dataclass
class _Taping:
    """An engine in memory that keeps what goes through it."""

    sent: list[Sent]
    nodes: dict[str, int]

    def run(self, deployment: Deployment, drive: Callable[[Session], R], progress: Progress) -> R:
        def tap(party: str, message: Message, reply: Message) -> None:
            self.sent.append(Sent(party, deployment.homes[party], copied(message), copied(reply)))

        def driven(session: Session) -> R:
            self.nodes.update(session.nodes)
            return drive(session)

        return inprocess.run(deployment, driven, progress, tap=tap)


def frames() -> dict[str, pd.DataFrame]:
    """What three holders have."""
    rng = np.random.default_rng(1)
    made = {}
    for place, name in enumerate(("istat", "cbs", "insee")):
        income = rng.uniform(1e4, 9e4, 40)
        income[0] = CANARY if place == 0 else income[0]
        regions = rng.choice(["A", "B"], 40)
        made[name] = pd.DataFrame({"region": regions, "income": income, "age": rng.integers(18, 80, 40)})
    return made


def recorded(folder: Path, studies: Sequence[tuple[str, dict[str, Any], str]] = STUDIES) -> tuple[Recording, ...]:
    """A recording of each study, with homes under `folder`."""
    for name, frame in frames().items():
        frame.to_parquet(folder / f"{name}.parquet")
    return tuple(_recorded(folder, place, *one) for place, one in enumerate(studies))


def _recorded(folder: Path, place: int, method: str, options: Mapping[str, Any], protection: str) -> Recording:
    study = make_study(
        {
            "method": method,
            "options": options,
            "holders": {name: str(folder / f"{name}.parquet") for name in frames()},
            "protection": {"name": protection},
            "disclosure": "none",
            "seed": 1,
        }
    )
    engine = _Taping([], {})
    asked = Options(workspace=folder / f"work-{place}", codebook=CODEBOOK, engine=engine)
    answer = run_study(study, asked)
    said = json.loads(str(engine.sent[0].message.content.config_records["config"]["statement"]))
    return Recording(resolve_applicable(answer.terms), said["run"], dict(engine.nodes), tuple(engine.sent))
