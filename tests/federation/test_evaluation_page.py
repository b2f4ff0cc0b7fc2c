"""The page of an evaluation: what is drawn is what was measured, and the original's small counts are in no page."""

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from statfed.core.codebook import make_codebook
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.details import CLASSES, FEWEST, details
from statfed.core.synthetic.evaluation import Asked, Evaluation, evaluate
from statfed.core.synthetic.utility import margins
from statfed.federation import evaluation
from statfed.federation.evaluation import drawn
from tests.synthetic_people import CODEBOOK, people, read, shuffled

N = 600
ORIGINAL = people(N, 1)
OWN, F, APART = read(ORIGINAL), read(people(N, 2)), read(shuffled(ORIGINAL, 4))
NAME = "<b>region</b>"


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture(scope="module")
def found() -> Evaluation:
    asked = Asked(
        "public-release", ("age", "edu"), ("employed",), attempts=100, measures=("membership", "copies", "linkability")
    )
    return evaluate(OWN, OWN, F, asked, rng())


def test_distances_of_pairs_are_those_whose_mean_is_measured() -> None:
    told = details(OWN, APART)
    pairs = told.distances[np.triu_indices(len(told.names), 1)]
    assert float(pairs.mean()) == pytest.approx(margins(OWN, APART, None, rng()).value, abs=0.005)
    assert all(round(value, 2) == value for value in (*pairs, *told.associations[np.triu_indices(len(told.names), 1)]))
    assert not told.distributions


def test_counts_of_the_original_are_rounded_and_small_ones_withheld() -> None:
    told = {one.name: one for one in details(OWN, APART, confidential=True).distributions}
    counts = ORIGINAL["region"].value_counts()
    for share in told["region"].shares:
        if share.original is not None:
            assert round(share.original * N, 6) % told["region"].base == 0
            assert abs(share.original * N - counts[share.label]) <= told["region"].base / 2
    ages, _ = np.histogram(ORIGINAL["age"], np.ceil(np.linspace(16, 95, CLASSES + 1)))
    withheld = [share.original is None for share in told["age"].shares]
    assert withheld[: len(ages)] == [count < FEWEST for count in ages.tolist()]
    assert any(withheld)


def test_classes_are_the_codebooks_and_never_values_of_the_data() -> None:
    other = read(people(N, 9).assign(age=50, income=123.45))
    labels = [
        [share.label for share in one.shares if share.label != "missing"]
        for one in details(other, other, confidential=True).distributions
    ]
    mine = [
        [share.label for share in one.shares if share.label != "missing"]
        for one in details(OWN, OWN, confidential=True).distributions
    ]
    assert labels == mine


def test_the_page_says_which_limits_are_broken_and_tells_no_distribution_unasked(found: Evaluation) -> None:
    page = evaluation.render(found, {"original": "x"}, details(OWN, OWN))
    assert "<script" not in page
    assert "Distribution:" not in page
    assert "--confidential" in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)  # noqa: S314  # our own
    broken = [one for one in found.judged if one.kept is False]
    assert broken
    (desc,) = re.findall(r'<desc id="risks-desc">(.*?)</desc>', page)
    assert "Verbatim rare records" in desc
    assert f"{len([one for one in found.measured if one.kind == 'risk'])} figures" in desc
    assert "Farthest:" in page
    private = evaluation.render(found, {"original": "x"}, details(OWN, OWN, confidential=True))
    assert "Confidential." in private
    assert "Distribution: age" in private


def test_a_limit_on_an_excess_stands_where_the_figure_meets_it(found: Evaluation) -> None:
    (one,) = [each for each in found.measured if each.name == "linkability"]
    (limit,) = [each for each in found.use.limits if each.measure == "linkability"]
    place = drawn._place(limit, one)
    assert place is not None
    assert one.baseline is not None
    assert (place - one.baseline) / (1 - one.baseline) == pytest.approx(limit.most)
    assert drawn._place(limit, replace(one, baseline=None)) is None


def test_names_are_escaped_and_one_column_has_no_pairs(found: Evaluation) -> None:
    told = CODEBOOK.model_dump(mode="json", exclude_defaults=True)["columns"]
    book = make_codebook({"columns": {NAME: told["region"]}})
    table = Coded(book, {NAME: OWN.columns["region"]})
    page = evaluation.render(found, {}, details(table, table, confidential=True))
    assert NAME not in page
    assert "&lt;b&gt;region" in page
    assert "Distance of the margins of two columns" not in page
    assert not math.isfinite(details(table, table).distances[0, 0])
