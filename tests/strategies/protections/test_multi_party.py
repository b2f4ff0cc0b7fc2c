"""`multi-party`: sums by three compute nodes equal the obvious computation, and attacks are refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray
from pydantic import ValidationError

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.fixed_point import Bits, Layout, Slot
from statfed.core.protection import Packet, Rounds, Stage
from statfed.strategies.protections import _mpc_messages as messages
from statfed.strategies.protections import _mpc_shares as sharing
from statfed.strategies.protections import multi_party
from statfed.strategies.protections._mpc_messages import Task
from tests.protocol import Network, agreement, identities

RNG = np.random.default_rng(11)
LIMITS: dict[int, Slot] = {32: Slot((7,), 2000.0, True), 64: Slot((3, 5), 1e6), 192: Slot((6,), np.inf)}


def sent(network: Network, slot: Slot) -> dict[str, dict[str, NDArray[Any]]]:
    """Figures for every holder, of both signs."""
    if slot.integer:
        return {name: {"x": RNG.integers(-200, 200, slot.shape)} for name in network.agreement.holders}
    return {name: {"x": RNG.uniform(-1e5, 1e5, slot.shape)} for name in network.agreement.holders}


def sums(network: Network, bits: int = 64) -> NDArray[Any]:
    """One sum of random figures."""
    layout = Layout({"x": LIMITS[bits]}, len(network.agreement.holders))
    return network.sum(sent(network, LIMITS[bits]), layout).total["x"]


@pytest.mark.parametrize("bits", [32, 64, 192])
@pytest.mark.parametrize("holders", [3, 4, 6])
def test_a_sum_is_the_sum_of_what_holders_sent(bits: Bits, holders: int) -> None:
    network = Network(agreement("multi-party", holders))
    layout = Layout({"x": LIMITS[bits], "n": Slot((), 300.0, True)}, holders)
    assert layout.bits == bits
    for _ in range(3):  # setup serves many sums
        figures = {name: arrays | {"n": np.array(7)} for name, arrays in sent(network, LIMITS[bits]).items()}
        aggregate = network.sum(figures, layout)
        encoded = sum(layout.encode(arrays) for arrays in figures.values())
        for name, array in layout.decode(np.asarray(encoded)).items():
            assert (aggregate.total[name] == array).all()
        assert aggregate.holders == network.agreement.holders
        assert not aggregate.each


def test_extremes_and_an_empty_layout_survive_the_ring() -> None:
    network = Network(agreement("multi-party", 3))
    slot = Slot((2,), 2.0**61, True)
    figures = {name: {"x": np.array([2**61 // 3, -(2**61) // 3])} for name in network.agreement.holders}
    total = network.sum(figures, Layout({"x": slot}, 3)).total["x"]
    assert total.tolist() == [3 * (2**61 // 3), 3 * (-(2**61) // 3)]
    empty = {name: {"x": np.empty((0, 2))} for name in network.agreement.holders}
    assert network.sum(empty, Layout({"x": Slot((0, 2), 1.0)}, 3)).total["x"].shape == (0, 2)


def test_holders_may_drop_out_down_to_the_minimum_and_not_below() -> None:
    network = Network(agreement("multi-party", 5, minimum=4), drops={"share": ["h002"]})
    layout = Layout({"x": LIMITS[32]}, 5)
    figures = sent(network, LIMITS[32])
    aggregate = network.sum(figures, layout)
    assert aggregate.holders == ("h001", "h003", "h004", "h005")
    assert (aggregate.total["x"] == sum(figures[name]["x"] for name in aggregate.holders)).all()
    network.drops = {"share": ["h002", "h005"]}
    network.transcript.clear()
    with pytest.raises(EngineError, match="got 3 holders without h002, h005; want at least 4"):
        network.sum(figures, layout)
    assert {stage for stage, _, _ in network.transcript} == {"share"}  # no node was asked for anything


def test_a_node_that_is_gone_ends_a_sum_with_its_name() -> None:
    for stage in ("offer", "gather", "open"):
        network = Network(agreement("multi-party", 3), drops={stage: ["node-2"]})
        with pytest.raises(EngineError, match=f"{stage}: no answer from node-2; want all three compute nodes"):
            sums(network)


# What a coordinator may try. Each change is made to a packet on its way.


def flipped(packet: Packet, name: str) -> dict[str, Any]:
    """A packet with one bit of an item changed."""
    item = packet[name]
    data = bytearray(item if isinstance(item, bytes) else item.tobytes())
    data[len(data) // 2] ^= 1
    return {**packet, name: bytes(data) if isinstance(item, bytes) else np.frombuffer(bytes(data), np.uint8)}


def swapped(packet: Packet) -> dict[str, Any]:
    """The shares of two holders exchanged."""
    return {**packet, "h001:share": packet["h002:share"], "h002:share": packet["h001:share"]}


def own_share(packet: Packet) -> dict[str, Any]:
    """A contribution in h001's name that the coordinator made itself."""
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    return {**packet, "h001:key": public}


def without(packet: Packet, holder: str) -> dict[str, Any]:
    """A list without a holder."""
    return {name: item for name, item in packet.items() if not name.startswith(f"{holder}:")}


def renumbered(packet: Packet) -> dict[str, Any]:
    """Shares that were given for another task."""
    task = replace(Task.read(packet), number=99)
    return {**packet, "task": task.text()}


ATTACKS: dict[str, tuple[str, str, Callable[[Packet], Packet], str]] = {
    "a sealed share is changed": ("gather", "node-2", lambda p: flipped(p, "h002:share"), "does not open"),
    "a sealed vector is changed": ("gather", "node-3", lambda p: flipped(p, "h002:share"), "does not open"),
    "shares are exchanged": ("gather", "node-1", swapped, "does not open"),
    "a contribution is invented": ("gather", "node-1", own_share, "not by h001's pinned key"),
    "shares of another task": ("gather", "node-1", renumbered, "signature that is not by"),
    "a stranger is listed": ("gather", "node-1", lambda p: {**p, "mallory:key": b""}, "got mallory; want holders"),
    "a list below the minimum": ("gather", "node-1", lambda p: without(without(p, "h001"), "h002"), "at least 3"),
    "one node's list is shorter": ("gather", "node-3", lambda p: without(p, "h004"), "want the same list of holders"),
    "a list signature is invented": ("open", "node-1", lambda p: flipped(p, "node-2"), "got none that node-2 signed"),
    "a list signature is missing": ("open", "node-1", lambda _: {}, "got no bytes node-1"),
    "a node's key is substituted": ("share", "h002", lambda p: {**p, "node-1:key": bytes(32)}, "node-1's pinned key"),
    "a certificate is substituted": ("share", "h002", lambda p: {**p, "node-3:certificate": b"x"}, "node-3's pinned"),
    "another layout is asked for": (
        "share",
        "h001",
        lambda p: {**p, "task": replace(Task.read(p), bits=32).text()},
        "another layout than this holder's",
    ),
    "a function nobody agreed to": (
        "share",
        "h001",
        lambda p: {**p, "task": replace(Task.read(p), function="maximum").text()},
        "got function maximum; want one that the study agreed to: sum",
    ),
    "nonsense for a task": ("share", "h001", lambda p: {**p, "task": b"[1]"}, "task: not understood"),
    "an answer out of turn": ("open", "h001", lambda p: p, "multi-party: got stage open"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused(name: str) -> None:
    stage, party, change, words = ATTACKS[name]
    hit: list[str] = []

    def changed(at: str, to: str, packet: Packet) -> Packet:
        if (at, to) != (stage, party):
            return packet
        hit.append(to)
        return change(packet)

    network = Network(agreement("multi-party", 4, minimum=3), change=changed)
    if name == "an answer out of turn":
        with pytest.raises(Refused, match=words):
            network.parties[party].answer(stage, {})
        return
    with pytest.raises((Refused, UsageError), match=words):
        sums(network)
    assert hit


def test_a_task_is_done_once_by_everybody() -> None:
    network = Network(agreement("multi-party", 3))
    seen: dict[tuple[str, str], Packet] = {}

    def remember(stage: str, party: str, packet: Packet) -> Packet:
        seen[stage, party] = packet
        return packet

    network.change = remember
    sums(network)
    layout = Layout({"x": LIMITS[64]}, 3)
    with pytest.raises(Refused, match="got task 1; want one after 1"):
        network.parties["h001"].contribute(seen["share", "h001"], sent(network, LIMITS[64])["h001"], layout)
    with pytest.raises(Refused, match="got task 1; want one after 1"):
        network.parties["node-1"].answer("gather", seen["gather", "node-1"])
    with pytest.raises(Refused, match="open once"):
        network.parties["node-1"].answer("open", seen["open", "node-1"])
    with pytest.raises(Refused, match="got stage offer again"):
        network.parties["node-1"].answer("offer", {})
    with pytest.raises(Refused, match="want one of offer, listen"):
        network.parties["node-1"].answer("reveal", {})
    with pytest.raises(Refused, match="a compute node has none"):
        network.parties["node-1"].contribute({}, {}, layout)


def test_keys_and_shares_of_one_run_mean_nothing_in_another() -> None:
    first = agreement("multi-party", 3)
    known = identities(first.parties)
    seen: dict[tuple[str, str], Packet] = {}

    def remember(stage: str, party: str, packet: Packet) -> Packet:
        seen[stage, party] = packet
        return packet

    parties = {name: multi_party.party(first, known[name]) for name in first.parties}
    sums(Network(first, change=remember, parties=dict(parties)))
    second = replace(first, run="another")
    holder, node = multi_party.party(second, known["h001"]), multi_party.party(second, known["node-1"])
    layout = Layout({"x": LIMITS[64]}, 3)
    with pytest.raises(Refused, match="pinned key"):
        holder.contribute(seen["share", "h001"], {"x": np.zeros((3, 5))}, layout)
    with pytest.raises(Refused, match="pinned key"):
        node.answer("gather", seen["gather", "node-1"])


def test_a_coordinator_with_two_nodes_sees_the_same_whoever_contributed_what() -> None:
    """For a change of two contributions that keeps the sum, the honest node's shares change so that its sum does not:
    given the others' shares and what is opened, both worlds are equally likely, whichever node is the honest one."""
    first, second = RNG.integers(-1000, 1000, 50), RNG.integers(-1000, 1000, 50)
    moved = RNG.integers(-(10**6), 10**6, 50)
    for honest in range(3):
        shares = [expanded(sharing.split(x, 64), 64) for x in (first, second)]
        other = [[row.copy() for row in share] for share in shares]
        other[0][honest] += moved.view(np.uint64)
        other[1][honest] -= moved.view(np.uint64)
        assert (np.sum(other[0], axis=0) == (first + moved).view(np.uint64)).all()  # shares of other contributions
        assert (np.sum(other[1], axis=0) == (second - moved).view(np.uint64)).all()
        assert (other[0][honest] + other[1][honest] == shares[0][honest] + shares[1][honest]).all()


def expanded(split: tuple[bytes, bytes, NDArray[Any]], bits: Bits) -> list[NDArray[Any]]:
    """Three vectors of a split."""
    *seeds, rest = split
    found = [sharing.zeros(len(rest), bits) for _ in seeds]
    for vector, seed in zip(found, seeds, strict=True):
        sharing.expand(vector, seed, bits)
    return [*found, rest]


@pytest.mark.parametrize("bits", [32, 64, 192])
def test_every_share_of_a_constant_is_uniform(bits: Bits) -> None:
    count = 40_000
    for value in (0, 2**29):
        values = np.full(count, value) if bits < 192 else np.array([value << 80] * count, object)
        for share in expanded(sharing.split(values, bits), bits):
            ones = np.unpackbits(np.ascontiguousarray(share).view(np.uint8)).reshape(count, -1).mean(axis=0)
            assert ones.shape == (bits,)
            assert np.abs(ones - 0.5).max() < 6 * 0.5 / np.sqrt(count)


def test_one_nodes_list_without_a_holder_opens_noise_even_without_signatures() -> None:
    """A weakened copy that opens lists which differ: nothing comes out, not even about the others."""
    figures = np.zeros(40_000, np.int64)
    shares = [expanded(sharing.split(figures, 64), 64) for _ in range(4)]
    opened = sum(sum(share[node] for share in (shares if node else shares[:3])) for node in range(3))
    ones = np.unpackbits(np.asarray(opened).view(np.uint8)).reshape(len(figures), -1).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 6 * 0.5 / 200
    assert not np.asarray(sum(sum(share) for share in shares)).any()  # with one list it is the sum


def test_one_shamir_share_is_uniform_and_three_tell_a_deviation() -> None:
    figures = np.array([0, 5, -5, 2**62, -(2**62)], object)
    shares = sharing.shamir(figures)
    assert (sharing.reconstructed(shares) == figures).all()
    assert sharing.unpacked(sharing.packed(shares[0])) == shares[0]
    shares[1][2] = (shares[1][2] + 1) % sharing.PRIME
    with pytest.raises(EngineError, match="a node deviated"):
        sharing.reconstructed(shares)
    for share in sharing.shamir(np.array([1] * 20_000, object)):
        drawn = np.array([[x >> shift & 1 for shift in range(127)] for x in share])
        assert np.abs(drawn.mean(axis=0) - 0.5).max() < 6 * 0.5 / np.sqrt(20_000)
    with pytest.raises(EngineError, match="not field elements"):
        sharing.unpacked(sharing.packed([sharing.PRIME]))


def test_secrets_do_not_show() -> None:
    made = agreement("multi-party", 3)
    party = multi_party.party(made, identities(made.parties)["node-1"])
    assert repr(party) == "Node(node-1, secrets=<secret>)"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nodes": ("a", "a", "b")}, "got one name twice"),
        ({"nodes": ("a", "b", "C!")}, "lower-case letters"),
        ({"functions": ("mode",)}, "maximum"),
        ({"k": 33.333}, "two decimals at most"),
        ({"addresses": {"node-1": "x:1"}}, "want one of every node, or none"),
        ({"addresses": {"node-1": "x", "node-2": "x:1", "node-3": "x:2"}}, "want HOST:PORT"),
    ],
)
def test_options_that_do_not_make_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, ValidationError), match=words):
        agreement("multi-party", 3, **options)


def test_a_node_that_is_a_holder_is_refused() -> None:
    made = agreement("multi-party", 3, nodes=("h001", "x", "y"))
    with pytest.raises(UsageError, match="want nodes that hold no data"):
        multi_party.coordinator(made)
    with pytest.raises(UsageError, match="want nodes that hold no data"):
        multi_party.party(made, identities(made.parties)["h002"])


def test_an_envelope_is_bound_to_run_task_and_key() -> None:
    made = agreement("multi-party", 3)
    task = Task.of(1, "sum", Layout({"x": Slot((2,), 1.0)}, 3))
    texts = {
        messages.envelope(made, task, b"k"),
        messages.envelope(made, task, b"l"),
        messages.envelope(made, replace(task, number=2), b"k"),
        messages.envelope(made, replace(task, function="maximum"), b"k"),
        messages.envelope(replace(made, run="other"), task, b"k"),
        messages.envelope(replace(made, minimum_holders=2), task, b"k"),
        messages.roll(made, task, {"h001": b"k"}),
        messages.roll(made, task, {"h001": b"k", "h002": b"k"}),
    }
    assert len(texts) == 8


def test_stages_of_one_sum_are_few() -> None:
    """One upload by holders, two small rounds among nodes; the setup is made once."""
    network = Network(agreement("multi-party", 3))
    coordinator: Any = network.coordinator
    layout = Layout({"x": LIMITS[64]}, 3)
    for want in (["offer", "share", "gather", "open"], ["share", "gather", "open"]):
        stages: list[Stage] = []

        def noted(rounds: Any, into: list[Stage] = stages) -> Any:
            stage = next(rounds)
            try:
                while True:
                    into.append(stage)
                    stage = rounds.send((yield stage))
            except StopIteration as end:
                return end.value

        network.drive(noted(coordinator.total(layout)), sent(network, LIMITS[64]), layout)
        assert [stage.name for stage in stages] == want


def asked_differently(stage: str, party: str, packet: Packet) -> Packet:
    """What h001's adapter, and the others', say that they were asked for."""
    return {**packet, "request": bytes([party == "h001"]) * 32} if stage == "share" else packet


def test_holders_that_were_asked_for_different_things_never_add_up() -> None:
    """Others that are sent parameters with which they contribute nothing would leave one holder's figures alone."""
    layout = Layout({"x": Slot((3,), 300.0)}, 3)
    network = Network(agreement("multi-party", 3), change=asked_differently)
    given = {name: {"x": np.zeros(3)} for name in network.agreement.holders} | {"h001": {"x": np.ones(3)}}
    with pytest.raises(EngineError, match="contributions to different requests"):
        network.sum(given, layout)

    def deceiving() -> Rounds:
        """A coordinator that tells the nodes what it likes."""
        rounds = multi_party.coordinator(network.agreement).total(layout)
        stage = next(rounds)
        while True:
            replies = yield stage
            stage = rounds.send(
                {name: {**reply, "asked": b"0" * 64} if "asked" in reply else reply for name, reply in replies.items()}
            )

    again = Network(network.agreement, change=asked_differently)
    with pytest.raises(Refused, match="signature that is not by h001"):
        again.drive(deceiving(), given, layout)
