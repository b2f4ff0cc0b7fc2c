"""Flower's own strategies on protected sums: equal to unprotected ones, and nothing leaves unprotected."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
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
)

from statfed.client.flower.mod import protect
from statfed.core import protection as contract
from statfed.core.averaging import Said
from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.identity import create_identity
from statfed.server._averaging_strategies import check_strategy
from statfed.server.grid.inprocess import InProcessGrid
from statfed.server.protected_grid import ProtectedGrid
from tests.flower_app import LIMITS, NAMES, REAL, by_home, client, data, federate, make_homes, start_arrays, with_toys

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flower_secure_aggregation"


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy protections beside the real ones."""
    with_toys(monkeypatch)


@pytest.fixture
def homes(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Make homes of parties that have pinned each other."""
    return partial(make_homes, tmp_path)


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
    rounds, nodes, examples = 3, 3, 135
    assert 0 < error < rounds * nodes * 2.0**-29 * 8 * 100 / (examples / nodes)


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
        ({"extra": "metric"}, "metrics: got 1 that were not declared and 2 that were; want loss, num-examples"),
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
