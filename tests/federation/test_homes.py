"""What simulated holders declare of their data: counted once while a file stays the same, and anew when it changes."""

from pathlib import Path
from typing import Any

import pytest

from statfed.client.data.tables import connect
from statfed.core.codebook import make_codebook
from statfed.federation import homes

BOOK = make_codebook({"columns": {"who": {"type": "id", "role": "unit"}, "x": {"type": "number"}}})


def test_sizes_are_those_of_the_file_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(source: str, home: Path) -> Any:
        opened.append(source)
        return connect(source, home)

    monkeypatch.setattr(homes, "connect", counted)
    file = tmp_path / "a.csv"
    file.write_text("who,x\na,1\na,2\nb,3\n")
    assert [homes._sizes(str(file), BOOK) for _ in range(3)] == [(3, 2)] * 3
    assert len(opened) == 1
    file.write_text("who,x\na,1\nb,2\nc,3\nd,4\n")
    assert homes._sizes(str(file), BOOK) == (4, 4)
    assert len(opened) == 2
    assert homes._sizes(str(file), make_codebook({"columns": {"x": {"type": "number"}}})) == (4, 4)
