"""Noise added by each holder, by the coordinator, or by the holders together: its price, its size, who sees what."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from statfed.core import discovery
from statfed.core.applicability import obstacles
from statfed.core.errors import Refused, UsageError
from statfed.core.fixed_point import Layout
from statfed.core.method import Arrays, Part
from statfed.core.privacy import accountant as privacy
from statfed.core.privacy import discrete, noise
from statfed.core.privacy.grid import LEAST_SHARE
from statfed.core.privacy.placement import in_words, shares
from statfed.core.protection import PACKAGE, Aggregate, Disclosure, Packet, Requirements, Rounds, Stage
from statfed.core.randomness import stream
from statfed.core.section import Section
from statfed.core.statement import Closing
from statfed.core.study import make_study, noisy_parts
from statfed.core.terms import Privacy, Terms
from statfed.federation import Federation
from tests.office import Office, query
from tests.universe import CODEBOOK, people

Floats = NDArray[np.float64]
CELLS = Part((4, 3), 1, integer=True, single=True)
SUMS = Part((3,), np.array([1.0, 25.0, 1e7]))
BOTH = {"n": CELLS, "s": SUMS}


def gaussian(**fields: Any) -> Privacy:
    """With Gaussian noise where nothing else is said."""
    return Privacy.model_validate({"mechanism": "discrete-gaussian"} | fields)


def shared(epsilon: float = 1.0, **more: Any) -> Privacy:
    return gaussian(epsilon=epsilon, noise="shared", **more)


def pmf(sigma: float) -> Floats:
    """N_Z(0, sigma^2) on -w ... w with w = ceil(12 sigma), (2 w + 1,)."""
    x = np.arange(-math.ceil(12 * sigma), math.ceil(12 * sigma) + 1)
    mass = np.exp(-((x / sigma) ** 2) / 2)
    return np.asarray(mass / mass.sum())


def total_pmf(sigma: float, count: int) -> Floats:
    """The sum of `count` draws, by convolution."""
    found = np.ones(1)
    for _ in range(count):
        found = np.convolve(found, pmf(sigma))
    return found


def losses(mass: Floats, shift: int) -> tuple[Floats, Floats]:
    """Probabilities of one noisy number with this noise, and with it `shift` higher, on one support."""
    return np.pad(mass, (0, shift)), np.pad(mass, (shift, 0))


def exact_epsilon(p: Floats, q: Floats, delta: float) -> float:
    """The smallest epsilon with sum(max(0, p - e^epsilon q)) <= delta, by bisection."""
    low, high = 0.0, 200.0
    while high - low > 1e-13:
        middle = (low + high) / 2
        spent = np.maximum(p - np.exp(middle) * q, 0.0).sum()
        low, high = (low, middle) if spent <= delta else (middle, high)
    return high


# ---- what is charged


@pytest.mark.parametrize("m", [2, 3, 5, 10])
@pytest.mark.parametrize("epsilon", [0.3, 1.0, 8.0])
def test_shares_cost_no_more_than_is_charged_and_one_share_fewer_costs_more(m: int, epsilon: float) -> None:
    """Against the convolution of the shares themselves."""
    wanted = shared(epsilon, delta=1e-5)
    made = noise.plan({"n": CELLS}, wanted, shares=m)
    (grid,) = made._grids
    ((shift, _, _),) = grid.changes
    share = float(grid.scale[0])
    assert share >= LEAST_SHARE * 0.999
    spent = exact_epsilon(*losses(total_pmf(share, m), shift), 1e-5)
    assert epsilon * 0.99 < spent <= made.epsilon(1, 1e-5) <= epsilon
    fewer = exact_epsilon(*losses(total_pmf(share, m - 1), shift), 1e-5)
    assert fewer > epsilon


def test_two_numbers_of_shared_noise_cost_no_more_than_is_charged() -> None:
    made = noise.plan({"n": Part((2,), 1, integer=True)}, shared(1.0, delta=1e-4), shares=3)
    (grid,) = made._grids
    ((shift, _, count),) = grid.changes
    assert count == 2
    p, q = losses(total_pmf(float(grid.scale[0]), 3), shift)
    spent = exact_epsilon(np.outer(p, p).reshape(-1), np.outer(q, q).reshape(-1), 1e-4)
    assert 0.99 < spent <= made.epsilon(1, 1e-4) * (1 + 1e-11)  # the last bits of float64
    assert made.epsilon(1, 1e-4) <= 1.0


@pytest.mark.parametrize("m", [2, 3, 6])
@pytest.mark.parametrize("sigma", [0.5, 0.6, 0.8, 1.0])
def test_sums_of_draws_are_as_close_to_one_draw_as_the_theorem_says(m: int, sigma: float) -> None:
    """Where the bound is large enough to be seen in float64; the grid keeps it below 2^-120."""
    mass = total_pmf(sigma, m)
    half = len(mass) // 2
    x = np.arange(-half, half + 1)
    one = np.exp(-(x**2) / (2 * m * sigma**2))
    near = np.abs(x) <= 5 * math.sqrt(m) * sigma
    apart = np.abs(np.log(mass[near]) - np.log((one / one.sum())[near])).max()
    bound = 5 * sum(math.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)) for k in range(1, m))
    assert apart <= bound + 1e-12
    assert apart > bound / 100 or bound < 1e-3


@pytest.mark.parametrize("m", [2, 100, 6000])
@pytest.mark.parametrize("epsilon", [0.01, 30.0, 800.0])
def test_no_share_is_narrower_than_the_proof_needs_and_totals_fit(m: int, epsilon: float) -> None:
    parts = BOTH | {"i": Part((4,), np.array([0, 1, 600, 1e6]), integer=True)}
    made = noise.plan(parts, shared(epsilon), shares=m)
    for grid in made._grids:
        drawn = grid.scale[grid.scale > 0]
        assert drawn.min() >= LEAST_SHARE * 0.999
        assert drawn.max() <= discrete.LARGEST
        assert all(charged <= discrete.LARGEST for _, charged, _ in grid.changes)
    assert made.layout(m + 1).bits in (64, 192)


def test_the_event_is_the_same_wherever_the_noise_is_added() -> None:
    """Central noise is the noise of one holder; shares are drawn on a finer grid at the same price."""
    local, central = (noise.plan(BOTH, gaussian(epsilon=1, noise=where)) for where in ("local", "central"))
    assert local.event() == central.event()
    for m in (1, 4):
        assert noise.plan(BOTH, shared(), shares=m).epsilon(1, 1e-6) == pytest.approx(local.epsilon(1, 1e-6), rel=5e-3)


@pytest.mark.parametrize("where", ["central", "shared"])
@pytest.mark.parametrize("unit", ["record", "person"])
def test_a_unit_changes_the_total_of_all_holders_by_no_more_than_is_charged(where: Any, unit: Any) -> None:
    parts = {
        "n": CELLS,
        "s": SUMS,
        "t": Part((6,), 2.5, single=True),
        "i": Part((2,), np.array([3, 4e5]), integer=True),
    }
    k = 3 if unit == "person" else 1
    wanted = gaussian(epsilon=2, noise=where, unit=unit, max_records_per_unit=k)
    made, rng = noise.plan(parts, wanted, shares=3 if where == "shared" else 1), np.random.default_rng(4)
    for _ in range(20):
        others, before, after = (drawn(parts, rng, 1000) for _ in range(3))
        after = {name: before[name] + one_unit(part, k, rng) for name, part in parts.items()}
        one, two = (
            {
                g.facts.name: noise._whole(g, others[g.facts.name]) + noise._whole(g, mine[g.facts.name])
                for g in made._grids
            }
            for mine in (before, after)
        )
        for grid in made._grids:
            changed = sorted(np.abs(one[grid.facts.name] - two[grid.facts.name]).tolist(), reverse=True)
            charged = sorted((c for c, _, count in grid.changes for _ in range(count)), reverse=True)
            charged += [0] * (len(changed) - len(charged))
            assert all(a <= b for a, b in zip(changed, charged, strict=True))


def drawn(parts: Mapping[str, Part], rng: np.random.Generator, scale: float) -> dict[str, NDArray[Any]]:
    found = {name: rng.normal(0, scale, part.shape) * part.bound for name, part in parts.items()}
    return {name: a.round().astype(np.int64) if parts[name].integer else a for name, a in found.items()}


def one_unit(part: Part, k: int, rng: np.random.Generator) -> NDArray[Any]:
    """k records, each at the bound in every entry that it may touch."""
    change = np.zeros(part.shape)
    for _ in range(k):
        record = np.broadcast_to(part.bound, part.shape) * rng.choice([-1.0, 1.0], part.shape)
        if part.single:
            record = np.where(np.arange(record.size).reshape(part.shape) == rng.integers(record.size), record, 0.0)
        change = change + record
    return change.astype(np.int64) if part.integer else change


# ---- how much noise there is


def placed(where: Any, holders: int, colluders: int = 1) -> tuple[noise.Noise, int]:
    m = holders - colluders if where == "shared" else 1
    parts = {"n": Part((3000,), 1, integer=True, single=True), "s": Part((3000,), 2.0, single=True)}
    return noise.plan(parts, gaussian(epsilon=1, noise=where), shares=m), m


@pytest.mark.parametrize("where", ["local", "central", "shared"])
def test_the_stated_deviation_is_that_of_the_total_of_all_holders(where: Any) -> None:
    made, _ = placed(where, 5)
    rng = np.random.default_rng(1)
    true = {"n": rng.integers(0, 500, (5, 3000)), "s": rng.normal(0, 300, (5, 3000))}
    sent = [made.units({k: a[i] for k, a in true.items()}, stream(5, where, i)) for i in range(5)]
    layout = made.layout(5)
    words = np.sum([layout.for_holder(0.2).encode(one) for one in sent], axis=0)
    total = made.values(layout.decode(words), stream(5, where, "coordinator"))
    assert total["n"].dtype == np.int64
    for name, std in made.std(5).items():
        error = total[name] - true[name].sum(0)
        assert np.std(error) == pytest.approx(std[0], rel=0.06)
        assert abs(np.mean(error)) < 4 * std[0] / math.sqrt(3000)


@pytest.mark.parametrize(("sigma", "parts"), [(1.7, 16), (6.0, 16), (9.0, 4), (24.1, 16), (70.0, 8), (5.0, 2)])
def test_the_deviation_of_a_rounded_total_is_that_of_its_probabilities(sigma: float, parts: int) -> None:
    mass = pmf(sigma)
    x = np.arange(len(mass)) - len(mass) // 2
    squares = [
        mass @ ((noise._nearest(x + parts * true, np.array(parts)) - true) ** 2).astype(float) for true in (6, 7)
    ]
    assert discrete.rounded_std(sigma, parts) == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-9)


def test_shared_noise_is_as_exact_as_central_noise_and_local_noise_is_not() -> None:
    holders = 16
    local, central = (placed(where, holders)[0].std(holders) for where in ("local", "central"))
    for colluders in (0, 1, 4):
        made, m = placed("shared", holders, colluders)
        for name, std in made.std(holders).items():
            assert std[0] / central[name][0] == pytest.approx(math.sqrt(holders / m), rel=0.01)
    assert local["n"][0] / central["n"][0] == pytest.approx(4.0, rel=1e-12)
    assert local["s"][0] / central["s"][0] == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize("colluders", [0, 1, 4])
def test_shares_of_laplace_noise_cost_and_add_what_is_charged_with_colluders_counted_out(colluders: int) -> None:
    """The holders that do not collude add exactly the noise of the event: its probabilities, by convolution."""
    holders, m = 6, 6 - colluders
    made = noise.plan({"n": CELLS}, Privacy(epsilon=1, noise="shared"), shares=m)
    assert made.event() == privacy.DiscreteLaplace(scale=1.0, sensitivity=1)
    x = np.arange(0, 120)
    one = stats.nbinom.pmf(x, 1 / m, -math.expm1(-1.0))
    share = np.convolve(one, one[::-1])
    total = np.ones(1)
    for _ in range(m):
        total = np.convolve(total, share)
    middle = len(total) // 2
    wanted = math.tanh(0.5) * np.exp(-np.abs(np.arange(-20, 21)))
    np.testing.assert_allclose(total[middle - 20 : middle + 21], wanted, rtol=1e-9)
    assert made.std(holders)["n"][0, 0] == pytest.approx(discrete.laplace_std(1.0) * math.sqrt(holders / m))


def test_holders_that_dropped_out_take_their_noise_along_and_no_more_than_was_counted_on() -> None:
    made, _ = placed("shared", 9, 3)
    whole, least = made.std(9)["s"][0], made.std(6)["s"][0]
    assert least / whole == pytest.approx(math.sqrt(6 / 9), rel=1e-6)
    central, _ = placed("central", 9)
    assert least == pytest.approx(central.std(9)["s"][0], rel=1e-3)


def test_a_holder_of_central_noise_draws_none_and_the_coordinator_always_does() -> None:
    made = noise.plan(BOTH, gaussian(epsilon=1, noise="central"))
    arrays = {"n": np.arange(12).reshape(4, 3), "s": np.array([0.5, -20.0, 1e6])}
    sent = [made.units(arrays, stream(1, label)) for label in ("a", "b")]
    assert all((sent[0][name] == sent[1][name]).all() for name in arrays)
    assert (sent[0]["n"] == arrays["n"]).all()
    released = [made.values(sent[0], stream(1, label)) for label in ("a", "b")]
    assert any((released[0][name] != released[1][name]).any() for name in arrays)


@pytest.mark.parametrize("where", ["local", "central", "shared"])
def test_planned_margins_and_budgets_found_from_them_are_those_of_the_placement(where: Any) -> None:
    m = 4 if where == "shared" else 1
    asked = gaussian(epsilon=1, noise=where)
    made = noise.plan(BOTH, asked, shares=m)
    half = noise.error(BOTH, asked, 5, shares=m)["n"].max()
    assert half == pytest.approx(1.959964 * made.std(5)["n"].max(), rel=1e-6)
    found = noise.epsilon_for(BOTH, asked, "n", 25.0, 5, shares=m)
    again = asked.model_copy(update={"epsilon": found})
    assert 25.0 * 0.97 < noise.error(BOTH, again, 5, shares=m)["n"].max() <= 25.0


def test_margins_of_central_laplace_noise_are_those_of_one_draw() -> None:
    asked = gaussian(epsilon=0.05, mechanism="discrete-laplace", noise="central")
    one = noise.error({"n": CELLS}, asked, 1)["n"].max()
    assert noise.error({"n": CELLS}, asked, 50)["n"].max() == pytest.approx(one, rel=1e-12)


# ---- a protection that shows sums only, and what is refused


class Options(Section):
    """No options."""


class Half:
    def answer(self, stage: str, packet: Packet) -> Packet:
        raise Refused(f"got {stage}")

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        return {"words": layout.encode(arrays)}


@dataclass(frozen=True)
class Adder:
    holders: tuple[str, ...]

    def total(self, layout: Layout) -> Rounds:
        replies = yield Stage("contribute", {name: {} for name in self.holders}, carries=True)
        words = np.sum([np.asarray(reply["words"]) for reply in replies.values()], axis=0)
        return Aggregate(layout.decode(words), tuple(replies))


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> str:
    """A protection by this name that gives the coordinator the sum of whole numbers, as by a trusted adder."""
    module = ModuleType(f"{PACKAGE}.sums")
    vars(module).update(
        TITLE="Sums",
        TRUST=(),
        REQUIRES=Requirements(fixed_point=True, survives_dropout=True),
        Options=Options,
        third_parties=lambda _: (),
        party=lambda *_: Half(),
        coordinator=lambda agreement: Adder(agreement.holders),
        learns=lambda terms: [Disclosure("coordinator", "sums", in_words(terms.privacy, to_coordinator=True))],
    )
    known = discovery.modules
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(discovery, "modules", lambda p: known(p) | ({"sums": module.__name__} if p == PACKAGE else {}))
    return "sums"


def asked(where: Mapping[str, Any], protection: str, holders: int = 3, minimum: int | None = None) -> Terms:
    return query(
        method="count",
        holders=tuple(f"h{i}" for i in range(holders)),
        privacy={"epsilon": 1.0, "mechanism": "discrete-gaussian"} | dict(where),
        protection={"name": protection, "minimum_holders": minimum},
    )


def test_shares_are_those_of_the_fewest_holders_that_do_not_collude(sums: str) -> None:
    assert shares(asked({"noise": "shared"}, sums, 9)) == 8
    assert shares(asked({"noise": "shared", "colluders": 0}, sums, 9)) == 9
    assert shares(asked({"noise": "shared", "colluders": 2}, sums, 9, minimum=7)) == 5
    assert shares(asked({"noise": "central"}, "plain")) == shares(asked({}, sums)) == 1


def test_shared_noise_is_refused_where_contributions_are_shown_and_the_choices_are_named() -> None:
    wanted = asked({"noise": "shared"}, "plain")
    reason = "privacy.noise: got shared under plain, which shows each holder's contribution"
    (found,) = obstacles(wanted)
    assert found.reason.startswith(reason)
    assert "local noise" in found.instead
    with pytest.raises(UsageError, match="want a protection that shows exact sums only, such as secure-aggregation"):
        shares(wanted)


def test_a_holder_refuses_shared_noise_under_a_protection_that_shows_it(tmp_path: Path) -> None:
    """Whatever the coordinator's own checks say: with a share of the noise alone nothing leaves."""
    office = Office(tmp_path / "home", people(200))
    wanted = query(method="count", privacy={"epsilon": 1.0, "noise": "shared"}, holders=("office", "b", "c"))
    assert "got shared under plain" in office.refusal("admit", wanted)
    assert "got shared under plain" in office.refusal("ask", wanted, 1, "noisy")
    assert office.entries == []
    office.close()


@pytest.mark.parametrize(("holders", "minimum", "colluders"), [(3, None, 3), (9, 7, 7), (1, None, 1)])
def test_more_colluders_than_leave_anyone_to_add_noise_are_refused(
    sums: str, holders: int, minimum: int | None, colluders: int
) -> None:
    wanted = asked({"noise": "shared", "colluders": colluders}, sums, holders, minimum)
    fewest = minimum or holders
    instead = f"at most {fewest - 1}" if fewest > 1 else "more holders"
    with pytest.raises(
        UsageError, match=rf"colluders: got {colluders} .* over {fewest} holders or more.*want {instead}"
    ):
        shares(wanted)
    assert obstacles(wanted)


def test_more_colluders_than_the_protection_withstands_are_refused(sums: str) -> None:
    """Four of nine could sign two lists of seven: their coordinator would see a victim's share by itself."""
    assert shares(asked({"noise": "shared", "colluders": 8}, sums, 9)) == 1
    assert shares(asked({"noise": "shared", "colluders": 2}, sums, 9, minimum=7)) == 5
    with pytest.raises(UsageError, match=r"colluders: got 3; with so many of 9 .* want at most 2, or a sum over every"):
        shares(asked({"noise": "shared", "colluders": 3}, sums, 9, minimum=7))
    sized = asked({"noise": "shared", "colluders": 5}, "secure-aggregation", 9, minimum=8)
    options = sized.protection.model_copy(update={"options": {"colluders": 5}})
    with pytest.raises(UsageError, match="want at most 2, or"):
        shares(sized)
    assert shares(sized.model_copy(update={"protection": options})) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"noise": "central", "colluders": 2}, "got 2 for central noise; want them for shared noise only"),
        ({"colluders": 1}, "got 1 for local noise"),
        ({"noise": "distributed"}, "noise: got 'distributed'; want 'local', 'central' or 'shared'"),
    ],
)
@pytest.mark.parametrize("budget", [{"epsilon": 1.0}, {"margin_of_error": 5.0}])
def test_fields_that_do_not_go_together_are_refused_by_name(
    fields: dict[str, Any], budget: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^study: privacy: .*{message}"):
        make_study({"method": "count", "holders": {"a": "a.csv"}, "privacy": budget | fields})


def test_the_command_line_puts_the_placement_in_front() -> None:
    from statfed.cli.analyse import read_privacy

    assert read_privacy("central:epsilon=1,delta=1e-6") == {"noise": "central", "epsilon": "1", "delta": "1e-6"}
    assert read_privacy("shared: epsilon=1,colluders=2") == {"noise": "shared", "epsilon": "1", "colluders": "2"}
    assert read_privacy("epsilon=1") == {"epsilon": "1"}
    with pytest.raises(UsageError, match="got 'everywhere' before the colon; want local, central, shared"):
        read_privacy("everywhere:epsilon=1")


# ---- at the holder


def entries(tmp_path: Path, where: str, protection: str, **changes: Any) -> tuple[list[tuple[str, str]], Closing]:
    """Kinds and notes of the ledger's entries after one run, and the closing account."""
    allow = {"protections": ["*"], "noise": ["local", "central", "shared"]}
    office = Office(tmp_path / where, people(200), allow=allow, **changes)
    wanted = query(
        method="count",
        privacy={"epsilon": 1.0, "noise": where},
        protection={"name": protection},
        holders=("b", "c", "office"),
    )
    office.say("admit", wanted)
    office.say("ask", wanted, 1, "noisy")
    closing = office.say("release", wanted).facts
    office.close()
    assert isinstance(closing, Closing)
    with office.holder.ledger() as ledger:
        return [(entry.kind, entry.note) for entry in ledger.entries()], closing


@pytest.mark.parametrize(("where", "protection"), [("local", "plain"), ("local", "sums"), ("shared", "sums")])
def test_noise_that_is_in_what_leaves_is_charged_and_nothing_is_disclosed(
    tmp_path: Path, sums: str, where: str, protection: str
) -> None:
    assert sums
    found, closing = entries(tmp_path, where, protection)
    assert [kind for kind, _ in found] == ["open", "reserve", "charge", "release"]
    assert 0.98 < (closing.study_epsilon or 0.0) <= 1.0
    assert closing.history_epsilon is not None
    assert closing.disclosures == 0


@pytest.mark.parametrize("protection", ["plain", "sums"])
def test_central_noise_is_charged_and_what_the_coordinator_gets_is_on_record(
    tmp_path: Path, sums: str, protection: str
) -> None:
    assert sums
    found, closing = entries(tmp_path, "central", protection)
    assert [kind for kind, _ in found] == ["open", "reserve", "charge", "disclose", "release"]
    assert found[3][1] == "count: noisy without noise to the coordinator, which is trusted to add the noise"
    assert 0.98 < (closing.study_epsilon or 0.0) <= 1.0
    assert closing.history_epsilon is None  # the coordinator has exact sums: no finite epsilon holds against all
    assert closing.disclosures == 1


def test_central_noise_has_to_be_allowed_by_name(tmp_path: Path) -> None:
    office = Office(tmp_path / "home", people(200))
    wanted = query(method="count", privacy={"epsilon": 1.0, "noise": "central"})
    assert "noise: got central, not allowed; want local or shared" in office.refusal("admit", wanted)
    assert "noise: got central, not allowed" in office.refusal("ask", wanted, 1, "noisy")
    assert office.entries == []
    office.close()


CENTRAL: dict[str, Any] = {"privacy": {"epsilon": 1.0, "noise": "central"}}


@pytest.mark.parametrize(
    ("analysis", "options"),
    [("table", {"rows": ["region"]}), ("quantile", {"columns": ["income"], "probabilities": [0.5]})],
)
def test_the_rules_for_exact_contributions_hold_for_what_a_trusted_coordinator_gets(
    tmp_path: Path, analysis: str, options: dict[str, Any]
) -> None:
    """Also where the counts of a private ask are finer than the cells of the exact one, as a quantile's tree."""
    ask = "tree" if analysis == "quantile" else "noisy"
    allow = {"protections": ["*"], "noise": ["central"]}
    said = []
    for minimum in (40,) if analysis == "quantile" else (2, 150):  # some bins of a tree are always small
        frame = people(200).sample(frac=1.0, random_state=minimum)  # two homes, two data sets
        office = Office(tmp_path / str(minimum), frame, allow=allow, disclosure={"minimum_frequency": minimum})
        wanted = query(method=analysis, options=options, **CENTRAL)
        office.say("admit", wanted)
        if minimum == 2:
            assert office.say("ask", wanted, 1, ask).facts.rules == ("minimum frequency",)  # type: ignore[union-attr]
            assert office.entries[-2:] == ["charge", "disclose"]
        else:
            said.append(office.refusal("ask", wanted, 1, ask))
            assert office.entries[-1] == "charge"
        office.close()
    assert "minimum frequency" in said[0]


def test_central_noise_over_bounded_records_of_persons_is_refused_where_rules_could_not_follow(tmp_path: Path) -> None:
    allow = {"protections": ["*"], "noise": ["central"]}
    budget = {"unit": "person"}
    person = {"privacy": {"epsilon": 1.0, "noise": "central", "unit": "person", "max_records_per_unit": 2}}
    for seed, minimum in enumerate(("off", 3)):
        frame = people(200, seed)  # two homes, two data sets
        office = Office(
            tmp_path / str(minimum), frame, allow=allow, budget=budget, disclosure={"minimum_frequency": minimum}
        )
        wanted = query(method="count", **person)
        if minimum == "off":
            office.say("admit", wanted)
        else:
            assert "cannot follow; want local or shared noise" in office.refusal("admit", wanted)
            assert office.entries == []
        office.close()


# ---- end to end

FRAMES = [people(n, seed=i) for i, n in enumerate((150, 90, 60, 40))]


def answered(where: Mapping[str, Any], protection: str, seed: int = 5) -> Federation:
    fed = Federation({f"h{i}": frame for i, frame in enumerate(FRAMES)}, CODEBOOK, seed=seed, protection=protection)
    fed.table("region", privacy={"epsilon": 1.0, "mechanism": "discrete-gaussian"} | dict(where))
    return fed


def errors(fed: Federation) -> Floats:
    """Released counts of the regions less the true ones."""
    assert fed.last is not None
    true = pd.concat(FRAMES)["region"].value_counts()
    rows = [row for row in fed.last.result.tables["cells"] if row["region"] is not None]
    return np.array([float(row["count"]) - float(true.get(str(row["region"]), 0)) for row in rows])  # type: ignore[arg-type]


CASES: Sequence[tuple[dict[str, Any], str]] = (
    ({}, "plain"),
    ({"noise": "central"}, "plain"),
    ({"noise": "central"}, "sums"),
    ({"noise": "shared"}, "sums"),
    ({"noise": "shared", "mechanism": "automatic"}, "sums"),
    ({"noise": "shared", "colluders": 2}, "secure-aggregation"),
)


@pytest.mark.parametrize(("where", "protection"), CASES)
def test_every_placement_gives_noisy_whole_counts_and_says_against_whom_epsilon_holds(
    sums: str, where: dict[str, Any], protection: str
) -> None:
    assert sums
    fed = answered(where, protection)
    assert fed.last is not None
    assert fed.last.terms.privacy is not None
    found = errors(fed)
    parts, times = noisy_parts(fed.last.terms)
    std = noise.plan(parts, fed.last.terms.privacy, times, shares(fed.last.terms)).std(4)["count"].max()
    assert (found == found.round()).all()
    assert np.abs(found).max() < 6 * std
    assert found.any() or any(errors(answered(where, protection, i)).any() for i in range(12))
    central = where.get("noise") == "central"
    for closing in fed.last.spending:
        assert 0.98 < (closing.study_epsilon or 0.0) <= 1.0
        assert (closing.history_epsilon is None) == central
        assert closing.disclosures == central
    coordinator = in_words(fed.last.terms.privacy, to_coordinator=True)
    if protection != "secure-aggregation":
        assert coordinator == next(row.protected_by for row in fed.last.learns if row.role == "coordinator")
    notes = " ".join(fed.last.result.notes)
    if central:
        assert coordinator.startswith("trust alone")
        assert "epsilon holds against everybody but the coordinator" in notes
    elif where:
        assert "against whoever knows the noise of at most" in coordinator
        assert "against all who together know the noise of at most" in notes
    else:
        assert coordinator == "noise at the holder: epsilon 1 per record over all sums"
        assert "epsilon holds" not in notes


def test_the_epsilon_of_a_total_is_that_of_the_exact_sum_of_the_shares(sums: str) -> None:
    """The ledger's own figure, recomputed from the noise that the holders of this run drew."""
    fed = answered({"noise": "shared", "colluders": 2}, sums)
    assert fed.last is not None
    wanted = fed.last.terms
    assert wanted.privacy is not None
    parts, times = noisy_parts(wanted)
    made = noise.plan(parts, wanted.privacy, times, 2)
    assert shares(wanted) == 2
    (change,) = [(g, c) for g in made._grids for c in g.changes]
    grid, (shift, _, count) = change
    assert count == 1
    spent = exact_epsilon(*losses(total_pmf(float(grid.scale.max()), 2), shift), wanted.privacy.delta)
    for closing in fed.last.spending:
        assert spent <= (closing.study_epsilon or 0.0) == pytest.approx(privacy.epsilon([made.event()], 1e-6))
