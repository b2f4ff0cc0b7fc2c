"""Recommendations: every hard rule by a case that breaks it and one that just does not; ranking and sensitivity."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from statfed.core import discovery
from statfed.core.identity import Identity
from statfed.core.linkage import Party, Units, linked, load_linkage
from statfed.core.method import Part
from statfed.core.privacy.noise import plan
from statfed.core.protection import Packet, agree
from statfed.core.scenario import PACKAGE as SCENARIOS
from statfed.core.scenario import Case
from statfed.core.terms import Privacy
from statfed.lab.recommend import Answer, cost, noise, recommend
from statfed.lab.recommend.cases import make_case
from statfed.lab.recommend.evidence import Known
from statfed.lab.recommend.flips import changes
from statfed.lab.recommend.linked import study_of
from statfed.lab.recommend.markdown import markdown
from statfed.lab.recommend.rank import ASPECTS
from statfed.lab.recommend.rules import RULES, excluded
from statfed.lab.recommend.techniques import OUTSIDE, Candidate, candidates

ROOT = Path(__file__).parents[2]
NONE: Mapping[str, Known] = {}


def candidate(name: str) -> Candidate:
    return next(one for one in candidates() if one.id == name)


def broken(facts: Mapping[str, Any], name: str) -> set[str]:
    """Ids of the rules that a technique breaks."""
    return {one.rule for one in excluded(Case.model_validate(facts), candidate(name))}


def ranked(facts: Mapping[str, Any], **more: Any) -> list[str]:
    return [one.id for one in recommend(Case.model_validate(facts), known=NONE, **more).ranked]


MODEL = {"output": "model", "numbers": 8000, "parties": 4}
LARGE = MODEL | {"numbers": 10**8, "third_party": True}
LINKAGE = {"partitioning": "linkage", "output": "linkage", "identifier": "common", "parties": 2, "third_party": True}
VERTICAL = LINKAGE | {"partitioning": "vertical", "output": "statistics"}
EACH_RULE: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("one-party", "secure-aggregation, local", {"parties": 1}, {"parties": 2}),
    ("partitioning", "plain, exact", {"partitioning": "vertical"}, {"partitioning": "horizontal"}),
    ("partitioning", "helper, exact", {"partitioning": "horizontal"}, {"partitioning": "vertical"}),
    ("output", "plain, exact", {"output": "synthetic-data"}, {"output": "statistics"}),
    (
        "identifier",
        "ecdh, exact",
        LINKAGE | {"identifier": "noisy"},
        LINKAGE,
    ),
    ("identifier", "fuzzy, exact", LINKAGE | {"identifier": "none"}, LINKAGE | {"identifier": "noisy"}),
    ("output", "fuzzy, exact", LINKAGE | {"output": "model"}, LINKAGE | {"output": "statistics"}),
    ("most-parties", "ecdh, exact", LINKAGE | {"parties": 3}, LINKAGE),
    ("most-parties", "helper, exact", LINKAGE | {"parties": 4}, LINKAGE | {"parties": 3}),
    ("third-party", "fuzzy, exact", LINKAGE | {"third_party": False}, LINKAGE),
    ("exact", "fuzzy, exact", LINKAGE | {"exact": True}, LINKAGE),
    ("exact", "ecdh, local", LINKAGE | {"exact": True}, LINKAGE),
    ("epsilon", "ecdh, exact", LINKAGE | {"epsilon": 1.0}, LINKAGE),
    ("noise-drowns", "ecdh, local", LINKAGE | {"epsilon": 1.0, "records": 100}, LINKAGE | {"epsilon": 1.0}),
    ("one-party", "ecdh, exact", LINKAGE | {"parties": 1}, LINKAGE),
    (
        "malicious-functions",
        "helper, exact",
        VERTICAL | {"coordinator": "malicious"},
        VERTICAL | {"coordinator": "malicious", "output": "linkage"},
    ),
    ("dominance", "helper, exact", VERTICAL | {"dominance": True}, VERTICAL),
    ("dominance", "helper, exact", VERTICAL | {"dominance": True}, VERTICAL | {"dominance": True, "output": "linkage"}),
    (
        "dropout",
        "helper, exact",
        LINKAGE | {"dropout": True, "recurrence": "monthly"},
        LINKAGE | {"dropout": True},
    ),
    ("time", "ecdh, exact", LINKAGE | {"records": 10**9}, LINKAGE | {"records": 10**7}),
    ("applicability", "ecdh, exact", VERTICAL, VERTICAL | {"partitioning": "linkage"}),
    ("two-parties", "secure-aggregation, exact", {"parties": 2}, {"parties": 3}),
    ("two-parties", "plain, exact", {"parties": 2, "sensitivity": "high"}, {"parties": 2, "sensitivity": "moderate"}),
    (
        "contributions-shown",
        "plain, exact",
        {"sensitivity": "high"},
        {"sensitivity": "moderate"},
    ),
    (
        "contributions-shown",
        "plain, exact",
        {"sensitivity": "high"},
        {"sensitivity": "high", "coordinator": "trusted"},
    ),
    ("contributions-shown", "plain, exact", {"coordinator": "malicious"}, {"coordinator": "honest-but-curious"}),
    ("central-noise-trust", "secure-aggregation, central", {}, {"coordinator": "trusted"}),
    (
        "malicious-coordinator",
        "paillier",
        {"third_party": True, "coordinator": "malicious"},
        {"third_party": True, "coordinator": "honest-but-curious"},
    ),
    (
        "malicious-functions",
        "multi-party, exact",
        {"dominance": True, "coordinator": "malicious"},
        {"dominance": True, "coordinator": "honest-but-curious"},
    ),
    (
        "malicious-functions",
        "multi-party, exact",
        {"dominance": True, "coordinator": "malicious"},
        {"dominance": False, "coordinator": "malicious"},
    ),
    ("exact", "secure-aggregation, shared", {"exact": True}, {"exact": False}),
    ("exact", "synthetic data", {"exact": True}, {"exact": False}),
    ("epsilon", "secure-aggregation, exact", {"epsilon": 1.0}, {"epsilon": None}),
    ("third-party", "homomorphic-encryption, exact", {"third_party": False}, {"third_party": True}),
    ("independent-nodes", "multi-party, local", {"parties": 2}, {"parties": 2, "third_party": True}),
    ("independent-nodes", "multi-party, local", {"parties": 2}, {"parties": 3}),
    (
        "dominance",
        "secure-aggregation, exact",
        {"dominance": True, "identifier": "common"},
        {"dominance": True, "identifier": "none"},
    ),
    (
        "dominance",
        "multi-party, exact",
        {"dominance": True, "identifier": "common"},
        {"dominance": False, "identifier": "common"},
    ),
    (
        "dropout",
        "plain, local",
        {"dropout": True, "recurrence": "monthly"},
        {"dropout": True, "recurrence": "yearly"},
    ),
    (
        "dropout",
        "plain, local",
        {"dropout": True, "recurrence": "monthly"},
        {"dropout": False, "recurrence": "monthly"},
    ),
    ("noise-drowns", "plain, local", {"epsilon": 0.1, "records": 100}, {"epsilon": 0.1, "records": 100_000}),
    ("noise-drowns", "plain, local", {"epsilon": 0.1, "records": 600}, {"epsilon": 1.0, "records": 600}),
    (
        "budget",
        "secure-aggregation, local",
        {"epsilon": 1.0, "records": 1000, "recurrence": "monthly"},
        {"epsilon": 1.0, "records": 1000, "recurrence": "yearly"},
    ),
    ("time", "homomorphic-encryption, exact", LARGE | {"bandwidth": 1.0}, LARGE | {"bandwidth": 100.0}),
    ("applicability", "plain, central", MODEL | {"coordinator": "trusted"}, {"coordinator": "trusted", "parties": 4}),
)


@pytest.mark.parametrize(("rule", "name", "breaks", "keeps"), EACH_RULE)
def test_each_rule_excludes_a_case_and_not_one_that_just_keeps_it(
    rule: str, name: str, breaks: dict[str, Any], keeps: dict[str, Any]
) -> None:
    assert rule in broken(breaks, name)
    assert rule not in broken(keeps, name)
    one, other = Case.model_validate(breaks), Case.model_validate(keeps)
    differs = {fact for fact in Case.model_fields if getattr(one, fact) != getattr(other, fact)}
    (said,) = {each.facts for each in RULES if each.id == rule}
    assert differs & set(said), "the fact that decides is one that the rule names"
    assert len(differs) == 1 or rule == "applicability"


def test_shared_noise_is_for_protections_that_show_sums_only() -> None:
    assert broken({}, "plain, shared") == {"shared-noise-hidden"}
    assert not broken({}, "secure-aggregation, shared")


def test_every_rule_is_tried_here_and_explained_in_the_documentation() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    assert {rule for rule, *_ in EACH_RULE} | {"shared-noise-hidden"} == set(ids)
    page = (ROOT / "docs" / "recommend.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert set(ids) <= listed
    for rule in RULES:
        assert rule.title in page, rule.id
        assert set(rule.facts) <= set(Case.model_fields), rule.id
        assert rule.source
    for aspect in ASPECTS:
        assert f"**{aspect.id}**" in page, aspect.id
    for one in OUTSIDE:
        assert one.id in page
        assert one.note
        assert one.source
        assert one.trust


def test_a_slow_line_excludes_ciphertexts_of_a_large_model_but_not_masks() -> None:
    facts = LARGE | {"bandwidth": 1.0}
    assert "time" in broken(facts, "homomorphic-encryption, exact")
    assert "time" not in broken(facts, "secure-aggregation, exact")


EXPECTED: tuple[tuple[str, dict[str, Any], str, set[str], set[str]], ...] = (
    # what, facts, first, among the shortlist, not in it
    ("nothing special", {}, "secure-aggregation, exact", {"plain, exact"}, {"homomorphic-encryption, exact"}),
    (
        "official figures of high sensitivity",
        {"exact": True, "sensitivity": "high"},
        "secure-aggregation, exact",
        {"multi-party, exact"},
        {"plain, exact", "secure-aggregation, local"},
    ),
    (
        "a trusted coordinator and an epsilon",
        {"coordinator": "trusted", "epsilon": 0.1, "sensitivity": "low", "skills": "basic", "records": 5000},
        "plain, central",
        {"secure-aggregation, shared"},
        {"plain, exact"},
    ),
    (
        "little data under a small epsilon: shared noise",
        {"parties": 25, "epsilon": 0.1, "records": 600},
        "secure-aggregation, shared",
        set(),
        {"secure-aggregation, local", "plain, local"},
    ),
    (
        "dominance among three firms",
        {"dominance": True, "exact": True, "sensitivity": "high"},
        "multi-party, exact",
        set(),
        {"plain, exact"},
    ),
    (
        "two offices and noise: with one colluder to be borne, shared noise is no less than local",
        {"parties": 2, "epsilon": 1.0, "third_party": True},
        "secure-aggregation, local",
        {"homomorphic-encryption, shared", "multi-party, shared"},
        {"secure-aggregation, exact", "homomorphic-encryption, exact"},
    ),
    (
        "monthly, and a holder may be away",
        {"recurrence": "monthly", "dropout": True},
        "secure-aggregation, exact",
        set(),
        {"plain, exact", "plain, local"},
    ),
    (
        "a coordinator that may deviate",
        {"coordinator": "malicious"},
        "secure-aggregation, exact",
        {"plain, local", "multi-party, exact"},
        {"plain, exact", "secure-aggregation, central"},
    ),
    (
        "a model under epsilon 3",
        MODEL | {"epsilon": 3.0, "records": 700, "sensitivity": "high", "dropout": True},
        "secure-aggregation, shared",
        {"secure-aggregation, local"},
        {"secure-aggregation, central", "secure-aggregation, exact"},
    ),
)


@pytest.mark.parametrize(
    ("facts", "first", "among", "absent"), [row[1:] for row in EXPECTED], ids=[row[0] for row in EXPECTED]
)
def test_cases_get_the_technique_that_a_methodologist_would_expect(
    facts: dict[str, Any], first: str, among: set[str], absent: set[str]
) -> None:
    names = ranked(facts)
    assert names[0] == first
    assert among <= set(names)
    assert not absent & set(names)


def test_every_installed_technique_is_ranked_or_rejected_with_a_rule_and_every_other_is_listed() -> None:
    answer = recommend(Case(), known=NONE)
    here = {one.id for one in candidates() if one.protection}
    assert {one.id for one in answer.ranked} | {one.id for one in answer.rejected} == here
    assert not {one.id for one in answer.ranked} & {one.id for one in answer.rejected}
    assert all(one.exclusions for one in answer.rejected)
    assert [one.id for one in answer.not_measured] == [one.id for one in OUTSIDE]
    for one in answer.ranked:
        assert one.score == pytest.approx(sum(reason.points for reason in one.reasons), abs=1e-9)
        assert one.learns
        assert one.trust


def test_two_parties_that_want_exact_figures_are_told_the_smallest_changes_that_help() -> None:
    answer = recommend(Case(parties=2, exact=True, sensitivity="high"), known=NONE)
    assert not answer.ranked
    offered = {remedy.changes: set(remedy.lets) for remedy in answer.remedies}
    assert "secure-aggregation, exact" in offered["parties = 3",]
    assert "secure-aggregation, local" in offered["exact = false",]
    assert all(len(changed) == 1 for changed in offered)
    assert "3 organisations" in markdown(answer)


def test_contradictory_facts_need_one_change_and_worse_ones_two() -> None:
    answer = recommend(Case(exact=True, epsilon=1.0), known=NONE)
    assert {remedy.changes for remedy in answer.remedies} == {("exact = false",), ("epsilon = none",)}
    worse = recommend(Case(exact=True, epsilon=1.0, partitioning="vertical", output="model"), known=NONE)
    assert worse.remedies
    assert all(len(remedy.changes) == 2 for remedy in worse.remedies)
    assert {"partitioning = horizontal"} < {change for remedy in worse.remedies for change in remedy.changes}


def test_registers_of_the_same_units_are_told_what_a_linkage_would_take() -> None:
    (one,) = recommend(Case(partitioning="vertical", exact=True), known=NONE).remedies
    assert one.changes == ("third_party = true", "identifier = common")
    assert one.lets == ("helper, exact",)


def test_remedies_let_through_what_they_say() -> None:
    case = Case(exact=True, epsilon=1.0, parties=2)
    for remedy in recommend(case, known=NONE).remedies:
        changed = make_case(case.model_dump(exclude_none=True), [one.replace(" ", "") for one in remedy.changes])
        assert set(remedy.lets) <= set(ranked(changed.model_dump()))


def test_two_parties_of_a_linkage_have_no_part_to_subtract_and_sealed_packets_withstand_the_coordinator() -> None:
    facts = LINKAGE | {"sensitivity": "high", "coordinator": "malicious", "exact": True}
    assert not broken(facts, "ecdh, exact")
    assert not broken(facts, "helper, exact")
    assert "few holders" not in {
        reason.aspect for one in recommend(Case.model_validate(facts), known=NONE).ranked for reason in one.reasons
    }


@pytest.mark.parametrize(
    ("facts", "ranking"),
    [
        (LINKAGE | {"exact": True, "sensitivity": "high", "skills": "advanced"}, ["helper, exact", "ecdh, exact"]),
        (LINKAGE | {"exact": True, "third_party": False}, ["ecdh, exact"]),
        (LINKAGE | {"identifier": "noisy"}, ["fuzzy, exact"]),
        (LINKAGE | {"epsilon": 1.0}, ["ecdh, local", "helper, local"]),
        (LINKAGE | {"parties": 3}, ["helper, exact", "helper, local"]),
        (VERTICAL, ["helper, exact", "helper, local"]),
    ],
)
def test_a_case_of_units_that_have_to_be_matched_is_told_which_linkage(
    facts: dict[str, Any], ranking: list[str]
) -> None:
    assert ranked(facts) == ranking


def test_the_reference_scenarios_of_linkages_have_a_technique_or_the_change_that_gives_them_one() -> None:
    def facts(name: str) -> Case:
        case: Case = discovery.load(SCENARIOS, name, "scenario").ABOUT.case
        return case

    assert ranked(facts("set-intersection").model_dump()) == ["helper, exact", "ecdh, exact"]
    assert ranked(facts("trade-linkage").model_dump()) == ["fuzzy, exact"]
    vertical = facts("vertical-regression")
    assert "helper, exact" in ranked(vertical.model_copy(update={"third_party": True}).model_dump())
    alone = recommend(vertical.model_copy(update={"third_party": False}), known=NONE)
    assert [(one.changes, one.lets) for one in alone.remedies] == [(("third_party = true",), ("helper, exact",))]


def test_a_recommended_linkage_says_who_learns_what_and_what_it_takes() -> None:
    answer = recommend(Case.model_validate(LINKAGE), known=NONE)
    rows = {one.id: one for one in answer.ranked}
    assert "helper" in {row.role for row in rows["helper, exact"].learns}
    assert {row.role for row in rows["ecdh, exact"].learns} >= {"office-1", "office-2", "coordinator"}
    assert any("183 microseconds" in reason.text for reason in rows["ecdh, exact"].reasons)
    assert any("limits.linkages" in reason.text for reason in rows["fuzzy, exact"].reasons)
    assert "fuzzy, exact" not in [one.id for one in answer.ranked[:2]]  # keys without errors need no similarity
    one = {flip.value: flip for flip in answer.sensitivity if flip.fact == "identifier"}
    assert one["noisy"].first == "fuzzy, exact"


@dataclass
class Counting:
    """A party whose stages and bytes are counted."""

    party: Party
    stages: int = 0
    moved: int = 0

    def answer(self, stage: str, packet: Packet) -> Packet:
        reply = self.party.answer(stage, packet)
        self.stages += 1
        for one in (*packet.values(), *reply.values()):
            self.moved += len(one) if isinstance(one, bytes) else one.nbytes
        return reply


def test_measured_bytes_of_a_linkage_are_those_that_it_moves() -> None:
    case = Case.model_validate(LINKAGE | {"records": 400})
    terms, module = study_of(case, "helper", 2, None), load_linkage("helper")
    agreement = agree("run", terms, dict.fromkeys(terms.holders, 400))
    keys = {name: Identity.ephemeral(name) for name in agreement.parties}
    pins = {name: key.public for name, key in keys.items()}
    units = Units({"id": [f"{i}" for i in range(400)]})
    parties = {
        name: module.party(agreement, replace(key, pins=pins), units if name in terms.holders else None)
        for name, key in keys.items()
    }
    watched = Counting(parties["office-1"])
    assert linked(module.coordinator(agreement), {**parties, "office-1": watched}).size == 400
    found = cost.estimate(case, candidate("helper, exact"))
    assert found is not None
    assert watched.stages == found.stages
    assert watched.moved == pytest.approx(found.bytes, rel=0.3)  # keys and signatures come on top


def test_one_organisation_that_lets_others_query_its_data_is_left_with_how_results_are_kept_safe() -> None:
    assert set(ranked({"parties": 1, "epsilon": 3.0})) == {"plain, local"}
    assert set(ranked({"parties": 1, "epsilon": 3.0, "coordinator": "trusted"})) == {"plain, local", "plain, central"}


def test_a_case_for_which_nothing_is_built_names_what_might_do_outside() -> None:
    answer = recommend(Case(partitioning="vertical", identifier="common", output="model"), known=NONE)
    assert "vertical learning" in answer.headline
    assert {"partitioning = horizontal"} == {change for remedy in answer.remedies for change in remedy.changes}


def test_a_third_party_that_joins_is_among_what_would_change_the_shortlist() -> None:
    (flip,) = [one for one in recommend(Case(), known=NONE).sensitivity if one.fact == "third_party"]
    assert flip.text.startswith("if an independent third party joins, then ")
    assert "homomorphic-encryption, exact" in flip.enters
    assert flip.first == "secure-aggregation, exact"


def test_flips_agree_with_the_recommendation_of_the_changed_case() -> None:
    case = Case(epsilon=1.0, parties=5)
    before = ranked(case.model_dump())
    told = {(flip.fact, flip.value): flip for flip in recommend(case, known=NONE).sensitivity}
    for change in changes(case):
        after = ranked(change.case.model_dump())
        flip = told.get((change.fact, change.value))
        if flip is None:
            same = set(after) == set(before) and after[:1] == before[:1]
            assert same or (not after and change.fact in ("output", "partitioning"))
        else:
            assert set(flip.enters) == set(after) - set(before)
            assert set(flip.leaves) == set(before) - set(after)
            assert flip.first == (after[0] if after else "")


def test_the_document_keeps_its_schema() -> None:
    schema = Answer.model_json_schema(mode="serialization")
    jsonschema.Draft202012Validator.check_schema(schema)
    for facts in ({}, {"parties": 2, "exact": True, "sensitivity": "high"}, {"partitioning": "vertical"}):
        document = recommend(Case.model_validate(facts), known=NONE).model_dump(mode="json")
        jsonschema.validate(json.loads(json.dumps(document, allow_nan=False)), schema)


OUTSIDER = """
from dataclasses import dataclass, replace
from statfed.strategies.protections.secure_aggregation import *
from statfed.strategies.protections.secure_aggregation import REQUIRES as own
TITLE = "A protection that somebody else installed"
TRUST = ("a mirror",)
REQUIRES = replace(own, identities=False, minimum_holders=5, cost="100000")
"""


@pytest.fixture
def outsider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A protection that another package brings: its entry point, as an installation would leave it."""

    def forget() -> None:
        discovery.plugins.cache_clear()
        discovery.modules.cache_clear()

    info = tmp_path / "statfed_mirrored-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: statfed-mirrored\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[statfed.protections]\nmirrored = mirrored_protection\n")
    (tmp_path / "mirrored_protection.py").write_text(OUTSIDER)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield "mirrored"
    monkeypatch.undo()
    forget()


def test_a_protection_from_outside_is_judged_by_what_it_says_of_itself(outsider: str) -> None:
    answer = recommend(Case(parties=5), known=NONE)
    one = next(each for each in answer.ranked if each.id == f"{outsider}, exact")
    assert one.trust == ("a mirror",)
    assert one.origin == "statfed-mirrored 1.2"
    assert any("100,000 times" in reason.text for reason in one.reasons)
    assert f"{outsider}, exact" not in ranked({"parties": 4})
    assert broken({"parties": 4}, f"{outsider}, exact") == {"two-parties"}
    assert broken({"parties": 5, "coordinator": "malicious"}, f"{outsider}, local") == {"malicious-coordinator"}


def test_modelled_noise_is_that_of_the_mechanism_which_would_run() -> None:
    cells = {"count": Part((1,), bound=1, integer=True, single=True)}
    local = plan(cells, Privacy(epsilon=1)).std(5)["count"][0]
    shared = plan(cells, Privacy(epsilon=1, noise="shared"), shares=4).std(5)["count"][0]
    case = Case(epsilon=1.0, parties=5, records=1000, numbers=10)
    average = 1000 * 5 / 10
    assert noise.ratio(case, "local") * average == pytest.approx(local, rel=0.01)
    assert noise.ratio(case, "shared") * average == pytest.approx(shared, rel=0.01)
    many = plan(cells, Privacy(epsilon=1), times=60).std(5)["count"][0]
    assert noise.ratio(case, "local", 60) * average == pytest.approx(many, rel=0.01)


def test_as_many_releases_as_a_budget_buys_are_of_use_and_one_more_is_not() -> None:
    case = Case(epsilon=1.0, records=1000, recurrence="monthly")
    bought = noise.affordable(case, "local")
    assert noise.ratio(case, "local", bought) <= noise.limit(case) < noise.ratio(case, "local", bought + 1)


def test_bytes_are_counted_by_running_the_protection() -> None:
    plain, masked = cost.counted("plain", narrow=False), cost.counted("secure-aggregation", narrow=False)
    assert plain is not None
    assert masked is not None
    assert plain.each == masked.each == 8.0
    assert (plain.stages, plain.first_stages) == (1, 0)
    assert masked.first > 0
    pytest.importorskip("tenseal")
    sealed = cost.counted("homomorphic-encryption", narrow=True)
    assert sealed is not None
    assert 10 < sealed.each < 25
