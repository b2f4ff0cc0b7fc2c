"""What a linkage unit guesses from encodings: held, blunted, or not prevented, as the docstring of `fuzzy` says it.

Each attack is shown to succeed without its defence. benchmarks/linkage_fuzzy.py prints them all.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray

from statfed.scenarios._data.registers import registers
from statfed.strategies.linkages._encodings import Attribute, Encoder, Hardening
from tests.strategies.linkages.bloom_attacks import dictionary, frequency, graph, mining, patterns
from tests.strategies.linkages.fuzzily import ATTRIBUTES, Keys, keys_of

SECRET, OTHER = bytes(range(32)), bytes(range(32, 64))
YEAR = "birth_date:exact[:4]"
SURNAME = {"surname:name": Attribute(bits=200)}
ALL = {name: Attribute.model_validate(one) for name, one in ATTRIBUTES.items()}
KNOWN = 400


@pytest.fixture(scope="module")
def keys() -> Keys:
    return keys_of(registers(1_000, 0.0, 0.0, 1)[0])


@pytest.fixture(scope="module")
def surnames(keys: Keys) -> Sequence[str]:
    return [value or "" for value in keys["surname:name"]]


def encoded(keys: Keys, attributes: dict[str, Attribute], hardening: Hardening, salt: str = "") -> NDArray[np.uint64]:
    return Encoder(SECRET, attributes, salt, hardening).encode(keys)


@pytest.mark.parametrize("hardening", ["none", "balanced", "fold", "rule90"])
def test_frequencies_of_one_attribute_show_by_whatever_hardening(
    keys: Keys, surnames: Sequence[str], hardening: Hardening
) -> None:
    """What stops it is one filter of all attributes, or a salt; `fuzzy` says so."""
    assert frequency(encoded(keys, SURNAME, hardening), surnames) > 0.3
    assert frequency(encoded(keys, SURNAME, hardening, YEAR), surnames) < 0.05
    assert frequency(encoded(keys, ALL, hardening), surnames) < 0.01


def test_bits_that_a_gram_sets_together_are_found(keys: Keys, surnames: Sequence[str]) -> None:
    assert mining(encoded(keys, ALL, "none"), surnames, KNOWN) > 0.9
    assert mining(encoded(keys, ALL, "fold"), surnames, KNOWN) < 0.5
    assert mining(encoded(keys, ALL, "rule90"), surnames, KNOWN) < 0.6
    assert mining(encoded(keys, ALL, "none", YEAR), surnames, KNOWN) < 0.05


def test_bits_that_are_weighed_tell_grams_unless_salted(keys: Keys, surnames: Sequence[str]) -> None:
    """Not prevented without a salt: a unit that knows the owners of some records learns q-grams of the others."""
    for hardening in ("none", "fold"):
        assert patterns(encoded(keys, ALL, hardening), surnames, KNOWN) > 0.9
        assert patterns(encoded(keys, ALL, hardening, YEAR), surnames, KNOWN) < 0.65


def test_a_dictionary_works_without_the_secret(keys: Keys) -> None:
    few: Keys = {name: list(islice(values, 200)) for name, values in keys.items()}
    made = encoded(few, ALL, "fold")
    assert dictionary(made, few, Encoder(OTHER, ALL, hardening="fold")) < 0.05
    assert dictionary(made, few, Encoder(SECRET, ALL, hardening="fold")) == 1.0  # a leaked secret: everything falls


def test_a_graph_of_similarities_tells_as_much_as_before(keys: Keys) -> None:
    """Blunted, not prevented: similarities are what encodings are for."""
    few: Keys = {name: list(islice(values, 300)) for name, values in keys.items()}
    plain, folded = (
        graph(encoded(few, ALL, hardening), few, Encoder(OTHER, ALL, hardening=hardening))
        for hardening in ("none", "fold")
    )
    assert plain > 0.15
    assert 1 / 300 < folded < plain / 2
