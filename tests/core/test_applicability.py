"""Which protections apply to what: every combination of what is installed either runs or is refused with a way out."""

import itertools
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest

from statfed.core import rules
from statfed.core.applicability import EXTRAS, Obstacle, allowed, applicable, obstacles
from statfed.core.discovery import load, modules
from statfed.core.errors import UsageError
from statfed.core.method import read_question
from statfed.core.progress import silent
from statfed.core.protection import PACKAGE, Requirements, named_protection
from statfed.core.resolve import resolve_applicable
from statfed.core.section import Section
from statfed.core.terms import Placement, Privacy, Protection, Terms
from statfed.federation import Federation
from statfed.server.driver import Driven, drive
from statfed.server.engine import Deployment
from statfed.server.grid import inprocess
from statfed.strategies.learning.options import ROBUST, Strategies, Strategy
from statfed.strategies.learning.rounds import holders_for
from tests.conftest import TOY, toy_study, toy_terms
from tests.covering import rest_whole
from tests.federate import codebook_of

INSTALLED = sorted(modules(PACKAGE))
STRATEGIES = get_args(Strategies)
HOLDERS = (1, 2, 3, 4, 5, 7)
TRAINED = {"epsilon": 4.0, "delta": 1e-4}
CODEBOOK = codebook_of({"age": ("integer", 0, 100), "sex": ["f", "m"], "free": "number"})


def query(holders: int, **changes: Any) -> Terms:
    names = tuple(f"h{i + 1}" for i in range(holders))
    base: dict[str, Any] = {"method": "table", "options": {"rows": ["sex"]}, "codebook": CODEBOOK, "seed": 1}
    return Terms.model_validate(base | {"holders": names} | changes)


def requires(name: str) -> Requirements:
    found: Requirements = load(PACKAGE, name, "protection").REQUIRES
    return found


def followed(terms: Terms) -> Terms:
    """The study after the first choice of the first obstacle, over and over, until it applies."""
    for _ in range(6):
        found = obstacles(terms)
        if not found:
            return terms
        then = [choice.then for choice in found[0].choices if choice.then is not None]
        assert then, found[0]
        terms = then[0]
    raise AssertionError(f"no way out: {obstacles(terms)}")


def every_choice_helps(terms: Terms, found: tuple[Obstacle, ...]) -> None:
    for obstacle in found:
        assert obstacle.reason
        assert "\n" not in str(obstacle)
        assert obstacle.choices, obstacle
        for choice in obstacle.choices:
            if choice.then is not None:
                left = obstacles(choice.then)
                assert len(left) < len(found), (str(obstacle), choice.text, [str(one) for one in left])
                followed(choice.then)


def expected(name: str, strategy: str, private: bool, holders: int) -> bool:
    """The rules in their shortest form."""
    needs = requires(name)
    hidden = not needs.reveals_updates
    return not (
        (hidden and strategy in ROBUST)
        or (hidden and holders < 2)
        or (not private and holders < needs.minimum_holders)
        or holders < holders_for(Strategy.model_validate({"name": strategy}))
    )


def turn(name: str, strategy: str) -> bool:
    """Protections take turns with the strategies; what applies is worked out for all of them below."""
    return STRATEGIES.index(strategy) % len(INSTALLED) == INSTALLED.index(name)


@pytest.mark.parametrize("name", INSTALLED)
def test_every_combination_for_training_applies_or_is_refused_with_choices_that_are_accepted(name: str) -> None:
    for strategy, private, holders in itertools.product(STRATEGIES, (False, True), HOLDERS):
        terms = toy_terms(
            holders=holders,
            strategy={"name": strategy},
            privacy=TRAINED if private else None,
            protection={"name": name},
        )
        found = obstacles(terms)
        assert (not found) == expected(name, strategy, private, holders), (strategy, private, holders, found)
        assert (name in allowed(terms)) == (not found)
        if found:
            with pytest.raises(UsageError, match="; want "):
                applicable(terms)
        every_choice_helps(terms, found)


@pytest.mark.parametrize("name", INSTALLED)
def test_every_combination_for_statistics_applies_or_is_refused_with_choices_that_are_accepted(name: str) -> None:
    places: list[str | None] = [None, *get_args(Placement)]
    for noise, exact, holders in itertools.product(places, (False, True), HOLDERS):
        asked = query(
            holders,
            privacy=Privacy.model_validate({"epsilon": 1.0, "noise": noise}) if noise else None,
            protection=Protection(name=name),
            exact=exact,
        )
        needs, found = requires(name), obstacles(asked)
        refused = (
            (exact and noise is not None)
            or (holders < 2 and not needs.reveals_updates)
            or (noise is None and holders < needs.minimum_holders)
            or (noise == "shared" and (needs.reveals_updates or not needs.fixed_point or holders < 2))
        )
        assert bool(found) == refused, (noise, exact, holders, found)
        every_choice_helps(asked, found)


@pytest.mark.parametrize(
    ("privacy", "holders", "name"),
    rest_whole(itertools.product([None, TRAINED], [2, 3], INSTALLED), lambda *case: case[1] == 2),
)
def test_what_applies_trains(
    name: str, holders: int, privacy: Mapping[str, float] | None, homes: Callable[..., dict[str, Path]]
) -> None:
    study = toy_study(holders=holders, rounds=1, privacy=privacy, protection={"name": name})
    runs_or_is_refused(study, homes)


@pytest.mark.parametrize(
    ("name", "strategy"),
    rest_whole(
        itertools.product(INSTALLED, STRATEGIES), lambda name, strategy: name == "plain" or turn(name, strategy)
    ),
)
def test_what_applies_trains_with_every_strategy(
    name: str, strategy: str, homes: Callable[..., dict[str, Path]]
) -> None:
    needed = holders_for(Strategy.model_validate({"name": strategy}))
    holders = max(3, needed if requires(name).reveals_updates else 3)
    study = toy_study(holders=holders, rounds=1, strategy={"name": strategy}, protection={"name": name})
    runs_or_is_refused(study, homes)


def runs_or_is_refused(study: Any, homes: Callable[..., dict[str, Path]]) -> None:
    places, terms = homes(study), study.terms(TOY.codebook)

    def run() -> Driven:
        def trained(session: Any) -> Driven:
            return drive(session, resolve_applicable(terms), "r1", timeout=60, progress=silent)

        return inprocess.run(Deployment("r1", places, Path("unused")), trained, silent)

    if obstacles(terms):
        with pytest.raises(UsageError, match="; want "):
            run()
        assert not any((home / "ledger.sqlite").exists() for home in places.values())  # refused before it was sent
    else:
        assert [one.ask for one in run().sums] == ["fit"]


NOISES = [None, *get_args(Placement)]


@pytest.mark.parametrize(
    ("name", "noise", "holders"),
    rest_whole(
        itertools.product(INSTALLED, NOISES, [2, 3]),
        lambda name, noise, holders: (INSTALLED.index(name) + NOISES.index(noise) + holders) % 2 == 0,
    ),
)
def test_what_applies_answers(name: str, noise: str | None, holders: int) -> None:
    frames = {f"h{i + 1}": pd.DataFrame({"age": [20 + i, 40, 60 - i], "sex": ["f", "m", "f"]}) for i in range(holders)}
    asked = query(
        holders,
        codebook=codebook_of({"age": ("integer", 0, 100), "sex": ["f", "m"]}),
        privacy=Privacy.model_validate({"epsilon": 5.0, "noise": noise}) if noise else None,
        protection=Protection(name=name),
    )
    with Federation(frames, codebook=asked.codebook, protection=name, seed=1) as federation:
        if obstacles(asked):
            with pytest.raises(UsageError, match="; want "):
                federation.ask("table", rows=["sex"], privacy=asked.privacy)
        else:
            answer = federation.ask("table", rows=["sex"], privacy=asked.privacy)
            counts = {row["sex"]: row["count"] for row in answer.tables["cells"]}
            assert counts["f"] == pytest.approx(2 * holders, abs=12 if noise else 0)


def test_krum_under_a_protection_that_hides_updates_says_why_and_what_else(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, minimum_holders=3, fixed_point=True)
    found = obstacles(toy_terms(holders=5, strategy={"name": "krum"}, protection={"name": "hidden"}))
    assert [str(one) for one in found] == [
        "strategy krum: looks at each holder's update, which protection hidden hides; want protection plain, which "
        "shows the coordinator each update, or a strategy that needs the average only: fedavg, fedprox, fedavgm, "
        "fedadam, fedyogi, fedadagrad"
    ]


def test_an_exact_total_of_two_holders_wants_a_third_or_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, minimum_holders=3)
    (found,) = obstacles(query(2, protection=Protection(name="hidden")))
    assert "got 2 holders, and each could subtract its own part from an exact total" in found.reason
    assert [choice.text for choice in found.choices] == ["at least 3 holders", "differential privacy (--privacy)"]


def test_noise_is_not_offered_where_the_question_has_no_private_form(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, minimum_holders=3)
    for analysis in ("describe", "mean"):  # no private form; a column without bounds
        asked = query(2, method=analysis, options={"columns": ["free"]}, protection=Protection(name="hidden"))
        (found,) = obstacles(asked)
        assert [choice.text for choice in found.choices] == ["at least 3 holders"], analysis


def test_an_official_figure_with_noise_names_an_exact_way(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, minimum_holders=3)
    (found,) = obstacles(query(3, privacy=Privacy(epsilon=1), exact=True))
    assert found.reason == "exact: noise is added at every holder, and an official figure has to be exact"
    rules = ", without [privacy] but with disclosure rules at the holders and at the release"
    assert f"protection hidden{rules}" in found.instead
    assert not obstacles(query(3, exact=True, protection=Protection(name="hidden")))


def test_a_missing_package_is_named_with_the_command_and_never_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, minimum_holders=3, extra="he")
    monkeypatch.setattr(rules, "find_spec", lambda name: None if name == "tenseal" else object())
    (found,) = obstacles(query(3, protection=Protection(name="hidden")))
    assert found.reason == "protection hidden: needs tenseal: not installed"
    assert found.choices[0].text == "pip install 'statfed[he]'"
    assert found.choices[0].then is None
    assert "hidden" not in allowed(query(3))
    (krum,) = obstacles(toy_terms(holders=2, strategy={"name": "krum"}))
    assert "hidden" not in krum.instead


def test_every_extra_of_a_protection_is_declared_in_pyproject() -> None:
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for extra, package in EXTRAS.items():
        assert declared["optional-dependencies"][extra][0].startswith(package)
    for name in INSTALLED:
        assert requires(name).extra in ("", *EXTRAS), name


def test_too_few_holders_for_a_robust_strategy_are_counted_by_its_theorem() -> None:
    def wanted(holders: int, **strategy: Any) -> str:
        found = obstacles(toy_terms(holders=holders, strategy=strategy))
        return " | ".join(map(str, found))

    assert "got 6 holders, too few with num_malicious 2; want at least 7 holders" in wanted(
        6, name="krum", num_malicious=2
    )
    assert wanted(7, name="krum", num_malicious=2) == ""
    assert "want at least 7 holders" in wanted(6, name="bulyan")
    assert wanted(7, name="bulyan") == ""
    assert "too few with trim_fraction 0.2; want at least 5 holders, or strategy.trim_fraction 0.28" in wanted(
        4, name="fedtrimmedavg"
    )
    assert wanted(4, name="fedtrimmedavg", trim_fraction=0.28) == ""
    assert "want at least 3 holders" in wanted(2, name="fedmedian")
    assert "got 5 of 7 holders, num_malicious 1; want strategy.nodes_to_keep 4" in wanted(
        7, name="multikrum", nodes_to_keep=5
    )


def test_fewer_holders_than_all_want_a_protection_that_survives_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, minimum_holders=3, survives_dropout=True)
    (found,) = obstacles(query(4, protection=Protection(name="plain", minimum_holders=3)))
    assert "got 3 of 4 holders; plain needs every holder" in found.reason
    assert [choice.text for choice in found.choices][:1] == ["protection.minimum_holders 4"]
    assert "protection hidden" in found.instead
    (low,) = obstacles(query(4, protection=Protection(name="hidden", minimum_holders=2)))
    assert [choice.text for choice in low.choices] == ["protection.minimum_holders 3"]


def test_options_of_training_are_refused_for_a_statistic(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import Field

    class Options(Section):
        layers: int = Field(default=0, json_schema_extra={"only": "training"})

    pretend(monkeypatch, options=Options, minimum_holders=3)
    partial = Protection(name="hidden", options={"layers": 1})
    (found,) = obstacles(query(3, protection=partial))
    assert str(found) == (
        "protection.options.layers: got 1 for a statistic, where it means nothing; want none of layers"
    )
    assert not obstacles(toy_terms(holders=3, protection=partial.model_dump()))


def test_approximate_sums_are_refused_for_official_figures_and_for_shared_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pydantic import Field

    class Options(Section):
        scheme: str = Field(default="whole", json_schema_extra={"approximate": "floating"})

    pretend(monkeypatch, options=Options, minimum_holders=3, fixed_point=True)
    floating = Protection(name="hidden", options={"scheme": "floating"})
    (official,) = obstacles(query(3, protection=floating, exact=True))
    assert str(official).endswith("gives approximate sums, an official figure wants exact ones; want scheme whole")
    (shared,) = obstacles(query(3, protection=floating, privacy=Privacy(epsilon=1, noise="shared")))
    assert "shared noise wants exact ones" in shared.reason
    assert not obstacles(query(3, protection=floating))


@pytest.mark.parametrize("name", INSTALLED)
def test_every_combination_of_method_noise_and_strategy_applies_or_is_refused_with_choices_that_are_accepted(
    name: str,
) -> None:
    needs = requires(name)
    for method, noise, strategy, holders in itertools.product(
        ("local-sgd", "dp-fedsgd"), (None, *get_args(Placement)), ("fedavg", "fedprox", "krum"), (1, 2, 5)
    ):
        terms = toy_terms(
            holders=holders,
            strategy={"name": strategy},
            training={"method": method},
            privacy=TRAINED | {"noise": noise} if noise else None,
            protection={"name": name},
        )
        found = obstacles(terms)
        descent = method == "dp-fedsgd"
        refused = (
            (descent and (noise is None or strategy != "fedavg"))
            or noise == "central"
            or (noise == "shared" and (not descent or needs.reveals_updates or holders < 2))
            or not expected(name, strategy, noise is not None, holders)
        )
        assert bool(found) == refused, (method, noise, strategy, holders, [str(one) for one in found])
        every_choice_helps(terms, found)


def test_gradient_descent_has_no_momentum_of_a_holder() -> None:
    terms = toy_terms(training={"method": "dp-fedsgd"}, privacy=TRAINED)
    with pytest.raises(UsageError, match="dp-fedsgd: momentum: unknown key"):
        read_question(terms.model_copy(update={"options": {**terms.options, "momentum": 0.9}}))


def test_no_rule_recommends_what_another_rule_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two holders, Krum, hidden updates: plain alone does not help, since Krum needs five holders."""
    pretend(monkeypatch, minimum_holders=3)
    terms = toy_terms(holders=2, strategy={"name": "krum"}, protection={"name": "hidden"})
    found = obstacles(terms)
    assert len(found) == 3
    every_choice_helps(terms, found)


def pretend(monkeypatch: pytest.MonkeyPatch, options: type[Section] | None = None, **facts: Any) -> None:
    """Install a protection `hidden` with these requirements beside plain, and nothing else."""

    class Hidden:
        TITLE, TRUST, REQUIRES, Options = "Hidden", (), Requirements(**facts), options or Section

    def found(package: str) -> dict[str, str]:
        return {"hidden": "", "plain": ""} if package == PACKAGE else modules(package)

    def loaded(package: str, name: str, what: str) -> Any:
        return Hidden if name == "hidden" else load(package, name, what)

    for module in ("rules", "protection"):
        monkeypatch.setattr(f"statfed.core.{module}.load", loaded)
    for module in ("rules", "applicability"):
        monkeypatch.setattr(f"statfed.core.{module}.modules", found)
    named_protection("hidden", {})  # can be read
