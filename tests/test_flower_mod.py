"""Flower's own strategies on protected sums: equal to unprotected ones, and nothing leaves unprotected."""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)
from numpy.typing import NDArray

from statfed.client import flower_party
from statfed.client.flower_mod import protect
from statfed.client.third_party import load_party
from statfed.core import discovery
from statfed.core import protection as contract
from statfed.core.averaging import Said, make_facts
from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.identity import create_identity
from statfed.core.protection import Aggregate, Disclosure, Requirements, Rounds, Stage
from statfed.core.study import Section
from statfed.server._averaging_strategies import check_strategy
from statfed.server.grid.inprocess import InProcessGrid, no_fault
from statfed.server.protected_grid import ProtectedGrid

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "flower_secure_aggregation"
NAMES = ("east", "north", "south", "west")
REAL = [
    n
    for n in ("plain", "secure-aggregation", "homomorphic-encryption", "multi-party")
    if n in discovery.modules(contract.PACKAGE)
]


def toy_sum(third: tuple[str, ...] = (), survives: bool = True) -> Any:
    """A one-time pad modulo 2^64 that the party opens to anyone who asks: no protection, but it looks like one."""

    class Party:
        def __init__(self, name: str) -> None:
            self.name, self.pad = name, np.zeros(0, np.uint64)

        def answer(self, stage: str, packet: contract.Packet) -> contract.Packet:
            return {"greeting": self.name.encode()} if stage == "greet" else {"pad": self.pad}

        def contribute(self, packet: contract.Packet, arrays: Any, layout: Any) -> contract.Packet:
            assert packet == {"for": self.name.encode()}
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


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
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
    if "secure-aggregation" not in REAL:
        known["secure-aggregation"] = known["toy"]
    logging.getLogger("flwr").setLevel(logging.ERROR)


@pytest.fixture
def homes(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Make homes of parties that have pinned each other."""

    def make(names: tuple[str, ...] = NAMES[:3], minimum: int = 1, allow: str = "*") -> dict[str, str]:
        places = {name: tmp_path / name for name in names}
        allowed = [*REAL, "secure-aggregation", "toy", "toy-all", "toy-keys"] if allow == "*" else [allow]
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

    return make


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


STRATEGIES: dict[str, Callable[[], FedAvg]] = {
    "fedavg": FedAvg,
    "fedprox": lambda: FedProx(proximal_mu=0.1),
    "fedavgm": lambda: FedAvgM(server_learning_rate=0.9, server_momentum=0.8),
    "fedadam": lambda: FedAdam(eta=0.1),
    "fedyogi": lambda: FedYogi(eta=0.1),
    "fedadagrad": lambda: FedAdagrad(eta=0.1),
}


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_flowers_strategies_do_on_protected_sums_what_they_do_on_replies(homes: Any, name: str) -> None:
    places = homes()
    strategy = STRATEGIES[name]()
    plain = strategy.start(grid=InProcessGrid(client(), places), initial_arrays=start_arrays(), num_rounds=3)
    got, _ = federate(places, STRATEGIES[name]())
    for key in ("w", "b"):
        np.testing.assert_allclose(got.arrays[key].numpy(), plain.arrays[key].numpy(), rtol=0, atol=1e-12)
    for number in (1, 2, 3):
        for metrics in ("train_metrics_clientapp", "evaluate_metrics_clientapp"):
            assert dict(getattr(got, metrics)[number]) == pytest.approx(dict(getattr(plain, metrics)[number]), abs=1e-9)


@pytest.mark.parametrize("protection", REAL)
@pytest.mark.parametrize("wire", [False, True])
def test_every_protection_gives_fedavgs_model_and_metrics(homes: Any, protection: str, wire: bool) -> None:
    module, options = contract.named_protection(protection, {})
    third = module.third_parties(options)
    places = homes((*NAMES, *third))
    holders = {name: places[name] for name in NAMES}
    plain = FedAvg().start(grid=InProcessGrid(client(), holders), initial_arrays=start_arrays(), num_rounds=2)
    got, _ = federate(places, FedAvg(), protection, rounds=2, wire=wire)
    np.testing.assert_allclose(got.arrays["w"].numpy(), plain.arrays["w"].numpy(), rtol=0, atol=1e-9)
    assert dict(got.evaluate_metrics_clientapp[2]) == pytest.approx(dict(plain.evaluate_metrics_clientapp[2]))


def test_the_reply_has_the_weighted_averages_the_total_count_and_the_types_that_were_sent(homes: Any) -> None:
    places = homes()
    strategy = FedAvg()
    grid = ProtectedGrid(InProcessGrid(client(protect(by_home)), places), strategy, protection="toy", **LIMITS)
    sent = list(strategy.configure_train(1, start_arrays("float32"), ConfigRecord(), grid))
    (reply,) = grid.send_and_receive(sent)
    assert reply.content.metric_records["metrics"]["num-examples"] == sum(len(data(n)[1]) for n in places)
    assert reply.content.array_records["arrays"]["w"].dtype == "float32"
    assert all(set(m.content) == {"arrays", "config"} for m in sent), "the strategy's own messages stay as they were"
    assert list(grid.send_and_receive([])) == []


def test_32_bit_words_are_within_their_stated_error(homes: Any) -> None:
    plain, _ = federate(homes(), FedAvg())
    narrow, _ = federate(homes(), FedAvg(), narrow=True)
    error = np.abs(narrow.arrays["w"].numpy() - plain.arrays["w"].numpy()).max()
    assert 0 < error < 3 * 2.0**-28 * 8 * 100 * 3 / 135


@pytest.mark.parametrize("protection", ["toy", "secure-aggregation"])
@pytest.mark.parametrize("since", [1, 2])
def test_a_node_that_dies_is_done_without_for_the_rest_of_the_run(homes: Any, protection: str, since: int) -> None:
    places = homes(NAMES)

    def fault(holder: str, message: Message) -> str | None:
        said = Said.parse(str(message.content.config_records["statfed"]["json"]))
        dead.update([holder] if holder == "west" and said.step == "contribute" and said.number == since else [])
        return "killed" if holder in dead else None

    dead: set[str] = set()
    strategy = FedAvg(fraction_evaluate=0.0)
    got, grid = federate(places, strategy, protection, fault=fault, minimum_holders=3)
    arrays = start_arrays()
    for number in (1, 2, 3):
        alive = {name: home for name, home in places.items() if name != "west" or number < since}
        one_round = strategy.start(grid=InProcessGrid(client(), alive), initial_arrays=arrays, num_rounds=1)
        arrays = one_round.arrays
    np.testing.assert_allclose(got.arrays["w"].numpy(), arrays["w"].numpy(), atol=1e-12)
    assert set(grid.dropped.values()) == {"killed"}
    assert [holder for holder in grid.dropped if re.fullmatch(r"node \d+", holder)]


def test_a_key_that_nobody_pinned_is_refused(homes: Any) -> None:
    places = homes()
    (Path(places["south"]) / "identity.key").unlink()
    create_identity(Path(places["south"]))
    with pytest.raises(StatfedError, match=r"signature that is not by south's pinned key"):
        federate(places, FedAvg(), "secure-aggregation")


def test_a_node_that_falls_silent_is_done_without_and_comes_back(homes: Any) -> None:
    places = homes(NAMES)
    seen: list[str] = []

    def fault(holder: str, message: Message) -> str | None:
        said = Said.parse(str(message.content.config_records["statfed"]["json"]))
        if said.step == "contribute":
            seen.append(holder)
        return "gone" if (holder, said.step, said.number) == ("west", "contribute", 1) else None

    got, grid = federate(places, FedAvg(fraction_evaluate=0.0), fault=fault, minimum_holders=3, rounds=2)
    rest = {name: places[name] for name in NAMES[:3]}
    first = FedAvg(fraction_evaluate=0.0).start(
        grid=InProcessGrid(client(), rest), initial_arrays=start_arrays(), num_rounds=1
    )
    second = FedAvg(fraction_evaluate=0.0).start(
        grid=InProcessGrid(client(), places), initial_arrays=first.arrays, num_rounds=1
    )
    np.testing.assert_allclose(got.arrays["w"].numpy(), second.arrays["w"].numpy(), atol=1e-12)
    assert grid.dropped == {}, grid.dropped
    assert seen.count("west") == 2


def test_below_the_minimum_the_round_fails_with_names_and_reasons(homes: Any) -> None:
    def fault(holder: str, message: Message) -> str | None:
        contributing = '"contribute"' in str(message.content.config_records["statfed"]["json"])
        return "line cut" if contributing and holder in ("south", "west") else None

    with pytest.raises(EngineError, match=r"(?s)got 2 holders; want 3.*south: line cut.*west: line cut"):
        federate(homes(NAMES), FedAvg(), fault=fault)
    with pytest.raises(EngineError, match="south: line cut"):
        federate(homes(NAMES), FedAvg(), "toy-all", fault=fault)
    with pytest.raises(UsageError, match="more than two thirds"):
        federate(homes(NAMES), FedAvg(), minimum_holders=2)


def test_a_node_without_the_mod_is_named_and_never_gets_a_model(homes: Any) -> None:
    with pytest.raises(EngineError, match=r"hello: node 100\d.*mods=\[protect\(\)\]"):
        federate(homes(), FedAvg(), app=client())
    echo = ClientApp()

    @echo.train()
    def train(message: Message, context: Context) -> Message:
        assert not message.content.array_records
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 3})}), reply_to=message)

    with pytest.raises(EngineError, match="answered without protection"):
        federate(homes(), FedAvg(), app=echo)


def send(app: ClientApp, homes: Mapping[str, str], content: RecordDict, kind: str = "train") -> Message:
    grid = InProcessGrid(app, homes)
    (reply,) = grid.send_and_receive([Message(content, grid.nodes["north"], kind)])
    return reply


def test_an_unprotected_message_is_refused_before_the_app_sees_it(homes: Any) -> None:
    called = []
    app = ClientApp(mods=[protect(by_home)])

    @app.train()
    @app.query()
    def never(message: Message, context: Context) -> Message:
        called.append(message)
        return Message(message.content, reply_to=message)

    app.evaluate()(never)
    config = ConfigRecord({"server-round": 1})
    for kind in ("train", "evaluate", "query"):
        reply = send(app, homes(), RecordDict({"arrays": start_arrays(), "config": config}), kind)
        assert "outside a protected sum" in str(reply.error.reason)
    # nor is a plain message that has the reserved record, but no session
    said = ConfigRecord({"json": Said(step="contribute").model_dump_json()})
    assert send(app, homes(), RecordDict({"arrays": start_arrays(), "statfed": said})).has_error()
    assert called == []


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ({"scale": 1e5}, r"[wb]: got a value outside the agreed limit of 8"),
        ({"scale": np.nan}, r"[wb]: got values that are not finite"),
        ({"extra": "metric"}, "metrics: got loss, num-examples, secret; want loss, num-examples"),
        ({"extra": "config"}, "reply: got 1 metric and 1 configuration records"),
    ],
)
def test_replies_that_do_not_fit_are_refused_by_their_holder(homes: Any, app: Any, message: str) -> None:
    with pytest.raises(Refused, match=f"east: {message}"):
        federate(homes(), FedAvg(), "toy-all", app=client(protect(by_home), **app))


def test_a_count_above_the_agreed_one_is_refused(homes: Any) -> None:
    with pytest.raises(Refused, match="no whole number from 0 to 50"):
        federate(homes(), FedAvg(), most_examples=50)


def test_an_exception_of_the_app_travels_without_its_text(homes: Any) -> None:
    with pytest.raises(EngineError, match="internal error at the holder") as caught:
        federate(homes(), FedAvg(), "toy-all", app=client(protect(by_home), extra="raise"))
    assert "123456" not in str(caught.value)


EACH = [
    Krum(num_malicious_nodes=1),
    MultiKrum(num_malicious_nodes=1, num_nodes_to_select=1),
    Bulyan(num_malicious_nodes=1),
    FedMedian(),
    FedTrimmedAvg(),
    QFedAvg(client_learning_rate=0.1),
]


@pytest.mark.parametrize("strategy", EACH, ids=lambda s: type(s).__name__)
def test_strategies_that_need_each_update_are_refused_with_the_reason(homes: Any, strategy: FedAvg) -> None:
    with pytest.raises(UsageError, match=rf"{type(strategy).__name__}: it needs each node's update"):
        federate(homes(), strategy)
    with pytest.raises(UsageError):
        check_strategy(strategy, averages_only=True)


def test_own_strategies_have_to_be_declared(homes: Any) -> None:
    class Mine(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return super().aggregate_train(server_round, replies)

    class Renamed(FedAvg):
        pass

    with pytest.raises(UsageError, match="averages_only=True"):
        federate(homes(), Mine())
    federate(homes(), Mine(), averages_only=True, rounds=1)
    federate(homes(), Renamed(), rounds=1)
    with pytest.raises(UsageError, match="train_metrics_aggr_fn"):
        federate(homes(), FedAvg(train_metrics_aggr_fn=lambda *_: MetricRecord({"worst": 1.0})))
    with pytest.raises(UsageError, match="clips each update"):
        check_strategy(DifferentialPrivacyClientSideFixedClipping(FedAvg(), 1.0, 1.0, 3))


def test_a_home_refuses_what_its_file_does_not_allow(homes: Any) -> None:
    with pytest.raises(Refused, match="protection: got toy; want toy-all"):
        federate(homes(allow="toy-all"), FedAvg())
    with pytest.raises(Refused, match="as few as 3; want at least 4"):
        federate(homes(minimum=4), FedAvg())
    places = homes()
    (Path(places["east"]) / "party.toml").unlink()
    with pytest.raises(Refused, match=r"party\.toml cannot be read") as caught:
        federate(places, FedAvg())
    assert places["east"] not in str(caught.value)
    with pytest.raises(UsageError, match="statfed-home"):
        federate(homes(), FedAvg(), app=client(protect()))


def test_two_nodes_of_one_name_are_refused(homes: Any) -> None:
    places = homes()
    with pytest.raises(Refused, match="both say that they are east"):
        federate(places | {"south": places["east"]}, FedAvg())


def test_other_ways_through_the_grid_are_closed(homes: Any) -> None:
    grid = ProtectedGrid(InProcessGrid(client(protect(by_home)), homes()), FedAvg(), protection="toy", **LIMITS)
    message = Message(RecordDict({"arrays": start_arrays()}), 1000, "query")
    with pytest.raises(UsageError, match="query"):
        grid.send_and_receive([message])
    for call in (grid.push_messages, grid.pull_messages):
        with pytest.raises(UsageError):
            call([])


def test_third_parties_are_nodes_that_never_train(homes: Any) -> None:
    places = homes((*NAMES[:3], "keeper"))
    trained: list[str] = []

    def fault(holder: str, message: Message) -> str | None:
        if message.content.array_records.get("arrays"):
            trained.append(holder)
        return None

    federate(places, FedAvg(), "toy-keys", fault=fault, rounds=1)
    assert set(trained) == set(NAMES[:3])
    with pytest.raises(UsageError, match="no node of the third parties keeper"):
        federate({n: places[n] for n in NAMES[:3]}, FedAvg(), "toy-keys", rounds=1)


def facts(**changes: Any) -> Any:
    base: dict[str, Any] = {"run": 1, "session": 1, "protection": "toy", "holders": NAMES[:3], "minimum_holders": 3}
    base |= {"parties": dict.fromkeys(NAMES[:3], "t"), "arrays": {"w": (3,)}, "limit": 1.0, "most_examples": 10}
    return make_facts(**base | changes)


def test_replayed_sums_earlier_sessions_and_foreign_runs_are_refused(homes: Any) -> None:
    home, seats = Path(homes()["north"]), flower_party.Seats()

    def ask(step: Any, number: int = 0, **changes: Any) -> Any:
        said = Said(step=step, stage="greet", number=number, facts=facts(**{"parties": tokens} | changes))
        return seats.ask(home, 1, 7, said, {"for": b"north"}, arrays)

    arrays: dict[str, NDArray[Any]] = {"weight": np.asarray(1), "array/w": np.zeros(3)}
    hello = seats.ask(home, 1, 7, Said(step="hello"), {}, {})
    tokens = {"east": "a", "south": "b", "north": re.findall(r"[0-9a-f]{32}", str(hello))[0]}
    ask("contribute", 1, session=2)
    with pytest.raises(Refused, match="each sum is formed once"):
        ask("contribute", 1, session=2)
    with pytest.raises(Refused, match="session: got 1"):
        ask("contribute", 2)
    with pytest.raises(Refused, match="another run"):
        ask("contribute", 2, run=2)
    with pytest.raises(EngineError, match="as it runs now"):
        ask("contribute", 2, session=3, parties=dict.fromkeys(NAMES[:3], "t"))
    with pytest.raises(UsageError, match="want at least 2"):
        ask("contribute", 2, session=3, holders=("north",), parties={"north": tokens["north"]}, minimum_holders=1)


def a_process_for_each_message() -> ClientApp:
    """What Flower does by default: each message meets an app that was just loaded."""

    class Forgetful(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            return client(protect(by_home))(message, context)

    return Forgetful()


def test_a_process_that_forgets_is_told_so_and_sends_nothing(homes: Any) -> None:
    with pytest.raises(EngineError, match="secrets of a protected sum live in memory"):
        federate(homes(), FedAvg(), app=a_process_for_each_message())


@pytest.fixture
def served(homes: Any) -> dict[str, str]:
    """Homes with a process (here: a thread) that keeps each party between messages."""
    places: dict[str, str] = homes()
    for home in places.values():
        ready = threading.Event()
        threading.Thread(target=flower_party.serve, args=(Path(home), ready.set), daemon=True).start()
        assert ready.wait(10)
    return places


def test_a_party_process_keeps_the_secrets_between_messages(served: dict[str, str], homes: Any) -> None:
    expected, _ = federate(homes(("east", "north", "south")), FedAvg())
    got, _ = federate(served, FedAvg(), app=a_process_for_each_message())
    np.testing.assert_allclose(got.arrays["w"].numpy(), expected.arrays["w"].numpy(), atol=1e-12)
    home = Path(served["north"])
    assert (home / "party.sock").stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="another process answers"):
        flower_party.serve(home)
    with pytest.raises(Refused, match="protection: got plain; want toy"):
        federate(homes(allow="toy"), FedAvg(), "plain", app=a_process_for_each_message())


def test_a_socket_where_nobody_answers_is_an_error(homes: Any) -> None:
    places = homes()
    (Path(places["east"]) / "party.sock").touch()
    with pytest.raises(EngineError, match=r"nobody answers at this home's party\.sock"):
        federate(places, FedAvg())


def blocks() -> dict[str, str]:
    """Code blocks of the page by file name."""
    page = (ROOT / "docs" / "flower.md").read_text(encoding="utf-8")
    return dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", page, re.DOTALL))


def load(name: str, code: str) -> Any:
    module = ModuleType(name)
    exec(compile(code, name, "exec"), module.__dict__)  # noqa: S102  # the page's own code
    return module


def test_the_documented_example_runs_as_written(homes: Any) -> None:
    found = blocks()
    assert set(found) == {"server_app.py", "client_app.py"}
    for name, code in found.items():
        assert code == (EXAMPLE / name).read_text(encoding="utf-8"), "the page and the example differ"
    server, nodes = (load(name, found[name]).app for name in ("server_app.py", "client_app.py"))
    grid = InProcessGrid(nodes, homes())
    for node in grid._nodes.values():
        node.context.node_config["statfed-home"] = node.context.node_config["home"]
    context = Context(1, 0, {}, RecordDict(), {})
    server(grid, context)
    learnt = context.state.array_records["model"]["w"].numpy()
    assert (learnt > 0.1).all()  # three steps of FedAdam from 0 towards 1, 2, 3, 4


def test_home_folders_are_made_by_the_command(tmp_path: Path) -> None:
    key = flower_party.create(tmp_path / "north", "north")
    assert flower_party.create(tmp_path / "north", "north") == key
    policy = load_party(tmp_path / "north" / "party.toml")
    assert (policy.party.name, policy.allow.protections) == ("north", ("secure-aggregation",))
    with pytest.raises(StatfedError):
        flower_party.create(tmp_path / "bad", "No Name")
