"""`homomorphic-encryption`: holders encrypt, the coordinator adds ciphertexts, a key holder decrypts the sum alone.

The key holder is a party of its own. It makes the keys and does not collude with the coordinator. BFV (Brakerski 2012,
Fan and Vercauteren 2012) on fixed point, so that totals are exact; `_he_planes` has parameters and noise, `_he_codec`
the encoding, `_he_keys` the keys.

    keys        key holder: public contexts and an X25519 key, signed;  holders: X25519 keys, signed
    join        holders get the key holder's, and the key holder theirs; each verifies by its own pins
    contribute  holder i: Enc(x_i + p_i + b_i) and the seed of b_i
    open        the coordinator sends the sum over S and S itself; the key holder answers Dec(sum) - sum of p_i over S

x_i is followed by CHECKS random linear combinations of its entries, whose coefficients follow from a seed that the
coordinator draws and sends the holders with `contribute`.

Everything is modulo each prime of the layout. The pad p_i is known to holder i and the key holder, the blinding b_i to
holder i and the coordinator, which subtracts it from the answer. Both are new and uniform in every round.

**Against the coordinator, also one that deviates at will.** BFV alone does not do: a ciphertext can be left out, scaled
or stripped of slots and the remainder opened, and crafted ciphertexts make a decryption oracle tell the secret key
(Chenal and Tang 2014). So give the coordinator the secret key from the start. Of holder i in round r it then sees
x_i + p_i, which is uniform, and from the key holder f(r) minus the sum of p_i over S, where f(r) is a number that it
could compute itself. The key holder answers a round once, for one S of at least `minimum_holders` holders, so all of it
follows from uniform numbers and the sum of x_i over S: whatever it does, it learns that one sum a round, and with
colluding holders what that sum and their own contributions tell. That pads are as good as uniform rests on X25519, HKDF
and AES-CTR, and that they are the right ones on Ed25519. Two rounds about the same records over different S would
differ by one holder's contribution: a statistic wants every holder unless the study says otherwise.

**Against the key holder.** Every plaintext that it could decrypt, from the sum or from a holder's ciphertext, has a
uniform b_i in it that it does not know, and the noise in the sum's ciphertext, which depends on the plaintexts, is a
function of those masked plaintexts and of fresh randomness. It learns sizes, rounds and who contributed. *A total that
it changes is found out*: what it decrypts is uniform whatever the checks' coefficients are, so what it adds to the
answer does not depend on them, and the coordinator's checks hold with a chance of 1 in 2^63 unless it adds nothing or
knows the seed from a holder. *The checks tell the coordinator nothing*: pads are bound to the seed, so that only checks
with the same coefficients at all holders come out of them, and those follow from the sum. Under ckks there are no
checks: the key holder is trusted for the result.

**Together** the two learn everything. Under that same assumption the masks alone give the same privacy: the key holder
need only send the sum of the pads over S, and no ciphertext is needed (secret sharing with two servers), at about a
seventieth of the processor time. What encryption adds is a second lock: contributions stay hidden from a coordinator
that learns the pads, as long as it asks for true sums only.

`ckks` gives approximate sums. Its plaintexts are not modular, so pads would not hide: an active coordinator can have a
single contribution opened, and the key holder sees the totals. It holds against an honest-but-curious coordinator,
since the key holder returns rounded totals only (see `_he_planes`).

`last_layer` is the partial encryption of the UNECE input privacy pilot: the trailing entries of a model update are
encrypted and the rest travels in clear. From the clear layers training records can be reconstructed (Zhu et al. 2019).
"""

import json
import secrets
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.card import read_card, read_trust
from statfed.core.errors import EngineError, UsageError
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.method import is_training
from statfed.core.protection import (
    Aggregate,
    Agreement,
    Disclosure,
    Packet,
    Replies,
    Requirements,
    Rounds,
    Stage,
    minimum_holders,
    one_request,
    text,
    whole_numbers,
)
from statfed.core.randomness import Stream
from statfed.core.terms import Terms
from statfed.strategies.protections._he_codec import CHECKS, Residues, resolution
from statfed.strategies.protections._he_keys import digest
from statfed.strategies.protections._he_options import Options, codec_of, planes_of, run_options, sealed_entries
from statfed.strategies.protections._he_parties import Holder, KeyHolder
from statfed.strategies.protections._he_planes import Malformed
from statfed.strategies.protections._words import NETWORK, to_all, with_holders, words_of

__all__ = ["CARD", "REQUIRES", "TITLE", "TRUST", "Options", "coordinator", "learns", "party", "third_parties"]

TITLE = "Homomorphic encryption: the coordinator adds ciphertexts, a key holder opens the sum alone"
TRUST = read_trust(__file__)
CARD = read_card(__file__)
REQUIRES = Requirements(
    minimum_holders=3,
    fixed_point=True,
    survives_dropout=True,
    identities=True,
    extra="he",
    third_parties="a key holder that does not collude with the coordinator",
    cost="1000",
)


def third_parties(options: Options) -> tuple[str, ...]:
    """The key holder."""
    return (options.key_holder,)


def party(agreement: Agreement, identity: Identity) -> Holder | KeyHolder:
    """A holder's half or the key holder's. Raises UsageError where the run cannot be."""
    options = run_options(agreement)
    kind = KeyHolder if identity.name == options.key_holder else Holder
    return kind(agreement, identity, options)


@dataclass
class _Coordinator:
    """The coordinator's half. ready: by number of planes, its contexts and the holders that have joined."""

    agreement: Agreement
    options: Options
    number: int = 0
    ready: dict[int, tuple[tuple[Any, ...], tuple[str, ...]]] = field(default_factory=dict)

    def total(self, layout: Layout) -> Rounds:
        """The sum over those who contributed, exact under bfv.

        Raises EngineError naming who is missing when too few are left, or whose packet does not fit; UsageError when
        the options do not suit the sum, before anything is asked.
        """
        encrypted = sealed_entries(self.options, layout)
        codec, sealed = codec_of(self.options, layout, encrypted), int(encrypted.sum())
        count = len(codec.planes)
        if count not in self.ready:
            yield from self._setup(count)
        contexts, members = self.ready[count]
        self.number += 1
        common = {"planes": str(count).encode(), "round": str(self.number).encode()}
        exact, check = isinstance(codec, Residues), secrets.token_bytes(16)
        width = sealed + CHECKS if exact else sealed
        asking = common | ({"check": check} if exact else {})
        replies = yield Stage("contribute", dict.fromkeys(members, asking), carries=True)
        names = self._enough("contribute", replies)
        blobs: dict[str, bytes | NDArray[Any]] = {}
        for i, (plane, context) in enumerate(zip(codec.planes, contexts, strict=True)):
            each = [(name, _text(replies[name], f"ciphertext:{i}", name)) for name in names]
            try:
                blobs[f"ciphertext:{i}"] = plane.add(context, each, width)
            except Malformed as error:
                raise EngineError(f"contribute: {error}") from None
        request = common | blobs | {"holders": json.dumps(names).encode(), "entries": str(width).encode()}
        asked = one_request("contribute", {name: _text(replies[name], "request", name) for name in names})
        request["layout"] = digest(layout, asked, check if exact else b"")
        opened = yield Stage("open", {self.options.key_holder: request})
        hidden = self._answer(opened, (count, width))
        if isinstance(codec, Residues):
            blinds = (codec.masks(_stream(_text(replies[name], "seed", name), name), width) for name in names)
            bare = _less(codec, hidden.astype(np.uint64), blinds)
            if not np.array_equal(bare[:, sealed:], codec.checks(bare[:, :sealed], check)):
                raise EngineError(
                    f"open: {self.options.key_holder}: the sum does not pass its checks: the key holder, or a holder's "
                    "ciphertext, is not what the protocol wants. No total was formed"
                )
            total = codec.join(bare[:, :sealed])
        else:
            total = codec.join(hidden)
        if self.options.last_layer:
            whole = np.empty(layout.entries, np.int64)
            whole[encrypted], whole[~encrypted] = total, self._clear(replies, names, layout.entries - sealed)
            total = whole
        off = {} if exact else resolution(layout, len(names))
        return Aggregate(layout.decode(total), tuple(names), resolution=off)

    def _setup(self, count: int) -> Generator[Stage, Replies, None]:
        """Exchange keys for sums of `count` planes."""
        key_holder, planes_wanted = self.options.key_holder, {"planes": str(count).encode()}
        replies = yield Stage("keys", dict.fromkeys(self.agreement.parties, planes_wanted))
        answer, planes = self._of_key_holder(replies, "keys"), planes_of(self.options, count)
        names = self._enough("keys", replies)
        items = "exchange", "signature", *(f"context:{i}" for i in range(count))
        offer = {item: _text(answer, item, key_holder) for item in items}
        contexts = []
        for i, plane in enumerate(planes):
            try:
                contexts.append(plane.open(offer[f"context:{i}"]))
            except Malformed as error:
                raise EngineError(f"keys: {key_holder}: {error}") from None
        offers = {
            f"{item}:{name}": _text(replies[name], item, name) for name in names for item in ("exchange", "signature")
        }
        packets: dict[str, Packet] = {name: {**offer, **planes_wanted} for name in names}
        joined = yield Stage("join", packets | {key_holder: offers | planes_wanted})
        self._of_key_holder(joined, "join")
        self.ready[count] = tuple(contexts), tuple(self._enough("join", joined))

    def _enough(self, stage: str, replies: Replies) -> list[str]:
        """The holders that answered, in order. Raises EngineError when too few did."""
        names = [name for name in self.agreement.holders if name in replies]
        if len(names) < self.agreement.minimum_holders:
            missing = ", ".join(sorted(set(self.agreement.holders) - set(names)))
            raise EngineError(
                f"{stage}: {len(names)} holders left, no answer from {missing}; "
                f"want at least {self.agreement.minimum_holders}"
            )
        return names

    def _of_key_holder(self, replies: Replies, stage: str) -> Packet:
        if self.options.key_holder not in replies:
            raise EngineError(f"{stage}: no answer from {self.options.key_holder}; want the key holder's")
        return replies[self.options.key_holder]

    def _answer(self, replies: Replies, shape: tuple[int, int]) -> NDArray[Any]:
        """What the key holder opened, (planes, entries)."""
        name = self.options.key_holder
        try:
            found = whole_numbers(self._of_key_holder(replies, "open"), "sum")
        except UsageError as error:
            raise EngineError(f"{name}: {error}") from None
        wanted = np.uint32 if self.options.scheme == "bfv" else np.int64
        if found.shape != shape or found.dtype != wanted:
            raise EngineError(
                f"{name}: got a sum of {found.dtype}, shape {found.shape}; want {np.dtype(wanted)}, shape {shape}"
            )
        return found

    def _clear(self, replies: Replies, names: Sequence[str], entries: int) -> NDArray[np.int64]:
        """Sum of the entries that travel in clear."""
        total = np.zeros(entries, np.int64)
        for name in names:
            part = replies[name].get("clear")
            if not isinstance(part, np.ndarray) or part.shape != (entries,) or part.dtype != np.int64:
                raise EngineError(f"contribute: {name}: got no {entries} whole numbers in clear; want them")
            if entries and max(abs(int(part.min())), abs(int(part.max()))) > 2**62 // len(names):
                raise EngineError(f"contribute: {name}: got numbers in clear outside the agreed range; want its share")
            total += part
        return total


def _less(codec: Residues, total: NDArray[np.uint64], blinds: Iterator[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """`total` without the blindings, one at a time: each is as large as a contribution."""
    for blind in blinds:
        total = codec.minus(total, blind)
    return total


def _text(packet: Packet, name: str, who: str) -> bytes:
    try:
        return text(packet, name)
    except UsageError as error:
        raise EngineError(f"{who}: {error}") from None


def _stream(seed: bytes, who: str) -> Stream:
    if len(seed) != 16:
        raise EngineError(f"contribute: {who}: got a seed of {len(seed)} bytes; want 16")
    return Stream(seed)


def coordinator(agreement: Agreement) -> _Coordinator:
    """The coordinator's half. Raises UsageError where the run cannot be."""
    return _Coordinator(agreement, run_options(agreement))


def learns(terms: Terms) -> Sequence[Disclosure]:
    """The coordinator learns one sum a round; the key holder sizes, and under ckks the sums. Marks partial encryption.

    Raises UsageError on partial encryption of a statistic.
    """
    options = Options.model_validate(terms.protection.options)
    if not is_training(terms.method) and options.last_layer:
        raise UsageError("last_layer: got a statistic; want 0: statistics are encrypted whole")
    words, exact = words_of(terms), options.scheme == "bfv"
    follows = "" if exact else ", if the coordinator follows the protocol"
    guard = f"{'encryption and pads' if exact else 'encryption'}, if the key holder does not collude{follows}"
    single = f"nothing of any one holder's {'encrypted entries' if options.last_layer else words.many}"
    rows = [
        Disclosure("coordinator", f"{words.total}, and over which holders", words.seen),
        Disclosure("coordinator", single, guard),
    ]
    if options.last_layer:
        layers = (
            f"partial: each holder's other layers, all but the last {options.last_layer} entries of its {words.one}"
        )
        rows.append(Disclosure("coordinator", layers, words.alone))
    fewest = minimum_holders(terms, REQUIRES)
    if fewest > 1:
        what = f"another holder's {words.one} {words.every}, by subtracting their own"
        alone = words.alone if terms.privacy else "nothing: so many must not collude"
        rows.append(Disclosure(with_holders(fewest - 1, more=True), what, alone))
    if exact:
        blinded = "blinding that holders share with the coordinator alone"
        rows.append(Disclosure("key holder", f"sizes, and who contributed {words.every}; no total", blinded))
    else:
        before = terms.privacy is not None and terms.privacy.noise == "central"
        trust = "trust alone: noise is added after it" if before else words.noise
        rows.append(Disclosure("key holder", f"{words.total}, sizes, and who contributed", trust))
    wrong = "checks that the key holder does not know" if exact else "nothing under ckks: it is trusted for the result"
    rows.append(Disclosure("key holder", "no data, but it could change a total", wrong))
    local = terms.privacy is not None and terms.privacy.noise == "local"
    alone = words.alone if local else "nothing: the two must not collude"
    return [
        *rows,
        Disclosure("coordinator with the key holder", f"every holder's {words.one} {words.every}", alone),
        Disclosure("other holders", words.public, words.noise),
        Disclosure("result party", words.result, words.released),
        *to_all(),
        NETWORK,
    ]
