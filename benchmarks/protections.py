"""What protections cost: processor time of one sum at a holder, at the coordinator and at third parties, and bytes.

    python benchmarks/protections.py                                     # 5 and 10 holders, 10k and 1M numbers
    python benchmarks/protections.py --holders 5 10 50 100 --entries 10000 1000000 10000000 --repeat 3

In one interleaved run, as multiples of a plain numpy sum of the holders' float32 arrays. The floor of secure
aggregation at a holder is the AES-128-CTR key stream of its masks. Every sum is checked against the plain one. Both
halves run in memory, without messages; set-up (keys, shares) is told apart, since it serves many sums. Flower's
SecAgg+ is driven by its own functions: quantise, mask, add up, unmask.
"""

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from statfed.core.fixed_point import Layout, Slot
from statfed.core.protection import Aggregate, Replies, Stage, conduct, named_protection
from statfed.strategies.protections.secure_aggregation import Options, shape_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.protocol import agreement, identities

Vector = NDArray[np.float32]
LIMIT = 16.0


@dataclass
class Cost:
    """Milliseconds of one sum; bytes that one holder sends."""

    setup: float = 0.0
    holder: float = 0.0
    coordinator: float = 0.0
    third: float = 0.0
    up: int = 0
    whole: float = 0.0


@dataclass
class Run:
    """A federation in memory. drop: holders that have sent their contribution and are gone, or never send it."""

    protection: str
    holders: int
    minimum: int | None = None
    drop: frozenset[str] = frozenset()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.agreement = agreement(self.protection, self.holders, minimum=self.minimum, **self.options)
        module, _ = named_protection(self.protection, self.options)
        known = identities(self.agreement.parties)
        self.parties = {name: module.party(self.agreement, known[name]) for name in self.agreement.parties}
        self.coordinator = module.coordinator(self.agreement)

    def sum(self, vector: Vector, layout: Layout) -> tuple[Aggregate, Cost]:
        """One sum of `vector` from every holder, and what it took."""
        spent, up = dict.fromkeys(self.agreement.parties, 0.0), dict.fromkeys(self.agreement.parties, 0)

        def send(stage: Stage) -> Replies:
            replies = {}
            for name, packet in stage.packets.items():
                if name in self.drop:
                    continue
                started = time.process_time()
                if stage.carries:
                    replies[name] = self.parties[name].contribute(packet, {"update": vector}, own)
                else:
                    replies[name] = self.parties[name].answer(stage.name, packet)
                spent[name] += time.process_time() - started
                up[name] += sum(len(x) if isinstance(x, bytes) else x.nbytes for x in replies[name].values())
            return replies

        own = layout.for_holder(1.0 / self.holders)
        started = time.process_time()
        aggregate = conduct(self.coordinator.total(layout), send)
        whole = time.process_time() - started
        holders = [spent[name] for name in self.agreement.holders if name not in self.drop]
        third = sum(spent[name] for name in self.agreement.third_parties)
        return aggregate, Cost(
            holder=1e3 * sum(holders) / len(holders),
            coordinator=1e3 * (whole - sum(spent.values())),
            third=1e3 * third,
            up=max(up[name] for name in self.agreement.holders),
            whole=1e3 * whole,
        )

    def close(self) -> None:
        """Let parties that run processes stop them."""
        for party in self.parties.values():
            getattr(party, "close", lambda: None)()


def measured(run: Run, vector: Vector, narrow: bool, repeat: int) -> Cost:
    """The best of `repeat` sums after a first one with set-up. Raises AssertionError on a wrong sum."""
    layout = Layout({"update": Slot(vector.shape, LIMIT * run.holders)}, run.holders, narrow=narrow)
    costs = []
    for _ in range(repeat + 1):
        aggregate, cost = run.sum(vector, layout)
        want = vector.astype(np.float64) * len(aggregate.holders)
        bits = 29 if narrow else 45
        assert np.abs(aggregate.total["update"] - want).max() <= LIMIT * run.holders**2 * 2.0**-bits
        costs.append(cost)
    run.close()
    best = min(costs[1:], key=lambda cost: cost.whole)
    best.setup = max(0.0, costs[0].whole - best.whole)
    return best


def plain_sum(vector: Vector, holders: int) -> float:
    """Milliseconds of adding up `holders` float32 arrays."""
    arrays = [vector.copy() for _ in range(min(holders, 10))]
    started = time.process_time()
    total = np.zeros_like(vector)
    for i in range(holders):
        total += arrays[i % len(arrays)]
    return 1e3 * (time.process_time() - started)


def key_stream(count: int) -> float:
    """Milliseconds of `count` bytes of AES-128-CTR key stream, a megabyte at a time into one buffer."""
    zeros, out = bytes(1 << 20), bytearray(1 << 20)
    encryptor = Cipher(algorithms.AES(os.urandom(16)), modes.CTR(bytes(16))).encryptor()
    started = time.process_time()
    for _ in range(max(1, count >> 20)):
        encryptor.update_into(zeros, out)
    return 1e3 * (time.process_time() - started) * (count / (max(1, count >> 20) << 20))


def secaggplus(vector: Vector, holders: int) -> Cost:
    """Flower's SecAgg+ with its defaults (clipping 8, 2^22 steps, 32-bit range): masks of all other holders."""
    from flwr.common.secure_aggregation.ndarrays_arithmetic import (
        parameters_addition,
        parameters_mod,
        parameters_subtraction,
    )
    from flwr.common.secure_aggregation.quantization import dequantize, quantize
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    seeds = {(i, j): os.urandom(32) for i in range(holders) for j in range(i)}
    own = [os.urandom(32) for _ in range(holders)]
    shape, modulus = [vector.shape], 1 << 32
    uploads, spent = [], []
    for i in range(holders):
        started = time.process_time()
        masked = quantize([vector.astype(np.float64)], 8.0, 1 << 22)
        masked = parameters_addition(masked, pseudo_rand_gen(own[i], modulus, shape))
        for j in range(holders):
            if j != i:
                mask = pseudo_rand_gen(seeds[max(i, j), min(i, j)], modulus, shape)
                masked = (parameters_addition if i > j else parameters_subtraction)(masked, mask)
        masked = parameters_mod(masked, modulus)
        spent.append(time.process_time() - started)
        uploads.append(masked)
    started = time.process_time()
    total = uploads[0]
    for upload in uploads[1:]:
        total = parameters_addition(total, upload)
    for seed in own:
        total = parameters_subtraction(total, pseudo_rand_gen(seed, modulus, shape))
    dequantize(parameters_mod(total, modulus), 8.0, 1 << 22)
    server = time.process_time() - started
    return Cost(0.0, 1e3 * sum(spent) / holders, 1e3 * server, 0.0, vector.size * 8, 1e3 * (sum(spent) + server))


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--holders", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--bits", type=int, nargs="+", default=[32, 64], choices=[32, 64])
    parser.add_argument("--slow", type=int, default=1_000_000, help="most numbers for HE, MPC and SecAgg+, 5 holders")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    print(
        f"{'what':44} {'holders':>7} {'numbers':>10} {'setup':>8} {'holder':>9} {'of floor':>8} {'coord.':>9} "
        f"{'third':>9} {'round/plain':>11} {'MB up':>7}   (ms of processor time)"
    )
    for entries in options.entries:
        vector = rng.normal(0, 0.1, entries).astype(np.float32)
        for holders in options.holders:
            plain = min(plain_sum(vector, holders) for _ in range(options.repeat))
            print(f"{'plain numpy float32 sum':44} {holders:7} {entries:10,} {'':8} {'':9} {'':8} {plain:9.2f}")
            for name, cost, masks, width in rows(options, vector, holders):
                floor = key_stream(masks * entries * width) if masks else 0.0
                ratio = f"{cost.holder / floor:8.2f}" if masks else f"{'':8}"
                print(
                    f"{name:44} {holders:7} {entries:10,} {cost.setup:8.1f} {cost.holder:9.2f} {ratio} "
                    f"{cost.coordinator:9.2f} {cost.third:9.1f} {cost.whole / plain:11.1f} {cost.up / 1e6:7.2f}",
                    flush=True,
                )


def rows(options: argparse.Namespace, vector: Vector, holders: int) -> list[tuple[str, Cost, int, int]]:
    """Name, cost, masks that a holder makes and their width in bytes."""
    found: list[tuple[str, Cost, int, int]] = []

    def add(name: str, make: Callable[[], Run], masks: int, bits: int) -> None:
        found.append((name, measured(make(), vector, bits == 32, options.repeat), masks, bits // 8))

    two_thirds = 2 * holders // 3 + 1
    names = agreement("plain", holders).holders
    fifth = frozenset(names[: holders - max(two_thirds, holders - holders // 5)])
    for bits in options.bits:
        add(f"secure aggregation, {bits} bit, all", lambda: Run("secure-aggregation", holders), holders - 1, bits)
        every = neighbours(holders, two_thirds)
        add(
            f"secure aggregation, {bits} bit, dropout allowed",
            lambda: Run("secure-aggregation", holders, two_thirds),
            every + 1,
            bits,
        )
        add(
            f"secure aggregation, {bits} bit, {len(fifth)} dropped",
            lambda: Run("secure-aggregation", holders, two_thirds, fifth),
            every + 1,
            bits,
        )
    if holders == 5 and len(vector) <= options.slow:
        found.append(("Flower SecAgg+ (for comparison)", secaggplus(vector, holders), 0, 8))
        add("multi-party, 64 bit", lambda: Run("multi-party", holders), 0, 64)
        if installed("tenseal"):
            add("homomorphic encryption, BFV, 64 bit", lambda: Run("homomorphic-encryption", holders), 0, 64)
            add("homomorphic encryption, BFV, 32 bit", lambda: Run("homomorphic-encryption", holders), 0, 32)
    return found


def neighbours(holders: int, minimum: int) -> int:
    """Neighbours of a holder in secure aggregation with dropout."""
    shape = shape_of(holders, minimum, Options())
    return 2 * shape.width(holders) if shape and shape.rings else holders - 1


if __name__ == "__main__":
    main()
