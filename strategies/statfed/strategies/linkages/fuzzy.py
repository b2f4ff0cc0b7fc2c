"""`fuzzy`: records whose keys differ by typing errors are matched by a linkage unit that sees encodings only.

The two holders agree on a secret over a channel between them, encode each record's key (`_encodings`: one hardened
Bloom filter of q-grams), tag the blocks that it is in, shuffle, pad to an agreed size, and send both to the linkage
unit, a third party. It compares records of a block (`_comparing`), pairs them off one to one at a threshold that
follows from the estimated precision (`_quality`), and tells the coordinator counts, and the holders named in
`pairs_to`, which of their own records are linked, under numbers that pairs share.

Why it holds, parties following the protocol:

1. *Against the coordinator*: it relays sealed messages, whose sizes depend on agreed sizes alone (`_channels`), and
   gets the figures that `learns` lists; counts are 0 or at least `minimum`, of so many different records of each list
   (`_fuzzy_told`), though a holder has a record often in its list.
2. *Against the linkage unit without the secret*: positions and tags are HMAC-SHA256 under keys derived from 32 bytes of
   each holder (a pseudorandom function; RFC 2104, Bellare 2006), fresh for every linkage. So it cannot encode a guess
   (no dictionary), nor compare with another linkage's encodings. Order tells nothing: records are shuffled.
3. *Against the other holder*: it receives no encoding, and pairs only where it is named.

Not claimed. The unit sees what encodings and tags are *for*: which records are alike, how much, and how large blocks
are. Who knows the population can attack that:

- frequencies of block tags, and of encodings where few attributes go in, which no hardening hides (Kuzu et al. 2011;
  Niedermeyer et al. 2014); with all attributes in one filter, encodings hardly repeat;
- patterns of bits that a q-gram sets (Christen et al. 2018), which `fold` and `rule90` blunt. A unit that knows the
  owners of some records can weigh bits and tells q-grams of the others nearly as well as without hardening; a `salt`
  stops that, and loses the partners whose salt is wrong;
- the graph of similarities beside that of a known register (Vidanage et al. 2020): blunted, and by `flip` more so.

With the secret (a holder that colludes with the unit, or a leak) all encodings fall to a dictionary. The unit can tell
padding from records. A holder that lies about its records can probe for identifiers that it guesses: caps, ledgers and
rate limits are for that. benchmarks/linkage_fuzzy.py has how far each attack comes.

Source: Schnell, Bachteler and Reiher 2009; Vatsalan, Sehili, Christen and Rahm 2017, Privacy-preserving record linkage
for big data, Handbook of Big Data Technologies (linkage units, blocking).
"""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from statfed.core.card import read_card
from statfed.core.errors import EngineError, UsageError
from statfed.core.identity import Identity
from statfed.core.linkage import Asked, Estimate, Outcome, Pairs, Party, Reveal, Rounds, Units
from statfed.core.linkkeys import read_key
from statfed.core.protection import Agreement, Disclosure, Packet, Replies, Stage, reading, text, whole_numbers
from statfed.core.result import Basis, Result
from statfed.core.section import describe
from statfed.strategies.linkages._channels import met
from statfed.strategies.linkages._fuzzy_estimates import Told, shaped
from statfed.strategies.linkages._fuzzy_options import Options, checked, messages, plan_of, sizes
from statfed.strategies.linkages._fuzzy_parties import FIGURES, Holder, LinkageUnit

__all__ = [
    "CARD",
    "EXTRA",
    "PARTIES",
    "QUALITY",
    "REVEALS",
    "TITLE",
    "TRUST",
    "Holder",
    "LinkageUnit",
    "Options",
    "Pairs",
    "coordinator",
    "learns",
    "party",
    "third_parties",
]

TITLE = "Fuzzy matching: a linkage unit compares keyed encodings of keys with typing errors"
TRUST = (
    "The linkage unit colludes with no holder: with the secret it could try a dictionary on every encoding.",
    "All parties follow the protocol; a holder that lies about its records can probe for identifiers.",
    "What the linkage unit sees of similarities and block sizes is given no outside register to be compared with.",
)
CARD = read_card(__file__)
QUALITY = (
    "The threshold is the lowest at and above which the estimated precision is the wanted one, and where its 95 % "
    "interval begins no lower than `least`; where there is none, nothing is linked. One that the study gives is taken "
    "as it is.",
    "Precision and recall are estimated from best and second-best scores, without review or truth; limits are of a "
    "bootstrap over records. They are estimates: recall leaves out partners that share no block or score like "
    "strangers, and precision is too low where some records have more alike strangers than others.",
)
REVEALS: tuple[Reveal, ...] = ("size", "totals", "pairs")
PARTIES = (2, 2)
EXTRA = ""
COUNTS = 500
"""Figures that are told beside pairs, at most."""
OF_ALL = 60
"""Corrected figures of all matches, at most."""


METHODS: tuple[str, ...] = ("count", "total")
ESTIMATES: tuple[Estimate, ...] = ("total", "coverage")
PARTED = True
PRIVATE: tuple[Reveal, ...] = ()
PRIVATELY: tuple[str, ...] = ()


def agreed(asked: Asked) -> Options:
    """What the parties agree on, of a study. Raises UsageError without blocks, and on options that fuzzy does not have.

    Options `attributes` are of parts of the key as they are written there; parts without any are compared as they come.
    """
    linking, given = asked.linking, dict(asked.linking.options)
    codebook = asked.terms.codebooks[asked.terms.holders[0]]
    if not linking.block:
        raise UsageError("block: got none; want parts of which one is equal in every pair, as postcode[:2]")
    attributes: dict[str, Any] = {part.name: {} for part in read_key(linking.key, codebook)}
    changed = given.pop("attributes", {})
    if not isinstance(changed, Mapping):
        raise UsageError(f"attributes: got {changed!r}; want options by part of the key {linking.key}")
    for written, own in changed.items():
        part, *others = read_key(str(written), codebook, "attributes")
        if others or part.name not in attributes:
            raise UsageError(f"attributes: got {written}; want parts of the key {linking.key}")
        attributes[part.name] = own
    fixed: dict[str, Any] = {
        "attributes": attributes,
        "block": tuple(part.name for part in read_key(linking.block, codebook, "block")),
        "salt": next((part.name for part in read_key(linking.salt, codebook, "salt")), "") if linking.salt else "",
        "size": linking.cap,
        "minimum": max(linking.minimum_frequency, 3),
        "pairs_to": linking.to,
        "helper": linking.helper,
        "estimate": linking.estimate,
        **_columns(asked),
    }
    if clash := sorted(set(fixed) & set(given)):
        raise UsageError(f"options: got {', '.join(clash)}; want them where the study says what is linked")
    try:
        return Options.model_validate(given | fixed)
    except ValidationError as error:
        wanted = f"one of {', '.join(sorted({*Options.model_fields} - {*fixed} | {'attributes'}))}"
        raise UsageError(describe(error, "linkage fuzzy", wanted, Options)) from None


def _columns(asked: Asked) -> dict[str, Any]:
    """The columns of corrected figures and whose they are. Raises UsageError on an analysis that has none."""
    linking, terms, codebook = asked.linking, asked.terms, asked.terms.codebook
    if linking.reveal != "totals":
        return {"owner": "", "by": {}, "values": {}}
    if linking.estimate == "none":
        raise UsageError(
            f"{terms.method}: got no estimate; want total or coverage: links of a fuzzy linkage are not all there are, "
            "nor all true, and figures over them are told corrected or not at all"
        )
    if others := sorted(name for name, value in terms.options.items() if value and name not in ("by", "columns")):
        raise UsageError(f"{terms.method}: got {', '.join(others)} under fuzzy; want by and columns alone")
    by, columns = (tuple(terms.options.get(name, ())) for name in ("by", "columns"))
    read = {*by, *columns}
    owners = [name for name, own in asked.columns.items() if read & set(own)]
    if len(owners) > 1:
        raise UsageError(f"columns: got those of {' and '.join(owners)}; want all of one holder: cells are its own")
    values = {}
    for name in columns:
        column = codebook.column(name)
        if column.bounds is None:
            raise UsageError(f"{name}: got no bounds; want low and high in the codebook: it is summed in units of them")
        low, high = column.bounds
        values[name] = {"low": low, "high": high, "whole": column.type in ("integer", "boolean")}
    levels = {name: codebook.category(name).levels for name in by}
    return {"owner": owners[0] if owners else "", "by": levels, "values": values}


def figures(agreement: Agreement) -> int:
    """Most exact figures that come out of it: pairs, the counts of histograms, and corrected figures: for each cell
    links, pairs and their estimate, and of each value totals and totals of squares."""
    options = checked(agreement)
    corrected = OF_ALL * (options.estimate != "none") + (bool(options.owner) * (options.cells + 1)) * (
        6 + 4 * len(options.values)
    )
    return COUNTS + corrected + (max(sizes(agreement).values()) if options.pairs_to else 0)


def stepwise(agreement: Agreement, holder: str) -> tuple[int, int]:  # noqa: ARG001
    """All figures come out at once."""
    return figures(agreement), 0


def lists(agreement: Agreement) -> Mapping[str, int]:
    """Places of each holder's list."""
    return sizes(agreement)


def noise(options: Options) -> None:
    """None is added."""


def seen(options: Options, holders: Sequence[str]) -> Mapping[str, Reveal]:  # noqa: ARG001
    """Nothing is told with noise."""
    return {}


def third_parties(options: Options) -> tuple[str, ...]:
    """The linkage unit."""
    return (options.helper,)


def party(agreement: Agreement, identity: Identity, units: Units | None, keep: Path | None = None) -> Party:  # noqa: ARG001
    """A holder's half or the linkage unit's. keep: left alone; encodings have a fresh key each time."""
    if identity.name in agreement.holders and units is not None:
        return Holder(agreement, identity, units)
    if identity.name in agreement.third_parties and units is None:
        return LinkageUnit(agreement, identity)
    raise UsageError(f"party: got {identity.name}; want a holder with units, or the linkage unit without")


def coordinator(agreement: Agreement) -> Rounds:
    """The coordinator's half. Raises EngineError where a party does not answer.

    Figures, counts 0 or at least `minimum`: threshold; quality: (2, 3), precision and recall there, each with its 95 %
    interval; matched: (3,), records of the first holder with a partner among their candidates, with its interval;
    thresholds, linked: histogram of the scores of links, lower ends and counts; precision, recall: (groups, 3) at
    those thresholds; links_by_passes: (2, groups), numbers of block passes that bring a link together, and links;
    capped:HOLDER: share of its records in a block above `most_in_block`, in per cent rounded up, 0 for fewer than the
    minimum. Links are those paired off one to one, different records on either side. Figures in which a record that
    a list holds several times weighs more are told in steps (`_fuzzy_told`): quality, matched, precision, recall.
    """
    options = checked(agreement)
    holders, helper = agreement.holders, options.helper
    plan = plan_of(agreement)
    yield from met(agreement)
    parts = yield from _asked("mix", {name: {} for name in holders})
    swapped: dict[str, Packet] = {
        name: {"secret": _text(parts, other, "secret")} for name, other in zip(holders, holders[::-1], strict=True)
    }
    if plan:
        swapped[plan.owner] = {**swapped[plan.owner], "deal": _text(parts, plan.dealer, "owner")}
        yield from _asked("deal", {helper: {"deal": _text(parts, plan.dealer, "unit")}})
    said = yield from _asked("encode", swapped)
    for number in range(messages(max(sizes(agreement).values()))):
        sending: dict[str, Packet] = {name: {} for name in holders if number < messages(sizes(agreement)[name])}
        records = yield from _asked("send", sending)
        yield from _asked("receive", {helper: {name: _text(records, name, "records") for name in sending}})
    if plan:
        for _ in range(plan.messages):
            masked = yield from _asked("mask", {plan.owner: {}})
            yield from _asked("masked", {helper: {"masked": _text(masked, plan.owner, "masked")}})
    told = yield from _asked("link", {helper: {}})
    with reading(helper):
        figures = {name: whole_numbers(told[helper], name) for name in FIGURES}
    for name in holders:
        with reading(name):
            figures[f"capped:{name}"] = whole_numbers(said[name], "capped")
    if options.pairs_to:
        yield from _asked("pairs", {n: {"pairs": _text(told, helper, f"pairs:{n}")} for n in options.pairs_to})
    size = int(figures.pop("size"))
    corrected = (yield from _corrected(agreement)) if options.estimate != "none" else None
    return Outcome(figures, size, _result(figures, size, corrected))


def _corrected(agreement: Agreement) -> Generator[Stage, Replies, Told]:
    """What the linkage unit tells corrected for linkage errors, after it has weighed the columns."""
    options, plan, packet = checked(agreement), plan_of(agreement), dict[str, Any]()
    helper, order, values = options.helper, np.zeros(1, np.int64), np.zeros((2, 0, 1), np.uint64)
    if plan:
        for _ in range(plan.messages):
            weights = yield from _asked("weights", {helper: {}})
            yield from _asked("weigh", {plan.owner: {"weights": _text(weights, helper, "weights")}})
        shares = yield from _asked("share", {plan.owner: {}})
        packet = {"counts": _text(shares, plan.owner, "counts")}
        with reading(plan.owner):
            order = shaped(shares[plan.owner], "order", (plan.cells,))
            values = shaped(shares[plan.owner], "values", (2, 2 * len(plan.values), plan.cells)).astype(np.uint64)
            if sorted(order.tolist()) != list(range(plan.cells)):
                raise UsageError("order: got no order of the cells")
    told = yield from _asked("estimate", {helper: packet})
    with reading(helper):
        return Told.read(told[helper], options.by, plan, order, values, options.estimate == "coverage")


def _result(figures: Mapping[str, NDArray[Any]], size: int, corrected: Told | None) -> Result:
    """The figures as tables: those that are corrected, where they are asked for; links with their estimated quality;
    what a threshold would give."""
    precision, recall = figures["quality"]
    links = {
        "count": size,
        "threshold": float(figures["threshold"]),
        **_interval("precision", precision),
        **_interval("recall", recall),
        **_interval("units_in_both", figures["matched"]),
    }
    scores = [
        {
            "threshold": float(at),
            "linked": int(figures["linked"][i]),
            **_interval("precision", figures["precision"][i]),
            **_interval("recall", figures["recall"][i]),
        }
        for i, at in enumerate(figures["thresholds"])
    ]
    quality = tuple(f"{what}{end}" for what in ("precision", "recall") for end in ("", "_lower", "_upper"))
    both = ("units_in_both", "units_in_both_lower", "units_in_both_upper")
    tables, basis = corrected.tables() if corrected else ({}, {})
    return Result(
        "count",
        "Matches corrected for linkage errors" if corrected else "Linked units",
        tables | {"matched": [links], "scores": scores},
        facts={"linked": size},
        notes=(
            *(corrected.notes if corrected else ()),
            "precision and recall are estimated from the best and second-best scores of records, without truth",
            "scores: links by their similarity, from each on",
        ),
        basis=basis
        | {
            "matched": Basis(counts=("count",), own=("threshold", *quality, *both)),
            "scores": Basis(keys=("threshold",), observations=True, numbers=("linked",), own=quality),
        },
        observations="linked",
    )


def _interval(name: str, estimate: Sequence[float] | NDArray[Any]) -> dict[str, float]:
    """An estimate and its limits."""
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), map(float, estimate), strict=True))


def learns(agreement: Agreement, reveal: Reveal) -> Sequence[Disclosure]:
    """What each role learns. Raises UsageError where the options do not agree with `reveal`."""
    options = checked(agreement)
    wanted = ("pairs",) if options.pairs_to else ("totals",) if options.owner else ("size", "totals")
    if reveal not in wanted:
        raise UsageError(f"reveal: got {reveal}; want {wanted[0]}, as pairs_to and owner say")
    least = f"counts of at least {options.minimum}"
    found = [
        Disclosure(
            options.helper,
            "which encodings are alike, and how much; how many records share a block; how many records each holder has",
            "keyed, hardened encodings and tags, shuffled: without the secret no identifier can be tried; "
            "attacks with outside registers remain",
        ),
        Disclosure(
            "coordinator",
            "the number of links, paired off one to one, by score and by block passes; estimated precision, recall and "
            "number of matches, in steps of what one record weighs; which share of each holder's records "
            "is in too large a block, in per cent, rounded up",
            least,
        ),
        Disclosure("holders", "nothing of one another's records but the agreed sizes", "sealed channels"),
    ]
    if options.estimate != "none":
        found += _learns_corrected(options)
    for name in options.pairs_to:
        found.append(Disclosure(name, "which of its own records are linked, and the numbers of the pairs", "none"))
    return found


def _learns_corrected(options: Options) -> list[Disclosure]:
    """What each role learns by corrected figures."""
    population = "; how many records with a key each holder has" if options.estimate == "coverage" else ""
    found = [
        Disclosure(
            options.helper,
            "which records of each holder have a key and which only pad; how many pairs and links each has, and so the "
            "error rates",
            "records are encodings in a secret order",
        ),
        Disclosure(
            "coordinator",
            "error rates of links, links and pairs in all, and the number of matches that follows, with standard "
            f"errors{population}; not how many records have how many links or pairs beyond what is told without",
            "at least the minimum of different records of each list behind links and behind other pairs; in steps of "
            "what one record weighs",
        ),
    ]
    if options.owner:
        totals = "; totals of values and of their squares over links and pairs of such cells and of all" * bool(
            options.values
        )
        found += [
            Disclosure(
                options.helper,
                f"how many links and pairs each cell of {options.owner} has, cells being numbered in a secret order",
                f"which record is in which cell, and every value, are masked with words that {options.owner} and the "
                "other holder have: open if the unit works with one of them",
            ),
            Disclosure(
                "coordinator",
                "links and pairs of each cell behind whose links, and behind whose other pairs if any, are at least "
                f"{options.minimum} records of each list{totals}",
                "other cells are not told, and have as many together; numbers in steps of the most that one record "
                "has; totals of values are exact sums, and in them a record weighs as often as it has links or "
                f"pairs, {options.weight} at most",
            ),
            Disclosure(
                options.owner,
                "nothing of links",
                "the unit's counts are masked with words that the other holder has: open if both holders pool theirs",
            ),
        ]
    return found


def _asked(name: str, packets: Mapping[str, Packet]) -> Generator[Stage, Replies, Replies]:
    """One stage. Raises EngineError naming those that did not answer."""
    replies = yield Stage(name, packets)
    if gone := sorted(set(packets) - set(replies)):
        raise EngineError(f"{name}: no answer from {', '.join(gone)}; want every party")
    return replies


def _text(replies: Replies, name: str, item: str) -> bytes:
    with reading(name):
        return text(replies[name], item)
