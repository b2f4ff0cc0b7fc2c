"""The example's own tests: the laws of the contracts, references, and attacks on the masks."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statfed_example import _ring, dealer_masks, geometric_mean

from statfed.core.applicability import obstacles
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.method import Arrays, read_question
from statfed.core.protection import Packet, Replies, Stage, conduct
from statfed.core.terms import Privacy, Protection, Terms
from statfed.lab.laws.frames import dealt
from statfed.lab.laws.methods import check_method
from statfed.lab.laws.network import Network, agreement, identities
from statfed.lab.laws.protections import check_protection
from statfed.lab.laws.runs import asked

LAYOUT = Layout({"x": Slot((3000,), 2.0**40, integer=True)}, 5)


def given(names: tuple[str, ...]) -> dict[str, Arrays]:
    rng = np.random.default_rng(1)
    return {name: {"x": rng.integers(-1000, 1000, 3000)} for name in names}


def uniform(words: Any) -> bool:
    """Are its bytes uniform? A true mask fails once in a thousand million tests."""
    counts = np.bincount(np.ascontiguousarray(words).view(np.uint8).reshape(-1), minlength=256)
    return float(stats.chisquare(counts).pvalue) > 1e-9


def vectors(network: Network, contributions: Mapping[str, Arrays]) -> dict[str, Any]:
    """The masked vectors of one sum, by holder."""
    network.sum(contributions, LAYOUT)
    return {name: np.asarray(packet["words"]) for stage, name, packet in network.transcript if stage == "contribute"}


def test_the_protection_keeps_every_law() -> None:
    assert [one for one in check_protection("dealer-masks") if one.passed is False] == []


def test_the_analysis_keeps_every_law() -> None:
    assert [one for one in check_method("geometric-mean") if not one.passed] == []


@pytest.mark.parametrize("by", [(), ("region",)])
def test_geometric_means_are_those_of_scipy_on_pooled_records(by: tuple[str, ...]) -> None:
    _, codebook, frame = geometric_mean.example()
    options = {"columns": ["rent", "rooms"], "by": list(by)}
    result = asked("geometric-mean", options, codebook, dealt(frame, None, 3), "dealer-masks")
    rows = result.tables["estimates"]
    assert len(rows) == (6 if by else 2)
    for row in rows:
        here = frame[frame["region"] == row["region"]] if by else frame
        x = here[row["column"]].dropna().to_numpy(float)
        assert row["count"] == len(x)
        assert row["estimate"] == pytest.approx(stats.gmean(x), rel=1e-8)
        error = stats.gmean(x) * np.log(x).std(ddof=1) / math.sqrt(len(x))
        assert row["std_error"] == pytest.approx(error, rel=1e-6)


def test_the_standard_error_counts_the_noise() -> None:
    """Of 400 samples under noise that is as large as the sampling error, 95 % of the intervals hold the truth."""
    rng, n, inside = np.random.default_rng(2), 500, 0
    for _ in range(400):
        y = np.clip(rng.normal(0.2, 0.25, n), -1, 1)
        sums = np.array([n, y.sum(), (y**2).sum()]) + rng.normal(0, 6, 3)
        found = geometric_mean._estimated(*sums, [6.0, 6.0], 3.0, 2.0)
        inside += abs(found["estimate"] - math.exp(3.4)) <= 1.96 * found["std_error"]
    assert 0.92 <= inside / 400 <= 0.975


def test_columns_that_may_be_zero_are_refused() -> None:
    _, codebook, _ = geometric_mean.example()
    low = codebook.columns["rent"].model_copy(update={"low": 0.0})
    zero = codebook.model_copy(update={"columns": {**codebook.columns, "rent": low}})
    query = Terms(method="geometric-mean", options={"columns": ["rent"]}, codebook=zero, holders=("a",), seed=1)
    with pytest.raises(UsageError, match="want low above 0"):
        read_question(query)


def test_what_fewer_than_all_holders_send_looks_like_noise_with_one_colluder_too() -> None:
    network = Network(agreement("dealer-masks", 5))
    contributions = given(network.agreement.holders)
    sent = vectors(network, contributions)
    assert sum(sent.values()).view(np.int64).tolist() == sum(a["x"] for a in contributions.values()).tolist()
    for size in range(1, 5):
        for some in itertools.combinations(sent, size):
            assert uniform(sum(sent[name] for name in some))
    left = {name: words for name, words in sent.items() if name != "h003"}  # what h003 knows is beside h002 and h004
    for size in range(1, 4):
        for some in itertools.combinations(left, size):
            assert uniform(sum(left[name] for name in some) + masks(network, "h003")[0])
            assert uniform(sum(left[name] for name in some) + masks(network, "h003")[1])


def masks(network: Network, holder: str) -> list[Any]:
    """A colluding holder's two masks of the first sum."""
    info = network.agreement.context("dealer-masks/mask")
    request = dealer_masks.request_of(LAYOUT, {})
    info += dealer_masks.json.dumps([1, request]).encode()
    seeds = network.parties[holder]._seeds  # type: ignore[attr-defined]
    return [_ring.mask(dealer_masks._derived(seed, info), LAYOUT) for seed in seeds]


def test_two_neighbours_with_the_coordinator_unmask_the_one_between_which_is_the_stated_limit() -> None:
    network = Network(agreement("dealer-masks", 5))
    contributions = given(network.agreement.holders)
    sent = vectors(network, contributions)
    seen = sent["h002"] - masks(network, "h001")[1] + masks(network, "h003")[0]
    assert np.array_equal(seen.view(np.int64), contributions["h002"]["x"])
    assert dealer_masks.REQUIRES.colluders == 1


def test_shared_noise_that_two_colluders_could_strip_is_refused() -> None:
    _, codebook, _ = geometric_mean.example()

    def found(colluders: int) -> list[str]:
        query = Terms(
            method="count",
            codebook=codebook,
            holders=tuple("abcde"),
            seed=1,
            protection=Protection(name="dealer-masks"),
            privacy=Privacy.model_validate({"epsilon": 1, "noise": "shared", "colluders": colluders}),
        )
        return [one.reason for one in obstacles(query)]

    assert found(1) == []
    assert any("colluders: got 2" in reason for reason in found(2))


def test_a_coordinator_cannot_take_the_dealers_or_a_holders_place() -> None:
    ours = agreement("dealer-masks", 4)
    for place in ("dealer", "h002"):
        known, fake = identities(ours.parties), identities(ours.parties)
        crook = dealer_masks.party(ours, fake[place])
        offer = crook.answer("keys", {})

        def swapped(stage: str, _: str, packet: Packet, place: str = place, offer: Packet = offer) -> Packet:
            return {k: offer.get(k.partition(":")[0], v) if k.endswith(f":{place}") else v for k, v in packet.items()}

        parties = {name: dealer_masks.party(ours, known[name]) for name in ours.parties}
        with pytest.raises(Refused, match=f"not by {place}'s pinned key"):
            Network(ours, parties=parties, change=swapped).sum(given(ours.holders), LAYOUT)


def test_contributions_to_different_requests_do_not_add_up_even_for_a_coordinator_that_ignores_it() -> None:
    def asked_else(stage: str, name: str, packet: Packet) -> Packet:
        return {**packet, "request": b"another"} if (stage, name) == ("contribute", "h002") else packet

    network = Network(agreement("dealer-masks", 5), change=asked_else)
    with pytest.raises(EngineError, match="different requests"):
        network.sum(given(network.agreement.holders), LAYOUT)
    sent = [packet["words"] for stage, _, packet in network.transcript if stage == "contribute"]
    assert uniform(sum(np.asarray(words) for words in sent))


def test_seeds_of_another_run_are_refused() -> None:
    ours = agreement("dealer-masks", 3)
    known, old = identities(ours.parties), {}

    def keep(stage: str, name: str, packet: Packet) -> Packet:
        old.setdefault((stage, name), packet)
        return packet

    for run, change in (("run", keep), ("later", lambda stage, name, packet: old[stage, name])):
        made = replace(ours, run=run)
        parties = {name: dealer_masks.party(made, known[name]) for name in ours.parties}
        network = Network(made, parties=parties, change=change)
        if run == "run":
            network.sum(given(ours.holders), LAYOUT)
            continue
        with pytest.raises(Refused, match="pinned key"):
            network.sum(given(ours.holders), LAYOUT)


def test_what_is_not_understood_is_an_error_that_names_its_sender() -> None:
    for garbage in ({}, {"words": np.zeros(3), "request": b""}, {"key": b"", "signature": b""}):
        for stage in ("keys", "deal", "contribute"):
            network = Network(agreement("dealer-masks", 3))
            who = "dealer" if stage == "deal" else "h002"
            contributions = given(network.agreement.holders)

            def send(asked: Stage, wrong: Any = (stage, who, garbage), run: Any = (network, contributions)) -> Replies:
                network, contributions = run
                replies = {
                    name: network.deliver(asked, name, packet, contributions, LAYOUT)
                    for name, packet in asked.packets.items()
                }
                return replies | ({wrong[1]: wrong[2]} if asked.name == wrong[0] else {})

            with pytest.raises((EngineError, Refused), match=f"{who}|different requests"):
                conduct(network.rounds(LAYOUT), send)


def test_too_few_holders_are_refused() -> None:
    for ours in (agreement("dealer-masks", 2), agreement("dealer-masks", 4, minimum=3)):
        with pytest.raises(Refused, match="want three or more, and all of them"):
            dealer_masks.party(ours, identities(ours.parties)["h001"])
