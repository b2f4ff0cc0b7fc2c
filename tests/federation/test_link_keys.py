"""Keys that match nothing for how they are stored or compared, and options that there are not: said in words."""

from typing import Any

import pandas as pd
import pytest

from statfed.core.errors import Refused, UsageError
from statfed.federation import Federation

NUMBERS = list(range(100, 130))


def link(a: list[Any], b: list[Any], key: str = "id", column: str = "id", **more: Any) -> Federation:
    fed = Federation({"a": pd.DataFrame({column: a}), "b": pd.DataFrame({column: b})}, disclosure="none")
    fed.link(key, **more)
    return fed


def test_numbers_and_texts_are_not_compared_as_they_are_written_unless_somebody_says_so() -> None:
    padded = [f"{number:05d}" for number in NUMBERS]
    with pytest.raises(UsageError, match=r"id: got numbers at a and texts at b.*7 is not 007; want .* id:digits\(9\)"):
        link(NUMBERS, padded)
    fed = link(NUMBERS, padded, "id:digits(9)")
    assert fed.last is not None
    assert fed.last.result.tables["matched"][0]["count"] == 30
    with pytest.raises(Refused, match=r"or a rule for the key: id compared as written"):
        link(NUMBERS, padded, "id:exact")


def test_names_that_were_drafted_as_identifiers_are_told_to_be_compared_as_written() -> None:
    names = [f"Anna{number} Rossi" for number in NUMBERS]
    fed = link(names, names, "last_name", "last_name")
    assert fed.last is not None
    assert any(
        "last_name: compared as it is written" in text and "last_name:name" in text for text in fed.last.warnings
    )
    fed = link([name.upper() for name in names], names, "last_name:name", "last_name")
    assert fed.last is not None
    assert fed.last.result.tables["matched"][0]["count"] == 30
    assert not any("compared as it is written" in text for text in fed.last.warnings)


@pytest.mark.parametrize(
    ("by", "more", "said"),
    [
        ("ecdh", {"settings": {"decimal": 2}}, "decimal: unknown key; want one of chunk, "),
        ("ecdh", {"settings": {"decimals": {"id": 2}}}, "decimals: got some to reveal size; want them for totals"),
        ("ecdh", {"settings": {"privacy": {"epsilon": 1}}}, r"want the study's own \[privacy\]"),
        ("fuzzy", {"block": "id[:2]", "settings": {"flop": 1}}, r"flop: unknown key; want one of attributes, .*flip\?"),
        ("fuzzy", {"block": "id[:2]", "settings": {"attributes": {"id": {"bit": 3}}}}, r"bit: unknown key.*bits\?"),
        ("helper", {"settings": {"cap": 3}}, "options: got cap; want none"),
        ("helper", {"block": "id[:2]"}, "block, salt: got some under linkage helper"),
    ],
)
def test_options_that_a_linkage_does_not_have_are_refused_by_name(by: str, more: dict[str, Any], said: str) -> None:
    texts = [str(number) for number in NUMBERS]
    with pytest.raises(UsageError, match=said):
        link(texts, texts, by=by, **more)
