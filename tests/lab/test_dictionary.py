"""The dictionary attack: it reads every identifier off a hash join, and none off a linkage."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from statfed.core.errors import UsageError
from statfed.core.linkage import Units
from statfed.core.scenario import World
from statfed.core.study import make_study
from statfed.lab.compare import dictionary
from statfed.lab.compare.bench import Bench, tried
from statfed.lab.compare.block import techniques
from statfed.lab.compare.dictionary import HASH_JOIN, Dictionary, Views, forms, measured, on_hashes, overheard
from statfed.lab.compare.questions import Questions
from statfed.lab.compare.statistics import bench_of, identifiers, write_sources
from statfed.lab.compare.trial import Cell, Technique
from statfed.scenarios import set_intersection
from statfed.scenarios._data import borrowers
from statfed.scenarios._data.numbers import issued, numbered
from statfed.strategies.linkages import _ristretto, _tags

ISSUED = 20_000


@pytest.fixture(scope="module")
def world() -> World:
    """A tenth of the quick registers, of numbers that are few enough to try them all at once."""
    sizes = borrowers.Sizes(office=100, bank=350, both=80, issued=ISSUED)
    office, bank = borrowers.registers(sizes, 1)
    public = {"holders": ("office", "bank"), "issued": ISSUED}
    return World({"office": office, "bank": bank}, set_intersection.codebook(), "synthetic", public=public)


@pytest.fixture(scope="module")
def bench(world: World, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    sources = write_sources(world, tmp_path_factory.mktemp("registers"))
    return bench_of(set_intersection, world, sources, set_intersection.pooled(world))


@pytest.fixture(scope="module")
def guessed() -> Dictionary:
    return Dictionary.of(issued(ISSUED))


def views(bench: Bench, linkage: str) -> Views:
    ask = bench.ask(Technique(linkage, set_intersection.LEVELS[0]), 1, Path())
    assert isinstance(ask, Questions)
    terms = ask.study({"method": "count", "options": {}, "where": ()}).terms(bench.codebook, bench.codebooks)
    return overheard(terms, bench.sources)


def test_a_hash_join_is_refused_and_gives_everybody_away(bench: Bench) -> None:
    (technique,) = [one for one in techniques(set_intersection) if one.protection == HASH_JOIN]
    trial = tried(bench, Cell("set-intersection", "quick", technique, 1))
    assert trial.status == "not-applicable"
    assert trial.reason.startswith("refused: ")
    assert "100% of the identifiers were recovered with 20,000 guesses" in trial.reason
    assert trial.measures["leakage.identifiers_coordinator"] == 1.0
    assert trial.measures["leakage.guesses_a_second"] > 0
    assert not trial.figures


@pytest.mark.parametrize(
    ("linkage", "roles"), [("helper", {"coordinator", "third_party", "holder"}), ("ecdh", {"coordinator", "holder"})]
)
def test_no_identifier_is_recovered_from_what_any_role_of_a_linkage_sees(
    linkage: str, roles: set[str], bench: Bench, world: World, guessed: Dictionary
) -> None:
    seen = views(bench, linkage)
    assert sum(map(len, seen.relayed)) > 16 * sum(map(len, world.holders.values()))
    found = measured(guessed, seen, identifiers(world, set_intersection.MATCHED))
    assert found == dict.fromkeys((f"leakage.identifiers_{role}" for role in roles), 0.0)


def test_the_helpers_tags_are_in_its_view_and_open_with_the_key_alone(
    bench: Bench, world: World, guessed: Dictionary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same view under a key that everybody knows gives all away: what is looked at is what the helper matches."""
    made = _tags.tags
    monkeypatch.setattr(_tags, "tags", lambda _, units: made(bytes(_tags.KEY), units))
    found = measured(guessed, views(bench, "helper"), identifiers(world, set_intersection.MATCHED))
    assert found["leakage.identifiers_third_party"] == 1.0
    assert found["leakage.identifiers_coordinator"] == found["leakage.identifiers_holder"] == 0.0


def test_points_of_a_key_that_nobody_has_blinded_are_not_sent(bench: Bench, world: World) -> None:
    seen = views(bench, "ecdh")
    whole = b"".join(content for contents in seen.opened.values() for content in contents)
    ids = sorted(set(world.holders["office"]["id"]))[:20]
    for context in (bytes(32), b""):
        assert not any(bytes(point) in whole for point in _ristretto.hashed(context, ids))


def test_a_form_is_found_wherever_it_begins(guessed: Dictionary) -> None:
    wanted = {numbered(i) for i in (3, 50, 19_999)}
    for place in range(len(list(forms("123456789")))):
        view = [b"\7" * (place % 5) + list(forms(text))[place] for text in wanted]
        assert guessed.recovered(view, wanted) == 1.0, place
    assert guessed.recovered([b"", bytes(100)], wanted) == 0.0


def test_a_hash_of_what_is_not_guessed_stays_hidden() -> None:
    attack = on_hashes(issued(10), [numbered(3), numbered(1_000)])
    assert (attack.recovered, attack.guesses) == (0.5, 10)


def test_guesses_that_chance_would_find_are_refused() -> None:
    with pytest.raises(UsageError, match="got '1234567'; want 8 characters or more"):
        Dictionary.of(["123456789", "1234567"])


def test_a_party_that_cannot_be_listened_to_is_not_taken_to_see_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        def answer(self, stage: str, packet: Mapping[str, bytes]) -> Mapping[str, bytes]:
            raise AssertionError(stage)

    from statfed.strategies.linkages import helper

    def party(agreement: object, identity: object, units: Units | None) -> Silent:
        return Silent()

    monkeypatch.setattr(helper, "party", party)
    with pytest.raises(UsageError, match="got 0 ways to open letters"):
        views(bench, "helper")


def test_only_linkages_are_overheard(bench: Bench) -> None:
    study = make_study({"method": "count", "holders": dict(bench.sources), "protection": {"name": "plain"}})
    with pytest.raises(UsageError, match="want a linkage"):
        dictionary.overheard(study.terms(bench.codebook), bench.sources)
