"""Exact linkage of two holders, with a helper by tags or without one by ECDH: processor time, wall, bytes and memory.

    python benchmarks/linkage_exact.py --items 100000
    python benchmarks/linkage_exact.py --items 100000 --reveal totals
    python benchmarks/linkage_exact.py --items 100000 --repeat 3 --psi /tmp/psi/bin/python
    python benchmarks/linkage_exact.py --linkage helper --items 10000000
    python benchmarks/linkage_exact.py --linkage helper --items 10000000 --reveal totals
    python benchmarks/linkage_exact.py --items 1000000 --hollow

Each party is a process of its own; half of the units match; packets go through this one. Figures are microseconds of
processor an item of one list, bytes that all parties send an item of one list, and the most memory of each process; the
keys and Python are what it had before the linkage. Totals are of one column under ecdh, a table of 3 by 3 under helper.
--hollow: points of ecdh are digests that nothing is multiplied with: memory and messages are the same without half an
hour of arithmetic. --psi: a Python that has openmined-psi (`pip install openmined-psi==2.0.6` in an environment of its
own, since it pins protobuf), whose size of the intersection is taken in turns with ours, both of its sides in one
process. Times depend on what else the machine does: compare within a run.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import duckdb
import numpy as np

from statfed.core.codebook import make_codebook
from statfed.core.identity import Identity
from statfed.core.linkage import Outcome, Units
from statfed.core.protection import Agreement, Packet
from statfed.strategies.linkages import _ristretto, ecdh, helper

LEVELS = 3
OTHER = """
import json, resource, sys, time
try:
    import private_set_intersection.python as psi
except ImportError:
    sys.exit("no openmined-psi in this Python: pip install openmined-psi==2.0.6")
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
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([size, time.process_time() - spent, time.perf_counter() - wall, sent, memory]))
"""


def agreement_of(linkage: str, items: int, reveal: str) -> Agreement:
    """What the parties of a run have agreed on."""
    sizes = {"bank": items, "office": items}
    options: Any
    if linkage == "ecdh":
        columns = {"x": {"low": 0, "high": 1_000_000, "decimals": 2}} if reveal == "totals" else {}
        least = min(10, items)
        options = ecdh.Options.model_validate({"reveal": reveal, "to": "bank", "columns": columns, "minimum": least})
        return Agreement("run", "0" * 64, "ecdh", tuple(sizes), (), 2, sizes, options)
    asked: dict[str, Any] = {"reveal": reveal, "minimum_frequency": min(10, items)}
    if reveal == "pairs":
        asked["to"] = ("bank",)
    if reveal == "totals":
        levels = [f"l{i}" for i in range(LEVELS)]
        codebook = make_codebook({"columns": {n: {"type": "category", "categories": levels} for n in ("x", "y")}})
        asked |= {"method": "table", "options": {"rows": ["x"], "columns": ["y"]}, "codebook": codebook}
        asked["columns"] = {"bank": ("x",), "office": ("y",)}
    options = helper.Options.model_validate(asked)
    return Agreement("run", "0" * 64, "helper", tuple(sizes), ("helper",), 2, sizes, options)


def units_of(name: str, agreement: Agreement) -> Units | None:
    """A holder's units; none of the helper."""
    if name not in agreement.holders:
        return None
    items = agreement.sizes[name]
    start = items // 2 if name == "bank" else 0
    made = duckdb.sql(f"select 'person ' || lpad(i::varchar, 9, '0') k from range({start}, {start + items}) t(i)")
    keys = made.to_arrow_table()["k"].combine_chunks()
    values = np.arange(items, dtype=np.float64) % (1000 if agreement.protection == "ecdh" else LEVELS)
    column = "x" if name == "bank" else "y"
    return Units({"id": keys}, {column: values} if agreement.options.reveal == "totals" else {})  # type: ignore[attr-defined]


def used() -> tuple[float, float]:
    """Seconds of processor and most MB of memory so far, of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024.0


def hollow() -> None:
    """Leave the arithmetic of the group out, in this process: every key is its own point, times any scalar."""

    def hashed(context: bytes, keys: Sequence[Any]) -> _ristretto.Points:
        digests = (hashlib.sha256(context + key).digest() for key in keys)
        return _ristretto.points_of(b"".join(digests))

    def multiplied(scalar: bytes, points: _ristretto.Points, sender: str) -> _ristretto.Points:  # noqa: ARG001
        return points.copy()

    def checked(points: _ristretto.Points, sender: str) -> _ristretto.Points:  # noqa: ARG001
        return points

    vars(_ristretto).update(hashed=hashed, multiplied=multiplied, checked=checked)


def party(name: str, agreement: Agreement, link: Connection, bare: bool) -> None:
    """One party's process: answers stages until it is told to say what it has used."""
    if bare:
        hollow()
    identity = Identity.ephemeral(name)
    link.send(identity.public)
    known = Identity(name, identity._key, link.recv())
    units = units_of(name, agreement)
    before = used()
    made = (ecdh if agreement.protection == "ecdh" else helper).party(agreement, known, units)
    del units
    while (asked := link.recv()) is not None:
        link.send(made.answer(*asked))
        del asked
    link.send((before, used()))


def checked(outcome: Outcome, agreement: Agreement) -> None:
    """Exit where the outcome is not that of the plain join."""
    items = agreement.sizes["bank"]
    if outcome.size != items - items // 2:
        raise SystemExit(f"size: got {outcome.size}; want {items - items // 2}")
    if outcome.result is not None:
        both = np.arange(items // 2, items)  # an office's place; its bank's is items // 2 less
        x, y = (both - items // 2) % LEVELS, both % LEVELS
        wanted = np.bincount(x * LEVELS + y, minlength=LEVELS**2)
        if (outcome.result.to_pandas()["count"].to_numpy() != wanted).any():
            raise SystemExit("table: got another than that of the plain join")


def ours(agreement: Agreement, bare: bool) -> dict[str, Any]:
    """One linkage, with what it took."""
    context = multiprocessing.get_context("spawn")
    links: dict[str, Any] = {}
    processes = []
    for name in agreement.parties:
        links[name], theirs = context.Pipe()
        process = context.Process(target=party, args=(name, agreement, theirs, bare))
        process.start()
        processes.append(process)
    pins = {name: link.recv() for name, link in links.items()}
    for link in links.values():
        link.send(pins)
    wall, sent, messages, largest = time.perf_counter(), 0, 0, 0
    rounds = (ecdh if agreement.protection == "ecdh" else helper).coordinator(agreement)
    stage, outcome = next(rounds), None
    while outcome is None:
        for name, packet in stage.packets.items():
            links[name].send((stage.name, packet))
        replies: dict[str, Packet] = {name: links[name].recv() for name in stage.packets}
        for reply in replies.values():
            size = sum(item.nbytes if isinstance(item, np.ndarray) else len(item) for item in reply.values())
            sent, messages, largest = sent + size, messages + 1, max(largest, size)
        try:
            stage = rounds.send(replies)
        except StopIteration as end:
            outcome = end.value
        del replies
    wall = time.perf_counter() - wall
    took = {}
    for name, link in links.items():
        link.send(None)
        took[name] = link.recv()
    for process in processes:
        process.join()
    checked(outcome, agreement)
    return {"wall": wall, "sent": sent, "took": took, "messages": messages, "largest": largest, "own": used()[1]}


def lines(agreement: Agreement, psi: str, kind: str, bare: bool) -> Iterator[str]:
    """Ours, then the other."""
    found, items = ours(agreement, bare), agreement.sizes["bank"]
    yield (
        f"{agreement.protection} {agreement.options.reveal}: "  # type: ignore[attr-defined]
        f"{found['wall']:.1f} s wall, {found['sent'] / items:.0f} bytes an item, {found['messages']} messages of at "
        f"most {found['largest'] / 1e6:.1f} MB, coordinator {found['own']:.0f} MB at most"
    )
    for name, ((spent, memory), (spent_after, memory_after)) in found["took"].items():
        each = (spent_after - spent) / items * 1e6
        yield f"  {name}: {each:.2f} us an item, {memory_after:.0f} MB at most, {memory:.0f} MB before"
    if psi:
        run = subprocess.run([psi, "-c", OTHER, str(items), kind], capture_output=True, text=True, check=False)
        if run.returncode:
            raise SystemExit(f"{psi}: {run.stderr.strip().splitlines()[-1] if run.stderr.strip() else run.returncode}")
        size, spent, wall, sent, memory = json.loads(run.stdout)
        if size != items - items // 2:
            yield f"  openmined-psi: size {size}; want {items - items // 2}"
        yield f"openmined-psi {kind}: {wall:.1f} s wall, {sent / items:.0f} bytes an item"
        yield f"  both: {spent / items / 2 * 1e6:.1f} us an item and side, {memory:.0f} MB at most in one process"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--linkage", choices=("ecdh", "helper"), default="ecdh")
    parser.add_argument("--items", type=int, nargs="+", default=[100_000], help="items of either list")
    parser.add_argument("--reveal", choices=ecdh.REVEALS, default="size")
    parser.add_argument("--hollow", action="store_true", help="leave the group's arithmetic out, of size under ecdh")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--psi", default="", help="a Python that has openmined-psi")
    parser.add_argument("--structure", choices=("RAW", "GCS", "BLOOM_FILTER"), default="RAW", help="of openmined-psi")
    given = parser.parse_args()
    for items in given.items:
        print(f"{items} items a side")
        for _ in range(given.repeat):
            agreement = agreement_of(given.linkage, items, given.reveal)
            for line in lines(agreement, given.psi, given.structure, given.hollow):
                print(line)
                sys.stdout.flush()


if __name__ == "__main__":
    main()
