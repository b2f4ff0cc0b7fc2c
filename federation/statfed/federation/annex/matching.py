"""What an annex says of a linkage: matching, flow and quality, as sections."""

from statfed.federation.annex.diagram import MOST_STEPS, drawn
from statfed.federation.annex.flow import COORDINATOR
from statfed.federation.annex.linked import Estimate, Linked
from statfed.federation.annex.parts import BLANK, Block, Cell, Drawing, Section, Table, pairs
from statfed.federation.report import formats

FLOW = "Who sends what to whom"
THROUGH = f"through the {COORDINATOR}"
ALIKE = (
    "Keys are compared by likeness: some links are between different units, and some units in both lists are not "
    "linked. Both bias figures over the links."
)
EQUAL = (
    "Keys are compared as a whole after they were brought to their normal form: a unit whose key is miswritten at one "
    "holder is not linked. Nothing estimates how many those are."
)
NOT_YET = "Estimates of precision and recall, where the linkage makes some, stand in the annex of a run."


def sections(linked: Linked, origin: str) -> tuple[Section, ...]:
    """The sections on a linkage. origin: where the facts are from, in words."""
    return (_matching(linked, origin), _flow(linked), _quality(linked, origin))


def _matching(linked: Linked, origin: str) -> Section:
    cap = formats.count(linked.cap) if linked.cap else "each holder's own public size, or the largest of them"
    facts: list[tuple[str, Cell]] = [
        ("key, as it is written", linked.key),
        ("keys are compared", "part by part, by likeness" if linked.similar else "as a whole, by equality"),
        ("what comes out", linked.reveal),
        ("fewest matched units that a figure is about", formats.count(linked.minimum_frequency)),
        ("units that lists are filled up to", cap),
        ("holders that are told which of their units match", ", ".join(linked.to) or "none"),
        ("third parties", ", ".join(linked.third_parties) or "none"),
    ]
    rows = tuple(
        (one.part, one.use, one.column, one.rule, one.form, one.check or "none is checked") for one in linked.pieces
    )
    heads = ("Part", "Used as", "Column", "Rule", "Normal form", "Check, without which a value is no key")
    blocks: list[Block] = [
        pairs(origin, *facts),
        Table("Key rules, the same at every holder", heads, rows),
        "A record without a key, or without a value of a column that is looked at, is no unit. A key that two records "
        "of one holder have is refused where keys are compared as a whole.",
    ]
    if linked.options:
        options = tuple((one.name, one.value, one.about) for one in linked.options)
        blocks.append(Table("Agreed beside the key", ("Option", "Value", "What it is"), options))
    blocks.append(
        pairs(
            "For the parties to say",
            ("which population both registers are about, and what a unit is", BLANK),
            ("who puts the registers' keys in order, and how doubles are removed", BLANK),
            ("how often units may be matched, and what is done against lists made up to find single units", BLANK),
        )
    )
    return Section("Matching of units", tuple(blocks))


def _flow(linked: Linked) -> Section:
    flow = linked.flow
    rows: list[tuple[Cell, ...]] = [
        (
            step.label,
            line.sender,
            line.receiver,
            line.what,
            THROUGH if line.relayed else "directly",
        )
        for step in flow.steps
        for line in step.lines
    ]
    blocks: list[Block] = [
        "Traced in a run of this linkage on made-up units; each line stands in the exchange in which it arrives. Lists "
        "are as long as agreed, whatever the data are, where the linkage fills them up.",
        Drawing(FLOW, drawn(flow, FLOW)),
        f"Dashed: made by one party for another and relayed by the {COORDINATOR}. Whether it can read that says the "
        "table of who learns what.",
        Table(FLOW, ("Exchange", "From", "To", "What, in the protocol's words", "Way"), tuple(rows)),
    ]
    if sum(bool(step.arrows) for step in flow.steps) > MOST_STEPS:
        blocks.append(f"The drawing has the first {MOST_STEPS} exchanges, the table all.")
    if flow.ended:
        blocks.append(f"The trace ended here, on made-up units: {flow.ended}.")
    return Section("Flow of the linkage", tuple(blocks))


def _quality(linked: Linked, origin: str) -> Section:
    blocks: list[Block] = [ALIKE if linked.similar else EQUAL, *linked.quality]
    if linked.estimates:
        heads = ("Figure", "Value", "95 % limits")
        blocks.append(Table("Estimated by the linkage", heads, tuple(map(_estimate, linked.estimates))))
    elif linked.similar and origin == "From the study":
        blocks.append(NOT_YET)
    blocks.append(
        pairs(
            "To be agreed",
            ("truth sample: of whose records, how many, drawn by whom", BLANK),
            ("who reviews it and may see both sides in the clear, on which basis, and what is kept", BLANK),
            ("shares of missed and of false links that the purpose bears", BLANK),
            ("what is done where an estimate or the sample says more", BLANK),
            ("which figures are corrected for linkage errors, and what users are told", BLANK),
        )
    )
    return Section("Linkage quality", tuple(blocks))


def _estimate(one: Estimate) -> tuple[Cell, ...]:
    limits = formats.DASH if one.low is None or one.high is None else f"{one.low:.4g} to {one.high:.4g}"
    return one.name, f"{one.value:.6g}", limits
