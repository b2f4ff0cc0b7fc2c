"""Drafts of several holders: what differs is named with who has it, and every way out that a message names works."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from statfed.client.data.drafting import draft, to_toml
from statfed.client.data.tables import connect, local_mismatches, mismatches
from statfed.client.data.uniting import check_stated, doubts, folded, union
from statfed.core.codebook import Codebook, load_codebook
from statfed.core.errors import UsageError


def drafts(
    home: Path,
    files: Mapping[str, str],
    types: Mapping[str, str] | None = None,
    levels: Mapping[str, Sequence[str]] | None = None,
) -> list[Codebook]:
    found = []
    for name, text in files.items():
        (home / f"{name}.csv").write_text(text, encoding="utf-8")
        with connect(f"{name}.csv", home) as source:
            found.append(draft(source, types, levels))
    return found


SEXES = {"a": "sex,n\nF,1\nM,2\n", "b": "sex,n\nf,1\nm,2\n"}


def test_levels_in_two_spellings_are_refused_naming_who_has_which(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        union(drafts(tmp_path, SEXES), ("a", "b"))
    assert str(caught.value) == (
        "levels differ between holders: sex: a has F, M; b has f, m; want one spelling of F = f, M = m at every "
        "holder, or --levels sex=F,M,f,m where they are different levels"
    )
    united = union(drafts(tmp_path, SEXES, levels={"sex": ["F", "M", "f", "m"]}), ("a", "b"))
    assert united.columns["sex"].levels == ("F", "M", "f", "m")


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("Male", "male", True),
        ("new york", "New-York", True),
        ("Stra\u00dfe", "STRASSE", True),
        ("\uff21", "A", True),
        ("north", "south", False),
        ("Cafe\u0301", "Caf\u00e9", False),
    ],
)
def test_spellings_are_those_up_to_case_width_and_blanks(one: str, other: str, differ: bool, tmp_path: Path) -> None:
    files = {"a": f"x,y\n{one},1\n", "b": f"x,y\n{other},1\n"}
    if differ:
        with pytest.raises(UsageError, match="levels differ between holders: x"):
            union(drafts(tmp_path, files), ("a", "b"))
    else:
        assert union(drafts(tmp_path, files), ("a", "b")).columns["x"].levels


def test_a_holder_that_tells_two_spellings_apart_means_two_levels(tmp_path: Path) -> None:
    files = {"a": "x,y\nA,1\na,1\n", "b": "x,y\na,1\n"}
    united = union(drafts(tmp_path, files), ("a", "b"))
    assert united.columns["x"].levels == ("A", "a")
    assert doubts(united) == ["x: the levels A, a differ in spelling alone"]
    assert doubts(united, {"x"}) == []


def test_types_that_differ_are_named_with_their_holders_and_the_way_out(tmp_path: Path) -> None:
    files = {"north": "income,y\n1,1\n2,1\n", "south": "income,y\n3,1\nabc,1\n"}
    with pytest.raises(UsageError) as caught:
        union(drafts(tmp_path, files), ("north", "south"))
    wanted = "income: got types category, integer at different holders: category at south; integer at north"
    assert wanted in str(caught.value)
    options = re.findall("--type ([^ ]+)", str(caught.value))
    assert len(options) == 2
    for option in options:
        name, _, kind = shlex.split(option)[0].partition("=")
        united = union(drafts(tmp_path, files, types={name: kind}), ("north", "south"))
        assert united.columns["income"].type == kind
    united = union(drafts(tmp_path, files, types={"income": "integer"}), ("north", "south"))
    with connect("south.csv", tmp_path) as source:
        [found] = local_mismatches(source, united)
        assert (found.column, found.count, found.rows) == ("income", 1, (2,))
        assert "abc" not in found.message


def test_words_for_missing_among_levels_are_pointed_out(tmp_path: Path) -> None:
    [made] = drafts(tmp_path, {"a": "x,y\na,1\nnan,1\n<NA>,1\nNone,1\n"})
    [doubt] = doubts(made)
    assert 'missing = ["<NA>", "None", "nan"]' in doubt


@pytest.mark.parametrize("kind", ["category", "boolean", "number", "integer", "id", "text"])
def test_a_stated_type_admits_the_data_that_have_it(kind: str, tmp_path: Path) -> None:
    [made] = drafts(tmp_path, {"a": "employed,y\n0,5\n1,6\n,7\n"}, types={"employed": kind})
    assert made.columns["employed"].type == kind
    with connect("a.csv", tmp_path) as source:
        assert mismatches(source, made) == []
    (tmp_path / "a.codebook.toml").write_text(to_toml(made))
    assert load_codebook(tmp_path / "a.codebook.toml") == made


def test_what_is_stated_of_no_column_is_refused(tmp_path: Path) -> None:
    made = union(drafts(tmp_path, SEXES, levels={"sex": ["F", "M", "f", "m"]}))
    with pytest.raises(UsageError, match="--type: got 'age'; want one of sex, n"):
        check_stated(made, {"age": "integer"}, {})
    with pytest.raises(UsageError, match="--levels: got 'age'; want one of sex, n"):
        check_stated(made, {}, {"age": ["1"]})


def test_the_message_for_a_number_where_levels_are_wanted_names_the_line_and_the_option(tmp_path: Path) -> None:
    [made] = drafts(tmp_path, {"a": "employed,n\n0,5\n1,6\n"})
    with pytest.raises(UsageError) as caught:
        made.category("employed", "rows")
    assert '[columns.employed] type = "category" and categories = ["0", "1"]' in str(caught.value)
    assert "--type employed=category" in str(caught.value)


def test_folding_keeps_what_is_no_spelling() -> None:
    assert folded("007") == folded("7")
    assert folded("A1") != folded("A2")
    assert folded("0") == "0"
