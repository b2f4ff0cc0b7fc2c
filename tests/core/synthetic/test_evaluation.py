"""The guide and the verdict: what is evidence against a use, what leaves it open, and that nothing is a clearance."""

import numpy as np
import pytest

from statfed.core.discovery import SYNTHESIS, modules
from statfed.core.errors import UsageError
from statfed.core.synthetic.evaluation import Asked, evaluate
from statfed.core.synthetic.guide import Limit, guide
from statfed.core.synthetic.measured import Measured
from tests.synthetic_people import people, read, shuffled

N = 1500
ORIGINAL = people(N, 1)
OWN, F, S, APART = read(ORIGINAL), read(people(N, 2)), read(people(N, 3)), read(shuffled(ORIGINAL, 4))
ASKED = Asked("public-release", ("age", "edu", "region"), ("employed",), attempts=300)


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_the_guide_says_of_every_method_whether_it_is_built() -> None:
    assert {one.id for one in guide().methods if one.built} == set(modules(SYNTHESIS))


def test_a_copy_passed_off_as_synthetic_is_useful_and_not_safe() -> None:
    found = evaluate(OWN, OWN, F, ASKED, rng())
    assert (found.word("utility"), found.word("risk")) == ("no evidence against", "evidence against")
    assert "no clearance" in found.sentence
    broken = {one.limit.measure for one in found.judged if one.kept is False}
    assert {"singling-out", "membership", "copies"} <= broken


def test_independent_columns_are_not_useful() -> None:
    assert evaluate(OWN, APART, F, ASKED, rng()).word("utility") == "evidence against"


def test_nothing_is_said_of_risk_without_fresh_records() -> None:
    found = evaluate(OWN, S, None, ASKED, rng())
    assert found.word("risk") == "not enough evidence"
    assert any(name == "membership" and "fresh" in reason for name, reason in found.left_out)
    assert found.notes


def test_a_limit_is_judged_by_the_whole_interval() -> None:
    limit = Limit(measure="membership", most=0.6, reason="-")
    assert limit.kept(Measured("membership", "risk", 0.5, 0.45, 0.55)) is True
    assert limit.kept(Measured("membership", "risk", 0.65, 0.61, 0.7)) is False
    assert limit.kept(Measured("membership", "risk", 0.58, 0.5, 0.66)) is None
    parameters = Limit(measure="s-pmse", figure="value", most=10, reason="")
    assert parameters.kept(Measured("s-pmse", "utility", 14.5, baseline=14.1)) is None  # so have fresh records
    assert parameters.kept(Measured("s-pmse", "utility", 207.0, baseline=14.1)) is False
    assert parameters.kept(Measured("s-pmse", "utility", 14.5, baseline=5.0)) is False
    least = Limit(measure="train-synthetic-test-real", figure="excess", least=-0.05, reason="-")
    assert least.kept(Measured("train-synthetic-test-real", "utility", 0.8, excess=-0.2)) is False
    assert least.kept(Measured("train-synthetic-test-real", "utility", 0.8)) is None


def test_limits_can_be_changed_and_take_the_place_of_the_guides() -> None:
    strict = Limit(measure="hellinger", most=1e-9, reason="a try")
    found = evaluate(OWN, S, F, Asked("testing-technology"), rng(), limits=(strict,))
    assert [one.kept for one in found.judged if one.limit.measure == "hellinger"] == [False]
    assert found.word("utility") == "evidence against"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked("publishing"), "public-release"),
        (Asked("public-release", ("wages",)), "wages"),
        (Asked("public-release", measures=("closeness",)), "measure: got 'closeness'"),
    ],
)
def test_unknown_names_are_refused(asked: Asked, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(OWN, S, F, asked, rng())


def test_distance_to_the_closest_record_is_never_evidence() -> None:
    found = evaluate(OWN, S, F, Asked("public-release", measures=("distance-to-closest-record",)), rng())
    assert not any(one.name == "distance-to-closest-record" for one in found.measured)
    assert found.left_out == (("distance-to-closest-record", "it is no evidence: see the guide"),)
