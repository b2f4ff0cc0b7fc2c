"""A small Flower app on a protected grid: homes of parties, a linear model's ClientApp, and toy protections."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from statfed.client.flower.mod import protect
from statfed.core import discovery
from statfed.core import protection as contract
from statfed.core.errors import EngineError
from statfed.core.identity import create_identity
from statfed.core.protection import Aggregate, Disclosure, Requirements, Rounds, Stage
from statfed.core.section import Section
from statfed.server.grid.inprocess import InProcessGrid, no_fault
from statfed.server.protected_grid import ProtectedGrid

NAMES = ("east", "north", "south", "west")
REAL = ("plain", "secure-aggregation", "homomorphic-encryption", "multi-party")


def toy_sum(third: tuple[str, ...] = (), survives: bool = True) -> Any:
    """A one-time pad modulo 2^64 that the party opens to anyone who asks: no protection, but it looks like one."""

    class Party:
        def __init__(self, name: str) -> None:
            self.name, self.pad = name, np.zeros(0, np.uint64)

        def answer(self, stage: str, packet: contract.Packet) -> contract.Packet:
            return {"greeting": self.name.encode()} if stage == "greet" else {"pad": self.pad}

        def contribute(self, packet: contract.Packet, arrays: Any, layout: Any) -> contract.Packet:
            assert packet["for"] == self.name.encode()
            assert len(packet["request"]) == 32
            vector = layout.encode(arrays).astype(np.int64).view(np.uint64)
            self.pad = np.frombuffer(np.random.default_rng().bytes(8 * len(vector)), np.uint64)
            return {"padded": vector + self.pad}

    class Coordinator:
        def __init__(self, agreement: contract.Agreement) -> None:
            self.agreement = agreement

        def total(self, layout: Any) -> Rounds:
            yield Stage("greet", {name: {} for name in self.agreement.parties})
            asked = {name: {"for": name.encode()} for name in self.agreement.holders}
            padded = yield Stage("contribute", asked, carries=True)
            if len(padded) < self.agreement.minimum_holders:
                raise EngineError(f"got {len(padded)} holders; want {self.agreement.minimum_holders}")
            pads = yield Stage("open", {name: {} for name in padded})
            total = sum((np.asarray(padded[n]["padded"]) - np.asarray(pads[n]["pad"]) for n in padded), np.uint64(0))
            return Aggregate(layout.decode(np.asarray(total).view(np.int64)), tuple(padded))

    class Options(Section):
        pass

    return SimpleNamespace(
        REQUIRES=Requirements(minimum_holders=2, survives_dropout=survives, fixed_point=True),
        Options=Options,
        third_parties=lambda _: third,
        party=lambda _, identity: Party(identity.name),
        coordinator=Coordinator,
        learns=lambda _: [Disclosure("coordinator", "everything", "nothing")],
    )


def with_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy protections beside the real ones."""
    known = {
        "toy": toy_sum(),
        "toy-all": toy_sum(survives=False),
        "toy-keys": toy_sum(third=("keeper",)),
    }
    monkeypatch.setattr(
        "statfed.core.protection.load",
        lambda package, name, what: known.get(name) or discovery.load(package, name, what),
    )
    logging.getLogger("flwr").setLevel(logging.ERROR)


def make_homes(root: Path, names: tuple[str, ...] = NAMES[:3], minimum: int = 1, allow: str = "*") -> dict[str, str]:
    """Homes of parties that have pinned each other."""
    places = {name: root / name for name in names}
    allowed = [*REAL, "toy", "toy-all", "toy-keys"] if allow == "*" else [allow]
    keys = {}
    for name, place in places.items():
        place.mkdir(exist_ok=True)
        keys[name] = create_identity(place)
    pins = "\n".join(f'{name} = "{key}"' for name, key in keys.items())
    for name, place in places.items():
        (place / "party.toml").write_text(
            f'[party]\nname = "{name}"\n[allow]\nprotections = {allowed!r}\n'
            f"minimum_holders = {minimum}\n[parties]\n{pins}\n"
        )
    return {name: str(place) for name, place in places.items()}


def data(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The records of a node: 30 to 75 of them."""
    rng = np.random.default_rng(NAMES.index(name))
    x = rng.normal(size=(30 + 15 * NAMES.index(name), 3))
    return x, x @ [1.0, -2.0, 0.5] + rng.normal(0, 0.1, len(x))


def client(*mods: Mod, scale: float = 1.0, extra: str = "") -> ClientApp:
    """A linear model's ClientApp. scale: of what it sends back; extra: a record or failure that it adds."""
    app = ClientApp(mods=list(mods))

    @app.train()
    @app.evaluate()
    def step(message: Message, context: Context) -> Message:
        assert set(message.content) == {"arrays", "config"}, "the app sees what the strategy sent"
        if extra == "raise":
            raise ValueError("income of person 17 is 123456")
        x, y = data(str(context.node_config["holder"]))
        arrays = {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}
        error = x @ arrays["w"] + arrays["b"] - y
        metrics: dict[str, Any] = {"loss": float(np.mean(error**2)), "num-examples": len(y)}
        if extra == "metric":
            metrics["secret"] = 17.0
        reply = RecordDict({"metrics": MetricRecord(metrics)})
        if extra == "config":
            reply["notes"] = ConfigRecord({"names": "Ann, Bob"})
        if message.metadata.message_type == "train":
            new = {"w": arrays["w"] - 0.1 * x.T @ error / len(y), "b": arrays["b"] - 0.1 * error.mean()}
            reply["arrays"] = ArrayRecord({k: Array(np.asarray(scale * v, arrays[k].dtype)) for k, v in new.items()})
        return Message(reply, reply_to=message)

    return app


def start_arrays(kind: str = "float64") -> ArrayRecord:
    return ArrayRecord({"w": Array(np.zeros(3, kind)), "b": Array(np.zeros((), kind))})


def by_home(context: Context) -> str:
    return str(context.node_config["home"])


LIMITS: dict[str, Any] = {
    "limit": 8.0,
    "most_examples": 100,
    "train_metrics": {"loss": 1000.0},
    "evaluate_metrics": {"loss": 1000.0},
}


def federate(
    homes: Mapping[str, str],
    strategy: Strategy,
    protection: str = "toy",
    app: ClientApp | None = None,
    rounds: int = 3,
    fault: Any = no_fault,
    wire: bool = False,
    kind: str = "float64",
    **options: Any,
) -> tuple[Any, ProtectedGrid]:
    """Run Flower's own `start` on a protected grid."""
    inner = InProcessGrid(app or client(protect(by_home)), homes, fault=fault, wire=wire)
    grid = ProtectedGrid(inner, strategy, protection=protection, **LIMITS | options)
    return strategy.start(grid=grid, initial_arrays=start_arrays(kind), num_rounds=rounds), grid
