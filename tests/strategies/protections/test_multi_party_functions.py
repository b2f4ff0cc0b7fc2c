"""Functions of `multi-party` by three real compute processes: the obvious computation, refusals, processes' ends."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.protection import Packet
from statfed.strategies.protections._mpc_functions import FUNCTIONS
from tests.protocol import Network, agreement

RNG = np.random.default_rng(11)
RULES: dict[str, Any] = {"n": 2, "k": 85.0, "p": 10.0}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    made = Network(agreement("multi-party", 5, minimum=4, functions=tuple(FUNCTIONS), **RULES))
    yield made
    made.parties.clear()


def evaluate(network: Network, function: str, figures: dict[str, Any], layout: Layout) -> Any:
    """What the honest coordinator gets."""
    coordinator: Any = network.coordinator
    return network.drive(coordinator.evaluate(function, layout), figures, layout)


def by_holder(network: Network, **slots: NDArray[Any]) -> dict[str, dict[str, NDArray[Any]]]:
    """Slots of shape (holders, ...) as contributions."""
    return {
        name: {slot: values[i] for slot, values in slots.items()} for i, name in enumerate(network.agreement.holders)
    }


VALUES = np.array(
    [[5, 0, -7, 100, 1], [5, 0, -7, 90, 1], [2, 0, -9, -100, 0], [5, 0, 30, 95, 1], [-1, 0, 30, 99, 0]]
)  # ties, zeros, both signs


@pytest.mark.parametrize("wide", [False, True])
def test_maximum_two_largest_and_median_are_numpys(network: Network, wide: bool) -> None:
    slot = Slot((5,), 1e6) if wide else Slot((5,), 2000.0, True)
    values = VALUES * 137.5 if wide else VALUES
    layout = Layout({"value": slot}, 5)
    figures = by_holder(network, value=values)
    ranked = np.sort(values, axis=0)
    assert np.allclose(evaluate(network, "maximum", figures, layout).total["maximum"], ranked[-1], atol=1e-9)
    assert np.allclose(evaluate(network, "top-two", figures, layout).total["largest"], ranked[[-1, -2]], atol=1e-9)
    assert np.allclose(evaluate(network, "median", figures, layout).total["median"], ranked[2], atol=1e-9)


def test_functions_do_without_a_holder_that_dropped_out(network: Network) -> None:
    layout = Layout({"value": Slot((5,), 2000.0, True)}, 5)
    network.drops = {"share": ["h002"]}
    try:
        aggregate = evaluate(network, "median", by_holder(network, value=VALUES), layout)
    finally:
        network.drops = {}
    assert aggregate.holders == ("h001", "h003", "h004", "h005")
    assert (aggregate.total["median"] == np.median(np.delete(VALUES, 1, axis=0), axis=0)).all()


def test_a_comparison_of_totals_is_the_comparison(network: Network) -> None:
    a, b = VALUES, VALUES[:, ::-1]
    layout = Layout({"a": Slot((5,), 2000.0, True), "b": Slot((5,), 2000.0, True)}, 5)
    found = evaluate(network, "compare", by_holder(network, a=a, b=b), layout).total["less"]
    assert (found == (a.sum(axis=0) < b.sum(axis=0))).all()
    assert found.dtype == bool


@pytest.mark.parametrize("integer", [True, False])
def test_a_quotient_of_totals_is_the_quotient(network: Network, integer: bool) -> None:
    a = np.array([[7, -7, 0, 3, 500], [1, -2, 0, 3, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    b = np.array([[1, 3, 9, 0, 1], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    slots = {"a": Slot((5,), 5000.0, True), "b": Slot((5,), 5000.0, True)}
    if not integer:
        slots = {"a": Slot((5,), 10000.0), "b": Slot((5,), 100.0)}
    figures = by_holder(network, a=a if integer else a * 0.37, b=b if integer else b * 0.11)
    found = evaluate(network, "ratio", figures, Layout(slots, 5)).total["ratio"]
    with np.errstate(invalid="ignore", divide="ignore"):
        want = np.sum([f["a"] for f in figures.values()], axis=0) / np.sum([f["b"] for f in figures.values()], axis=0)
    assert np.isinf(found[3])  # nothing by nothing
    keep = [0, 1, 2, 4]
    assert np.allclose(found[keep], want[keep], atol=128 * 2.0**-20)
    if integer:
        assert (np.abs(found[keep]) <= np.abs(want[keep])).all()  # towards zero


@pytest.mark.parametrize("function", ["dominance", "dominance-spanning"])
def test_dominance_of_pooled_cells_is_what_pooled_contributors_say(network: Network, function: str) -> None:
    options: Any = network.agreement.options
    contributors = RNG.pareto(1.0, (5, 6, 12)) * 100  # holder, contributor, cell
    contributors[:, :, 0] = 0.0
    contributors[1:, :, 1] = 0.0
    contributors[:, :, 2] = 25.0
    contributors[3, 1, 3:6] *= 1000.0
    contributors[4, 2:4, 6:8] *= 1000.0
    ranked = np.sort(contributors, axis=1)[:, ::-1]
    layout = Layout({"total": Slot((3, 4), 1e9), "largest": Slot((2, 3, 4), 1e9)}, 5)
    figures = by_holder(
        network,
        total=contributors.sum(axis=1).reshape(5, 3, 4),
        largest=ranked[:, :2].reshape(5, 2, 3, 4),
    )
    found = evaluate(network, function, figures, layout).total
    pooled = np.sort(contributors.reshape(30, 12), axis=0)[::-1]
    total, first, second = pooled.sum(axis=0), pooled[0], pooled[1]
    if function == "dominance-spanning":  # each holder's largest may be one and the same
        first, second = ranked[:, 0].sum(axis=0), ranked[:, 1].sum(axis=0)
    n_k = 100 * (first + second) > options.k * total
    p_percent = 100 * (total - first - second) < options.p * first
    assert (found["unsafe"].reshape(-1) == (n_k | p_percent)).all()
    assert 0 < (n_k | p_percent).sum() < 12
    assert set(found) == {"unsafe"}
    with pytest.raises(Refused, match="largest: got figures below zero"):
        evaluate(
            network,
            function,
            by_holder(network, total=np.zeros((5, 3, 4)), largest=-np.ones((5, 2, 3, 4))),
            layout,
        )


def test_a_holder_does_not_share_for_another_function_than_its_own_analysis_names(network: Network) -> None:
    """A coordinator that has figures added up which are meant to be compared."""
    layout = Layout({"total": Slot((2,), 1e9), "largest": Slot((2, 2), 1e9)}, 5)
    figures = by_holder(network, total=np.ones((5, 2)), largest=np.ones((5, 2, 2)))

    def honest(stage: str, party: str, packet: Packet) -> Packet:
        return {**packet, "function": b"dominance"} if stage == "share" else packet

    network.change = honest
    coordinator: Any = network.coordinator
    try:
        for rounds in (coordinator.total(layout), coordinator.evaluate("dominance-spanning", layout)):
            with pytest.raises(Refused, match="of what the analysis gives for dominance"):
                network.drive(rounds, figures, layout)
        network.change = lambda _stage, _party, packet: {**packet, "function": b""}
        with pytest.raises(Refused, match="of what the analysis gives for sum"):
            evaluate(network, "dominance", figures, layout)
    finally:
        network.change = lambda _stage, _party, packet: packet


def test_nodes_are_told_no_result_and_shares_of_it_are_fresh(network: Network) -> None:
    layout = Layout({"value": Slot((1,), 2000.0, True)}, 5)
    figures = by_holder(network, value=VALUES[:, :1])
    seen = []
    for _ in range(2):
        network.transcript.clear()
        assert evaluate(network, "maximum", figures, layout).total["maximum"] == 5
        seen.append([packet["share"] for stage, _, packet in network.transcript if stage == "collect"])
    assert all(len(share) == 16 for shares in seen for share in shares)
    assert not set(seen[0]) & set(seen[1])


def test_a_layout_that_does_not_fit_a_function_is_refused_before_anything_is_sent(network: Network) -> None:
    network.transcript.clear()
    for function, slots, words in [
        ("maximum", {"x": Slot((1,), 1.0)}, "got x; want value"),
        ("maximum", {"value": Slot((1,), np.inf)}, "without a finite bound"),
        ("maximum", {"value": Slot((0,), 1.0)}, "no cells"),
        ("compare", {"a": Slot((2,), 1.0), "b": Slot((3,), 1.0)}, r"got shape \(3,\)"),
        ("compare", {"a": Slot((2,), 1.0), "b": Slot((2,), 2.0)}, "one limit for all"),
        ("dominance", {"total": Slot((2,), 1.0), "largest": Slot((3, 2), 1.0)}, "one or two figures"),
        ("mode", {"value": Slot((1,), 1.0)}, "want one of maximum"),
    ]:
        with pytest.raises(UsageError, match=words):
            evaluate(network, function, {}, Layout(slots, 5))
    assert not network.transcript


def test_a_function_that_the_study_does_not_name_is_refused() -> None:
    network = Network(agreement("multi-party", 3, functions=("maximum",)))
    layout = Layout({"value": Slot((1,), 10.0)}, 3)
    with pytest.raises(UsageError, match="it among the study's protection"):
        evaluate(network, "median", {}, layout)


def test_a_function_without_mpyc_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    network = Network(agreement("multi-party", 3, functions=("maximum",)))
    with pytest.raises(UsageError, match=r"functions need MPyC: pip install 'statfed\[mpc\]'"):
        evaluate(network, "maximum", {}, Layout({"value": Slot((1,), 10.0)}, 3))
    without = Network(agreement("multi-party", 3))
    figures = by_holder(without, value=np.ones((3, 1)))
    assert without.sum(figures, Layout({"value": Slot((1,), 10.0)}, 3)).total["value"] == 3  # sums do without


def processes(network: Network) -> dict[str, "subprocess.Popen[bytes]"]:
    """The compute processes of a network's nodes."""
    nodes: Any = network.parties
    return {name: nodes[name]._compute.process for name in network.agreement.third_parties}


def gone(pid: int) -> bool:
    """Has a process ended and been reaped?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_killed_compute_process_is_named_and_leaves_no_orphans(when: str) -> None:
    network = Network(agreement("multi-party", 3, functions=("median",), patience=20.0))
    layout = Layout({"value": Slot((400,), 1e6)}, 3)
    figures = by_holder(network, value=RNG.uniform(0, 1000, (3, 400)))
    small = Layout({"value": Slot((1,), 10.0)}, 3)
    evaluate(network, "median", by_holder(network, value=np.ones((3, 1))), small)
    running = processes(network)
    if when == "before":
        running["node-2"].kill()
        running["node-2"].wait()
        with pytest.raises(EngineError, match="node-2: its compute process has ended: killed by SIGKILL"):
            evaluate(network, "median", figures, layout)
    else:

        def kill(stage: str, party: str, packet: Packet) -> Packet:
            if (stage, party) == ("collect", "node-1"):
                running["node-2"].send_signal(signal.SIGKILL)
            return packet

        network.change = kill
        with pytest.raises(EngineError, match="node-2: its compute process has ended: killed by SIGKILL") as caught:
            evaluate(network, "median", figures, layout)
        assert "node-1: median: its channel to node-2 was lost" in str(caught.value)
        network.change = lambda _stage, _party, packet: packet
        with pytest.raises(Refused, match="start a new run"):
            evaluate(network, "median", figures, layout)
    network.parties.clear()
    gc.collect()
    assert all(gone(process.pid) for process in running.values())


def test_compute_processes_end_with_their_run_and_with_their_parent() -> None:
    network = Network(agreement("multi-party", 3, functions=("maximum",)))
    evaluate(network, "maximum", by_holder(network, value=np.ones((3, 1))), Layout({"value": Slot((1,), 10.0)}, 3))
    pids = [process.pid for process in processes(network).values()]
    assert not any(map(gone, pids))
    network.parties.clear()  # what a release does
    gc.collect()
    assert all(map(gone, pids))
    code = (
        "import os, signal\n"
        "from statfed.strategies.protections._mpc_process import Compute\n"
        "made = Compute()\n"
        "print(made.process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    orphan = int(parent.stdout)
    deadline = time.monotonic() + 15
    while not gone(orphan) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(orphan)


def test_a_substituted_certificate_is_refused_by_a_node() -> None:
    def changed(stage: str, party: str, packet: Packet) -> Packet:
        if (stage, party) == ("listen", "node-1"):
            return {**packet, "node-2:certificate": packet["node-3:certificate"]}
        return packet

    network = Network(agreement("multi-party", 3, functions=("maximum",)), change=changed)
    layout = Layout({"value": Slot((1,), 10.0)}, 3)
    with pytest.raises(Refused, match="not by node-2's pinned key"):
        evaluate(network, "maximum", by_holder(network, value=np.ones((3, 1))), layout)
