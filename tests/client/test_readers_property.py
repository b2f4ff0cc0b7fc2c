"""Text that a writer wrote reads back as it was, whatever its signs, and the scan agrees with Python's own reader."""

import csv
import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statfed.client.data import text_files
from statfed.client.data.lines import Fault, Lines
from statfed.client.data.reading import Reading, joined, parsed, split
from statfed.client.data.sources import connect
from statfed.client.data.text_files import examine

VALUES = st.text(
    st.one_of(
        st.sampled_from("\",;\t|'\n\r ab0.é☃"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1a"),
    ),
    max_size=6,
)
OPTIONS = {",": "%2C", ";": ";", "\t": "tab", "|": "|"}
ENCODINGS = {"utf-8": "", "utf-8-sig": "", "utf-16": "", "utf-16-le": "&encoding=utf-16-le", "utf-32": ""}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(VALUES, min_size=2, max_size=2), max_size=5),
    delimiter=st.sampled_from(list(OPTIONS)),
    quote=st.sampled_from("\"'"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    encoding=st.sampled_from(list(ENCODINGS)),
    last=st.booleans(),
    block=st.sampled_from([3, 16, 2**18]),
)
def test_what_a_writer_wrote_reads_back_equal(
    rows: list[list[str]],
    delimiter: str,
    quote: str,
    end: str,
    quoting: int,
    encoding: str,
    last: bool,
    block: int,
    tmp_path: Path,
) -> None:
    if end != "\r\n" and any(sign in value for row in rows for value in row for sign in "\r\n"):
        quoting = csv.QUOTE_ALL  # Python's writer leaves the sign that ends no line without quotes
    made = io.StringIO()
    writer = csv.writer(made, delimiter=delimiter, quotechar=quote, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["a", 'the "b'])
    writer.writerows(rows)
    text = made.getvalue() if last else made.getvalue().removesuffix(end)
    with (tmp_path / "x.csv").open("w", encoding=encoding, newline="") as file:
        file.write(text)
    source = f"x.csv?delimiter={OPTIONS[delimiter]}&quote={quote}&decimal=.{ENCODINGS[encoding]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK", block)
        with connect(source, tmp_path) as raw:
            found = raw.expr.to_pyarrow()
    assert found.column_names == ["a", 'the "b']
    got = sorted([value or "" for value in row.values()] for row in found.to_pylist())
    assert got == sorted(rows)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from('ab,"\n\r'), max_size=24), block=st.sampled_from([1, 2, 5, 2**18]))
def test_whatever_the_text_is_python_reads_the_same_records_or_it_is_refused(
    text: str, block: int, tmp_path: Path
) -> None:
    """A slow obvious reference: the module csv, strictly."""
    (tmp_path / "x.csv").write_text("p,q\n" + text, encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK", block)
        try:
            found = examine(tmp_path / "x.csv", Reading())
        except Fault:
            return
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    while rows and not rows[-1]:
        rows.pop()
    assert found.counts.records == len(rows)
    assert all(len(row) == 2 for row in rows)
    assert found.counts.content == sum(len(value.encode()) for row in rows for value in row)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from('ab,"\n'), max_size=40), cuts=st.sets(st.integers(0, 40)))
def test_where_blocks_end_makes_no_difference(text: str, cuts: set[int]) -> None:
    data = text.encode() + b"\n"
    ends = [i + 1 for i, sign in enumerate(data) if sign == 10]
    places = [0, *[end for end in ends[:-1] if end in cuts], len(data)]

    def told(edges: list[int]) -> object:
        lines = Lines(",", '"', 2)
        try:
            for first, last in pairwise(edges):
                lines.feed(data[first:last], last == len(data))
            return lines.end()
        except Fault as fault:
            return fault.line

    whole, pieces = told([0, len(data)]), told(places)
    assert whole == pieces or (isinstance(whole, int) and isinstance(pieces, int) and pieces <= whole)


@pytest.mark.parametrize("line", [2, 20_481, 49_999])
@pytest.mark.parametrize("bad", ["1", "1,2,3", '"1', '1"2,3', "", "1,\0", "1,\r2"])
def test_the_line_is_named_wherever_it_stands(line: int, bad: str, tmp_path: Path) -> None:
    """Also where DuckDB's buffers or blocks of the scan end, with lines of many lengths before."""
    sizes = np.random.default_rng(line).integers(1, 20, 50_000)
    rows = [f"{'9' * size},x" for size in sizes]
    rows[line - 2] = bad
    (tmp_path / "x.csv").write_text("a,b\n" + "\n".join(rows) + "\n", encoding="utf-8", newline="")
    with pytest.raises(Fault) as caught:
        examine(tmp_path / "x.csv", Reading())
    assert caught.value.line == line
    assert "9" not in str(caught.value).replace(str(line), "")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text("ab./", min_size=1), delimiter=st.sampled_from(";|/?&%:"))
def test_options_are_read_as_they_were_joined(path: str, delimiter: str, tmp_path: Path) -> None:
    escaped = delimiter.replace("%", "%25").replace("&", "%26")
    source = joined(f"nowhere/{path}", f"delimiter={escaped}&quote=none")
    found, options = split(source, tmp_path)
    assert found == f"nowhere/{path}"
    assert parsed(options, "x") == Reading(delimiter=delimiter, quote="")
