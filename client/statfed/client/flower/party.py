"""A party's halves of protected averages, one per Flower run, and a process that keeps them between messages.

    python -m statfed.client.flower.party HOME                  # answer the ClientApps of this home until stopped
    python -m statfed.client.flower.party HOME --create NAME    # make identity.key and party.toml; print the public key

The secrets of a run live in memory only. That is what the protocols rest on: a party that answers a stage twice, from
a state that was put back, can be made to reveal what the protocol keeps apart. Flower's `Context.state` does not do:
a reply leaves before the state behind it is stored, so that a crash between the two puts an old state back; and the
secrets would lie in the SuperNode's memory, where every app of the run reads them. So where Flower starts a process
for each message, the home's own process keeps them; ClientApps reach it by the socket `party.sock` in the home folder,
which only this user can open.
"""

import argparse
import io
import json
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

import numpy as np

from statfed.client.guard.admission import conceded
from statfed.client.guard.files import check_modes
from statfed.client.pilot.joining import pinned
from statfed.client.protecting import own
from statfed.client.third_party import FILE, PartyPolicy, load_party
from statfed.core import toml
from statfed.core.averaging import Facts, Joined, Said, agreement_of, layout_of
from statfed.core.errors import BY_NAME, EngineError, Refused, StatfedError, UsageError
from statfed.core.identity import Identity, create_identity, load_identity
from statfed.core.method import Arrays
from statfed.core.protection import Agreement, Packet, Party, named_protection
from statfed.core.statement import failure

SOCKET = "party.sock"
MOST = 4096  # runs kept, all simulated nodes of a process together; the oldest is forgotten
ANSWER = "statfed/answer"  # the key of JSON in an answer
FAILURE = "statfed/failure"  # the key of a public error in an answer

log = logging.getLogger("statfed.holder")


@dataclass
class _Seat:
    """One node's part in one Flower run. number: of the last sum of the session that it contributed to."""

    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    facts: Facts | None = None
    agreement: Agreement | None = None
    party: Party | None = field(default=None, repr=False)
    number: int = 0


class Seats:
    """The runs that parties take part in from this process."""

    def __init__(self) -> None:
        self._seats: dict[tuple[str, int, int], _Seat] = {}

    def ask(self, home: Path, run: int, node: int, said: Said, packet: Packet, arrays: Arrays) -> Packet:
        """Answer one statement of run `run` to node `node`. arrays: the contribution, private, in step `contribute`.

        Raises Refused, UsageError or EngineError in words that may travel.
        """
        policy = _policy(home)
        name, key = policy.party.name, (str(home), run, node)
        if said.step == "hello":
            while key not in self._seats and len(self._seats) >= MOST:
                del self._seats[next(iter(self._seats))]
            seat = self._seats.setdefault(key, _Seat())
            latest = 0 if seat.facts is None else seat.facts.session
            return {ANSWER: Joined(name=name, token=seat.token, session=latest).model_dump_json().encode()}
        if key not in self._seats:
            raise EngineError(
                "this ClientApp's process knows nothing of the run's earlier messages, and the secrets of a protected "
                "sum live in memory; want one process for all messages, or `python -m statfed.client.flower.party HOME`"
            )
        seat = self._seats[key]
        self._admit(home, run, name, policy, seat, said)
        party, facts, agreement = seat.party, seat.facts, seat.agreement
        if party is None or facts is None or agreement is None:
            raise Refused("protection: got a stage of no session; want one")
        if said.step == "stage":
            return party.answer(said.stage, packet)
        if name not in facts.holders:
            raise Refused(f"protection: {name} is no holder of this sum; want stages only")
        if said.number <= seat.number:
            raise Refused(f"sum: got number {said.number}; want one above {seat.number}: each sum is formed once")
        if said.step == "admit":
            return {}
        seat.number = said.number
        return party.contribute(packet, arrays, own(layout_of(facts, said.kind), agreement, name))

    def _admit(self, home: Path, run: int, name: str, policy: PartyPolicy, seat: _Seat, said: Said) -> None:
        facts = said.facts
        if facts is None or facts.run != run:
            raise Refused("run: got a statement about another run; want this one")
        if facts.parties.get(name) != seat.token:
            raise EngineError(f"protection: this session was not agreed with {name} as it runs now; want a new one")
        if facts.protection not in policy.allow.protections:
            raise Refused(f"protection: got {facts.protection}; want {' or '.join(policy.allow.protections)}")
        if facts.minimum_holders < policy.allow.minimum_holders:
            raise Refused(
                f"holders: got sums over as few as {facts.minimum_holders}; "
                f"want at least {policy.allow.minimum_holders}"
            )
        asked = conceded(facts.protection, facts.options, policy.allow.protections, policy.allow.third_parties)
        if asked and name in facts.holders:
            raise Refused("\n".join(asked))
        if facts == seat.facts:
            return
        if seat.facts is not None and facts.session <= seat.facts.session:
            raise Refused(f"session: got {facts.session}; want one above {seat.facts.session}")
        if seat.facts is not None and _limits(facts) != _limits(seat.facts):
            raise Refused(
                "limits: got other ones than before in this run; want them the same, so that nobody can bisect"
            )
        agreement = agreement_of(facts)
        module, _ = named_protection(facts.protection, facts.options)
        pins = pinned(home, policy.parties.root)
        identity = load_identity(home, name, pins) if module.REQUIRES.identities else Identity.ephemeral(name)
        seat.facts, seat.agreement, seat.party = facts, agreement, module.party(agreement, identity)
        seat.number = 0


def _limits(facts: Facts) -> tuple[object, ...]:
    """What a reply is refused by. Whoever could change it would learn every figure of a node from its refusals."""
    return facts.weight, facts.most_examples, facts.limit, facts.train_metrics, facts.evaluate_metrics


def _policy(home: Path) -> PartyPolicy:
    try:
        check_modes(home)
        return load_party(home / FILE)
    except UsageError as error:
        log.error("party: %s", error)
        raise Refused(f"this party's {FILE} cannot be read; its own log says why") from None


def remote(home: Path, run: int, node: int, said: Said, packet: Packet, arrays: Arrays) -> Packet:
    """`Seats.ask` of the process that listens in the home folder. Raises what it reported, or EngineError."""
    head = {"said": said.model_dump_json(), "run": run, "node": node}
    try:
        with Client(str(home / SOCKET), "AF_UNIX") as connection:
            connection.send_bytes(_packed({**packet, ANSWER: json.dumps(head).encode()}))
            connection.send_bytes(_packed(dict(arrays)))
            answer = _unpacked(connection.recv_bytes())
    except (OSError, EOFError):
        raise EngineError(
            f"nobody answers at this home's {SOCKET}; want `python -m statfed.client.flower.party HOME`"
        ) from None
    if FAILURE in answer:
        told = json.loads(bytes(answer[FAILURE]))
        raise BY_NAME[told["kind"]](told["message"])
    return answer


def serve(home: Path, ready: Callable[[], None] = lambda: None) -> None:
    """Answer this home's ClientApps, one at a time, until the process ends. Raises UsageError when another one does."""
    home, seats = home.resolve(), Seats()
    load_party(home / FILE)
    path = home / SOCKET
    if path.exists():
        try:
            Client(str(path), "AF_UNIX").close()
        except OSError:
            path.unlink()
        else:
            raise UsageError(f"{path}: another process answers there; want one a home")
    mask = os.umask(0o077)
    try:
        listener = Listener(str(path), "AF_UNIX", backlog=64)
    finally:
        os.umask(mask)
    with listener:
        ready()
        while True:
            try:
                with listener.accept() as connection:
                    _one(seats, home, connection)
            except (OSError, EOFError):
                log.warning("party: a ClientApp hung up")


def _one(seats: Seats, home: Path, connection: Connection) -> None:
    packet = dict(_unpacked(connection.recv_bytes()))
    arrays = {name: np.asarray(item) for name, item in _unpacked(connection.recv_bytes()).items()}
    try:
        head = json.loads(bytes(packet.pop(ANSWER)))
        answer = seats.ask(home, int(head["run"]), int(head["node"]), Said.parse(head["said"]), packet, arrays)
    except StatfedError as error:
        answer = {FAILURE: failure(error).encode()}
    except Exception:
        log.exception("internal error")
        hidden = EngineError("internal error at the holder; its own log has the details")
        answer = {FAILURE: failure(hidden).encode()}
    connection.send_bytes(_packed(answer))


def _packed(packet: Packet) -> bytes:
    """A packet as an .npz of bytes and arrays; the first letter of a name says which."""
    buffer = io.BytesIO()
    named = {
        f"b{k}" if isinstance(v, bytes) else f"a{k}": np.frombuffer(v, np.uint8) if isinstance(v, bytes) else v
        for k, v in packet.items()
    }
    np.savez(buffer, allow_pickle=False, **named)
    return buffer.getvalue()


def _unpacked(data: bytes) -> Packet:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name[1:]: file[name].tobytes() if name[0] == "b" else file[name] for name in file.files}


def create(home: Path, name: str, protections: tuple[str, ...] = ("secure-aggregation",)) -> str:
    """Make a home folder with identity.key and party.toml, where there are none. Returns the public key."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    public = create_identity(home)
    if not (home / FILE).exists():
        allow = {"protections": protections, "minimum_holders": 3}
        pins = toml.header("parties", comment="name = public key, of every other party")
        given = toml.dumps({"party": {"name": name}, "allow": allow})
        (home / FILE).write_text(f"{given}\n{pins}\n", encoding="utf-8")
    load_party(home / FILE)
    return public


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m statfed.client.flower.party")
    parser.add_argument("home", type=Path, help="home folder of the party")
    parser.add_argument("--create", metavar="NAME", help="make the home folder of party NAME and print its public key")
    chosen = parser.parse_args()
    try:
        if chosen.create:
            print(toml.line(chosen.create, create(chosen.home, chosen.create)))  # noqa: T201
        else:
            serve(chosen.home)
    except StatfedError as error:
        parser.exit(error.exit_code, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130)


if __name__ == "__main__":
    main()
