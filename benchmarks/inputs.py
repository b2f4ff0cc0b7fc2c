"""Kinds of input and what happens to them: the right records, or a refusal, and never a value in one.

    python benchmarks/inputs.py > docs/inputs.md

Every file, database and table in memory is made, and read as a holder reads it: opened, checked against the codebook,
and its records compared with those that were written. It fails where any cell is wrong: other records, no refusal, a
refusal that quotes a value, or an error without words.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.inputs.trial import Outcome, outcomes

_WIDE = 150  # characters of a message on the page
_ABOUT = """
What happens to files, databases and tables in memory that are not as they should be: the right records, or a
refusal. `python benchmarks/inputs.py > docs/inputs.md` writes this page: it makes every one of them, reads it as
a holder does, and fails where records are not those that were written, or a message has a value in it.
"""


def page(found: Sequence[Outcome]) -> Iterator[str]:
    """The page, in Markdown."""
    yield "# Inputs\n"
    refused = sum(one.case.want is None for one in found)
    yield _ABOUT.strip()
    yield f"{len(found)} inputs, {refused} of them refused, with the first line of the message."
    for part in dict.fromkeys(one.case.part for one in found):
        yield f"\n## {part}\n\n| input | in | what happens |\n| --- | --- | --- |"
        rows: dict[tuple[str, str], list[str]] = {}
        for one in found:
            if one.case.part == part:
                rows.setdefault((one.case.fault, _shown(one)), []).append(one.case.form)
        for (fault, what), forms in rows.items():
            yield f"| {fault} | {', '.join(dict.fromkeys(forms))} | {what} |"


def _shown(one: Outcome) -> str:
    if one.case.want is not None:
        many = len(one.case.want)
        return f"read: {many} record{'s' * (many != 1)}" if many else "read: no records"
    said = one.said.replace("|", "&#124;").replace("<", "&lt;")
    return f"refused: {said if len(said) <= _WIDE else said[: _WIDE - 3] + '...'}"


def main() -> int:
    """Write the page; name what is wrong."""
    found = list(outcomes())
    print("\n".join(page(found)))
    wrong = [one for one in found if one.fault]
    for one in wrong:
        print(f"{one.case.part}: {one.case.fault}, {one.case.form}: {one.fault}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
