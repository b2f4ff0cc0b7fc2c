"""Secret sharing: restores, hides, and refuses what is not a share."""

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.strategies.protections._secagg_shamir import PRIME, corrected, restore, split


def test_the_modulus_is_prime() -> None:
    """Pocklington would be a proof; forty rounds of Miller and Rabin leave 2^-80."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(40):
        witness = 2 + int.from_bytes(os.urandom(40), "big") % (PRIME - 3)
        powers = [pow(witness, odd << i, PRIME) for i in range(twos)]
        assert powers[0] == 1 or PRIME - 1 in powers


@settings(max_examples=40, deadline=None)
@given(secret=st.binary(min_size=32, max_size=32), threshold=st.integers(1, 7), more=st.integers(0, 4), data=st.data())
def test_any_threshold_of_shares_restores_the_secret(
    secret: bytes, threshold: int, more: int, data: st.DataObject
) -> None:
    places = data.draw(
        st.lists(st.integers(1, 10**6), min_size=threshold + more, max_size=threshold + more, unique=True)
    )
    shares = dict(zip(places, split(secret, threshold, places, os.urandom), strict=True))
    chosen = data.draw(st.permutations(places))[:threshold]
    assert restore({place: shares[place] for place in chosen}) == secret
    assert restore(shares) == secret


def test_one_share_less_fits_every_secret() -> None:
    """Whatever 2 of 3 shares are, each secret has exactly one third share that restores it."""
    shares = dict(zip((1, 2, 3), split(os.urandom(32), 3, (1, 2, 3), os.urandom), strict=True))
    for other in (bytes(32), b"\xff" * 32, os.urandom(32)):
        secret = int.from_bytes(other, "big")
        # The polynomial through (0, other), (1, s1), (2, s2), at 3.
        third = (secret - 3 * shares[1] + 3 * shares[2]) % PRIME
        assert restore({1: shares[1], 2: shares[2], 3: third}) == other


def test_shares_below_the_threshold_restore_something_else() -> None:
    secret = os.urandom(32)
    shares = dict(enumerate(split(secret, 4, range(1, 8), os.urandom), 1))
    for chosen in itertools.combinations(shares, 3):
        try:
            found = restore({place: shares[place] for place in chosen})
        except ValueError:
            continue
        assert found != secret


def test_two_sharings_of_a_secret_have_no_share_in_common() -> None:
    first, second = (split(bytes(32), 3, range(1, 6), os.urandom) for _ in range(2))
    assert not set(first) & set(second)


@pytest.mark.parametrize(
    ("secret", "threshold", "places"),
    [
        (bytes(31), 2, (1, 2)),
        (bytes(33), 2, (1, 2)),
        (bytes(32), 3, (1, 2)),
        (bytes(32), 0, (1, 2)),
        (bytes(32), 2, (1, 1)),
        (bytes(32), 2, (0, 1)),  # a share at zero is the secret
        (bytes(32), 2, (1, PRIME)),
    ],
)
def test_a_sharing_that_would_not_hide_or_not_restore_is_refused(
    secret: bytes, threshold: int, places: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="want"):
        split(secret, threshold, places, os.urandom)


@pytest.mark.parametrize("shares", [{}, {1: PRIME}, {1: -1}, {0: 5}])
def test_what_is_not_a_share_is_refused(shares: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="want"):
        restore(shares)


def test_shares_that_do_not_belong_together_are_noticed_where_the_result_is_no_secret() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        restore({1: PRIME - 1})


@settings(max_examples=40, deadline=None)
@given(threshold=st.integers(1, 8), wrong=st.integers(0, 4), more=st.integers(0, 1), data=st.data())
def test_wrong_shares_up_to_half_of_those_beyond_the_threshold_are_corrected(
    threshold: int, wrong: int, more: int, data: st.DataObject
) -> None:
    places = data.draw(st.permutations(range(1, threshold + 2 * wrong + more + 1)))
    secret = os.urandom(32)
    shares = dict(zip(places, split(secret, threshold, places, os.urandom), strict=True))
    for place in places[:wrong]:
        shares[place] = (shares[place] + 1 + int.from_bytes(os.urandom(8), "big")) % PRIME
    assert corrected(shares, threshold) == secret


def test_more_wrong_shares_than_can_be_told_are_an_error_and_never_another_secret() -> None:
    for _ in range(20):
        places = range(1, 8)
        shares = dict(zip(places, split(os.urandom(32), 4, places, os.urandom), strict=True))
        for place in (1, 3, 6):
            shares[place] = int.from_bytes(os.urandom(32), "big")
        with pytest.raises(ValueError, match="more are wrong than can be told"):
            corrected(shares, 4)
