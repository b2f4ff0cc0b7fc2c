"""What a policy says of linkages: read strictly, and held against studies."""

import re
from pathlib import Path
from typing import Any

import pytest

from statfed.client.guard.admission import failing
from statfed.client.guard.files import check_modes
from statfed.client.guard.ledger import Ledger
from statfed.client.guard.links import enter
from statfed.client.guard.policy import Policy
from statfed.client.protecting import check_apart
from statfed.core.codebook import make_codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.identity import Identity
from statfed.core.linkage import restricted
from statfed.core.protection import agree
from statfed.core.resolve import Resolved, resolve
from statfed.core.study import make_study
from tests.client.test_policy import BASE
from tests.federation.test_link import CODEBOOK, study, tables


def policy(*linkages: str, **changes: dict[str, Any]) -> Policy:
    allow = {"methods": ["count"], "protections": ["plain"], "columns": ["*"], "without_privacy": True}
    allow |= {"third_parties": ["helper"], "linkages": list(linkages)}
    given = BASE | {"holder": {"name": "bank"}, "allow": allow, "budget": BASE["budget"] | {"unit": "record"}}
    return Policy.model_validate(given | changes)


def asked(name: str = "helper", seed: int | None = None, **options: Any) -> Resolved:
    codebook = make_codebook(CODEBOOK)
    books = {one: restricted(codebook, frame.columns) for one, frame in tables().items()}
    given = study({}) | {"protection": {"name": name, "options": {"key": "id", **options}}}
    terms = make_study({"holders": dict.fromkeys(books, "x.parquet"), **given}).terms(codebook, books)
    return resolve(terms.model_copy(update={"seed": seed}), "bank")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("*", "want each linkage by its name: ecdh, fuzzy, helper"),
        ("hepler", "unknown linkage: got 'hepler'; want helper"),
        ("helper:pair", "want helper alone, or one of helper:pairs, helper:pairs-to=HOLDER, helper:several"),
        ("helper:pairs-to", "want helper alone"),
        ("helper:pairs-to=", "want helper:pairs-to=HOLDER, with a holder's name"),
        ("helper:pairs-to=The Bank", "want helper:pairs-to=HOLDER, with a holder's name"),
        ("helper:", "want helper alone"),
        ("helper:cap", "want helper alone"),
        ("ecdh:ratio", "got 'ecdh:ratio' without ecdh; want ecdh beside it"),
        ("fuzzy:floor", "fuzzy:several, fuzzy:hardening"),
    ],
)
def test_entries_that_mean_nothing_are_refused_when_the_policy_is_read(entry: str, said: str) -> None:
    beside = [] if entry.startswith("ecdh") else ["helper", "fuzzy"]
    with pytest.raises(ValueError, match=said.replace("*", r"\*")):
        policy(*beside, entry)


@pytest.mark.parametrize(
    ("linkages", "study", "said"),
    [
        ((), asked(), ["linkage: got helper, not allowed"]),
        (("helper",), asked(), []),
        (("helper",), asked(reveal="pairs", to=["bank"]), ["pairs: got bank to be told"]),
        (("helper", "helper:pairs"), asked(reveal="pairs", to=["bank", "office"]), []),
        (("helper", "helper:pairs-to=bank"), asked(reveal="pairs", to=["bank"]), []),
        (("helper", "helper:pairs-to=bank"), asked(reveal="pairs", to=["bank", "office"]), ["pairs: got office"]),
        (("ecdh",), asked("ecdh", options={"ratio": 50}), []),
        (("ecdh",), asked("ecdh", options={"ratio": 101}), ["protection.options.ratio: got one with which ecdh"]),
        (("ecdh", "ecdh:ratio"), asked("ecdh", options={"ratio": 101}), []),
        (("helper", "fuzzy"), asked("fuzzy", block="id[:2]", options={"hardening": "none"}), ["hardening: got one"]),
    ],
)
def test_pairs_and_weaker_options_are_allowed_by_name_only(
    linkages: tuple[str, ...], study: Resolved, said: list[str]
) -> None:
    found = [rule for rule in failing(policy(*linkages), study) if rule.key == "allow.linkages"]
    assert len(found) == len(said)
    assert all(want in rule.text for rule, want in zip(found, said, strict=True))


@pytest.mark.parametrize(
    ("keys", "key", "said"),
    [
        ([], "id", ""),
        ([], "id:exact", ""),
        ([], "id:digits", "got id:digits, not allowed; want whole columns by the codebook's own rules"),
        ([], "id[5:]+id", r"got id:exact\[5:\]\+id:exact, not allowed"),
        (["id:digits"], "id:digits", ""),
        (["id:digits", "other[:2]"], "id:digits(5)", r"got id:digits\(5\), not allowed; .* or id:digits or other"),
        (["id[:2]"], "id[:3]", r"got id:exact\[:3\]"),
        (["id[:2]"], "id:exact[ :2]", ""),
        (["*"], "id[5:]+id", ""),
    ],
)
def test_rules_and_ranges_of_keys_are_listed(keys: list[str], key: str, said: str) -> None:
    """Either may leave a chosen unit without a key."""
    ruled = policy("helper")
    ruled = ruled.model_copy(update={"allow": ruled.allow.model_copy(update={"keys": tuple(keys)})})
    found = [rule.text for rule in failing(ruled, asked(key=key)) if rule.key == "allow.keys"]
    assert bool(found) == bool(said)
    assert not said or re.search(said, found[0])


def test_a_block_is_a_part_of_the_key_too() -> None:
    found = failing(policy("fuzzy"), asked("fuzzy", block="id[:2]"))
    assert [rule.text for rule in found if rule.key == "allow.keys"] == [
        "key: got id:exact[:2], not allowed; want whole columns by the codebook's own rules"
    ]


@pytest.mark.parametrize("entry", ["id,name", "id:nonsense", "id[2]", "", "*id[", "id[:2]]"])
def test_a_key_that_is_none_is_refused_when_the_policy_is_read(entry: str) -> None:
    allow = {"protections": ["plain"], "columns": ["*"], "keys": [entry]}
    with pytest.raises(ValueError, match="want"):
        Policy.model_validate(BASE | {"allow": allow})


def test_one_run_matches_with_the_same_others_and_another_attempt_is_that_run(tmp_path: Path) -> None:
    """Between two runs of one study the other's list may have lost one, of whom the difference would tell the cell."""
    ruled = policy("helper", disclosure={"minimum_frequency": 10})
    budget = ruled.budget
    with Ledger(
        tmp_path / "ledger.sqlite", dataset="d", unit=budget.unit, epsilon=budget.epsilon, delta=budget.delta
    ) as ledger:
        enter(ledger, ruled, asked(), "one", 1, 4, 4)
        enter(ledger, ruled, asked(), "one~2", 1, 4, 4)
        for study, run in ((asked(), "two"), (asked(), "one2"), (asked(cap=500), "one"), (asked(cap=500), "one~3")):
            with pytest.raises(Refused, match=r"another run; the difference of two|has linked already"):
                enter(ledger, ruled, study, run, 1, 4, 4)
        enter(ledger, policy("helper", "helper:several"), asked(), "two", 1, 4, 4)


def test_one_organisation_under_two_names_is_no_two_parties() -> None:
    """By key, and not by name: two holders, a holder that is the helper too, a coordinator that is."""
    terms = asked().terms
    agreement = agree("run", terms, {"bank": 10, "office": 10})
    me, one, other = (Identity.ephemeral(name) for name in ("bank", "office", "helper"))

    def pins(**keys: str) -> Identity:
        return Identity("bank", me._key, keys)

    check_apart(agreement, pins(office=one.public, helper=other.public))
    for twice, names in (
        (pins(office=one.public, helper=one.public), "helper and office"),
        (pins(office=me.public, helper=other.public), "bank and office"),
        (pins(office=one.public, helper=me.public), "bank and helper"),
    ):
        with pytest.raises(Refused, match=f"got one key for {names}; want parties of different organisations"):
            check_apart(agreement, twice)
    with pytest.raises(Refused, match="got the coordinator as a third party"):
        check_apart(agreement, pins(office=one.public, helper=other.public), other.public)


@pytest.mark.parametrize("name", ["linked.sqlite", "linked.opened", "links", "links/one.parquet"])
def test_what_is_kept_of_linkages_is_its_owners_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True, mode=0o700)
    if name == "links":
        path.mkdir(mode=0o755)
    else:
        path.touch(mode=0o644)
    with pytest.raises(UsageError, match=f"{name}: got mode 0.*, open to others"):
        check_modes(tmp_path)
    path.chmod(0o700 if name == "links" else 0o600)
    check_modes(tmp_path)


@pytest.mark.parametrize("given", ["off", 0.5])
def test_a_list_of_guesses_is_limited_outside_a_rehearsal(given: Any) -> None:
    with pytest.raises(ValueError, match=r"limits\.ratio|greater than or equal to 1"):
        policy("helper", limits={"ratio": given}, refusals={"explain": False})
