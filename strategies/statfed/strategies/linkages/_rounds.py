"""Rounds of sealed mail: how the parties of a linkage work side by side, each along one straight line.

A party's program is a generator: `mail = yield Out(...)` hands over what it has for others and, a round later, gets
what the others had for it. All parties are in every round, in step, so that the coordinator relays the same way
whatever is worked out, and learns from the mail its sender, receiver and length alone. What is said to the coordinator
itself stands beside it in `public`; what the coordinator says to all is in `Mail.public`. The program of a party
follows from the agreement: the coordinator cannot have it do other things, only end it.

Letters travel in pieces of at most `PIECE` bytes, each sealed on its own, numbered by its channel, and with the length
of the whole letter at the head of the first one. While any party has more to send, the coordinator adds rounds that
bring on the next pieces and nothing else; programs go on when all letters are whole. So no message is larger than a
piece for each of the other parties, and what a letter is made of can be made while it is sent (`Later`).
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import EngineError, Malformed, Refused
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Packet, Replies, Stage, text
from statfed.strategies.linkages._channels import MEET, OFFER, TAG, Channels

ROUND = "round"
PIECE = 1 << 24
"""Bytes of a letter in one message."""
MOST = 1 << 31
"""Bytes of a letter."""
_NUMBER, _TO, _FROM, _PUBLIC = "number", "to:", "from:", "public:"
_ON, _LEFT = "on", "left"
"""Of the coordinator: letters go on, programs do not. Of a party: how many more rounds its letters take."""
_HEAD = 8
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Later:
    """Arrays of a letter that are made when it is their turn to be sent. nbytes: of all of them."""

    nbytes: int
    arrays: Iterator[NDArray[Any]] = field(repr=False)


@dataclass(frozen=True)
class Out:
    """What a party has at the end of a round: arrays by receiver, and those for the coordinator by name.

    Lists of arrays are emptied as they leave, so that memory is given back then.
    """

    mail: Mapping[str, Sequence[NDArray[Any] | Later]] = field(default_factory=dict, repr=False)
    public: Arrays = field(default_factory=dict)


class Letter:
    """What one party has sent, read in the order it was written. Raises Refused where it has another length."""

    def __init__(self, sender: str, content: bytes | NDArray[np.uint8]) -> None:
        self._sender, self._content, self._at = sender, np.frombuffer(content, np.uint8), 0

    def __repr__(self) -> str:
        return f"Letter(from {self._sender}, <private>)"

    def take(self, shape: tuple[int, ...], dtype: str = "<u8") -> NDArray[Any]:
        """The next array, of this shape: where it stands in the letter."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size > self.left:
            raise Refused(f"mail of {self._sender}: got {len(self._content)} bytes; want {self._at + size} or more")
        found = self._content[self._at : self._at + size].view(dtype).reshape(shape)
        self._at += size
        return found

    @property
    def left(self) -> int:
        """Bytes that are not read yet."""
        return len(self._content) - self._at

    def end(self) -> None:
        if self.left:
            raise Refused(f"mail of {self._sender}: got {self.left} bytes more than wanted")


@dataclass
class _Leaving:
    """A letter on its way out, a piece at a time."""

    parts: list[NDArray[Any] | Later] = field(repr=False)
    begun: bool = False
    _now: memoryview = field(default=memoryview(b""), repr=False)

    def __post_init__(self) -> None:
        self.size = self.left = sum(part.nbytes for part in self.parts)
        self._arrays = self._made()

    def _made(self) -> Iterator[NDArray[Any]]:
        while self.parts:
            part = self.parts.pop(0)
            if isinstance(part, Later):
                yield from part.arrays
            else:
                yield part

    @property
    def rounds(self) -> int:
        """In how many messages the rest of it goes."""
        return -(-self.left // PIECE)

    def piece(self) -> bytes:
        """The next one; the first begins with the length of the whole. Raises ValueError where arrays are fewer than
        was told."""
        found: list[bytes | memoryview] = [] if self.begun else [self.size.to_bytes(_HEAD, "big")]
        want = min(PIECE, self.left)
        self.begun, self.left = True, self.left - want
        while want:
            if not self._now:
                array = next(self._arrays, None)
                if array is None:
                    raise ValueError("letter: got fewer bytes than it was to have")
                self._now = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            part, self._now = self._now[:want], self._now[want:]
            found.append(part)
            want -= len(part)
        return b"".join(found)


class _Coming:
    """A letter on its way in. size: as it was announced; the room for it is taken as pieces come."""

    def __init__(self, sender: str, size: int) -> None:
        self.sender, self.size, self.got = sender, size, 0
        self.content = np.empty(size, np.uint8)  # pages that nothing is written to are nowhere

    def add(self, piece: bytes | memoryview) -> None:
        """Raises Refused on more than was announced, or a piece of another length than all but the last have."""
        end = self.got + len(piece)
        if end > self.size or (end < self.size and len(piece) != PIECE):
            raise Malformed(f"mail of {self.sender}: got {end} bytes of {self.size} announced; want whole pieces")
        self.content[self.got : end] = np.frombuffer(piece, np.uint8)
        self.got = end


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
    """A party that runs one program. most: bytes of a letter that it takes.

    Raises Refused on any stage, number, piece or letter that is not the next one.
    """

    def __init__(
        self, agreement: Agreement, identity: Identity, program: Callable[[], Program], most: int = MOST
    ) -> None:
        self._channels = Channels(agreement, identity)
        self._start, self._most = program, min(most, MOST)
        self._program: Program | None = None
        self._met, self._failed, self._ended, self._number = False, False, False, 0
        self._coming: dict[str, _Coming] = {}
        self._leaving: dict[str, _Leaving] = {}
        self.standing = ("", 0, 1)

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Answer one stage. After a refusal nothing more is answered: half a protocol is none."""
        if self._failed:
            raise Malformed(f"{stage}: got a stage after the end; want a new run")
        try:
            return self._answer(stage, packet)
        except BaseException:
            self._failed, self._program = True, None
            self._coming, self._leaving = {}, {}
            raise

    def _answer(self, stage: str, packet: Packet) -> Packet:
        if stage == OFFER:
            return self._channels.offer()
        if stage == MEET:
            self._met = True
            return self._channels.meet(packet)
        if stage != ROUND or not self._met:
            raise Malformed(f"{stage}: got it out of turn; want {ROUND if self._met else MEET}")
        number = int.from_bytes(text(packet, _NUMBER), "big")
        if number != self._number + 1:
            raise Malformed(f"round: got number {number}; want {self._number + 1}")
        public = {}
        for name, content in packet.items():
            if name.startswith(_FROM) and isinstance(content, bytes):
                self._take(name.removeprefix(_FROM), f"{ROUND} {self._number}", content)
            elif name.startswith(_PUBLIC) and isinstance(content, np.ndarray):
                public[name.removeprefix(_PUBLIC)] = content
            elif name not in (_NUMBER, _ON):
                raise Malformed("round: got an entry of unknown kind; want letters and public arrays")
        self._number = number
        if _ON in packet:
            if public:
                raise Malformed("round: got words to all in one that only brings letters on; want none")
            return self._sent({})
        return self._sent(self._told(public))

    def _take(self, sender: str, purpose: str, content: bytes) -> None:
        """One piece of a letter: of the right length before it is opened."""
        letter = self._coming.get(sender)
        if len(content) > PIECE + _HEAD + TAG or (letter is None and len(content) < _HEAD + TAG):
            raise Malformed(
                f"mail of {sender}: got a piece of {len(content)} bytes; want at most {PIECE + _HEAD + TAG}"
            )
        piece = memoryview(self._channels.open(sender, purpose, content))
        if letter is None:
            size, piece = int.from_bytes(piece[:_HEAD], "big"), piece[_HEAD:]
            if size > self._most:
                raise Malformed(f"mail of {sender}: got one of {size} bytes announced; want at most {self._most}")
            letter = self._coming[sender] = _Coming(sender, size)
        letter.add(piece)

    def _told(self, public: Arrays) -> Arrays:
        """The program goes on, with letters that are whole; what it says to the coordinator."""
        if self._leaving:
            raise Refused("round: got the next one before the letters of this one have left; want those taken first")
        letters = self._whole()
        out = Out()
        try:
            if self._program is None:
                self._program = self._start()
                out = next(self._program)
            elif not self._ended:
                out = self._program.send(Mail(letters, public))
        except StopIteration:
            self._ended = True  # others may go on: nothing more is said
        self._leaving = {
            to: _Leaving(arrays if isinstance(arrays, list) else list(arrays)) for to, arrays in out.mail.items()
        }
        for to, letter in self._leaving.items():
            if letter.size > MOST:
                raise Refused(f"mail to {to}: got {letter.size} bytes; want at most {MOST}: fewer columns, or units")
        return out.public

    def _whole(self) -> dict[str, Letter]:
        """The letters of this round, which are nowhere else from here on: they take room until they are read."""
        coming, self._coming = self._coming, {}
        for letter in coming.values():
            if letter.got != letter.size:
                raise Malformed(f"mail of {letter.sender}: got {letter.got} bytes; want the {letter.size} announced")
        return {name: Letter(name, letter.content) for name, letter in coming.items()}

    def _sent(self, public: Arrays) -> Packet:
        """The next piece of each letter."""
        reply: dict[str, Any] = {f"{_PUBLIC}{name}": array for name, array in public.items()}
        for to, letter in self._leaving.items():
            reply[f"{_TO}{to}"] = self._channels.seal(to, f"{ROUND} {self._number}", letter.piece())
        size = sum(letter.size for letter in self._leaving.values())
        left = sum(letter.left for letter in self._leaving.values())
        self.standing = f"letters of round {self._number}, bytes", size - left, size
        self._leaving = {to: letter for to, letter in self._leaving.items() if letter.left}
        if self._leaving:
            reply[_LEFT] = max(letter.rounds for letter in self._leaving.values()).to_bytes(4, "big")
        return reply


Said = Mapping[str, Arrays]
"""What parties have said to the coordinator in a round, by party."""


class Relay:
    """The coordinator's half: carries mail and public words, one round at a time."""

    def __init__(self, agreement: Agreement) -> None:
        self._parties, self._number = agreement.parties, 0
        self._mail: dict[str, dict[str, bytes]] = {name: {} for name in agreement.parties}

    def round(self, public: Arrays | None = None, doing: str = "") -> Generator[Stage, Replies, Said]:
        """One round with all parties, and as many more as their letters take. public: told to all; doing: what the
        round is for, in words. Raises EngineError where a party does not answer, or has other mail than it says.
        """
        said, left = yield from self._once(public or {}, on=False, doing=doing, done=0, total=1)
        done = 1
        while left:
            _, next_left = yield from self._once({}, on=True, doing=doing, done=done, total=done + left)
            if next_left >= left:
                raise EngineError(f"{ROUND} {self._number}: got mail that does not come to an end")
            left, done = next_left, done + 1
        return said

    def _once(
        self, public: Arrays, *, on: bool, doing: str, done: int, total: int
    ) -> Generator[Stage, Replies, tuple[Said, int]]:
        self._number += 1
        words: dict[str, Any] = {f"{_PUBLIC}{name}": array for name, array in public.items()}
        words[_NUMBER] = self._number.to_bytes(4, "big")
        if on:
            words[_ON] = b"1"
        mail, self._mail = self._mail, {name: {} for name in self._parties}
        stage = Stage(ROUND, {name: {**words, **mail[name]} for name in self._parties}, standing=(doing, done, total))
        del mail
        replies = yield stage
        del stage
        if gone := sorted(set(self._parties) - set(replies)):
            raise EngineError(f"{ROUND} {self._number}: no answer from {', '.join(gone)}; want every party")
        said: dict[str, dict[str, NDArray[Any]]] = {}
        left = 0
        for name in self._parties:
            said[name] = {}
            for item, content in replies[name].items():
                if item.startswith(_TO) and isinstance(content, bytes) and item.removeprefix(_TO) in self._mail:
                    self._mail[item.removeprefix(_TO)][f"{_FROM}{name}"] = content
                elif item.startswith(_PUBLIC) and isinstance(content, np.ndarray) and not on:
                    said[name][item.removeprefix(_PUBLIC)] = content
                elif item == _LEFT and isinstance(content, bytes) and len(content) == 4:
                    left = max(left, int.from_bytes(content, "big"))
                else:
                    raise EngineError(f"{ROUND} {self._number}: {name}: got an entry of unknown kind")
        if left > MOST // PIECE:
            raise EngineError(
                f"{ROUND} {self._number}: got {left} more messages of letters; want at most {MOST // PIECE}"
            )
        return said, left
