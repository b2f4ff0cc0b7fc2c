"""Exact linkage of two holders by SPU as a sidecar, through the direct line: processor, wall, bytes, memory.

    export STATFED_SPU_PYTHON=/opt/statfed-spu/bin/python
    python benchmarks/linkage_spu.py --items 100000 1000000

Each holder is a process of its own with its sidecar and its end of the direct line (loopback, TLS 1.3, pinned keys);
half of its units match. Figures are microseconds of processor an item and side, of the holder's own process (tags,
files, line) and of SPU's, bytes that both programs send an item, and the most memory of either. Times depend on what
else the machine does.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from statfed.client import direct, sending
from statfed.client.guard.addresses import Direct
from statfed.core.identity import Identity
from statfed.core.linkage import Units
from statfed.core.protection import Agreement, Packet
from statfed.core.terms import Protection
from statfed.federation.lines import lines
from statfed.strategies.linkages import spu

PEOPLE = {"bank": "office", "office": "bank"}
SENT = [0]


class Counted(direct.Line):
    """A line that counts what its program sends."""

    def stream(self, head: direct.Head, chunks: Iterator[bytes]) -> Any:
        def counted() -> Iterator[bytes]:
            for chunk in chunks:
                SENT[0] += len(chunk)
                yield chunk

        return super().stream(head, counted())


def used(who: int) -> tuple[float, float]:
    """Seconds of processor and most MB of memory so far."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024.0


def holder(name: str, agreement: Agreement, items: int, own: Direct, link: Connection) -> None:
    """One holder's process: answers stages until it is told to say what it has used."""
    setattr(sending, "Line", Counted)  # noqa: B010
    identity = Identity.ephemeral(name)
    link.send(identity.public)
    known = Identity(name, identity._key, link.recv())
    start = items // 2 if name == "bank" else 0
    units = Units({"id": [f"person {i + start:09}" for i in range(items)]})
    line = sending.Sending()
    line.open(agreement, known, own)
    before = used(resource.RUSAGE_SELF)
    party = spu.party(agreement, known, units)
    party.lined(line.lines(agreement.run))
    while (asked := link.recv()) is not None:
        stage, packet = asked
        reply = party.answer(stage, line.received(agreement.run, packet))
        link.send(line.sent(agreement.run, reply))
    link.send((before, used(resource.RUSAGE_SELF), used(resource.RUSAGE_CHILDREN), SENT[0]))
    party.close()
    line.close(agreement.run)


def ours(items: int, protocol: str) -> dict[str, Any]:
    """One linkage, with what it took."""
    sizes = dict.fromkeys(sorted(PEOPLE), items)
    options = spu.Options.model_validate({"to": "bank", "protocol": protocol})
    agreement = Agreement("run", "0" * 64, "spu", tuple(sizes), (), 2, sizes, options)
    asked = Protection(name="spu", options={"key": "id", "reveal": "pairs", "to": ["bank"], "direct": True})
    there = lines(asked, sizes)
    context = multiprocessing.get_context("spawn")
    links: dict[str, Any] = {}
    processes = []
    for name in sizes:
        links[name], theirs = context.Pipe()
        process = context.Process(target=holder, args=(name, agreement, items, there[name], theirs))
        process.start()
        processes.append(process)
    pins = {name: link.recv() for name, link in links.items()}
    for link in links.values():
        link.send(pins)
    wall = time.perf_counter()
    rounds = spu.coordinator(agreement)
    stage, outcome = next(rounds), None
    while outcome is None:
        for name, packet in stage.packets.items():
            links[name].send((stage.name, packet))
        replies: dict[str, Packet] = {name: links[name].recv() for name in stage.packets}
        try:
            stage = rounds.send(replies)
        except StopIteration as end:
            outcome = end.value
    wall = time.perf_counter() - wall
    took = {}
    for name, link in links.items():
        link.send(None)
        took[name] = link.recv()
    for process in processes:
        process.join()
    if outcome.size != items - items // 2:
        raise SystemExit(f"size: got {outcome.size}; want {items - items // 2}")
    return {"wall": wall, "took": took}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[100_000], help="items of either list")
    parser.add_argument("--protocol", choices=("rr22", "kkrt"), default="rr22")
    given = parser.parse_args()
    for items in given.items:
        found = ours(items, given.protocol)
        sent = sum(one[3] for one in found["took"].values())
        print(f"{given.protocol}, {items} items a side: {found['wall']:.1f} s wall, {sent / items:.0f} bytes an item")
        for name, ((spent, _), (spent_after, memory), (program, its), _) in found["took"].items():
            own = (spent_after - spent) / items * 1e6
            print(f"  {name}: {own:.1f} us an item, SPU {program / items * 1e6:.1f}; {memory:.0f} MB, SPU {its:.0f} MB")


if __name__ == "__main__":
    main()
