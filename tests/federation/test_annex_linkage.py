"""Annexes of linkages: key rules, a flow that is the protocol's own, quality as estimated; before a run and after."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.core.discovery import LINKAGES, modules
from statfed.core.errors import Refused
from statfed.core.linkage import InPlace, linking_of
from statfed.core.protection import load_protection
from statfed.core.scenario import Case
from statfed.core.terms import Protection, Terms
from statfed.federation import Federation
from statfed.federation.annex import Facts, facts_of, facts_of_study, make_annex, to_html, to_markdown
from statfed.federation.annex.flow import COORDINATOR, Flow, flow_of
from statfed.federation.annex.parts import Drawing, Table
from statfed.federation.answers import read_answer
from statfed.lab.recommend.linked import study_of
from tests.strategies.protections.test_cards import VERDICT

LINKAGE = Case(partitioning="linkage", output="linkage", identifier="common")
VERTICAL = Case(partitioning="vertical", output="statistics", identifier="common")


def flow(terms: Terms) -> Flow:
    place, asked = load_protection(terms.protection.name), linking_of(terms)
    assert isinstance(place, InPlace)
    assert asked is not None
    return flow_of(terms, place, asked)


def with_options(terms: Terms, **changes: Any) -> Terms:
    protection = terms.protection
    return terms.model_copy(
        update={"protection": Protection(name=protection.name, options=dict(protection.options) | changes)}
    )


def sent(found: Flow) -> set[tuple[str, str]]:
    return {(line.sender, line.receiver) for step in found.steps for line in step.lines}


@pytest.mark.parametrize("name", sorted({*modules(LINKAGES)} - {"spu"}))  # which runs beside a direct line alone
def test_every_linkage_has_a_flow_that_ends_and_a_card_and_says_how_right_its_links_are(name: str) -> None:
    terms = study_of(LINKAGE, name, 2, None)
    found = flow(terms)
    assert not found.ended
    assert found.parties[:3] == ("office-1", "office-2", COORDINATOR)
    assert any(line.receiver == COORDINATOR for step in found.steps for line in step.lines), "what comes out"
    facts = facts_of_study(terms)
    assert facts.technique.card.questions
    assert facts.linked is not None
    assert facts.linked.quality


def test_arrows_are_what_the_protocol_sends_and_to_nobody_else() -> None:
    helper, ecdh = flow(study_of(LINKAGE, "helper", 2, None)), flow(study_of(LINKAGE, "ecdh", 2, None))
    after = [step for step in helper.steps if step.stage == "round"]
    lines = {(line.sender, line.receiver) for step in after for line in step.lines}
    assert ("office-1", "helper") in lines  # tags
    assert ("helper", COORDINATOR) in lines  # the number
    assert ("helper", "office-1") not in lines  # nobody is told pairs
    assert not any("helper" in pair for pair in sent(ecdh))
    assert [step.stage for step in ecdh.steps if step.arrows] == ["meet", "first", "second", "own"]


def test_pairs_go_to_the_holder_named_and_a_cap_makes_no_longer_trace() -> None:
    told = with_options(study_of(LINKAGE, "helper", 2, None), reveal="pairs", to=("office-2",), cap=10_000_000)
    after = {(a.sender, a.receiver) for step in flow(told).steps if step.stage == "round" for a in step.lines}
    assert ("helper", "office-2") in after
    assert ("helper", "office-1") not in after


def test_a_trace_that_is_refused_says_why_and_shows_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = study_of(LINKAGE, "helper", 2, None)
    place = load_protection("helper")
    assert isinstance(place, InPlace)
    whole = place.module.coordinator

    def ends(agreement: Any) -> Any:
        rounds = whole(agreement)
        replies = yield next(rounds)
        yield rounds.send(replies)
        raise Refused("linkage: too few")

    monkeypatch.setattr(place.module, "coordinator", ends)
    found = flow(terms)
    assert found.ended == "linkage: too few"
    assert [step.stage for step in found.steps] == ["offer", "meet"]


def test_the_annex_before_a_run_has_rules_flow_and_what_is_to_be_agreed() -> None:
    terms = with_options(study_of(LINKAGE, "fuzzy", 2, None), key="id:luhn", block="id:soundex")
    facts = facts_of_study(terms, title="Registers")
    annex = make_annex(facts, "agreement")
    text, page = to_markdown(annex), to_html(annex)
    for shown in (text, page):
        assert "Not run yet" in shown
        assert "check digit" in shown
        assert "truth sample" in shown
        assert "lowest at and above which the estimated precision" in shown
        assert VERDICT.search(re.sub("<style>.*?</style>", "", shown, flags=re.S)) is None
        for row in facts.learns:
            assert row.role in shown
    assert "Privacy accounting" not in text
    assert "sums were formed" not in text
    assert "From the run" not in text
    assert page.count("<svg") == 1
    assert "stroke-dasharray" in page
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)


def test_a_name_of_a_party_stays_text_in_the_drawing() -> None:
    facts = facts_of_study(study_of(VERTICAL, "helper", 2, None))
    assert facts.linked is not None
    steps = tuple(
        replace(step, arrows=tuple(replace(arrow, what="</text><script>") for arrow in step.arrows))
        for step in facts.linked.flow.steps
    )
    hostile = replace(facts, linked=replace(facts.linked, flow=replace(facts.linked.flow, steps=steps)))
    page = to_html(make_annex(hostile, "dpia"))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in to_markdown(make_annex(hostile, "dpia"))


@pytest.fixture(scope="module")
def fuzzy() -> Facts:
    """A finished fuzzy linkage of two registers with errors in every tenth name."""
    rng = np.random.default_rng(1)
    letters = list("abcdefghijklmnoprstuvw")
    names = ["".join(rng.choice(letters, 7)) + " " + "".join(rng.choice(letters, 8)) for _ in range(800)]
    codes = [f"{number}" for number in rng.integers(10_000, 30_000, 800)]
    one = pd.DataFrame({"name": names[:600], "postcode": codes[:600]})
    other = pd.DataFrame({"name": names[200:], "postcode": codes[200:]})
    other.loc[::10, "name"] = other.loc[::10, "name"].str[:-1]
    types = {"postcode": "id", "name": "text"}
    federation = Federation({"a": one, "b": other}, types=types)
    federation.link("name:name", by="fuzzy", block="postcode[:3],name:name[:2]")
    assert federation.last is not None
    return facts_of(read_answer(federation.last.to_dict()))


def test_the_annex_of_a_run_has_its_estimates_with_their_limits(fuzzy: Facts) -> None:
    assert fuzzy.linked is not None
    found = {one.name: one for one in fuzzy.linked.estimates}
    for name in ("precision", "recall"):
        low, high = found[name].low, found[name].high
        assert low is not None
        assert high is not None
        assert low <= found[name].value <= high
    annex = make_annex(fuzzy, "dpia")
    tables = [b for s in annex.sections for b in s.blocks if isinstance(b, Table)]
    (shown,) = (one for one in tables if one.caption == "Estimated by the linkage")
    assert {row[0] for row in shown.rows} >= {"precision", "recall", "threshold"}
    assert any(isinstance(block, Drawing) for section in annex.sections for block in section.blocks)
    assert {one.name for one in fuzzy.variables if one.read} == {"name", "postcode"}


STUDY = """method = "count"
holders = ["office", "bank"]
codebook = "all.codebook.toml"
engine = "pilot"
[codebooks]
office = "all.codebook.toml"
bank = "all.codebook.toml"
[protection]
name = "ecdh"
[protection.options]
key = "id"
"""


def test_a_study_file_has_an_annex_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "all.codebook.toml").write_text('[columns.id]\ntype = "id"\n')
    path = tmp_path / "trade.study.toml"
    path.write_text(STUDY)
    done = CliRunner().invoke(app, ["annex", str(path), "--kind", "agreement", "--format", "md"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "trade-annex-agreement.md").read_text()
    assert "Flow of the linkage" in text
    path.write_text('method = "count"\n[holders]\noffice = "office.csv"\n')
    refused = CliRunner().invoke(app, ["annex", str(path)])
    assert refused.exit_code == 2
    assert "codebook: got none" in refused.stderr
