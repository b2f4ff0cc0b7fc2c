"""Test vectors of secure aggregation: published ones, and whole runs from given random bytes.

`python -m tests.strategies.protections.test_secagg_vectors` writes tests/data/secure_aggregation.json anew; a change to
it is a change of the protocol, and parties of different versions refuse each other.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from statfed.core.errors import Refused
from statfed.core.fixed_point import Layout, Slot
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Packet, Party, Stage, conduct
from statfed.strategies.protections import secure_aggregation
from statfed.strategies.protections._secagg_all import AllParty
from statfed.strategies.protections._secagg_graph import Shape
from statfed.strategies.protections._secagg_messages import derive, public, shared
from statfed.strategies.protections._secagg_party import DropoutParty
from statfed.strategies.protections._secagg_shamir import restore, split
from statfed.strategies.protections._secagg_words import mask
from tests.protocol import agreement

FILE = Path(__file__).parents[2] / "data" / "secure_aggregation.json"
LAYOUT = Layout({"count": Slot((), 1000.0, integer=True), "x": Slot((3,), 8.0)}, 3)
VALUES = {
    "h001": {"count": np.array(7), "x": np.array([1.0, -0.5, 0.25])},
    "h002": {"count": np.array(11), "x": np.array([0.0, 2.0, -2.0])},
    "h003": {"count": np.array(-3), "x": np.array([-1.5, 0.125, 0.5])},
    "h004": {"count": np.array(100), "x": np.array([0.5, 0.5, 0.5])},
}


def stream(seed: str) -> Callable[[int], bytes]:
    """Given random bytes: SHA-256 of the seed and a counter, each call anew."""
    calls = iter(range(10**6))

    def random(size: int) -> bytes:
        call = next(calls)
        blocks = (hashlib.sha256(f"{seed}|{call}|{i}".encode()).digest() for i in range(-(-size // 32)))
        return b"".join(blocks)[:size]

    return random


def known(holders: tuple[str, ...]) -> dict[str, Identity]:
    keys = {n: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"identity {n}".encode()).digest()) for n in holders}
    pins = {name: key.public_key().public_bytes_raw().hex() for name, key in keys.items()}
    return {name: Identity(name, key, pins) for name, key in keys.items()}


def written(packet: Packet) -> dict[str, Any]:
    """A packet as JSON: the body as it is, arrays as little-endian hexadecimal with dtype and shape."""
    found: dict[str, Any] = {}
    for name, item in sorted(packet.items()):
        if isinstance(item, bytes):
            found[name] = json.loads(item)
        else:
            found[name] = {"dtype": item.dtype.str, "shape": list(item.shape), "hex": item.tobytes().hex()}
    return found


def played(ours: Agreement, parties: Mapping[str, Party], gone: str = "", sums: int = 2) -> list[dict[str, Any]]:
    """Every packet of a run, both ways. gone: who sends no upload."""
    coordinator, layout = secure_aggregation.coordinator(ours), Layout(LAYOUT.slots, len(ours.holders))
    log: list[dict[str, Any]] = []

    def send(stage: Stage) -> dict[str, Packet]:
        replies = {}
        for name, packet in stage.packets.items():
            if stage.carries and name == gone:
                continue
            if stage.carries:
                own = layout.for_holder(1 / len(ours.holders))
                replies[name] = parties[name].contribute(packet, VALUES[name], own)
            else:
                replies[name] = parties[name].answer(stage.name, packet)
            row = {"stage": stage.name, "party": name, "asked": written(packet), "answered": written(replies[name])}
            log.append(row)
        return replies

    for _ in range(sums):
        total = conduct(coordinator.total(layout), send)
        log.append({"total": {k: v.tolist() for k, v in total.total.items()}, "holders": list(total.holders)})
    return log


def runs() -> dict[str, Any]:
    every = agreement("secure-aggregation", 3, run="vector")
    ids = known(every.holders)
    whole = played(every, {name: AllParty(every, ids[name], stream(name)) for name in every.holders})
    some = agreement("secure-aggregation", 4, minimum=3, run="vector", sums=1)
    ids = known(some.holders)
    shape = Shape(4, 3, 1)
    dropout = played(
        some, {name: DropoutParty(some, ids[name], shape, 1, stream(name)) for name in some.holders}, "h002", 1
    )
    return {
        "every holder": {"context": every.context("secure-aggregation/mask").hex(), "messages": whole},
        "surviving dropout": {"context": some.context("secure-aggregation/mask").hex(), "messages": dropout},
    }


def negatives(found: dict[str, Any]) -> list[dict[str, str]]:
    """Changed packets of the run of every holder, and what the party h001 says to them."""
    first = next(row for row in found["every holder"]["messages"] if row.get("stage") == "upload")
    asked = first["asked"]["body"]

    def changed(change: Callable[[dict[str, Any]], None]) -> str:
        copy = json.loads(json.dumps(asked))
        change(copy)
        return json.dumps(copy, separators=(",", ":"))

    def flip(table: dict[str, Any], key: str) -> None:
        table[key] = ("1" if table[key][0] == "0" else "0") + table[key][1:]

    cases = {
        "signature of another": changed(lambda t: flip(t["bundles"]["h002"], "signature")),
        "key of another": changed(lambda t: flip(t["bundles"]["h003"], "key")),
        "own key replaced": changed(lambda t: flip(t["bundles"]["h001"], "key")),
        "a holder left out": changed(lambda t: t["bundles"].pop("h003") and None),
        "a stranger": changed(lambda t: t["bundles"].update(other=t["bundles"]["h003"])),
        "signatures exchanged": changed(
            lambda t: t["bundles"]["h002"].update(signature=t["bundles"]["h003"]["signature"])
        ),
        "no number": changed(lambda t: t.pop("number") and None),
        "number zero": changed(lambda t: t.update(number=0)),
        "another setup": changed(lambda t: t.update(setup=2)),
        "an unknown field": changed(lambda t: t.update(more=1)),
        "no keys": changed(lambda t: t.pop("bundles") and None),
        "not JSON": "{",
    }
    return [{"case": case, "body": text, "refused": refusal(text)} for case, text in cases.items()]


def refusal(text: str) -> str:
    every = agreement("secure-aggregation", 3, run="vector")
    party = AllParty(every, known(every.holders)["h001"], stream("h001"))
    party.answer("keys", {"body": b'{"setup":1}'})
    try:
        party.contribute({"body": text.encode()}, VALUES["h001"], LAYOUT.for_holder(1 / 3))
    except Refused as error:
        return str(error)
    raise AssertionError("accepted")


def shamir() -> list[dict[str, Any]]:
    rows = []
    for threshold, places in ((1, (1,)), (2, (1, 2, 3)), (4, (2, 3, 5, 7, 11))):
        secret = stream(f"secret {threshold}")(32)
        shares = split(secret, threshold, places, stream(f"shamir {threshold}"))
        rows.append(
            {
                "secret": secret.hex(),
                "threshold": threshold,
                "shares": {str(p): hex(s) for p, s in zip(places, shares, strict=True)},
            }
        )
    return rows


def ring() -> dict[str, Any]:
    graph = Shape(40, 32, 4, 28).draw(agreement("secure-aggregation", 40).holders, bytes(range(32)))
    numbers = {"width": graph.width, "quorum": graph.quorum, "threshold": graph.threshold}
    return {"seed": bytes(range(32)).hex(), "ring": list(graph.ring), **numbers}


def make() -> dict[str, Any]:
    """Everything that this version computes."""
    found = runs()
    return {"published": PUBLISHED, "ring": ring(), "shamir": shamir(), "runs": found, "refused": negatives(found)}


def test_runs_are_what_they_were() -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    made = json.loads(json.dumps(make()))
    assert set(stored) == set(made)
    for part, value in made.items():
        assert stored[part] == value, f"{part}: the protocol has changed"


def test_totals_of_the_stored_runs_are_the_plain_sums() -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    totals = [row for one in stored["runs"].values() for row in one["messages"] if "total" in row]
    assert [row["holders"] for row in totals] == [["h001", "h002", "h003"]] * 2 + [["h001", "h003", "h004"]]
    for row in totals:
        assert row["total"]["count"] == sum(int(VALUES[name]["count"]) for name in row["holders"])
        assert row["total"]["x"] == sum(VALUES[name]["x"] for name in row["holders"]).tolist()  # type: ignore[union-attr]


def test_stored_shares_restore_their_secrets() -> None:
    for row in json.loads(FILE.read_text(encoding="utf-8"))["shamir"]:
        shares = {int(place): int(share, 16) for place, share in row["shares"].items()}
        last = dict(list(shares.items())[-row["threshold"] :])
        assert restore(last).hex() == row["secret"]


def test_stored_refusals_say_different_things() -> None:
    rows = json.loads(FILE.read_text(encoding="utf-8"))["refused"]
    assert len({row["case"] for row in rows}) == len(rows) == 12
    assert all(row["refused"] for row in rows)


# --- published vectors


def test_x25519_is_that_of_rfc_7748_section_6_1() -> None:
    alice = X25519PrivateKey.from_private_bytes(bytes.fromhex(PUBLISHED["alice"]))
    bob = X25519PrivateKey.from_private_bytes(bytes.fromhex(PUBLISHED["bob"]))
    assert public(alice) == PUBLISHED["alice public"]
    assert public(bob) == PUBLISHED["bob public"]
    assert shared(alice, public(bob), "bob").hex() == shared(bob, public(alice), "alice").hex() == PUBLISHED["shared"]


def test_hkdf_is_that_of_rfc_5869_test_case_3() -> None:
    assert derive(b"\x0b" * 22, b"").hex() == PUBLISHED["hkdf"]


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
def test_masks_are_the_keystream_of_the_gcm_specification_test_cases_1_and_2(dtype: str) -> None:
    """Encryptions of the counters 0, 1, 2 under a key of zeros (McGrew and Viega 2005, appendix B)."""
    words = np.zeros(48 // np.dtype(dtype).itemsize, dtype)
    mask(words, [(bytes(16), False)])
    assert words.tobytes().hex() == PUBLISHED["aes"]


PUBLISHED = {
    "alice": "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
    "alice public": "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    "bob": "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    "bob public": "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    "shared": "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    "hkdf": "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
    "aes": "66e94bd4ef8a2c3b884cfa59ca342b2e58e2fccefa7e3061367f1d57a4e7455a0388dace60b6a392f328c2b971b2fe78",
}


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
