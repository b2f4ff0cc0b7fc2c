"""Exact matching of two holders' units without a helper: Diffie-Hellman over ristretto255.

Each key is hashed to a point of the group, H(x). Two holders, the *matcher* with scalar a and the *mirror* with scalar
b, both fresh, exchange their lists (Meadows 1986; Huberman, Franklin and Hogg 1999; Agrawal, Evfimievski and Srikant
2003), in a secret order and filled up with random points to an agreed number of items:

1. `first`: the matcher sends a H(x) for each of its items;
2. `second`: the mirror sends them back as b a H(x), sorted by their bytes (for `pairs` in the order they came in);
3. `own`: the mirror sends b H(y) for its items; the matcher makes a b H(y) of each and finds those of step 2;
4. what is revealed: the matcher counts (`size`; De Cristofaro, Gasti and Tsudik 2012, sorted where they shuffle); or it
   sees which of its units they are (`pairs`); or it adds up, without seeing them, encrypted values that came with the
   mirror's items, and the mirror decrypts the sums (`totals`, private join and compute: Ion et al. 2020, by ElGamal in
   the exponent, see `_elgamal`). The holder `to` is the matcher, for `totals` the mirror.

Messages travel in chunks through the coordinator, sealed (`_channels`).

*Why it holds*, with H a random oracle and under the decisional Diffie-Hellman assumption in ristretto255, among holders
who follow the protocol (semi-honest), and against everybody else:

- *First pass.* Points a H(x) for distinct x cannot be told from independent random points while a is secret: a list
  says nothing of its keys, and no guess of a key can be tried on it. Filled-up items are random points.
- *The mirror* sees one such list. What it decrypts is a fresh encryption of the sums.
- *The matcher* sees b a H(x) and b H(y). By the same argument these are random points, but that those of a key in both
  lists are equal once it has multiplied. Sorted, the former are a function of their set alone, so that equal ones say
  how many of its items match, and not which; the latter are in the mirror's secret order. Ion et al. 2020 prove both
  for sums.
- *The coordinator* relays what is sealed. It learns sizes, which follow from the agreement, and what it is told. The
  work does not depend on how many units there are, match, or what they add up to; that times do not by a trace is not
  claimed.

*Not claimed.*

- *Against a holder who deviates.* A list is what its holder says: filled with guesses it finds out how many of them are
  units of the other. That is limited to its number of items, by `minimum`, by `ratio` (items of one list for each of
  the other's), and by how often the other takes part, which is the other's ledger's to count. A matcher who blinds each
  guess by a scalar of its own even finds out which of them match where `size` or `totals` is to be revealed. A mirror
  can let items weigh unequally (some of the matcher's points under several scalars in place of others; values 1, 2, 4
  ... in place of its own) and read single matches from a size or total that it is told. A mirror that sends back points
  that are no multiples of the matcher's makes the size wrong, and learns no more than the size that it is told. One
  that keeps the order, which would tell the matcher who matched, is refused. Keys that were not guessed
  stay hidden, and every guess takes an item.
- *With a leaked scalar* falls what it has blinded: with a, the mirror can try every guess on the matcher's list, with b
  the matcher on the mirror's; the coordinator, who has sealed bytes only, needs a key of the channel too. Scalars end
  with the run, or with the file of the first pass (`keep`), which is as secret as the data.
- *Of what is revealed.* Sizes, totals and pairs tell of units. `minimum` is judged, and noise is added, by the holder
  that sees the figure: the matcher the size, the holder `to` the totals. So epsilon holds against everybody but the
  one that sees the figure; with noise, `minimum` is judged on the noisy size, and that nothing is told tells no more.
  One unit more or less at a holder changes the size by 1 at most; one that changes, its key say, by 1 too, and a total
  by twice its bound. Noise follows from the scalar: another attempt with a list that was kept tells the same, one with
  a fresh list has to be charged again.

Every point is checked to be canonical and not the identity (ristretto255 has no others of small order). A list that has
a point twice is refused, and messages of another length or out of turn, before they are opened or memory is taken.

*Cost*: about 95 microseconds of processor an item and side and 96 bytes an item, for totals half as much again and
twice as many (`benchmarks/linkage_exact.py`); linear. Where tens of millions are linked often, set intersection by
vector oblivious linear evaluation (RR22: Raghuraman and Rindal 2022, as in SPU: linkage `spu`) is four to nine times
faster, under further assumptions.
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
from statfed.core.linkage import Asked, Estimate, Outcome, Reveal, Rounds, Units
from statfed.core.names import one_of
from statfed.core.privacy.noise import Noise
from statfed.core.privacy.placement import in_words
from statfed.core.protection import Agreement, Disclosure, Packet, Replies, Stage, reading, text, whole_numbers
from statfed.core.section import describe, shown
from statfed.strategies.linkages._channels import met
from statfed.strategies.linkages._ecdh_party import CHUNK, NUMBER, SUMS, WITHHELD, Matcher, Mirror, half
from statfed.strategies.linkages._ecdh_plan import SIZE, TOTAL, Column, Options, Plan, noise_of, plan_of
from statfed.strategies.linkages._ristretto import library

__all__ = ["Column", "Options", "coordinator", "learns", "noise_of", "party", "plan_of", "third_parties"]

TITLE = "Two holders, no helper: keys blinded twice on an elliptic curve (ECDH on ristretto255)"
TRUST = (
    "both holders follow the protocol (semi-honest): a list is what its holder says, and one that deviates can find "
    "out which of the keys that it guesses are units of the other, up to the agreed number of items",
    "the holder that sees an exact figure applies the minimum size and adds the noise as agreed: the matcher judges "
    "its own minimum, and sees the number of matches whatever it is; figures are right while both follow the protocol",
    "decisional Diffie-Hellman in ristretto255, SHA-512 as a random oracle; scalars stay secret and end with the run",
    "each holder has pinned the other's identity key; the coordinator is trusted with nothing but to relay",
)
CARD = read_card(__file__)
QUALITY = ("Keys are compared by equal points: two units whose normal forms are the same are linked, right or wrong.",)
REVEALS: tuple[Reveal, ...] = ("size", "totals", "pairs")
PARTIES = (2, 2)
EXTRA = "link"


METHODS = ("total",)
PARTED = False
PRIVATE: tuple[Reveal, ...] = ("size", "totals")
PRIVATELY = METHODS
ESTIMATES: tuple[Estimate, ...] = ()


def agreed(asked: Asked) -> Options:
    """What the two holders agree on, of a study. Raises UsageError on what ecdh cannot do, or options it does not have.

    Where `size` is worked out is the first holder, unless the options say `to`; totals are of columns of one holder.
    """
    linking, terms, given = asked.linking, asked.terms, dict(asked.linking.options)
    decimals = given.pop("decimals", {})
    fixed: dict[str, Any] = {"reveal": linking.reveal, "minimum": linking.minimum_frequency}
    if linking.cap is not None:
        fixed["pad_to"] = dict.fromkeys(terms.holders, linking.cap)
    if linking.reveal == "pairs":
        if len(linking.to) != 1:
            raise UsageError(f"to: got {', '.join(linking.to)}; want one holder of ecdh, which sees the pairs")
        fixed["to"] = linking.to[0]
    elif linking.reveal == "totals":
        fixed |= _summed(asked, decimals)
    if decimals and linking.reveal != "totals":
        raise UsageError(f"decimals: got some to reveal {linking.reveal}; want them for totals alone")
    if linking.reveal == "size":
        given.setdefault("to", terms.holders[0])
    if "privacy" in given:
        raise UsageError("options: got privacy; want the study's own [privacy] (--privacy epsilon=1), which is charged")
    if clash := sorted(set(fixed) & set(given)):
        raise UsageError(f"options: got {', '.join(clash)}; want them where the study says what is linked")
    fixed["privacy"] = terms.privacy
    try:
        return Options.model_validate(given | fixed)
    except ValidationError as error:
        wanted = f"one of {', '.join(sorted(set(Options.model_fields) - set(fixed)))}, decimals.COLUMN"
        raise UsageError(describe(error, "linkage ecdh", wanted, Options)) from None


def _summed(asked: Asked, decimals: Any) -> dict[str, Any]:
    """The columns of totals with their public bounds, and the holder that has them."""
    options = asked.terms.options
    if set(options) != {"columns"}:
        raise UsageError(f"total: got {', '.join(sorted(options))} under ecdh; want columns alone: domains take helper")
    holders = [name for name, own in asked.columns.items() if set(own) & {*options["columns"]}]
    if len(holders) != 1:
        raise UsageError(f"columns: got those of {', '.join(holders)}; want columns of one holder: others take helper")
    if not isinstance(decimals, Mapping):
        raise UsageError(f"decimals: got {decimals!r}; want them by column: decimals.{options['columns'][0]}=2")
    if lost := sorted(set(decimals) - set(options["columns"])):
        raise UsageError(f"decimals: got {', '.join(map(shown, lost))}; want {one_of(options['columns'], lost[0])}")
    columns = {}
    for name in options["columns"]:
        column, places = asked.terms.codebook.column(name), decimals.get(name)
        if column.bounds is None:
            raise UsageError(f"{name}: got no bounds; want low and high in the codebook: values are encrypted in units")
        if places is None and column.type == "number":
            raise UsageError(f"{name}: got no decimals; want how many its values have: decimals.{name}=2")
        low, high = column.bounds
        try:
            columns[name] = Column(low=low, high=high, decimals=places or 0)
        except ValidationError as error:
            raise UsageError(describe(error, f"decimals of {name}", "one that suits its bounds", Column)) from None
    return {"to": holders[0], "columns": columns}


def figures(agreement: Agreement) -> int:
    """Most exact figures that come out of it: the size, totals, or for every item if it matches."""
    plan = plan_of(agreement)
    return max(plan.slots.values()) if plan.options.reveal == "pairs" else 1 + len(plan.options.columns)


def stepwise(agreement: Agreement, holder: str) -> tuple[int, int]:  # noqa: ARG001
    """All figures come out at once."""
    return figures(agreement), 0


def lists(agreement: Agreement) -> Mapping[str, int]:
    """Places of each holder's list."""
    return plan_of(agreement).slots


def noise(options: Options) -> Noise | None:
    """The noise of the size and the totals, which whoever sees them adds."""
    return noise_of(options)


def seen(options: Options, holders: Sequence[str]) -> Mapping[str, Reveal]:
    """The matcher counts, and the mirror decrypts totals, before noise is added."""
    if options.privacy is None:
        return {}
    if not options.columns:
        return {options.to: "size"}
    return {name: "totals" if name == options.to else "size" for name in holders}


def third_parties(options: Options) -> tuple[str, ...]:  # noqa: ARG001
    """None."""
    return ()


def party(agreement: Agreement, identity: Identity, units: Units | None, keep: Path | None = None) -> Matcher | Mirror:
    """A holder's half. keep: a file in which the first pass is kept for another attempt under the same agreement, made
    here and now; secret, and to be deleted with the run.

    Raises UsageError on units that do not fit the agreement, Refused on a file of another one.
    """
    library()
    return half(agreement, identity, units, keep)


def coordinator(agreement: Agreement) -> Rounds:
    """The coordinator's half. What is revealed is part of the agreement.

    Raises UsageError on an agreement that does not fit, EngineError when a holder does not answer, or
    answers what it cannot have.
    """
    plan = plan_of(agreement)
    return _rounds(agreement, plan)


def _rounds(agreement: Agreement, plan: Plan) -> Rounds:
    yield from met(agreement)
    report: Packet = {}
    for move in plan.moves():
        report = yield from _moved(plan, *move)
    with reading(plan.matcher):
        if WITHHELD in report:
            return Outcome()
        size = _size(plan, report)
    std = {} if plan.noise is None else {name: float(one) for name, one in plan.noise.std().items()}
    if not plan.options.columns:
        return Outcome(size=size, std=std)
    with reading(plan.matcher):
        sums = text(report, SUMS)
    reply = yield from _asked(TOTAL, plan.mirror, {SUMS: sums})
    with reading(plan.mirror):
        return Outcome({name: _number(reply, name) for name in plan.options.columns}, size, std=std)


def _moved(plan: Plan, stage: str, giver: str, taker: str, count: int) -> Generator[Stage, Replies, Packet]:
    """A list from one holder to the other, the next message being made while the last is read: what the taker says to
    the last."""
    chunk = b""
    reply: Packet = {}
    for number in range(count + 1):
        packets: dict[str, Packet] = {}
        if number < count:
            packets[giver] = {NUMBER: b"%d" % number}
        if number:
            packets[taker] = {NUMBER: b"%d" % (number - 1), CHUNK: chunk}
        replies = yield Stage(stage, packets, standing=plan.standing(stage, number))
        if gone := sorted(set(packets) - set(replies)):
            raise EngineError(f"{stage}: no answer from {', '.join(gone)}; want both holders")
        if number < count:
            with reading(giver):
                chunk = text(replies[giver], CHUNK)
        reply = replies.get(taker, reply)
    return reply


def _asked(stage: str, name: str, packet: Packet) -> Generator[Stage, Replies, Packet]:
    replies = yield Stage(stage, {name: packet})
    if name not in replies:
        raise EngineError(f"{stage}: no answer from {name}; want one")
    return replies[name]


def _size(plan: Plan, report: Packet) -> int:
    """What the matcher says, if it can be. Raises EngineError where it cannot."""
    size = whole_numbers(report, SIZE)
    if size.shape != () or not np.issubdtype(size.dtype, np.integer):
        raise EngineError("size: got no whole number; want one")
    most = min(plan.slots.values())
    if size < plan.options.minimum or (plan.noise is None and size > most):
        raise EngineError(f"size: got one that cannot be; want {plan.options.minimum} to {most}")
    return int(size)


def _number(reply: Packet, name: str) -> NDArray[Any]:
    found = whole_numbers(reply, name)
    if found.shape != () or not np.isfinite(found):
        raise EngineError(f"totals: got no number for {name}; want one")
    return found


def learns(agreement: Agreement, reveal: Reveal) -> Sequence[Disclosure]:
    """What each role learns. Raises UsageError where the agreement reveals something else."""
    plan = plan_of(agreement)
    options = plan.options
    if reveal != options.reveal:
        raise UsageError(f"reveal: got {reveal} for an agreement on {options.reveal}; want that")
    agreed_on = {name: f"{count} items" for name, count in options.pad_to.items()}
    lists = " and ".join(f"{agreed_on.get(name, 'its public size')} ({name})" for name in sorted(plan.slots))
    noise = f", with {in_words(options.privacy)}" if options.privacy else ""
    hidden = f"minimum of {options.minimum}, judged by {plan.matcher}{noise}"
    columns = ", ".join(options.columns)
    blinded = "blinding by a scalar of this linkage (decisional Diffie-Hellman), a secret order, filled-up lists"
    counts = "which of its own units match" if reveal == "pairs" else "how many units match, exactly, and not which"
    apart = "; against it epsilon does not hold" if options.privacy else ""
    itself = f"none: that is what it works out, as long as it follows the protocol{apart}"
    if reveal == "totals":
        other = f"totals of its {columns} over the matched, exactly, unless withheld; not which match"
    else:
        other = "nothing of the other's units"
    told = "the number of matched units" + (f" and totals of {columns} over them" if columns else "")
    return [
        Disclosure(plan.matcher, counts, itself),
        Disclosure(plan.matcher, f"nothing else of the units of {plan.mirror}", blinded),
        Disclosure(plan.mirror, other, f"a fresh encryption of the sums{apart}" if columns else blinded),
        Disclosure("coordinator", f"{told}, or that it is below the minimum", hidden),
        Disclosure("coordinator", "no key, no point, no unit", "sealing between the holders"),
        Disclosure("result party", f"{told}, if the coordinator releases it", hidden),
        Disclosure(
            "all parties",
            f"the agreed lengths of the lists: {lists}",
            "none; the number of units only where a list is filled up",
        ),
        Disclosure(
            "whoever has a holder's scalar and its blinded list",
            "for every key guessed, if it is in that list",
            "none: the scalar is fresh in every linkage and ends with it",
        ),
        Disclosure("anyone on the network", "message sizes, which follow from the agreement, and times", "TLS"),
    ]
