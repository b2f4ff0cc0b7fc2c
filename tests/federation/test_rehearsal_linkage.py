"""A rehearsal of a linkage has units in common, whatever the rules of its key, and says what a real one would."""

import pytest

from statfed.core.codebook import make_codebook
from statfed.core.errors import UsageError
from statfed.core.keyrules import RULES, read_rule
from statfed.core.linkage import Linking
from statfed.core.scenario import Case
from statfed.core.terms import Protection, Terms
from statfed.federation.generated import generated
from statfed.federation.generated_keys import rules_of
from statfed.federation.rehearsal import rehearse
from statfed.lab.recommend.linked import study_of

SIZE = Case(partitioning="linkage", output="linkage")
TABLE = Case(partitioning="vertical", output="statistics")
KEYS = {
    "id": {"type": "id"},
    "name": {"type": "text", "length": 20},
    "born": {"type": "date", "low": "1950-01-01", "high": "1999-12-31"},
    "number": {"type": "integer", "low": 1, "high": 999_999},
    "sex": {"type": "category", "categories": ["f", "m"]},
}


@pytest.mark.parametrize(("case", "name"), [(SIZE, "fuzzy"), (TABLE, "helper")])
def test_a_rehearsal_of_a_linkage_comes_to_its_end(case: Case, name: str) -> None:
    made = rehearse(study_of(case, name, 2, None), records=300)
    assert made.completed, (made.stopped, made.kept_back, made.reasons)
    assert made.sent > 0


def test_a_rehearsal_whose_key_is_not_of_single_units_is_told_so() -> None:
    terms = study_of(SIZE, "helper", 2, None)
    options = {**terms.protection.options, "key": "id[:1]"}
    made = rehearse(terms.model_copy(update={"protection": Protection(name="helper", options=options)}), records=300)
    assert not made.completed
    assert any("key" in text for text in (made.stopped, *made.kept_back)), made


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"date-dmy", "date-mdy"}))
def test_generated_keys_are_in_common_and_pass_every_rule_with_its_check_digit(rule: str) -> None:
    book, linking = make_codebook({"columns": KEYS}), Linking(key=f"id:{rule}")
    rules = rules_of(linking, book)
    one, other = (generated(book, 40, holder, ("id",), keys=rules)["id"].to_pylist() for holder in ("a", "b"))
    assert one == other
    assert len(set(one)) == 40
    assert all(read_rule(rule)(value) is not None for value in one)


def test_a_key_of_several_columns_is_the_same_unit_by_unit() -> None:
    book, linking = make_codebook({"columns": KEYS}), Linking(key="name:name,born,sex,number", block="born[:4]")
    rules = rules_of(linking, book)
    one, other = (generated(book, 60, holder, tuple(KEYS), keys=rules) for holder in ("a", "b"))
    for column in ("name", "born", "sex", "number"):
        assert one[column].to_pylist() == other[column].to_pylist()
    assert one["id"].to_pylist() != other["id"].to_pylist(), "no part of the key"
    assert len(set(zip(*(one[name].to_pylist() for name in ("name", "born", "sex", "number")), strict=True))) == 60
    low, high = min(one["born"].to_pylist()), max(one["born"].to_pylist())
    assert low.year >= 1950
    assert high.year <= 1999


def test_a_column_that_no_rule_takes_is_refused_in_words() -> None:
    book = make_codebook({"columns": {"code": {"type": "integer", "low": 1, "high": 2}}})
    with pytest.raises(UsageError, match="code: found no value to generate that gtin takes"):
        generated(book, 5, "a", ("code",), keys=rules_of(Linking(key="code:gtin"), book))


def test_records_without_a_key_are_generated_as_before() -> None:
    terms: Terms = study_of(TABLE, "helper", 2, None)
    book = terms.codebook_of("office-1")
    assert generated(book, 20, "a", ("region",)) == generated(book, 20, "a", ("region",), keys={})
