"""Two holders linked by ECDH: equal to a plain join, and what is refused, withheld, kept and told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.linkage import Outcome, Party, Units, linked, load_linkage
from statfed.core.privacy.accountant import DiscreteLaplace, singles
from statfed.core.protection import Agreement, Packet
from statfed.strategies.linkages import ecdh
from statfed.strategies.linkages._ecdh_list import own_list
from statfed.strategies.linkages._elgamal import Digits, Key, Sums
from tests.protocol import identities
from tests.strategies.linkages.pairs_of_holders import Keys, Run, agreed, numbered

CASES: dict[str, tuple[Keys, Keys]] = {
    "some matched": (numbered(0, 150), numbered(100, 230)),
    "none matched": (numbered(0, 70), numbered(70, 130)),
    "all matched": (numbered(0, 64), numbered(0, 64)[::-1]),
    "one within the other": (numbered(20, 30), numbered(0, 129)),
    "keys of many scripts": (
        ["Zoë Łuk", "zoe luk", "李雷", "", "Ω", " a", "a"],
        ["李雷", "Zoë Łuk", "a", "Ω ", "", "b"],
    ),
    "missing keys": ([None, "a", "b", None, "c"], ["c", None, None, "a", "d"]),
}
PRIVACY = {"epsilon": 0.5, "delta": 0.0}


def merged(office: Keys, bank: Keys) -> pd.DataFrame:
    """The plain join, with positions of units at either holder."""
    one, two = (pd.DataFrame({"key": list(keys), "at": range(len(keys))}).dropna() for keys in (office, bank))
    return one.merge(two, on="key", suffixes=("_office", "_bank"))


@pytest.mark.parametrize("case", CASES)
def test_the_size_is_that_of_a_plain_join(case: str) -> None:
    office, bank = CASES[case]
    assert Run(office, bank).outcome() == Outcome(size=len(merged(office, bank)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("to", ["office", "bank"])
def test_pairs_are_those_of_a_plain_join_and_known_to_one_holder_alone(case: str, to: str) -> None:
    office, bank = CASES[case]
    run = Run(office, bank, options={"reveal": "pairs", "to": to})
    joined = merged(office, bank)
    assert run.outcome() == Outcome(size=len(joined))
    matched = run.parties[to].matched
    assert matched is not None
    assert matched.tolist() == sorted(joined[f"at_{to}"])
    assert run.parties["bank" if to == "office" else "office"].matched is None


@pytest.mark.parametrize("case", CASES)
def test_totals_are_those_of_a_plain_join(case: str) -> None:
    office, bank = CASES[case]
    draw = np.random.default_rng(7)
    income = draw.integers(-5_000_00, 90_000_000_00, len(bank)) / 100.0
    columns = {"income": income, "visits": draw.integers(3, 9, len(bank)).astype(float)}
    options = {
        "reveal": "totals",
        "to": "bank",
        "columns": {
            "visits": {"low": 3, "high": 9},
            "income": {"low": -5_000, "high": 90_000_000, "decimals": 2},
        },
    }
    outcome = Run(office, bank, {"bank": columns}, options).outcome()
    at = merged(office, bank)["at_bank"].to_numpy()
    assert outcome.size == len(at)
    assert outcome.figures["visits"] == columns["visits"][at].sum()
    assert outcome.figures["income"] == math.fsum(np.rint(income[at] * 100)) / 100


@pytest.mark.parametrize(("low", "high", "decimals"), [(-7, 7, 0), (0, 2**46, 0), (-(2**46), -1, 0), (-8e9, 8e9, -3)])
def test_digits_add_up_to_the_total_whatever_the_bounds(low: float, high: float, decimals: int) -> None:
    column = ecdh.Column(low=low, high=high, decimals=decimals)
    unit = 10.0**-decimals
    values = np.array([low, high, low, 0.0 if low <= 0 <= high else high, np.rint((low + high) / 2 / unit) * unit])
    digits, key = Digits((column,)), Key.fresh(Digits((column,)).count)
    written = digits.written([values])
    bounds = np.array(digits.bounds)
    assert ((written >= bounds[:, 0]) & (written <= bounds[:, 1])).all()
    sums = Sums(key.public, "bank")
    sums.add(key.encrypted(written), np.array([True, True, False, True, True]))
    found = key.decrypted(sums.finished(), digits.bounds, len(values), "office")
    assert digits.read(found) == [float(values[[0, 1, 3, 4]].sum())]


def test_lists_of_no_and_of_one_unit_are_filled_up_to_the_agreed_items() -> None:
    for office, size in (([], 0), (["person 00007"], 1)):
        run = Run(office, numbered(0, 30), sizes={"office": 40, "bank": 40})
        assert run.outcome().size == size
        assert [len(content) for stage, content in run.heard["bank"] if stage == "first"] == [40 * 32]
    with pytest.raises(UsageError, match="got lists of 1 and 30 items; want 10"):
        ecdh.plan_of(agreed({"office": 1, "bank": 30}, minimum=10))
    with pytest.raises(UsageError, match="got lists of 0 and 30 items; want 1 "):
        ecdh.plan_of(agreed({"office": 0, "bank": 30}))


def test_what_travels_is_of_one_length_whoever_matches_and_however_many_units_there_are() -> None:
    def lengths(office: Keys, bank: Keys) -> list[tuple[str, str, list[int]]]:
        run = Run(office, bank, sizes={"office": 90, "bank": 90}, options={"pad_to": {"office": 70}})
        run.outcome()
        return [
            (stage, name, [len(v) for v in packet.values() if isinstance(v, bytes)]) for stage, name, packet in run.sent
        ]

    assert lengths(numbered(0, 70), numbered(0, 90)) == lengths(numbered(0, 3), numbered(50, 52))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"to": "other"}, "to: got other; want of bank, office"),
        ({"pad_to": {"other": 5}}, "pad_to: got other; want of bank, office"),
        ({"pad_to": {"bank": 20_000_001}}, "got lists of 100 and 20000001 items; want 1 "),
        ({"pad_to": {"bank": 1001}, "ratio": 10}, "ratio: got lists of 100 and 1001 items; want at most 10 for each"),
    ],
)
def test_an_agreement_that_does_not_fit_is_refused_at_both_ends(change: dict[str, Any], words: str) -> None:
    agreement = agreed(**change)
    known = identities(agreement.parties)
    with pytest.raises(UsageError, match=words):
        ecdh.coordinator(agreement)
    with pytest.raises(UsageError, match=words):
        ecdh.party(agreement, known["bank"], Units({"id": ["a"]}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reveal": "totals"}, "got 0 to reveal totals; want them for totals"),
        ({"columns": {"x": {"low": 0, "high": 1}}}, "got 1 to reveal size; want them for totals, and only so"),
        ({"reveal": "totals", "columns": {"size": {"low": 0, "high": 1}}}, "got one named size"),
        ({"reveal": "totals", "columns": {"x": {"low": 0, "high": 0.5}}}, "want bounds of 0 decimals"),
        ({"reveal": "totals", "columns": {"x": {"low": 1, "high": 0}}}, "want low <= high"),
        ({"reveal": "totals", "columns": {"x": {"low": 0, "high": 2**48}}}, "below 2\\^47 units"),
        ({"reveal": "pairs", "privacy": PRIVACY}, "got noise for pairs"),
        ({"privacy": {**PRIVACY, "noise": "central"}}, "got another placement"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ecdh.Options(**{"to": "office", **options})


@pytest.mark.parametrize(
    ("units", "words"),
    [
        (Units({"id": ["secret", "b", "secret"]}), "got one of bank twice; want every unit under a key of its own"),
        (Units({"id": ["a"], "name": ["b"]}), "got 2 parts; want one"),
        (Units({"id": numbered(0, 101)}), "got more than the 100 items agreed for bank"),
        (Units({"id": ["a"]}), "got no x of every unit"),
        (Units({"id": ["a"]}, {"x": np.array([1.0, 2.0])}), "got no x of every unit"),
        (Units({"id": ["a"]}, {"x": np.array([np.nan])}), "got x beyond its bounds"),
        (Units({"id": ["a"]}, {"x": np.array([9.5])}), "got x beyond its bounds"),
        (None, "got no units of bank"),
    ],
)
def test_units_that_do_not_fit_are_refused_without_a_word_of_them(units: Units | None, words: str) -> None:
    agreement = agreed(reveal="totals", to="bank", columns={"x": {"low": 0, "high": 9}})
    with pytest.raises(UsageError, match=words) as refusal:
        ecdh.party(agreement, identities(agreement.parties)["bank"], units)
    assert "secret" not in str(refusal.value)
    assert "9.5" not in str(refusal.value)


def test_a_third_holder_is_refused() -> None:
    with pytest.raises(UsageError, match="got 3 parties; want two holders"):
        ecdh.coordinator(agreed({"a": 10, "b": 10, "office": 10}))


@pytest.mark.parametrize("reveal", ["size", "pairs", "totals"])
def test_a_size_below_the_minimum_is_not_told_and_nothing_is_summed(reveal: str) -> None:
    office, bank = numbered(0, 50), numbered(41, 90)
    columns = {"x": {"low": 0, "high": 1}} if reveal == "totals" else {}
    for minimum, told in ((10, None), (9, 9)):
        options = {"reveal": reveal, "to": "bank", "columns": columns, "minimum": minimum}
        run = Run(office, bank, {"bank": {"x": np.ones(49)}}, options)
        outcome = run.outcome()
        assert outcome.size == told
        assert ("x" in outcome.figures) == (reveal == "totals" and told is not None)
        if told is None:
            assert run.sent[-1] == ("own", ecdh.plan_of(run.agreement).matcher, {"withheld": b"1"})


def test_with_privacy_size_and_totals_are_told_with_the_noise_that_is_charged() -> None:
    options = {
        "reveal": "totals",
        "to": "bank",
        "columns": {"x": {"low": -2, "high": 5}},
        "privacy": PRIVACY,
    }
    run = Run(numbered(0, 50), numbered(10, 60), {"bank": {"x": np.full(50, 5.0)}}, options)
    outcome = run.outcome()
    noise = ecdh.noise_of(ecdh.Options.model_validate(options))
    assert noise is not None
    one, two = (run.parties[name]._list.noise() for name in ("office", "bank"))
    assert outcome.size == noise.add({"size": np.array(40), "x": np.array(0.0)}, one)["size"]
    assert outcome.figures["x"] == noise.add({"size": np.array(0), "x": np.array(200.0)}, two)["x"]
    assert outcome.figures["x"] != 200.0
    charged = [event for event, _ in singles([noise.event()])]
    assert all(isinstance(event, DiscreteLaplace) for event in charged)
    assert noise.epsilon(1, 0.0) <= 0.5


def test_with_privacy_the_minimum_is_judged_on_the_noisy_size() -> None:
    told = set()
    for _ in range(40):
        run = Run(numbered(0, 16), numbered(6, 22), options={"privacy": PRIVACY, "minimum": 10})
        size = run.outcome().size
        noise = ecdh.noise_of(ecdh.Options.model_validate({"to": "office", "privacy": PRIVACY}))
        assert noise is not None
        noisy = int(noise.add({"size": np.array(10)}, run.parties["office"]._list.noise())["size"])
        assert size == (noisy if noisy >= 10 else None)
        told.add(noisy >= 10)
    assert told == {True, False}  # each but for one of a thousand million runs


def test_another_attempt_with_the_kept_list_tells_the_same_noisy_size(tmp_path: Path) -> None:
    def told(keep: Mapping[str, Path]) -> int | None:
        return Run(numbered(0, 20), numbered(5, 25), options={"privacy": PRIVACY}, keep=keep).outcome().size

    kept = {name: tmp_path / f"{name}.npz" for name in ("office", "bank")}
    assert len({told(kept) for _ in range(8)}) == 1
    assert len({told({}) for _ in range(30)}) > 1


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"size": np.array(101)}, "got one that cannot be; want 5 to 100"),
        ({"size": np.array(4)}, "got one that cannot be"),
        ({"size": np.array(7.5)}, "got no whole number"),
        ({"size": np.array([7])}, "got no whole number"),
        ({}, "got no array size"),
    ],
)
def test_a_size_that_cannot_be_is_a_failure_of_the_holder_that_says_it(report: Packet, words: str) -> None:
    run = Run(numbered(0, 100), numbered(0, 100), options={"minimum": 5})
    office = run.parties["office"]
    answer = office.answer
    vars(office)["answer"] = lambda stage, packet: (
        report if len(run.sent) > 14 and stage == "own" else answer(stage, packet)
    )
    with pytest.raises(EngineError, match=f"office: .*{words}"):
        run.outcome()


def test_a_holder_that_falls_silent_is_named() -> None:
    run = Run(numbered(0, 100), numbered(0, 100))
    rounds = ecdh.coordinator(run.agreement)
    stage = next(rounds)
    while stage.name != "second":
        stage = rounds.send({name: run.parties[name].answer(stage.name, p) for name, p in stage.packets.items()})
    with pytest.raises(EngineError, match="second: no answer from bank"):
        rounds.send({})


def _raw(item: Any) -> bytes:
    return bytes(item) if isinstance(item, bytes) else bytes(np.asarray(item).tobytes())


@dataclass
class Twice:
    """A holder of whom everything is asked twice."""

    party: Party

    def answer(self, stage: str, packet: Packet) -> Packet:
        first, second = (self.party.answer(stage, dict(packet)) for _ in range(2))
        told = [{name: _raw(item) for name, item in reply.items()} for reply in (first, second)]
        assert told[0] == told[1]
        return second


def test_a_reply_that_was_lost_is_given_again_and_nothing_else_is() -> None:
    options = {"reveal": "totals", "columns": {"x": {"low": 0, "high": 1}}, "to": "bank"}
    run = Run(numbered(0, 100), numbered(50, 150), {"bank": {"x": np.ones(100)}}, options)
    outcome = linked(ecdh.coordinator(run.agreement), {name: Twice(one) for name, one in run.parties.items()})
    assert outcome.size == 50
    assert outcome.figures["x"] == 50.0
    for name in ("office", "bank"):
        with pytest.raises(Refused, match="stage: got one that is not due"):
            run.parties[name].answer("first", {"number": b"0"})


def kept_run(folder: Path, office: Keys, bank: Keys, run: str = "run") -> Run:
    keep = {name: folder / f"{name}.npz" for name in ("office", "bank")}
    return Run(office, bank, keep=keep, run=run, options={"reveal": "pairs"})


def test_a_first_pass_that_was_kept_serves_another_attempt(tmp_path: Path) -> None:
    office, bank = numbered(0, 90), numbered(60, 150)
    first, second = kept_run(tmp_path, office, bank), kept_run(tmp_path, office, bank)
    for run in (first, second):
        assert run.outcome().size == 30
        matched = run.parties["office"].matched
        assert matched is not None
        assert matched.tolist() == list(range(60, 90))
    assert first.heard["bank"][0] == second.heard["bank"][0]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.npz{suffix}" for name in ("office", "bank") for suffix in ("", ".own", ".others")
    }


def test_a_first_pass_is_not_used_in_another_agreement_nor_for_other_units(tmp_path: Path) -> None:
    office, bank = numbered(0, 90), numbered(60, 150)
    kept_run(tmp_path, office, bank)
    with pytest.raises(Refused, match="got the first pass of another agreement or of other units"):
        kept_run(tmp_path, office, bank, run="another")
    with pytest.raises(Refused, match="got the first pass of another agreement or of other units"):
        kept_run(tmp_path, office[::-1], bank)


def test_a_first_pass_that_was_kept_answers_no_second_list(tmp_path: Path) -> None:
    office, bank = numbered(0, 90), numbered(60, 150)
    kept_run(tmp_path, office, bank).outcome()
    (tmp_path / "office.npz").unlink()
    with pytest.raises(Refused, match="list: got another one than at the first attempt"):
        kept_run(tmp_path, numbered(30, 120), bank).outcome()
    assert not [stage for stage, _, _ in kept_run(tmp_path, numbered(30, 120), bank).sent if stage == "second"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"], ids=["empty", "other", "cut"])
def test_a_damaged_file_of_a_first_pass_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bank.npz").write_bytes(content)
    agreement = agreed()
    with pytest.raises(UsageError, match="the file of the first pass cannot be read"):
        own_list(agreement, "bank", Units({"id": ["a"]}), tmp_path / "bank.npz")


@pytest.mark.parametrize("reveal", ["size", "pairs", "totals"])
@pytest.mark.parametrize("private", [False, True])
def test_every_role_is_told_of_in_every_mode(reveal: Any, private: bool) -> None:
    columns = {"x": {"low": 0, "high": 1}} if reveal == "totals" else {}
    if private and reveal == "pairs":
        return
    agreement = agreed(reveal=reveal, columns=columns, privacy=PRIVACY if private else None, minimum=7)
    rows = ecdh.learns(agreement, reveal)
    roles = {row.role for row in rows}
    assert {"office", "bank", "coordinator", "result party", "anyone on the network"} <= roles
    told = " ".join(row.learns for row in rows if row.role == "coordinator")
    assert "number of matched units" in told
    assert ("totals of x" in told) == (reveal == "totals")
    assert all("minimum of 7" in row.protected_by for row in rows if row.role == "result party")
    assert private == any("epsilon 0.5" in row.protected_by for row in rows)
    sees = "bank" if reveal == "totals" else "office"
    assert any("which of its own units" in row.learns for row in rows) == (reveal == "pairs")
    assert ecdh.plan_of(agreement).matcher == sees
    with pytest.raises(UsageError, match="reveal: got"):
        ecdh.learns(agreement, "size" if reveal != "size" else "pairs")


def test_the_linkage_is_found_by_its_name_and_runs_by_the_contract() -> None:
    module = load_linkage("ecdh")
    assert (module.PARTIES, module.EXTRA, module.REVEALS) == ((2, 2), "link", ("size", "totals", "pairs"))
    agreement: Agreement = agreed({"bank": 3, "office": 3})
    known = identities(agreement.parties)
    units: Mapping[str, list[str | None]] = {"bank": ["a", "b", None], "office": ["b", "c", "a"]}
    parties = {name: module.party(agreement, known[name], Units({"id": units[name]})) for name in units}
    assert linked(module.coordinator(agreement), parties) == Outcome(size=2)
    assert module.third_parties(agreement.options) == ()
