"""Exact linkage of two holders by ECDH: processor time of either side, wall time, bytes and memory.

    python benchmarks/linkage_exact.py --items 100000
    python benchmarks/linkage_exact.py --items 100000 --reveal totals
    python benchmarks/linkage_exact.py --items 100000 --repeat 3 --psi /tmp/psi/bin/python

Each holder is a process of its own, half of whose units match; packets go through this one. Figures are microseconds of
processor an item of one list and side, bytes that both holders send an item, and the most memory of either process; the
keys and Python are what it had before the linkage. --psi: a Python that has openmined-psi (`pip install
openmined-psi==2.0.6` in an environment of its own, since it pins protobuf), whose size of the intersection is taken in
turns with ours, both of its sides in one process. Times depend on what else the machine does: compare within a run.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from statfed.core.identity import Identity
from statfed.core.linkage import Units
from statfed.core.protection import Agreement, Packet
from statfed.strategies.linkages import ecdh

OTHER = """
import json, sys, time
import private_set_intersection.python as psi
items, kind = int(sys.argv[1]), sys.argv[2]
one = [f"person {i:09}" for i in range(items)]
two = [f"person {i + items // 2:09}" for i in range(items)]
wall, spent = time.perf_counter(), time.process_time()
client, server = psi.client.CreateWithNewKey(False), psi.server.CreateWithNewKey(False)
setup = server.CreateSetupMessage(1e-9, items, two, getattr(psi.DataStructure, kind))
request = client.CreateRequest(one)
response = server.ProcessRequest(request)
size = client.GetIntersectionSize(setup, response)
sent = sum(len(message.SerializeToString()) for message in (setup, request, response))
print(json.dumps([size, time.process_time() - spent, time.perf_counter() - wall, sent]))
"""


def options(items: int, reveal: str) -> ecdh.Options:
    """Those of a run."""
    columns = {"x": {"low": 0, "high": 1_000_000, "decimals": 2}} if reveal == "totals" else {}
    return ecdh.Options.model_validate({"reveal": reveal, "to": "bank", "columns": columns, "minimum": min(10, items)})


def used() -> tuple[float, float]:
    """Seconds of processor and most MB of memory so far, of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024.0


def holder(name: str, agreement: Agreement, items: int, link: Connection) -> None:
    """One holder's process: answers stages until it is told to say what it has used."""
    identity = Identity.ephemeral(name)
    link.send(identity.public)
    known = Identity(name, identity._key, link.recv())
    start = items // 2 if name == "bank" else 0
    keys = [f"person {i + start:09}" for i in range(items)]
    units = Units({"id": keys}, {"x": np.arange(items, dtype=np.float64) % 1000})
    before = used()
    party = ecdh.party(agreement, known, units)
    while (asked := link.recv()) is not None:
        link.send(party.answer(*asked))
    link.send((before, used()))


def ours(items: int, reveal: str) -> dict[str, Any]:
    """One linkage, with what it took."""
    sizes = {"bank": items, "office": items}
    agreement = Agreement("run", "0" * 64, "ecdh", tuple(sizes), (), 2, sizes, options(items, reveal))
    context = multiprocessing.get_context("spawn")
    links: dict[str, Any] = {}
    processes = []
    for name in sizes:
        links[name], theirs = context.Pipe()
        process = context.Process(target=holder, args=(name, agreement, items, theirs))
        process.start()
        processes.append(process)
    pins = {name: link.recv() for name, link in links.items()}
    for link in links.values():
        link.send(pins)
    wall, sent = time.perf_counter(), 0
    rounds = ecdh.coordinator(agreement)
    stage, outcome = next(rounds), None
    while outcome is None:
        for name, packet in stage.packets.items():
            links[name].send((stage.name, packet))
        replies: dict[str, Packet] = {name: links[name].recv() for name in stage.packets}
        sent += sum(len(item) for reply in replies.values() for item in reply.values() if isinstance(item, bytes))
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
    return {"wall": wall, "sent": sent, "took": took}


def lines(items: int, reveal: str, psi: str, kind: str) -> Iterator[str]:
    """Ours, then the other."""
    found = ours(items, reveal)
    yield f"ecdh {reveal}: {found['wall']:.1f} s wall, {found['sent'] / items:.0f} bytes an item"
    for name, ((spent, memory), (spent_after, memory_after)) in found["took"].items():
        each = (spent_after - spent) / items * 1e6
        yield f"  {name}: {each:.1f} us an item, {memory_after:.0f} MB at most, {memory:.0f} MB before"
    if psi:
        run = subprocess.run([psi, "-c", OTHER, str(items), kind], capture_output=True, text=True, check=True)
        size, spent, wall, sent = json.loads(run.stdout)
        if size != items - items // 2:
            yield f"  openmined-psi: size {size}; want {items - items // 2}"
        yield f"openmined-psi {kind}: {wall:.1f} s wall, {sent / items:.0f} bytes an item"
        yield f"  both: {spent / items / 2 * 1e6:.1f} us an item and side"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000, help="items of either list")
    parser.add_argument("--reveal", choices=ecdh.REVEALS, default="size")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--psi", default="", help="a Python that has openmined-psi")
    parser.add_argument("--structure", choices=("RAW", "GCS", "BLOOM_FILTER"), default="RAW", help="of openmined-psi")
    given = parser.parse_args()
    print(f"{given.items} items a side")
    for _ in range(given.repeat):
        for line in lines(given.items, given.reveal, given.psi, given.structure):
            print(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
