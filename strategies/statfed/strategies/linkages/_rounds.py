"""Rounds of sealed mail: how the parties of a linkage work side by side, each along one straight line.

A party's program is a generator: `mail = yield Out(...)` hands over what it has for others and, a round later, gets
what the others had for it. All parties are in every round, in step, so that the coordinator relays the same way
whatever is worked out, and learns from the mail its sender, receiver and length alone. What is said to the coordinator
itself stands beside it in `public`; what the coordinator says to all is in `Mail.public`. The program of a party
follows from the agreement: the coordinator cannot have it do other things, only end it.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import EngineError, Refused
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Packet, Replies, Stage, text
from statfed.strategies.linkages._channels import MEET, OFFER, Channels

ROUND = "round"
_NUMBER, _TO, _FROM, _PUBLIC = "number", "to:", "from:", "public:"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Out:
    """What a party has at the end of a round: arrays by receiver, and those for the coordinator by name."""

    mail: Mapping[str, tuple[NDArray[Any], ...]] = field(default_factory=dict, repr=False)
    public: Arrays = field(default_factory=dict, repr=False)


class Letter:
    """What one party has sent, read in the order it was written. Raises Refused where it has another length."""

    def __init__(self, sender: str, content: bytes) -> None:
        self._sender, self._content, self._at = sender, content, 0

    def __repr__(self) -> str:
        return f"Letter(from {self._sender}, <private>)"

    def take(self, shape: tuple[int, ...], dtype: str = "<u8") -> NDArray[Any]:
        """The next array, of this shape."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self._at + size > len(self._content):
            raise Refused(f"mail of {self._sender}: got {len(self._content)} bytes; want {self._at + size} or more")
        found = np.frombuffer(self._content, dtype, int(np.prod(shape)), self._at).reshape(shape)
        self._at += size
        return found

    @property
    def left(self) -> int:
        """Bytes that are not read yet."""
        return len(self._content) - self._at

    def end(self) -> None:
        if self.left:
            raise Refused(f"mail of {self._sender}: got {self.left} bytes more than wanted")


@dataclass(frozen=True)
class Mail:
    """What a party gets at the beginning of a round: letters by sender, and the coordinator's words to all."""

    letters: Mapping[str, Letter] = field(default_factory=dict, repr=False)
    public: Arrays = field(default_factory=dict)

    def of(self, sender: str) -> Letter:
        if sender not in self.letters:
            raise Refused(f"mail: got none of {sender}; want some in this round")
        return self.letters[sender]

    def word(self, name: str) -> NDArray[Any]:
        if name not in self.public:
            raise Refused(f"round: got no {name} from the coordinator; want it")
        return self.public[name]


Program = Generator[Out, Mail, None]


class Correspondent:
    """A party that runs one program. Raises Refused on any stage, number or letter that is not the next one."""

    def __init__(self, agreement: Agreement, identity: Identity, program: Callable[[], Program]) -> None:
        self._channels = Channels(agreement, identity)
        self._start = program
        self._program: Program | None = None
        self._met, self._failed, self._ended, self._number = False, False, False, 0

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Answer one stage. After a refusal nothing more is answered: half a protocol is none."""
        if self._failed:
            raise Refused(f"{stage}: got a stage after the end; want a new run")
        try:
            return self._answer(stage, packet)
        except BaseException:
            self._failed, self._program = True, None
            raise

    def _answer(self, stage: str, packet: Packet) -> Packet:
        if stage == OFFER:
            return self._channels.offer()
        if stage == MEET:
            self._met = True
            return self._channels.meet(packet)
        if stage != ROUND or not self._met:
            raise Refused(f"{stage}: got it out of turn; want {ROUND if self._met else MEET}")
        number = int.from_bytes(text(packet, _NUMBER), "big")
        if number != self._number + 1:
            raise Refused(f"round: got number {number}; want {self._number + 1}")
        letters, public = {}, {}
        for name, content in packet.items():
            if name.startswith(_FROM) and isinstance(content, bytes):
                sender = name.removeprefix(_FROM)
                letters[sender] = Letter(sender, self._channels.open(sender, f"{ROUND} {self._number}", content))
            elif name.startswith(_PUBLIC) and isinstance(content, np.ndarray):
                public[name.removeprefix(_PUBLIC)] = content
            elif name != _NUMBER:
                raise Refused("round: got an entry of unknown kind; want letters and public arrays")
        self._number = number
        out = Out()
        try:
            if self._program is None:
                self._program = self._start()
                out = next(self._program)
            elif not self._ended:
                out = self._program.send(Mail(letters, public))
        except StopIteration:
            self._ended = True  # others may go on: nothing more is said
        reply: dict[str, Any] = {f"{_PUBLIC}{name}": array for name, array in out.public.items()}
        for to, arrays in out.mail.items():
            content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
            reply[f"{_TO}{to}"] = self._channels.seal(to, f"{ROUND} {number}", content)
        return reply


Said = Mapping[str, Arrays]
"""What parties have said to the coordinator in a round, by party."""


class Relay:
    """The coordinator's half: carries mail and public words, one round at a time."""

    def __init__(self, agreement: Agreement) -> None:
        self._parties, self._number = agreement.parties, 0
        self._mail: dict[str, dict[str, bytes]] = {name: {} for name in agreement.parties}

    def round(self, public: Arrays | None = None) -> Generator[Stage, Replies, Said]:
        """One round with all parties. public: told to all. Raises EngineError where one does not answer."""
        self._number += 1
        words: dict[str, Any] = {f"{_PUBLIC}{name}": array for name, array in (public or {}).items()}
        words[_NUMBER] = self._number.to_bytes(4, "big")
        replies = yield Stage(ROUND, {name: {**words, **self._mail[name]} for name in self._parties})
        if gone := sorted(set(self._parties) - set(replies)):
            raise EngineError(f"{ROUND} {self._number}: no answer from {', '.join(gone)}; want every party")
        self._mail = {name: {} for name in self._parties}
        said: dict[str, dict[str, NDArray[Any]]] = {}
        for name in self._parties:
            said[name] = {}
            for item, content in replies[name].items():
                if item.startswith(_TO) and isinstance(content, bytes) and item.removeprefix(_TO) in self._mail:
                    self._mail[item.removeprefix(_TO)][f"{_FROM}{name}"] = content
                elif item.startswith(_PUBLIC) and isinstance(content, np.ndarray):
                    said[name][item.removeprefix(_PUBLIC)] = content
                else:
                    raise EngineError(f"{ROUND} {self._number}: {name}: got an entry of unknown kind")
        return said
