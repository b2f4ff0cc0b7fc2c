"""Laws that every analysis is put under, the ones found by discovery included.

A new analysis takes part with an entry in `tests.universe.EXAMPLES`.
"""

import json
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from statfed.core.discovery import modules
from statfed.core.errors import UsageError
from statfed.core.method import (
    ANALYSES,
    Ask,
    Cells,
    Model,
    Question,
    Total,
    checked,
    columns_read,
    load_method,
    read_question,
    summed,
)
from statfed.core.privacy.noise import plan
from statfed.core.result import Result
from statfed.core.terms import Privacy, Terms
from tests.federate import federate, table_of
from tests.noise import scheduled
from tests.universe import CODEBOOK, EXAMPLES, people

CASES = [pytest.param(name, options, id=f"{name}-{i}") for name in EXAMPLES for i, options in enumerate(EXAMPLES[name])]


def query_of(name: str, options: dict[str, Any], **more: Any) -> Terms:
    return Terms(method=name, options=options, codebook=CODEBOOK, holders=("a", "b"), seed=1, **more)


def private(name: str, options: dict[str, Any]) -> bool:
    """Does the analysis answer these options privately? Others are refused before anything is sent."""
    if not hasattr(load_method(name), "budget"):
        return False
    try:
        read_question(query_of(name, options, privacy=Privacy(epsilon=1.0)))
    except UsageError:
        return False
    return True


PRIVATE = [case for case in CASES if private(str(case.values[0]), cast(dict[str, Any], case.values[1]))]


def asked(name: str, options: dict[str, Any], frame: pd.DataFrame) -> Iterator[tuple[Any, Question[Any], Ask]]:
    """Every ask of one run over `frame`, in order."""
    module, question = read_question(query_of(name, options))
    table = table_of(frame, CODEBOOK)
    run = module.coordinate(question)
    ask = next(run)
    while True:
        yield module, question, ask
        parts = module.parts(question, ask)
        try:
            ask = run.send(
                Total(summed({"all": checked(module.contribute(table, question, ask), parts, "all")}, parts))
            )
        except StopIteration:
            return


def test_every_analysis_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(modules(ANALYSES))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_contributions_add_up_over_any_split_and_empty_holders_give_zeros(name: str, options: dict[str, Any]) -> None:
    frame = people(240, 3)
    psu = frame["psu"].unique()  # PSUs are nested in holders: the codebook says so
    pieces = [frame[frame["psu"].isin(psu[i::3])] for i in range(3)] + [frame.iloc[:0]]
    firms = {firm: i for i, firm in enumerate(sorted(frame["firm"].unique()))}
    if options.get("value"):  # enterprises are nested in holders
        owner = frame["firm"].map(firms) % 3
        pieces = [frame[owner == i] for i in range(3)] + [frame.iloc[:0]]
    for module, question, ask in asked(name, options, frame):
        parts = module.parts(question, ask)
        whole = checked(module.contribute(table_of(frame, CODEBOOK), question, ask), parts, "whole")
        split = [checked(module.contribute(table_of(p, CODEBOOK), question, ask), parts, "piece") for p in pieces]
        for key, part in parts.items():
            total = np.sum([piece[key] for piece in split], axis=0)
            if part.integer:
                np.testing.assert_array_equal(total, whole[key])
            else:
                possible = np.minimum(np.asarray(part.bound), 1e9) * len(frame)  # what cancelled on the way
                slack = 1e-9 * np.abs(whole[key]).max(initial=0) + 1e-13 * possible
                assert (np.abs(total - whole[key]) <= slack).all(), key
            assert not np.any(split[-1][key]), f"{key}: an empty holder sent something"


@pytest.mark.parametrize(("name", "options"), CASES)
def test_no_record_changes_an_entry_by_more_than_its_bound(name: str, options: dict[str, Any]) -> None:
    frame = people(40, 5)
    for module, question, ask in asked(name, options, frame):
        parts = module.parts(question, ask)
        whole = checked(module.contribute(table_of(frame, CODEBOOK), question, ask), parts, "whole")
        for left_out in (0, 7, 23):
            rest = frame.drop(index=left_out)
            less = checked(module.contribute(table_of(rest, CODEBOOK), question, ask), parts, "rest")
            for key, part in parts.items():
                change = np.abs(np.asarray(whole[key], float) - np.asarray(less[key], float))
                slack = 1e-9 * (1 + np.abs(np.asarray(whole[key], float)))
                if "psu" not in question.codebook.with_role("psu") or not options.get("design"):
                    assert (change <= np.asarray(part.bound) + slack).all(), key
                if part.single and not part.integer:
                    assert np.count_nonzero(change > slack) <= 1, key
                elif part.single:
                    assert np.count_nonzero(change) <= 1, key


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_result_is_the_same_whatever_the_order_of_holders(name: str, options: dict[str, Any]) -> None:
    frame = people(200, 11)
    pieces = [frame[frame["psu"].str[0] == s].reset_index(drop=True) for s in "abc"]
    one = federate(name, pieces, CODEBOOK, **options)
    other = federate(name, pieces[::-1], CODEBOOK, **options)
    assert_close(one.to_dict(), other.to_dict())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_results_are_json_without_nan_and_have_a_summary(name: str, options: dict[str, Any]) -> None:
    result = federate(name, [people(150, 2), people(0, 2)], CODEBOOK, **options)
    assert isinstance(result, Result)
    json.dumps(result.to_dict(), allow_nan=False)
    assert result.title in result.summary()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_what_an_ask_discloses_names_columns_of_the_codebook(name: str, options: dict[str, Any]) -> None:
    for module, question, ask in asked(name, options, people(120, 4)):
        disclosed = module.discloses(question, ask)
        assert isinstance(disclosed, Cells | Model)
        by = disclosed.by if isinstance(disclosed, Cells) else ()
        assert set(by) <= {n for n in CODEBOOK.columns if CODEBOOK.columns[n].levels}
        assert set(disclosed.complete) <= set(CODEBOOK.columns)
        assert set(columns_read(question)) <= set(CODEBOOK.columns)


@pytest.mark.parametrize(("name", "options"), PRIVATE)
def test_a_private_form_has_finite_bounds(name: str, options: dict[str, Any]) -> None:
    privacy = Privacy(epsilon=1.0)
    module, question = read_question(query_of(name, options, privacy=privacy))
    ask, times = scheduled(question)
    noise = plan(module.parts(question, Ask(ask)), privacy, times)
    assert all(np.isfinite(sd).all() for sd in noise.std().values())


def assert_close(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
    else:
        assert one == other
