"""The order of categories is the order of cells: another order is another codebook, and another study."""

import json
from typing import Any

from statfed.core.codebook import make_codebook
from statfed.core.terms import Terms

SEX = {"m": "man", "f": "woman"}


def terms(columns: dict[str, Any], **changes: Any) -> Terms:
    made = {"method": "table", "options": {"rows": ["sex"]}, "holders": ["a", "b"], "seed": None, **changes}
    return Terms.model_validate({**made, "codebook": {"columns": columns}})


def reversed_(table: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(list(table.items())))


def test_another_order_of_categories_or_columns_has_another_digest() -> None:
    """With sorted keys one approval covered both, and the difference of two totals was one holder's own table."""
    sex, age = {"type": "category", "categories": SEX}, {"type": "integer", "low": 0, "high": 120}
    one = {"sex": sex, "age": age}
    for other in ({**one, "sex": {**sex, "categories": reversed_(SEX)}}, reversed_(one)):
        assert make_codebook({"columns": one}).digest() != make_codebook({"columns": other}).digest()
        assert terms(one).digest() != terms(other).digest()
    both = {"sex": sex, "age": age}
    assert terms(one).digest() == terms(both).digest()
    assert Terms.model_validate(json.loads(terms(one).model_dump_json())).digest() == terms(one).digest()


def test_options_of_a_protection_are_named_and_have_no_order() -> None:
    columns = {"sex": {"type": "category", "categories": SEX}}
    options = {"nodes": ["x", "y", "z"], "functions": []}
    found = [
        terms(columns, protection={"name": "multi-party", "options": one}).digest()
        for one in (options, reversed_(options))
    ]
    assert found[0] == found[1]
