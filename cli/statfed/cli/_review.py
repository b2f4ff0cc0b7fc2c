"""A rehearsal on the screen: would a study run, what would leave, what it costs, who learns what."""

from typing import TYPE_CHECKING

from statfed.cli._output import out, show_learns, table
from statfed.core.errors import harmless

if TYPE_CHECKING:
    from statfed.federation.rehearsed import Rehearsal

NOISE = {"here": "with noise", "coordinator": "exact, to a coordinator that adds noise", "none": "exact"}


def document(rehearsal: "Rehearsal") -> dict[str, object]:
    """A rehearsal as JSON, with its answer: runs, depends or refused."""
    return {
        "answer": rehearsal.answer,
        "obstacles": list(rehearsal.obstacles),
        **rehearsal.model_dump(mode="json"),
    }


def show_rehearsal(rehearsal: "Rehearsal") -> None:
    """The answer first, then what would leave at each sum, then who learns what."""
    asked = f"{rehearsal.title}: {rehearsal.method} under {rehearsal.protection}"
    with_whom = ", ".join([*rehearsal.holders, *rehearsal.third_parties])
    for line in (f"{asked}, with {with_whom}", *rehearsal.lines()):
        out.print(harmless(line), highlight=False, markup=False, soft_wrap=True)
    if rehearsal.sums:
        rows = table("What would leave here", "sum", "times", "part", "what it is", "numbers", numbers=("numbers",))
        for one in rehearsal.sums:
            how = NOISE[one.noise]
            for number, part in enumerate(one.parts):
                shape = " x ".join(map(str, part.shape)) or "1"
                first = (f"{one.ask} ({how})", str(one.times)) if not number else ("", "")
                rows.add_row(*first, part.part, part.kind, shape)
        out.print(rows, markup=False)
        kept = "; ".join(f"{one.ask}: {one.bytes:,} bytes of all parties" for one in rehearsal.sums if one.bytes)
        out.print(f"traffic: {rehearsal.sent:,} bytes sent from here in all; a sum takes {kept}", soft_wrap=True)
    show_learns("Who learns what", rehearsal.learns)
