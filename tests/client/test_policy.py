"""The holder's policy: every refusal with its reason, and no secret in any of them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.client.guard.admission import admit
from statfed.client.guard.policy import Budget, Dataset, HolderName, Policy, load_policy, write_policy
from statfed.client.guard.templates import TEMPLATES, made
from statfed.core import toml
from statfed.core.errors import Refused, UsageError
from statfed.core.method import load_method
from statfed.core.resolve import Resolved, resolve
from statfed.core.terms import Terms
from tests.awkward import texts
from tests.conftest import TOY, toy_terms

BASE: dict[str, Any] = {
    "holder": {"name": "office-1"},
    "dataset": {"id": "toy", "path": "data.npz", "records": 600, "persons": 40},
    "allow": {"methods": ["local-sgd"], "protections": ["plain"], "columns": ["*"], "public_seed": True},
    "minimum": {"records": 10},
    "budget": {"unit": "person", "epsilon": 2.0, "delta": 1e-5},
    "refusals": {"explain": True},
}
PRIVATE = {"privacy": {"unit": "person", "epsilon": 1.0}}


def policy(**changes: dict[str, Any]) -> Policy:
    """The base policy; each keyword changes keys of one section."""
    return Policy.model_validate({name: BASE.get(name, {}) | changes.get(name, {}) for name in {**BASE, **changes}})


def toy(**changes: Any) -> Resolved:
    """The toy study under the policy's holder, read."""
    return resolve(toy_terms(**changes), "office-1")


def refusal(study: Resolved, **changes: dict[str, Any]) -> str:
    with pytest.raises(Refused) as caught:
        admit(policy(**changes), study)
    return str(caught.value)


def test_what_the_policy_allows_is_admitted() -> None:
    admit(policy(), toy(**PRIVATE))
    admit(policy(allow={"without_privacy": True}), toy())


@pytest.mark.parametrize(
    ("terms", "changes", "message"),
    [
        ({}, {"holder": {"name": "office-9"}}, "holder office-9 is not among the study's holders"),
        ({}, {"allow": {"methods": ["describe"]}}, "method: got local-sgd, not allowed; want describe"),
        ({}, {"allow": {"methods": []}}, "method: got local-sgd, not allowed; want none"),
        (
            {},
            {"allow": {"protections": ["secure-aggregation"]}},
            "protection: got plain, not allowed; want secure-aggregation",
        ),
        ({}, {"allow": {"columns": ["x", "y", "z", "class"]}}, "columns: got p, q, r, person, not allowed; want only"),
        ({}, {"allow": {"strategies": ["fedprox"]}}, "strategy: got fedavg, not allowed; want fedprox"),
        ({"seed": 1}, {"allow": {"public_seed": False}}, "seed: got a public seed"),
        ({"privacy": None}, {}, "training without differential privacy is not allowed"),
        (
            {"privacy": {"unit": "record", "epsilon": 1.0}},
            {},
            "this dataset's budget is kept per person; got a study per record",
        ),
        ({}, {"budget": {"unit": "record"}}, "this dataset's budget is kept per record; got a study per person"),
        ({}, {"minimum": {"records": 7919}}, "minimum number of records"),
        ({}, {"minimum": {"persons": 7919}}, "minimum number of persons"),
        ({}, {"minimum": {"holders": 7919}}, "minimum number of holders"),
    ],
)
def test_each_rule_refuses_by_name(terms: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    text = refusal(toy(**(PRIVATE | terms)), **changes)
    assert message in text
    assert text.count("\n- ") == 1
    assert "7919" not in text


def test_all_reasons_are_listed_in_one_message_without_any_secret() -> None:
    text = refusal(
        toy(),
        holder={"name": "office-9"},
        allow={"methods": ["describe"], "protections": [], "columns": ["w"]},
        minimum={"records": 7901, "persons": 7907, "holders": 7919},
    )
    assert text.count("\n- ") == 8
    assert not any(secret in text for secret in ("7901", "7907", "7919", "600", "40"))


def test_the_fewest_holders_are_those_of_a_sum_and_not_those_that_the_study_names() -> None:
    masked = {"name": "secure-aggregation", "minimum_holders": 4}
    terms = toy(holders=[f"office-{i}" for i in range(1, 6)], protection=masked, **PRIVATE)
    allow = {"protections": ["secure-aggregation"]}
    admit(policy(allow=allow, minimum={"holders": 4}), terms)
    assert "minimum number of holders: a sum" in refusal(terms, allow=allow, minimum={"holders": 5})


@pytest.mark.parametrize("privacy", [{}, PRIVATE["privacy"] | {"noise": "central"}], ids=["no noise", "central noise"])
def test_exact_statistics_are_over_every_holder_unless_one_person_owns_all_data(privacy: dict[str, Any]) -> None:
    """Two totals over different holders, of one run or of two, would give one holder's own sum."""
    base = toy().terms

    def asked(minimum: int | None, privacy: dict[str, Any]) -> Resolved:
        table = base.model_dump() | {"method": "table", "options": {"rows": ["class"]}, "privacy": privacy or None}
        table |= {"protection": {"name": "secure-aggregation", "minimum_holders": minimum}}
        return resolve(Terms.model_validate(table | {"holders": [f"office-{i}" for i in range(1, 5)]}), "office-1")

    open_: dict[str, Any] = {
        "dataset": {"codebooks": [asked(4, privacy).question.codebook.digest()]},
        "allow": {"protections": ["secure-aggregation"], "methods": ["*"], "noise": ["local", "central"]},
        "refusals": {"explain": False},
        "limits": {"figures": 1_000, "refusals": 3},
    }
    open_["allow"] |= {"without_privacy": True, "public_seed": True}
    text = "protection.minimum_holders: got 3 of 4 holders for exact sums; want all 4"
    assert text in refusal(asked(3, privacy), **open_)
    for minimum in (4, None):
        admit(policy(**open_), asked(minimum, privacy))
    admit(policy(**open_), asked(3, PRIVATE["privacy"]))
    admit(policy(**open_ | {"refusals": {"explain": True}}), asked(3, privacy))


HIDES = ["secure-aggregation", "homomorphic-encryption"]


def asked(name: str, **options: Any) -> Any:
    holders = [f"office-{i}" for i in range(1, 5)]
    return toy(holders=holders, protection={"name": name, "options": options}, **PRIVATE)


def test_a_pinned_party_is_no_key_holder_unless_the_policy_says_so() -> None:
    pins = {"key-holder": "0" * 64, "west": "1" * 64}
    allow = {"protections": HIDES, "third_parties": ["key-holder"]}
    admit(policy(allow=allow, parties=pins), asked("homomorphic-encryption"))
    text = refusal(asked("homomorphic-encryption", key_holder="west"), allow=allow, parties=pins)
    assert "third parties: got west, not allowed; want key-holder" in text
    assert "want none" in refusal(asked("homomorphic-encryption"), allow={"protections": HIDES})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("homomorphic-encryption", "last_layer", 1),  # all but one entry in clear
        ("homomorphic-encryption", "scheme", "ckks"),  # an active coordinator has single contributions opened
        ("secure-aggregation", "colluders", 0),  # one colluder restores its neighbours' secrets
    ],
)
def test_options_that_protect_less_are_allowed_by_name_only(name: str, option: str, value: Any) -> None:
    allow: dict[str, Any] = {"protections": HIDES, "third_parties": ["key-holder"]}
    assert f"protection.options.{option}: got one" in refusal(asked(name, **{option: value}), allow=allow)
    for more in (f"{name}:{option}", "plain", "*"):
        admit(policy(allow=allow | {"protections": [*HIDES, more]}), asked(name, **{option: value}))


def test_a_delta_that_would_allow_to_publish_one_unit_is_wrong_usage() -> None:
    terms = toy(privacy={"unit": "person", "epsilon": 1.0, "delta": 0.025})
    with pytest.raises(UsageError, match=r"privacy.delta: got 0.025; want less than 1/40"):
        admit(policy(), terms)
    assert "privacy.delta: got 0.025" in refusal(terms, allow={"methods": ["describe"]})
    admit(policy(), toy(privacy={"unit": "person", "epsilon": 1.0, "delta": 0.0249}))


def _written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    return str(caught.value)


def test_a_wrong_policy_file_names_the_key_what_was_got_and_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(UsageError, match="policy file not found"):
        load_policy(path)
    assert "not a readable TOML file" in _written(path, "[holder")
    write_policy(policy(), path)
    good = path.read_text(encoding="utf-8")
    assert "budget.unit: got 'household'; want" in _written(path, good.replace('"person"', '"household"'))
    assert "budget.epsilon: got -1" in _written(path, good.replace("epsilon = 2.0", "epsilon = -1"))
    assert "budget.delta: got 0.03; want less than 1/40" in _written(path, good.replace("1e-05", "0.03"))
    unknown = _written(path, good.replace("without_privacy", "whithout_privacy"))
    assert "allow.whithout_privacy: unknown key" in unknown
    assert "want one of holder.name, dataset.id" in unknown
    assert "allow.without_privacy" in unknown
    assert "study.md" not in unknown
    assert "dataset.persons: got 700" in _written(path, good.replace("persons = 40", "persons = 700"))
    assert "holder.name: got 'Office'" in _written(path, good.replace('"office-1"', '"Office"'))
    two = good.replace("[parties]", f'[parties]\na = "{"0" * 64}"\nb = "{"0" * 64}"')
    assert "parties: got one public key for a, b; want a party each" in _written(path, two)
    missing = _written(path, good.replace('id = "toy"', ""))
    assert "dataset.id: missing" in missing


REHEARSED = {"refusals": {"explain": True}}


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("disclosure", "minimum_frequency", True, "disclosure.minimum_frequency: got True; want integer"),
        ("disclosure", "minimum_frequency", 1, "disclosure.minimum_frequency: implausible: got 1; want 2 to 100000"),
        ("disclosure", "p_percent", 0.1, "disclosure.p_percent: implausible: got 0.1; want 1 to 100 per cent"),
        ("disclosure", "joint_share", 0.5, "disclosure.joint_share: implausible: got 0.5; want 1 to 100 per cent"),
        ("disclosure", "dominance_k", 0.9, "disclosure.dominance_k: implausible: got 0.9; want 1 to 100 per cent"),
        ("disclosure", "p_percent", True, "disclosure.p_percent: got True; want number"),
        ("disclosure", "parameters_per_record", 3.0, "implausible: got 3; want 1e-06 to 1 parameters per record"),
        ("budget", "epsilon", True, "budget.epsilon: got True; want number"),
        ("budget", "epsilon", "3", "budget.epsilon: got '3'; want number"),
        ("dataset", "records", 600.0, "dataset.records: got 600.0; want integer"),
        ("dataset", "codebooks", ["people"], "dataset.codebooks: got 'people'; want the 64 hexadecimal digits"),
        ("allow", "without_privacy", 1, "allow.without_privacy: got 1; want boolean"),
        ("allow", "public_seed", "yes", "allow.public_seed: got 'yes'; want boolean"),
        ("allow", "columns", "age", "allow.columns: got 'age'; want tuple"),
        ("allow", "methods", ["meen"], "allow.methods: unknown method: got 'meen'; want mean?"),
        ("allow", "methods", ["me*"], "allow.methods: unknown method: got 'me*'; want"),
        ("allow", "protections", ["secure-agregation"], "got 'secure-agregation'; want secure-aggregation?"),
        ("allow", "protections", ["plain", "secure-aggregation:coluders"], "option of secure-aggregation: got"),
        ("allow", "columns", ["inc*"], "allow.columns: got 'inc*'; want whole names"),
        ("allow", "filters", ["age >"], "allow.filters: got 'age >'; want a column, or a condition"),
        ("limits", "asks", 0, "limits.asks: got 0; want greater than or equal to 1"),
        ("limits", "asks", True, "limits.asks: got True; want integer"),
        ("limits", "refusals", "none", "limits.refusals: got 'none'; want integer"),
        ("refusals", "explain", "true", "refusals.explain: got 'true'; want boolean"),
    ],
)
def test_what_cannot_have_been_meant_is_refused_by_key(
    tmp_path: Path, section: str, key: str, value: Any, message: str
) -> None:
    path = tmp_path / "policy.toml"
    table = {name: dict(keys) for name, keys in (BASE | REHEARSED).items()}
    table.setdefault(section, {})[key] = value
    assert message in _written(path, toml.dumps(table))


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("dataset", "codebooks", ["*"], 'dataset.codebooks: got "*"; want digests'),
        ("limits", "refusals", "off", 'limits.refusals: got "off"; want a number, or refusals.explain'),
        ("limits", "figures", "off", 'limits.figures: got "off"; want a number, or refusals.explain'),
    ],
)
def test_what_only_a_rehearsal_leaves_open(tmp_path: Path, section: str, key: str, value: Any, message: str) -> None:
    path = tmp_path / "policy.toml"
    table: dict[str, Any] = {name: dict(keys) for name, keys in (BASE | {"refusals": {"explain": False}}).items()}
    table.setdefault(section, {})[key] = value
    assert message in _written(path, toml.dumps(table))
    table["refusals"] = {"explain": True}
    path.write_text(toml.dumps(table))
    assert load_policy(path).rehearsal


def test_a_policy_that_pins_no_codebook_admits_nothing_unless_it_is_a_rehearsal() -> None:
    text = refusal(toy(**PRIVATE), refusals={"explain": False})
    assert "codebook: got" in text
    assert text.count("\n- ") == 1
    admit(policy(refusals={"explain": False}, dataset={"codebooks": [TOY.codebook.digest()]}), toy(**PRIVATE))
    assert "has not pinned" in refusal(toy(**PRIVATE), dataset={"codebooks": ["0" * 64]})


def _of(template: Any, records: int = 600) -> Policy:
    return made(
        template,
        holder=HolderName(name="office-1"),
        dataset=Dataset(id="toy", path="t.parquet", records=records, persons=40, codebooks=(TOY.codebook.digest(),)),
        budget=Budget(unit="person", epsilon=2.0, delta=1e-5),
    )


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_survive_writing_and_reading(tmp_path: Path, template: Any) -> None:
    path = tmp_path / "policy.toml"
    write_policy(_of(template), path)
    assert load_policy(path) == _of(template)


def test_what_templates_allow() -> None:
    strict, standard, rehearsal = map(_of, TEMPLATES)
    assert not strict.allow.without_privacy
    assert standard.allow.without_privacy
    assert not standard.disclosure.silent
    for shut in (strict, standard):
        assert not shut.rehearsal
        assert not {"plain", "*"} & set(shut.allow.protections)
        assert "secure-aggregation" in shut.allow.protections
        assert "local-sgd" not in shut.allow.methods
        assert "dp-fedsgd" in shut.allow.methods
        assert not shut.allow.public_seed
        assert "central" not in shut.allow.noise
        assert shut.minimum.holders == 3
        assert (shut.limits.figures, shut.limits.refusals, shut.limits.days) == (5_000, 10, 30.0)
    assert {"ols", "table"} <= set(standard.allow.methods)
    assert all(hasattr(load_method(name), "budget") for name in strict.allow.methods)
    assert rehearsal.rehearsal
    assert rehearsal.limits.refusals is None
    assert _of("standard", records=500_000).limits.figures == 250_000


def test_under_strict_nothing_leaves_without_noise_and_under_standard_nothing_in_clear() -> None:
    exact, private = toy(privacy=None), toy(**PRIVATE)
    for template, study, message in (
        ("strict", exact, "without differential privacy is not allowed"),
        ("standard", exact, "method: got local-sgd, not allowed"),
        ("standard", private, "protection: got plain, not allowed"),
        ("strict", private, "protection: got plain, not allowed"),
    ):
        with pytest.raises(Refused) as caught:
            admit(_of(template), study)
        assert message in str(caught.value)


def test_the_written_file_teaches_each_key_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    write_policy(policy(), path)
    text = path.read_text(encoding="utf-8")
    assert all("#" in line for line in text.splitlines() if "=" in line)
    assert "# strategies: not set" in text
    assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    names=st.lists(texts(1), max_size=4),
    data=texts(1),
    pins=st.lists(texts(), max_size=3, unique=True),
    epsilon=st.floats(1e-6, 1000),
    strategies=st.none() | st.lists(st.sampled_from(["fedavg", "fedyogi"]), max_size=2),
)
def test_policies_survive_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    data: str,
    pins: list[str],
    epsilon: float,
    strategies: list[str] | None,
) -> None:
    names = [name for name in names if "*" not in name]
    allow = {"methods": ["table"], "columns": names, "without_privacy": True, "strategies": strategies}
    parties = {name: f"{i:064x}" for i, name in enumerate(pins)}
    made = policy(dataset={"id": data, "path": data}, allow=allow, budget={"epsilon": epsilon}, parties=parties)
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    write_policy(made, path)
    assert load_policy(path) == made
