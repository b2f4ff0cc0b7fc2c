"""The group: published test vectors, and points that are none."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from statfed.core.errors import Refused, UsageError
from statfed.strategies.linkages import _ristretto as group

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "ristretto255.json").read_text())
CONTEXT = bytes(32)


def points(*encodings: str) -> group.Points:
    return group.points_of(bytes.fromhex("".join(encodings)))


def scalar(number: int) -> bytes:
    return number.to_bytes(32, "little")


def test_multiples_of_the_generator_are_those_of_rfc_9496() -> None:
    lib, multiples = group.library(), VECTORS["multiples"]
    generator = points(multiples[1])
    for number in range(1, len(multiples)):
        assert lib.crypto_scalarmult_ristretto255_base(scalar(number)).hex() == multiples[number]
        assert group.multiplied(scalar(number), generator, "peer").tobytes().hex() == multiples[number]
        before = bytes.fromhex(multiples[number - 1])
        assert lib.crypto_core_ristretto255_add(before, generator.tobytes()).hex() == multiples[number]


def test_digests_become_the_points_of_rfc_9496() -> None:
    for label, encoding in VECTORS["hashed"].items():
        digest = hashlib.sha512(label.encode()).digest()
        assert group.library().crypto_core_ristretto255_from_hash(digest).hex() == encoding


@pytest.mark.parametrize("number", range(len(VECTORS["invalid"])))
def test_an_invalid_encoding_of_rfc_9496_is_refused(number: int) -> None:
    good, bad = VECTORS["multiples"][3], VECTORS["invalid"][number]
    with pytest.raises(Refused, match="got one from bank that is not canonical"):
        group.multiplied(scalar(5), points(good, bad, good), "bank")
    with pytest.raises(Refused, match="got one from bank that is not canonical"):
        group.checked(points(good, bad, good), "bank")


def test_the_identity_is_refused() -> None:
    identity = points(VECTORS["multiples"][0])
    with pytest.raises(Refused, match="or the identity"):
        group.multiplied(scalar(5), identity, "bank")
    with pytest.raises(Refused, match="or the identity"):
        group.checked(identity, "bank")


def test_a_point_with_its_topmost_bit_set_is_not_canonical() -> None:
    """It would be a second encoding of one point: libsodium ignores the bit."""
    twice = points(VECTORS["multiples"][3], VECTORS["multiples"][3]).copy()
    twice[1, 31] |= 0x80
    with pytest.raises(Refused, match="got one from bank that is not canonical"):
        group.multiplied(scalar(5), twice, "bank")
    with pytest.raises(Refused, match="got one from bank that is not canonical"):
        group.checked(twice, "bank")


def test_keys_of_another_context_length_or_division_are_other_points() -> None:
    found = [group.hashed(context, [key]) for context in (CONTEXT, b"x" * 32) for key in ("ab", "a", "", "ab\0", "éà")]
    assert len({one.tobytes() for one in found}) == len(found)


def test_a_key_is_hashed_with_its_length_under_its_context() -> None:
    message = CONTEXT + len("é".encode()).to_bytes(8, "big") + "é".encode()
    digest = hashlib.sha512(message).digest()
    assert group.hashed(CONTEXT, ["é"]).tobytes() == group.library().crypto_core_ristretto255_from_hash(digest)


def test_a_missing_key_is_a_fresh_point_each_time() -> None:
    found = group.hashed(CONTEXT, [None, None, "a", "a"])
    assert len({row.tobytes() for row in found}) == 3


def test_many_points_are_those_of_one_at_a_time_in_their_order() -> None:
    keys = [f"k{i}" for i in range(1500)]
    whole = group.hashed(CONTEXT, keys)
    assert (whole == np.concatenate([group.hashed(CONTEXT, [key]) for key in keys])).all()
    secret = group.fresh_scalar()
    assert (group.multiplied(secret, whole, "x")[700:703] == group.multiplied(secret, whole[700:703], "x")).all()


def test_points_are_found_by_all_of_their_bytes() -> None:
    known = np.zeros((4, 32), np.uint8)
    known[1:, 31], known[2, 0], known[3, 7] = 1, 1, 1
    group.sort(known)
    ordered = [row.tobytes() for row in known]
    assert ordered == sorted(ordered)
    assert group.ascending(known)
    sought = np.concatenate([known[::-1], known[:1] + np.uint8(9)])
    assert group.found(sought, known).tolist() == [3, 2, 1, 0, -1]
    assert group.found(sought, known[:0]).tolist() == [-1] * 5
    assert not group.ascending(known[[0, 1, 1, 2]])
    assert not group.ascending(known[[1, 0]])


def test_without_the_library_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rbcl", None)
    with pytest.raises(UsageError, match=r"pip install 'statfed\[link\]'"):
        group.library()
