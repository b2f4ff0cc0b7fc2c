"""*Who learns what*: each row is true of the study that it is printed for, wherever the noise is added."""

from typing import Any

import pytest

from statfed.core.codebook import make_codebook
from statfed.core.terms import Privacy, Terms
from statfed.strategies.protections import homomorphic_encryption, plain, secure_aggregation
from tests.conftest import toy_terms

CODEBOOK = make_codebook({"columns": {"sex": {"type": "category", "categories": ["f", "m"]}}})
MODULES = {
    "plain": plain,
    "secure-aggregation": secure_aggregation,
    "homomorphic-encryption": homomorphic_encryption,
}
HIDING = ["secure-aggregation", "homomorphic-encryption"]
SHARE = "nothing: a share of the noise alone is not differentially private"


def query(name: str, holders: int = 4, minimum: int | None = None, **privacy: Any) -> Terms:
    return Terms(
        method="count",
        codebook=CODEBOOK,
        holders=tuple(f"h{i}" for i in range(holders)),
        seed=1,
        protection={"name": name, "minimum_holders": minimum},
        privacy=Privacy(epsilon=1, **privacy) if privacy else None,
    )


def training(name: str, method: str, privacy: dict[str, Any] | None = None, minimum: int | None = None) -> Terms:
    return toy_terms(
        holders=5,
        protection={"name": name, "minimum_holders": minimum},
        training={"method": method},
        privacy=privacy,
    )


def rows(name: str, terms: Terms) -> dict[str, str]:
    return {f"{row.role}: {row.learns}": row.protected_by for row in MODULES[name].learns(terms)}


def told(name: str, terms: Terms) -> str:
    return "\n".join(f"{key} | {value}" for key, value in rows(name, terms).items())


@pytest.mark.parametrize("name", MODULES)
def test_gradient_steps_are_not_called_updates_or_rounds(name: str) -> None:
    noise = "local" if name == "plain" else "shared"
    steps = told(name, training(name, "dp-fedsgd", {"epsilon": 1, "noise": noise}))
    assert "clipped gradients" in steps
    assert "every step" in steps
    assert "over all steps" in steps
    assert "round" not in steps
    assert "model update" not in steps
    local = told(name, training(name, "local-sgd", {"epsilon": 1}))
    assert "model update" in local
    assert "over all rounds" in local
    assert "step" not in local


@pytest.mark.parametrize("name", MODULES)
def test_statistics_speak_of_sums_not_of_rounds(name: str) -> None:
    for terms in (query(name), query(name, noise="local"), query(name, noise="central")):
        text = told(name, terms)
        assert "every sum" in text
        assert "round" not in text


@pytest.mark.parametrize("name", HIDING)
@pytest.mark.parametrize(
    "terms",
    [
        lambda name: query(name, noise="shared"),
        lambda name: query(name, minimum=3, noise="shared"),
        lambda name: training(name, "dp-fedsgd", {"epsilon": 1, "noise": "shared"}),
        lambda name: training(name, "dp-fedsgd", {"epsilon": 1, "noise": "shared"}, minimum=4),
    ],
    ids=["all holders", "dropout", "steps with dropout", "steps of all holders"],
)
def test_a_single_contribution_with_a_share_of_the_noise_is_not_called_private(name: str, terms: Any) -> None:
    found = rows(name, terms(name))
    single = {key: by for key, by in found.items() if "another holder's" in key}
    assert single
    assert set(single.values()) == {SHARE}
    assert "against whoever knows the noise of at most 1 of them" in told(name, terms(name))


@pytest.mark.parametrize("name", HIDING)
def test_what_colluders_see_of_one_holder_is_covered_by_local_noise_only(name: str) -> None:
    def single(terms: Terms) -> str:
        (found,) = (by for key, by in rows(name, terms).items() if "another holder's" in key)
        return found

    assert single(query(name, noise="local")) == "noise at the holder: epsilon 1 per record over all sums"
    assert single(query(name, noise="central")).startswith("trust alone")
    assert single(query(name)) == "nothing: so many must not collude"


def test_colluders_within_what_masks_withstand_but_beyond_the_shared_noise_are_told_apart() -> None:
    found = rows("secure-aggregation", query("secure-aggregation", 6, noise="shared"))
    (guard,) = (by for key, by in found.items() if key.startswith("coordinator with up to 4 holders"))
    assert guard.endswith("the noise in that sum is sized for 1 of them")
    (guard,) = (
        by
        for key, by in rows("secure-aggregation", query("secure-aggregation", 6, noise="shared", colluders=4)).items()
        if key.startswith("coordinator with up to 4 holders")
    )
    assert guard == "masks"


def test_numbers_of_colluders_read_as_words() -> None:
    two = told("secure-aggregation", query("secure-aggregation", 2, noise="local"))
    assert "coordinator with any holder: it may learn another holder's contribution" in two
    assert "up to 0" not in two
    three = told("secure-aggregation", query("secure-aggregation", 3))
    assert "coordinator with one holder: the sum over the others" in three
