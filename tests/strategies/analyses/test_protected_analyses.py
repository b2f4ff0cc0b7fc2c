"""Every analysis under every protection that is found: the result is as in clear, with no line changed in either."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from statfed.core.discovery import modules
from statfed.core.fixed_point import layout_of
from statfed.core.method import Arrays, Part, read_question
from statfed.core.protection import PACKAGE
from statfed.core.terms import Terms
from tests.covering import each_value
from tests.federate import drive, split, table_of
from tests.protocol import Network, agreement
from tests.universe import CODEBOOK, EXAMPLES, people

CASES = [f"{name}-{i}" for name in EXAMPLES for i in range(len(EXAMPLES[name]))]
PROTECTIONS = [name for name in sorted(modules(PACKAGE)) if name != "plain"]
HOLDERS = 4
FRAMES = split(people(400, seed=5), HOLDERS, seed=5)


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a result with where it stands."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from numbers(item, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from numbers(item, f"{path}/{index}")
    else:
        yield path, value


@pytest.fixture(scope="module")
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """One session for all analyses: keys and shares serve many sums."""
    made = agreement(request.param, HOLDERS)
    sizes = {name: max(1, len(frame)) for name, frame in zip(made.holders, FRAMES, strict=True)}
    opened = Network(replace(made, sizes=sizes))
    yield opened
    for party in opened.parties.values():
        getattr(party, "close", lambda: None)()


@pytest.mark.parametrize(("network", "case"), each_value(PROTECTIONS, CASES), indirect=["network"])
def test_an_analysis_under_a_protection_gives_what_it_gives_in_clear(network: Network, case: str) -> None:
    name, _, place = case.rpartition("-")
    options: dict[str, Any] = EXAMPLES[name][int(place)]
    holders = network.agreement.holders
    module, question = read_question(Terms(method=name, options=options, codebook=CODEBOOK, holders=holders, seed=1))
    tables = {holder: table_of(frame, CODEBOOK) for holder, frame in zip(holders, FRAMES, strict=True)}

    def protected(sent: Mapping[str, Arrays], parts: Mapping[str, Part]) -> Arrays:
        return network.sum(sent, layout_of(parts, network.agreement.sizes)).total

    clear = dict(numbers(drive(module, question, tables).to_dict()))
    found = dict(numbers(drive(module, question, tables, protected).to_dict()))
    assert found.keys() == clear.keys()
    for path, want in clear.items():
        if isinstance(want, float) and math.isfinite(want):
            assert np.isclose(found[path], want, rtol=1e-7, atol=1e-9), path
        elif not isinstance(want, float):
            assert found[path] == want, path
