"""Normal forms of keys: one text at every holder, nothing matched that should not be, digests of codebooks kept."""

import json
import unicodedata
from datetime import date

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.core.keyrules import CHECKS, RULES, WIDE, Rule, read_rule
from statfed.core.linkage import Units
from statfed.core.linkkeys import keys_of, keys_of_texts, read_key, together
from statfed.core.table import Table

CODEBOOK = Codebook.model_validate(
    {
        "columns": {
            "name": {"type": "text", "length": 40, "key": "name"},
            "postcode": {"type": "id"},
            "birth_date": {"type": "date"},
            "card": {"type": "id", "key": "luhn"},
            "sex": {"type": "category", "categories": ["f", "m"]},
            "works": {"type": "boolean"},
            "number": {"type": "integer"},
            "income": {"type": "number"},
            "signal": {"type": "array", "length": 3},
        }
    }
)


def rule(written: str, value: str | None) -> str | None:
    return read_rule(written)(value)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=12))
@example("ǰ")  # takes two passes to settle
@example("ﬃﬅ Ⅳ①")
@example("İi̇ΐ")
def test_a_rule_that_changes_its_own_result_is_found(value: str) -> None:
    for name in RULES:
        for width in (0, 9) if name in WIDE else (0,):
            once = Rule(name, width)(value)
            assert once is None or (once and Rule(name, width)(once) == once), (name, width)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=12))
def test_composed_and_decomposed_texts_that_differ_are_found(value: str) -> None:
    for name in RULES:
        forms = {Rule(name)(unicodedata.normalize(form, value)) for form in ("NFC", "NFD")}
        assert len(forms) == 1, name


@pytest.mark.parametrize(
    ("written", "values", "want"),
    [
        ("text", ["Müller", "MU\u0308LLER ", "ｍüller", "mu\u00adller"], "muller"),
        ("text", ["Straße", "STRASSE"], "strasse"),
        ("name", ["O'Neill-Müller", "o’neill  muller", "ONEILL MULLER"], "oneill muller"),
        ("name", ["Łukasz Ørsted", "lukasz orsted"], "lukasz orsted"),
        ("tokens", ["Mary Ann", "Ann, Mary"], "ann mary"),
        ("code", ["1234 ab", "1234AB", "1234-AB"], "1234ab"),
        ("soundex", ["Robert", "Rupert"], "r163"),
        ("soundex", ["Ashcraft", "Ashcroft"], "a261"),
        ("digits", ["0123.456", "0123 456", "٠١٢٣٤٥٦"], "0123456"),
        ("digits(9)", ["123456", "000123456", "00000123456"], "000123456"),
        ("number", ["0042", "42"], "42"),
        ("date", ["2021-03-04", "20210304", "2021/03/04"], "2021-03-04"),
        ("date-dmy", ["4.3.2021", "04032021", "2021-03-04"], "2021-03-04"),
        ("date-mdy", ["3/4/2021", "03042021", "2021-03-04"], "2021-03-04"),
        ("iban", ["GB82 WEST 1234 5698 7654 32", "gb82west12345698765432"], "gb82west12345698765432"),
        ("mod11-10(11)", ["86095742719", "086 095 742 719"], "86095742719"),
    ],
)
def test_values_that_are_one_come_out_as_two(written: str, values: list[str], want: str) -> None:
    assert [rule(written, value) for value in values] == [want] * len(values)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("digits", "12A45"),
        ("digits(3)", "1234"),
        ("number", "3.0"),
        ("number", "-5"),
        ("date", "2021-02-30"),
        ("date", "03042021"),
        ("date-dmy", "2021.03.04"),
        ("name", " - "),
        ("exact", "  "),
        ("soundex", "Ж"),
    ],
)
def test_what_a_rule_cannot_take_matches_something(written: str, value: str) -> None:
    assert rule(written, value) is None


# numbers that are published as examples: ISO/IEC 7812, GS1, ISO/IEC 7064, ISO 17442, ISO 13616
VALID = {
    "luhn": ["79927398713", "4539148803436467"],
    "gtin": ["4006381333931", "96385074", "036000291452"],
    "mod11-10": ["86095742719", "07945"],
    "mod97-10": ["529900t8bm49aursdo55", "79444"],
    "iban": ["gb82west12345698765432", "de89370400440532013000"],
}


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_a_mistyped_digit_passes_its_check(name: str) -> None:
    assert set(VALID) == set(CHECKS)
    for value in VALID[name]:
        assert rule(name, value) == value
        for place, digit in enumerate(value):
            for other in "0123456789" if digit.isdigit() else "":
                if other != digit:
                    assert rule(name, value[:place] + other + value[place + 1 :]) is None, (value, place, other)


def test_missing_is_a_text() -> None:
    assert all(Rule(name)(None) is None for name in RULES)


def test_parts_are_cut_put_together_and_named_by_the_rules_that_hold() -> None:
    parts = read_key("name, postcode:code[:2]+birth_date[:4], card[-4:]", CODEBOOK)
    assert [part.name for part in parts] == ["name:name", "postcode:code[:2]+birth_date:date[:4]", "card:luhn[-4:]"]
    assert read_key(parts[1].name, CODEBOOK) == (parts[1],)
    columns: dict[str, list[str | None]] = {
        "name": ["Ann O'Neill", None, " "],
        "postcode": ["1234 AB", "56", None],
        "birth_date": ["1990-01-02", "1991-02-03", "1992-03-04"],
        "card": ["79927398713", "79927398710", None],
    }
    keys = keys_of_texts(columns, parts)
    assert [list(texts) for texts in keys.parts.values()] == [
        ["ann oneill", None, None],
        ["12\x1f1990", "56\x1f1991", None],
        ["8713", None, None],
    ]
    assert list(keys.failed.values()) == [0, 0, 1]
    assert "ann" not in repr(keys)


def test_pieces_that_run_into_one_another_are_one_key() -> None:
    (part,) = (together(read_key("name,postcode", CODEBOOK)),)
    keys = keys_of_texts({"name": ["ab", "a"], "postcode": ["c", "bc"]}, [part])
    first, second = keys.parts[part.name]
    assert first != second


def test_a_table_gives_other_texts_than_its_values() -> None:
    frame = pd.DataFrame(
        {
            "name": ["Zoë", None],
            "birth_date": [(date(1999, 12, 31) - date(1970, 1, 1)).days, (date(1969, 12, 31) - date(1970, 1, 1)).days],
            "works": [True, False],
            "number": [7, 12],
            "sex": ["f", "m"],
        }
    )
    expr = ibis.duckdb.connect().create_table("t", frame)
    parts = read_key("name,birth_date,birth_date:digits[:4],works,number:digits(3),sex", CODEBOOK)
    keys = keys_of(Table(expr, CODEBOOK), parts)
    assert [Units(keys.parts).texts(name) for name in keys.parts] == [
        ["zoe", None],
        ["1999-12-31", "1969-12-31"],
        ["1999", "1969"],
        ["true", "false"],
        ["007", "012"],
        ["f", "m"],
    ]


ODD = ["a", "a b", " a", "a\n", "", " ", "e\u0301", "é", None, "\x7f", "a\tb", "~", "{ }", "007", "\u00a0x", "x" * 99]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.none(), st.text(max_size=6), st.from_regex("[ -~]{0,5}", fullmatch=True)), max_size=6))
@example(ODD)
@example(["plain", "texts", None])
def test_packed_keys_that_differ_from_those_of_the_obvious_way_are_found(values: list[str | None]) -> None:
    values = [None if value is None or "\0" in value else value.encode("utf-8", "ignore").decode() for value in values]
    expr = ibis.duckdb.connect().create_table("t", pa.table({"postcode": pa.array(values, pa.string())}))
    for written in ("postcode", "postcode[:2]", "postcode:digits", "postcode+postcode"):
        parts = read_key(written, CODEBOOK)
        found, want = keys_of(Table(expr, CODEBOOK), parts), keys_of_texts({"postcode": values}, parts)
        assert Units(found.parts).texts(parts[0].name) == list(want.parts[parts[0].name]), written
        assert found.failed == want.failed


def test_keys_in_several_batches_that_come_in_another_order_are_found() -> None:
    count = 150_000
    numbers = np.random.default_rng(1).permutation(count)
    texts = [f"é{i}" if i % 7 == 0 else str(i) for i in numbers]
    expr = ibis.duckdb.connect().create_table("t", pa.table({"postcode": texts, "number": numbers}))
    keys = keys_of(Table(expr, CODEBOOK), read_key("postcode,number", CODEBOOK))
    assert Units(keys.parts).texts("postcode:exact") == texts
    assert Units(keys.parts).texts("number:exact") == [str(i) for i in numbers]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("signal", "got type array; want one of id"),
        ("income", "got type number; want one of id"),
        ("nmae", "did you mean name"),
        ("name:luhm", "did you mean luhn"),
        ("name(9)", "did you mean name"),
        ("name:name(9)", "want a width"),
        ("number:digits(0)", "want a width"),
        ("birth_date:luhn", "got rule luhn for type date"),
        ("name,name:name", "more than once"),
        ("postcode[2]", "want columns such as"),
        ("", "want columns such as"),
        ("name,", "want columns such as"),
        (",".join(f"name[:{i}]" for i in range(1, 40)), "want at most 32"),
    ],
)
def test_a_key_that_cannot_be_is_read(written: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_key(written, CODEBOOK)


def test_a_key_rule_changes_the_digest_of_codebooks_that_have_none() -> None:
    plain = {"columns": {"id": {"type": "id"}, "n": {"type": "number"}}}
    book = Codebook.model_validate(plain)
    assert "key" not in json.dumps(book.model_dump(mode="json"))
    assert book.digest() == "461a4183c6e581c771fc3c8c3e31b1a6d91f97df65815ac0c4818a8e8796c3cf"
    ruled = Codebook.model_validate({"columns": {**plain["columns"], "id": {"type": "id", "key": "digits(9)"}}})
    assert ruled.digest() != book.digest()
    assert Codebook.model_validate(ruled.model_dump(mode="json")) == ruled


@pytest.mark.parametrize("column", [{"type": "id", "key": "luhm"}, {"type": "number", "key": "luhn"}])
def test_a_codebook_takes_a_rule_that_there_is_not(column: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"luhn|identify"):
        Codebook.model_validate({"columns": {"a": column}})


@pytest.mark.parametrize("written", ["id" + " " * 9_000, "id," * 4_000, "[" * 9_000])
def test_a_key_that_is_too_long_is_refused_for_its_length(written: str) -> None:
    with pytest.raises(UsageError, match=r"letters; want at most 8,000"):
        read_key(written, make_codebook({"columns": {"id": {"type": "id"}}}))


@pytest.mark.parametrize("written", ["id{}!:", "id:{}", "id[{}", "id[:2{}x]", "{}", "id{}[a]", "a{0}b{0}:{0}c["])
def test_blanks_are_looked_at_once(written: str) -> None:
    """A search that began anew at each of them would take as many steps as the cube of their number, and not end."""
    with pytest.raises(UsageError):
        read_key(written.format(" " * 2_600), make_codebook({"columns": {"id": {"type": "id"}}}))


def test_blanks_around_the_signs_of_a_key_mean_nothing() -> None:
    codebook = make_codebook({"columns": {"id": {"type": "id"}}})
    assert read_key(" id : digits(3) [ : 2 ] ", codebook) == read_key("id:digits(3)[:2]", codebook)
