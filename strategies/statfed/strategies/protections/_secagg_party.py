"""A holder's half of secure aggregation that survives dropout: Bonawitz et al. 2017, figure 4, with signed keys and
consistency check, for several sums a setup.

Nothing is shared between sums: a setup deals, in one batch, an independent mask key pair and self-mask seed for each of
its sums, and their shares. So every sum is an instance of its own of the protocol that the papers prove, and its
secrets are forgotten after it.

    commit -> keys -> share -> upload -> roster -> unmask
    (ring only)                ^______________________|     a new setup forgets the one before

A party moves forward only. It starts each setup, and each sum of a setup, at most once, in rising order; signs one list
of survivors a sum; and reveals, on enough signatures of that very list, one share of one secret about each neighbour.
Each survivor on the list has signed with its upload which request and members its masks are for, so that honest
survivors of one list have masked alike.

Why it holds, against a coordinator that may say anything to anyone, with c holders, n holders in the run and m the
fewest of a sum. (1) Two lists with m signatures each have 2m - n > c signers in common, one of them honest, and it
signed one list: at most one list a sum can be unmasked. (2) So all honest keepers of an honest party's secrets reveal
shares of the same one; of the other c colluders' shares are fewer than the threshold and say nothing. (3) An honest
party outside the list keeps its self mask, and a late upload of it says nothing. (4) Honest survivors are joined by
pair masks that stay unknown, in a connected graph (`_secagg_graph`), under the same keys and request: of their uploads
only the sum is told (Bonawitz et al. 2017, lemma 6.1 and theorem 6.5; Bell et al. 2020, section 4).
"""

import os
from collections.abc import Callable, Mapping

import numpy as np

from statfed.core.errors import EngineError, Refused
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.method import Arrays
from statfed.core.protection import Agreement, Packet, request_of
from statfed.strategies.protections._secagg_graph import SETUPS, Graph, Shape
from statfed.strategies.protections._secagg_messages import (
    Binding,
    Bundle,
    Commitment,
    Roster,
    Setup,
    Share,
    Signed,
    Unmask,
    Upload,
    Uploaded,
    array_in,
    body,
    check_bundles,
    named,
    session_of,
    sign_bundle,
    told,
)
from statfed.strategies.protections._secagg_secrets import Secrets, revealed, sealed_size
from statfed.strategies.protections._secagg_words import encoded, mask

SAY = "secure-aggregation"


class DropoutParty:
    """A holder. sums: how many a setup provides for; random: that many random bytes, for test vectors."""

    def __init__(
        self,
        agreement: Agreement,
        identity: Identity,
        shape: Shape,
        sums: int,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._holders, self._identity, self._shape, self._sums = agreement.holders, identity, shape, sums
        self._random, self._binding, self._name = random, Binding(agreement), identity.name
        self._forget(0)

    def _forget(self, setup: int) -> None:
        """The state at the beginning of a setup."""
        self._setup, self._at, self._number = setup, "", 0
        self._nonce, self._among = b"", ""
        self._commitments: Mapping[str, Commitment] = {}
        self._own: Bundle | None = None
        self._bundles: Mapping[str, Bundle] = {}
        self._graph = Graph((), self._shape.minimum, self._shape.minimum)
        self._secrets: Secrets | None = None
        self._session = self._request = ""
        self._members: tuple[str, ...] = ()
        self._survivors: tuple[str, ...] = ()

    def answer(self, stage: str, packet: Packet) -> Packet:
        """All stages but the upload."""
        stages: dict[str, Callable[[Packet], Packet]] = {
            "commit": self._commit,
            "keys": self._keys,
            "share": self._share,
            "roster": self._sign,
            "unmask": self._reveal,
        }
        if stage not in stages:
            raise Refused(f"{SAY}: got stage {stage}; want {', '.join(stages)} or upload")
        return stages[stage](packet)

    def _begin(self, setup: int, stage: str) -> None:
        if setup <= self._setup or (self._shape.rings and setup > SETUPS):
            raise Refused(f"{SAY}, {stage}: got setup {setup}; want one after {self._setup}")
        self._forget(setup)
        self._at = stage

    def _advance(self, setup: int, number: int, stage: str, *after: str) -> None:
        """To the next stage, before anything is done in it: nothing can be asked for twice.

        Raises Refused on a stage at the wrong time; EngineError, which counts as dropping out, after a restart.
        """
        if self._setup == 0:
            raise EngineError(f"{SAY}, {stage}: this party has no keys; it was started after the setup")
        if (setup, number) != (self._setup, self._number) or self._at not in after:
            raise Refused(
                f"{SAY}, {stage}: got setup {setup}, sum {number} at the wrong time; this party is at setup "
                f"{self._setup}, sum {self._number}, after {self._at}"
            )
        self._at = stage

    def _held(self) -> Secrets:
        if self._secrets is None:
            raise Refused(f"{SAY}: this party has no keys; want a setup first")
        return self._secrets

    def _commit(self, packet: Packet) -> Packet:
        setup = told(packet, Setup)
        if not self._shape.rings:
            raise Refused(f"{SAY}: got stage commit; want keys: there is no ring to draw")
        self._begin(setup.setup, "commit")
        self._nonce = self._random(32)
        digest = self._nonce_digest(self._name, self._nonce.hex())
        signature = self._identity.sign(self._binding("commitment", self._setup, self._name, digest))
        return body(Commitment(digest=digest, signature=signature.hex()))

    def _nonce_digest(self, name: str, nonce: str) -> str:
        return self._binding.digest("nonce", self._setup, name, nonce)

    def _keys(self, packet: Packet) -> Packet:
        setup = told(packet, Setup)
        if self._shape.rings:
            self._advance(setup.setup, 0, "keys", "commit")
            self._committed(setup.commitments)
        else:
            self._begin(setup.setup, "keys")
        self._secrets = Secrets(self._binding, self._setup, self._name, self._sums, self._random)
        keys = self._secrets.bundle() | {"nonce": self._nonce.hex()}
        self._own = sign_bundle(self._identity, self._binding, self._setup, self._among, keys)
        return body(self._own)

    def _committed(self, commitments: Mapping[str, Commitment]) -> None:
        """Look at everybody's commitment before showing one's own nonce."""
        self._are_holders(commitments)
        own = commitments.get(self._name)
        if own is None or own.digest != self._nonce_digest(self._name, self._nonce.hex()):
            raise Refused(f"{SAY}, keys: got commitments without this party's own; want it among them")
        for name, one in sorted(commitments.items()):
            message = self._binding("commitment", self._setup, name, one.digest)
            self._identity.verify(name, message, bytes.fromhex(one.signature))
        self._commitments = commitments
        self._among = among(self._binding, self._setup, commitments)

    def _are_holders(self, names: Mapping[str, object]) -> None:
        if not set(names) <= set(self._holders) or len(names) < self._shape.minimum:
            raise Refused(f"{SAY}: got {named(sorted(names))}; want at least {self._shape.minimum} holders of this run")

    def _share(self, packet: Packet) -> Packet:
        share = told(packet, Share)
        self._advance(share.setup, 0, "share", "keys")
        bundles = share.bundles
        self._are_holders(bundles)
        check_bundles(self._identity, self._binding, self._setup, self._among, bundles, self._own)
        for name, bundle in bundles.items():
            if len(bundle.masks) != self._sums or len(bundle.seeds) != self._sums:
                raise Refused(f"{SAY}, share: {name}: got keys for another number of sums; want {self._sums}")
        if self._shape.rings:
            self._opened(bundles)
        self._bundles = bundles
        self._graph = self._shape.draw(sorted(bundles), ring_seed(self._binding, self._setup, bundles))
        self._session = session_of(self._binding, self._setup, bundles)
        return {"shares": self._held().deal(self._graph, bundles, self._session)}

    def _opened(self, bundles: Mapping[str, Bundle]) -> None:
        """Whoever committed has to show its nonce, so that nobody can choose among rings."""
        shown = {name: self._nonce_digest(name, bundle.nonce) for name, bundle in bundles.items()}
        if shown != {name: one.digest for name, one in self._commitments.items()}:
            raise Refused(f"{SAY}, share: got nonces that are not those committed to; want every one of them")

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        """Stage `upload`: the contribution under a self mask and one mask for each neighbour."""
        upload = told(packet, Upload)
        if self._setup and not self._number < upload.number <= self._sums:
            raise Refused(f"{SAY}, upload: got sum {upload.number}; want {self._number + 1} to {self._sums}")
        after = ("upload", "roster", "unmask") if self._members else ("share",)
        self._advance(upload.setup, self._number, "upload", *after)
        self._number = upload.number
        self._meet(upload, packet)
        self._request = request_of(layout, packet)
        neighbours = [name for name in self._graph.neighbours(self._name) if name in self._members]
        keys = self._held().masks(self._number, neighbours, self._bundles, self._session, self._request)
        words = encoded(layout, arrays)
        mask(words, keys)
        signature = self._identity.sign(self._uploaded(self._name))
        return body(Uploaded(request=self._request, signature=signature.hex()), words=words)

    def _meet(self, upload: Upload, packet: Packet) -> None:
        """Fix the members of a setup and take in the shares that neighbours among them have for this party."""
        members = upload.members
        if self._members:
            if members not in (None, self._members):
                raise Refused(f"{SAY}, upload: got other members than before; want the same all setup long")
            return
        if members is None or self._name not in members or list(members) != sorted(members):
            raise Refused(f"{SAY}, upload: members: want sorted names, this party among them")
        obstacle = self._graph.obstacle(members)
        if obstacle:
            raise Refused(f"{SAY}, upload: members: {obstacle}")
        senders = [name for name in self._graph.neighbours(self._name) if name in members]
        inbox = array_in(packet, "inbox", (len(senders), sealed_size(self._sums)), np.dtype(np.uint8))
        if inbox is None:
            raise Refused(f"{SAY}, upload: got no shares of {named(senders)}; want those of every neighbour")
        self._held().take(senders, inbox, self._bundles, self._session)
        self._members = members
        self._session = members_session(self._binding, self._setup, self._session, members)

    def _uploaded(self, name: str) -> bytes:
        return self._binding("upload", self._setup, self._number, self._session, self._request, name)

    def _sign(self, packet: Packet) -> Packet:
        roster = told(packet, Roster)
        self._advance(roster.setup, roster.number, "roster", "upload")
        self._masked_alike(roster.survivors)
        self._survivors = tuple(sorted(roster.survivors))
        return body(Signed(signature=self._identity.sign(self._roster()).hex()))

    def _masked_alike(self, survivors: Mapping[str, str]) -> None:
        """Whether a sum over `survivors` may be formed: each says that its masks are for these members and request."""
        if self._name not in survivors or not set(survivors) <= set(self._members):
            raise Refused(f"{SAY}, roster: want names of members, this party among them")
        obstacle = self._graph.obstacle(survivors)
        if obstacle:
            raise Refused(f"{SAY}, roster: survivors: {obstacle}")
        for name, signature in sorted(survivors.items()):
            if not self._verified(name, self._uploaded(name), signature):
                raise Refused(
                    f"{SAY}, roster: {name}: got no signature of an upload for this request and these members; want one"
                )

    def _roster(self) -> bytes:
        return self._binding("roster", self._setup, self._number, self._session, self._request, self._survivors)

    def _reveal(self, packet: Packet) -> Packet:
        unmask = told(packet, Unmask)
        self._advance(unmask.setup, unmask.number, "unmask", "roster")
        shares, message, valid = self._held().give_up(self._number), self._roster(), 0
        for name in self._survivors:
            if valid < self._shape.minimum and name in unmask.signatures:
                valid += self._verified(name, message, unmask.signatures[name])
        if valid < self._shape.minimum:
            raise Refused(
                f"{SAY}, unmask: got {valid} valid signatures of the list that this party signed; "
                f"want {self._shape.minimum}"
            )
        return body(revealed(shares, self._survivors))

    def _verified(self, name: str, message: bytes, signature: str) -> bool:
        try:
            self._identity.verify(name, message, bytes.fromhex(signature))
        except Refused:
            return False
        return True


def among(binding: Binding, setup: int, commitments: Mapping[str, Commitment]) -> str:
    """Digest of the commitments that a bundle goes with."""
    return binding.digest("commitments", setup, {name: one.digest for name, one in commitments.items()})


def ring_seed(binding: Binding, setup: int, bundles: Mapping[str, Bundle]) -> bytes:
    """What the ring is ordered by: it depends on every member's nonce."""
    return bytes.fromhex(binding.digest("ring", setup, {name: one.nonce for name, one in bundles.items()}))


def members_session(binding: Binding, setup: int, session: str, members: tuple[str, ...]) -> str:
    """What stands for a setup's keys and for who dealt shares."""
    return binding.digest("members", setup, session, members)
