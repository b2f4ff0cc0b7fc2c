"""Linkages against a coordinator that does not follow the protocol, and against questions made to tell of few."""

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statfed.client.guard.ledger import read_only
from statfed.client.holder import Holder
from statfed.client.third_party import ThirdParty
from statfed.core import VERSION
from statfed.core.codebook import make_codebook
from statfed.core.errors import Refused, StatfedError
from statfed.core.linkage import Outcome, restricted
from statfed.core.protection import Packet, agree, read_protection
from statfed.core.study import make_study
from statfed.core.terms import Terms
from tests.federation.test_link import CODEBOOK, answered, study, tables


class World:
    """The homes of a linkage that has been, asked by hand."""

    def __init__(self, folder: Path, changed: Mapping[str, pd.DataFrame] | None = None) -> None:
        answered(folder, study({"key": "id"}), changed or {})
        self.folder = folder
        self.homes: dict[str, Path] = {}
        for path in (folder / "workspace").glob("**/*.toml"):
            if path.name in ("policy.toml", "party.toml"):
                self.homes[path.parent.name.removeprefix("party-").split("-")[0]] = path.parent
        self.parties: dict[str, Holder | ThirdParty] = {
            name: Holder(home) if (home / "policy.toml").exists() else ThirdParty(home)
            for name, home in self.homes.items()
        }
        self.sizes = {name: len(frame) for name, frame in tables().items()}

    def terms(self, given: Mapping[str, Any]) -> Terms:
        codebook = make_codebook(CODEBOOK)
        read = make_study({"holders": {name: str(self.folder / f"{name}.parquet") for name in tables()}, **given})
        return read.terms(codebook, {name: restricted(codebook, frame.columns) for name, frame in tables().items()})

    def strict(self, name: str, **limits: object) -> None:
        """Make a rehearsal's policy one that counts and explains nothing. limits: others than those here."""
        path = self.homes[name] / "policy.toml"
        pinned = self.terms(study({"key": "id"})).codebooks[name].digest()
        text = path.read_text().replace("explain = true", "explain = false")
        text = text.replace("codebooks = []", f'codebooks = ["{pinned}"]')
        for key, most in ({"figures": 100_000, "refusals": 10, "linkages": 10, "ratio": 100} | limits).items():
            text = re.sub(rf'(?m)^{key} = ("off"|[0-9]+)', f"{key} = {most}", text)
        path.write_text(text)

    def say(self, name: str, step: str, run: str, terms: Terms, packet: Packet | None = None, **more: Any) -> Any:
        told = {"version": VERSION, "run": run, "step": step, "terms": terms.model_dump(mode="json")} | more
        return self.parties[name].answer(json.dumps(told | {"sizes": self.sizes}), {}, packet or {})

    def link(self, run: str, given: Mapping[str, Any]) -> Outcome:
        terms = self.terms(given)
        module, _ = read_protection(terms)
        rounds: Any = module.coordinator(agree(run, terms, self.sizes))
        stage = next(rounds)
        try:
            for name in self.sizes:
                self.say(name, "admit", run, terms)
            while True:
                packets = stage.packets.items()
                replies = {n: self.say(n, "protect", run, terms, p, stage=stage.name, round=1) for n, p in packets}
                stage = rounds.send({name: reply.packet for name, reply in replies.items()})
        except StopIteration as end:
            found: Outcome = end.value
            return found
        finally:
            for name in self.sizes:
                self.say(name, "release", run, terms)


@pytest.mark.parametrize("run", ["{}/evil", "../evil", "..", "a/b"])
def test_a_run_whose_name_leads_out_of_the_folder_of_pairs_is_refused(run: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    before = set(tmp_path.rglob("*.parquet"))
    with pytest.raises(Refused, match="run: got a name"):
        world.link(run.format(tmp_path), study({"key": "id", "reveal": "pairs", "to": ["bank"]}))
    assert set(tmp_path.rglob("*.parquet")) == before
    world.link("one", study({"key": "id", "reveal": "pairs", "to": ["bank"]}))
    assert [path.name for path in (world.homes["bank"] / "links").iterdir()] == ["one.parquet"]


@pytest.mark.parametrize("by", ["helper", "ecdh"])
def test_a_cap_that_holders_refuse_says_nothing_of_their_units_and_is_counted(by: str, tmp_path: Path) -> None:
    """With a cap after another whoever asks would count the units that conditions select."""
    world = World(tmp_path)
    asked = study({"key": "id", "cap": 50}, where=["income >= 100"])
    asked["protection"]["name"] = by
    for name in world.sizes:
        world.strict(name)
    with pytest.raises(StatfedError) as refused:
        world.link("one", asked)
    with read_only(world.homes["bank"] / "ledger.sqlite") as ledger:  # the first to be asked
        assert ledger.refusals(30) == 1
    assert "cap" not in str(refused.value)
    assert not re.search(r"\b50\b", str(refused.value))  # digits of the refusal's own name aside


def analysis(method: str, **options: Any) -> dict[str, Any]:
    return study({"key": "id", "reveal": "totals", "minimum_frequency": 2}, method=method, options=options)


@pytest.mark.parametrize(
    ("limit", "given"),
    [
        ("cells", analysis("table", rows=["region"], columns=["sector"])),
        ("parameters", analysis("ols", formula="income ~ age + C(region)")),
        ("entries", analysis("mean", columns=["income"], by=["region"])),
    ],
)
def test_limits_on_what_is_asked_hold_for_a_linkage(limit: str, given: dict[str, Any], tmp_path: Path) -> None:
    world = World(tmp_path)
    world.strict("bank", **{limit: 3})
    with pytest.raises(Refused, match=f"limits.{limit}"):
        world.link("one", given)
    world.strict("bank", **{limit: 100})
    assert world.link("two", given).result is not None


def test_a_run_that_has_ended_links_no_more_as_another_attempt(tmp_path: Path) -> None:
    world = World(tmp_path)
    asked = study({"key": "id"})
    assert world.link("one", asked).size == 100
    for name in world.sizes:
        world.say(name, "release", "one", world.terms(asked), finished=True)
    with pytest.raises(Refused, match="it has ended"):
        world.link("one~2", asked)


@pytest.mark.parametrize(("by", "method"), [("helper", "count"), ("helper", "table"), ("ecdh", "count")])
def test_two_linkages_do_not_differ_by_a_few_of_a_holders_units(by: str, method: str, tmp_path: Path) -> None:
    """The difference of their figures would be about the few, whether they match and in which cell."""
    world = World(tmp_path)
    frame = tables()["office"]
    alone = frame["age"].value_counts().loc[lambda counts: counts < 10].index[0]
    for name in world.sizes:
        world.strict(name)
        path = world.homes[name] / "policy.toml"
        text = path.read_text().replace('minimum_frequency = "off"', "minimum_frequency = 10")
        path.write_text(text.replace(f'"{by}:pairs"', f'"{by}:several"'))
    given = study({"key": "id"})
    if method == "table":
        given = analysis("table", rows=["sector"])
        given["protection"]["options"]["minimum_frequency"] = 10
    given["protection"]["name"] = by
    assert world.link("one", given).size != 0
    with pytest.raises(Refused):
        world.link("two", given | {"where": [f"age != {alone}"]})
    with read_only(world.homes["office"] / "ledger.sqlite") as ledger:
        assert ledger.refusals(30) == 1
    assert world.link("three", given | {"where": ["age >= 50"]}).size != 0
    assert world.link("four", given).size != 0


def ruled(world: World, minimum: int, right: str = "") -> None:
    """Policies under a minimum frequency. right: of `helper`, that holders give besides."""
    for name in world.sizes:
        world.strict(name)
        path = world.homes[name] / "policy.toml"
        text = path.read_text().replace('minimum_frequency = "off"', f"minimum_frequency = {minimum}")
        path.write_text(text.replace('"helper:pairs"', f'"helper:{right}"') if right else text)


@pytest.mark.parametrize("key", ["id:digits(5)", "id[3:]+id", "id+id:number"])
def test_no_key_leaves_out_a_few_of_a_holders_units(key: str, tmp_path: Path) -> None:
    """The difference of two tables would be the cell of one whose identifier has another form than the others'."""
    frames = tables()
    odd = frames["office"]["id"].iloc[150]
    ids = {one: f"{int(one[1:]):04d}" for frame in frames.values() for one in frame["id"]} | {odd: "x"}
    changed = {name: frame.assign(id=frame["id"].map(ids)) for name, frame in frames.items()}
    world = World(tmp_path, changed)
    ruled(world, 10, "several")
    given = analysis("table", rows=["sector"])
    given["protection"]["options"]["minimum_frequency"] = 10
    assert world.link("one", given).result is not None
    given["protection"]["options"]["key"] = key
    with pytest.raises(Refused):
        world.link("two", given)
    given["protection"]["options"]["key"] = "id:text"
    assert world.link("three", given).result is not None


def test_figures_of_a_model_are_counted_as_its_steps_are_answered_and_limited(tmp_path: Path) -> None:
    """A model that ends early has not given what it might have; one that goes beyond what may be given ends there."""
    world = World(tmp_path)
    given = analysis("glm", formula="works ~ age", family="binomial")
    before = {}
    for name in world.sizes:
        with read_only(world.homes[name] / "ledger.sqlite") as ledger:
            before[name] = ledger.figures()
    assert world.link("one", given).result is not None
    told = {}
    for name in before:
        with read_only(world.homes[name] / "ledger.sqlite") as ledger:
            entries = [one for one in ledger.entries() if one.kind == "disclose" and one.run == "one"]
            told[name] = ledger.figures() - before[name]
            assert "step" in entries[-1].note
            assert told[name] == sum(json.loads(one.facts)["figures"] for one in entries)
            assert ledger.linked(30) == 2  # a step is no linkage
    assert told["office"] == told["bank"] < 100
    for name in world.sizes:
        world.strict(name, figures=before[name] + told[name] + 1)
    with pytest.raises(Refused, match=r"limits\.figures"):
        world.link("two", given)


@pytest.mark.parametrize("attempts", [3])
def test_one_approved_run_is_not_a_hundred_guesses(attempts: int, tmp_path: Path) -> None:
    world = World(tmp_path)
    asked = study({"key": "id"})
    for number in range(attempts):
        world.link(f"one~{number + 1}", asked)
    with pytest.raises(Refused, match="units were matched in 3 attempts at it; want at most 3, and a new run"):
        world.link(f"one~{attempts + 1}", asked)
    assert world.link("two", asked).size == 100


def test_lists_of_a_run_that_was_abandoned_go_at_a_start_and_with_any_run_that_is_admitted(tmp_path: Path) -> None:
    world = World(tmp_path)
    home = world.homes["bank"]
    terms = world.terms(study({"key": "id"}))
    for begin in (lambda: world.say("bank", "admit", "other", terms), lambda: Holder(home)):
        (home / "lists").mkdir(mode=0o700, exist_ok=True)
        left = home / "lists" / ("0" * 32)
        left.write_bytes(b"points")
        os.utime(left, (time.time() - 30 * 86_400,) * 2)
        begin()
        assert not left.exists()
    world.say("bank", "release", "other", terms)


@pytest.mark.parametrize(
    ("stage", "packet"), [("round", {"number": b"\0\0\0\x09"}), ("round", {"from:office": b"x" * 99}), ("own", {})]
)
def test_a_packet_that_is_none_uses_up_no_refusals(stage: str, packet: Packet, tmp_path: Path) -> None:
    """Whoever sends such ones would else have a holder answer nobody."""
    world = World(tmp_path)
    world.strict("bank", refusals=1)
    terms = world.terms(study({"key": "id"}))
    for run in ("one", "two"):
        world.say("bank", "admit", run, terms)
        world.say("bank", "protect", run, terms, {}, stage="offer", round=1)
        with pytest.raises(Refused, match="packet: got one that is none of this protocol at this stage"):
            world.say("bank", "protect", run, terms, packet, stage=stage, round=1)
        world.say("bank", "release", run, terms)
    with read_only(world.homes["bank"] / "ledger.sqlite") as ledger:
        assert ledger.refusals(30) == 0


def test_a_list_that_may_be_of_guesses_is_refused_for_its_length(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.strict("bank", ratio=2)
    with pytest.raises(Refused, match=r"limits\.ratio: got 1,000 places for another holder's units, 5 for each record"):
        world.link("one", study({"key": "id", "cap": 1_000}))
    assert world.link("two", study({"key": "id", "cap": 400})).size == 100
