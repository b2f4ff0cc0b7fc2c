"""The parties of `fuzzy`: holders that encode, a linkage unit that compares. See there for why it holds."""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused, UsageError
from statfed.core.identity import Identity
from statfed.core.linkage import Pairs, Units
from statfed.core.protection import Agreement, Packet, text
from statfed.core.randomness import Stream
from statfed.strategies.linkages._channels import MEET, OFFER, Channels
from statfed.strategies.linkages._comparing import (
    Candidates,
    Encoded,
    compare,
    leaning,
    one_to_one,
    repeated,
    two_best,
)
from statfed.strategies.linkages._encodings import Encoder, tags
from statfed.strategies.linkages._fuzzy_columns import Owner, Weigher
from statfed.strategies.linkages._fuzzy_estimates import Counted, counted, of_cells, of_unit
from statfed.strategies.linkages._fuzzy_options import ROWS, Options, checked, messages, plan_of, sizes
from statfed.strategies.linkages._fuzzy_sums import deal
from statfed.strategies.linkages._fuzzy_sums import told as shown_cells
from statfed.strategies.linkages._fuzzy_told import limits, step, stepped
from statfed.strategies.linkages._quality import BINS, Quality, assess, binned, estimated, grouped, halved

FIGURES = (
    "size",
    "threshold",
    "links_by_passes",
    "matched",
    "quality",
    "thresholds",
    "linked",
    "precision",
    "recall",
)
"""What the linkage unit tells the coordinator. Each counts links that are paired off one to one, or is told in steps
of what one record weighs (`_fuzzy_told`)."""
_SECRET = 32


class _Steps(ABC):
    """The stages that a party answers, each once and in order."""

    def __init__(self, agreement: Agreement, identity: Identity, stages: Sequence[str]) -> None:
        checked(agreement)
        self.agreement = agreement
        self.channels = Channels(agreement, identity)
        self._stages = [OFFER, MEET, *stages]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<private>)"

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Answer one stage. Raises Refused on any other than the next."""
        want = self._stages.pop(0) if self._stages else "none"
        if stage != want:
            self._stages = []
            raise Refused(f"fuzzy: got another stage than the next, {want}; want each once and in order")
        if stage == OFFER:
            return self.channels.offer()
        return self.channels.meet(packet) if stage == MEET else self.answered(stage, packet)

    @abstractmethod
    def answered(self, stage: str, packet: Packet) -> Packet:
        """Answer a stage whose turn it is."""


SHARED = 0.05
"""Of a holder's records, the largest share that have a key which another one of them has: of more, partners go to the
wrong ones of them, and estimates of recall do not see it."""


class Holder(_Steps):
    """A holder's half. pairs: its links, once it has been told."""

    def __init__(self, agreement: Agreement, identity: Identity, units: Units) -> None:
        self._options: Options = checked(agreement)
        self._name = identity.name
        self._size = sizes(agreement)[self._name]
        named = self._name in self._options.pairs_to
        plan = plan_of(agreement)
        self._columns = Owner(plan, units, self._options) if plan and plan.owner == self._name else None
        self._plan = plan
        stages = ["mix", "encode", *["send"] * messages(self._size)]
        if self._columns:
            stages += ["mask"] * self._columns.plan.messages
        stages += ["pairs"] * named
        if self._columns:
            stages += [*["weigh"] * self._columns.plan.messages, "share"]
        super().__init__(agreement, identity, stages)
        if missing := [part for part in self._options.parts if part not in units.keys]:
            raise UsageError(
                f"keys: got none of {', '.join(missing)}; want every part that is compared or makes blocks"
            )
        if units.count > self._size:
            raise Refused(f"units: got more than the agreed {self._size:,}; want at most so many")
        most, shared = _repeated(units, self._options)
        if most > self._options.repeats or shared > SHARED:
            raise Refused(
                f"keys: got the same key in more than the agreed {self._options.repeats} records, or shared by more "
                f"than {SHARED:.0%} of them; want a list without repeated records: keep one of each, or agree on a key "
                "that tells them apart"
            )
        self._units = units
        self._part = os.urandom(_SECRET)
        self._order = Stream(os.urandom(16)).permutation(self._size)  # place of each unit, then of what pads
        self._encoded: Encoded | None = None
        self._real = np.zeros(0, np.uint8)  # 1 of records with a key
        self._sent = 0
        self.pairs: Pairs | None = None

    def answered(self, stage: str, packet: Packet) -> Packet:
        other = next(name for name in self.agreement.holders if name != self._name)
        helper = self._options.helper
        if stage == "mix":
            mixed: dict[str, bytes] = {"secret": self.channels.seal(other, "secret", self._part)}
            if self._plan and self._plan.dealer == self._name:
                to_owner, to_unit = deal(self._plan, Stream(os.urandom(16)))
                mixed |= {
                    "owner": self.channels.seal(other, "deal", to_owner),
                    "unit": self.channels.seal(helper, "deal", to_unit),
                }
            return mixed
        if stage == "encode":
            parts = {self._name: self._part, other: self.channels.open(other, "secret", text(packet, "secret"))}
            if self._columns:
                self._columns.dealt(self.channels.open(other, "deal", text(packet, "deal")))
            if len(parts[other]) != _SECRET:
                raise Refused(f"secret: got another length of {other}; want {_SECRET} bytes")
            joined = b"".join(parts[name] for name in self.agreement.holders)
            self._encoded, capped = self._encode(hashlib.sha256(self.agreement.context("fuzzy") + joined).digest())
            return {"capped": np.array([capped])}
        if stage == "send" and self._encoded is not None:
            rows = slice(self._sent, self._sent + ROWS)
            self._sent += ROWS
            content = self._encoded.encodings[rows].tobytes() + self._encoded.tags[rows].tobytes()
            if self._options.estimate != "none":
                content += self._real[rows].tobytes()
            return {"records": self.channels.seal(helper, "records", content)}
        if self._columns and stage == "mask":
            return {"masked": self.channels.seal(helper, "masked", self._columns.masked(self._order))}
        if self._columns and stage == "weigh":
            self._columns.weigh(self.channels.open(helper, "weights", text(packet, "weights")))
            return {}
        if self._columns and stage == "share":
            counts, values = self._columns.shares()
            sealed = self.channels.seal(helper, "counts", counts.tobytes())
            return {"counts": sealed, "order": self._columns.order, "values": values}
        rows_and_numbers = np.frombuffer(self.channels.open(helper, "pairs", text(packet, "pairs")), "<i8")
        places, numbers = rows_and_numbers.reshape(2, -1)
        if len(places) and (places.min() < 0 or places.max() >= self._size):
            raise Refused("pairs: got a record that was not sent; want those that were")
        units = np.argsort(self._order)[places]
        if (units >= self._units.count).any():
            raise Refused("pairs: got a link of what only pads; want records")
        self.pairs = Pairs(units, numbers)
        return {}

    def _encode(self, secret: bytes) -> tuple[Encoded, float]:
        """All records in their secret order, and which share of them is in too large a block, as it is told."""
        keys, count = {part: self._units.texts(part) for part in self._units.keys}, self._units.count
        options = self._options
        encoder = Encoder(secret, options.attributes, options.salt, options.hardening, options.flip)
        random = Stream(os.urandom(16))
        blocks: dict[str, list[str | None]] = {}
        capped = np.zeros(count, bool)
        for part in options.block:
            often = Counter(keys[part])
            large = [value is not None and often[value] > options.most_in_block for value in keys[part]]
            blocks[part] = [None if left else value for value, left in zip(keys[part], large, strict=True)]
            capped |= np.array(large, bool)
        pad = self._size - count
        told = telling(options)
        empty = np.array([all(keys[part][row] is None for part in told) for row in range(count)], bool)
        made = Encoded(
            np.vstack([encoder.encode(keys), random.words(pad * encoder.words).reshape(pad, encoder.words)]),
            np.vstack([tags(secret, blocks), np.zeros((pad, len(options.block)), np.uint64)]),
        )
        made.encodings[:count][empty] = random.words(int(empty.sum()) * encoder.words).reshape(-1, encoder.words)
        made.tags[:count][empty] = 0
        alone = made.tags == 0  # a block of one's own, so that what is missing does not show
        made.tags[alone] = random.words(int(alone.sum())) | np.uint64(1)
        self._real = np.zeros(self._size, np.uint8)
        self._real[self._order[:count][~empty]] = 1
        shuffled = Encoded(np.empty_like(made.encodings), np.empty_like(made.tags))
        shuffled.encodings[self._order] = made.encodings
        shuffled.tags[self._order] = made.tags
        many = int(capped.sum())
        many = many if many >= options.minimum else 0  # with one record a block, a cap of 100 would count records
        return shuffled, float(np.ceil(100.0 * many / self._size) / 100.0)


class LinkageUnit(_Steps):
    """The linkage unit's half."""

    def __init__(self, agreement: Agreement, identity: Identity) -> None:
        self._options: Options = checked(agreement)
        self._sizes = sizes(agreement)
        self._plan = plan_of(agreement)
        columns = self._plan.messages if self._plan else 0
        received = ["receive"] * messages(max(self._sizes.values()))
        stages = [*["deal"] * bool(self._plan), *received, *["masked"] * columns, "link", *["weights"] * columns]
        super().__init__(agreement, identity, [*stages, *["estimate"] * (self._options.estimate != "none")])
        self._columns: Weigher | None = None
        self._counted: Counted | None = None
        self._real: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in agreement.holders}
        self._words = Encoder(b"", {}, hardening=self._options.hardening).words
        self._chunks: dict[str, list[Encoded]] = {name: [] for name in agreement.holders}

    def answered(self, stage: str, packet: Packet) -> Packet:
        if stage == "link":
            return self._link()
        if stage == "estimate":
            return self._estimate(packet)
        if self._plan and stage == "deal":
            dealt = self.channels.open(self._plan.dealer, "deal", text(packet, "deal"))
            self._columns = Weigher(self._plan, dealt)
            return {}
        if self._columns and stage == "masked":
            masked = self.channels.open(self._columns.plan.owner, "masked", text(packet, "masked"))
            self._columns.take(masked)
            return {}
        if self._columns and stage == "weights":
            owner = self._columns.plan.owner
            return {"weights": self.channels.seal(owner, "weights", self._columns.weights().tobytes())}
        passes = len(self._options.block)
        for name, chunks in self._chunks.items():
            rows = min(ROWS, self._sizes[name] - ROWS * len(chunks))
            if rows <= 0:
                continue
            content = self.channels.open(name, "records", text(packet, name))
            marks = rows * (self._options.estimate != "none")
            if len(content) != 8 * rows * (self._words + passes) + marks:
                raise Refused(f"records: got another length of {name}; want {rows:,} records")
            self._real[name].append(np.frombuffer(content, np.uint8)[len(content) - marks :] == 1)
            read = np.frombuffer(content[: len(content) - marks], np.uint64)
            split = rows * self._words
            chunks.append(Encoded(read[:split].reshape(rows, -1), read[split:].reshape(rows, passes)))
        return {}

    def _link(self) -> Packet:
        options, holders = self._options, self.agreement.holders
        sides = []
        for name in holders:
            chunks = self._chunks.pop(name)
            sides.append(
                Encoded(*(np.concatenate([getattr(one, it) for one in chunks]) for it in ("encodings", "tags")))
            )
        counts = [self._sizes[name] for name in holders]
        if any(repeated(side) > options.repeats for side in sides):
            raise Refused(
                f"records: got one encoding more often than the agreed {options.repeats} times in a list; want lists "
                "without repeated records"
            )
        found = compare(sides[0], sides[1], options.floor, options.most_compared, options.most_kept)
        links, _ = one_to_one(found, counts[0], counts[1])
        if len(links.left) < options.minimum:
            raise Refused(f"minimum: got fewer links than the agreed {options.minimum}; want at least so many")
        best, second = two_best(found)
        seed = int.from_bytes(self.agreement.context("bootstrap")[:8])
        threshold = options.threshold
        if threshold is not None:
            quality = assess(best, second, found.offered, links.score, seed)
        else:
            first, wanted = halved(sides[0].tags[:, 0], found.offered), (options.precision, options.least)
            suggested, quality = estimated(best, second, found.offered, links, first, wanted, seed)
            if suggested is None:
                raise Refused(
                    f"precision: got no threshold with an estimated precision of {options.precision:g} whose interval "
                    f"begins at {options.least:g} or above; want less, a key that tells more, or a threshold"
                )
            threshold = max(suggested, options.floor)
        at = round(threshold * BINS)
        first_half = 2 if options.threshold is None else 1  # quality is then of half of the records
        figures = self._diagnostics(links, quality, at, leaning(found), first_half)
        links = links.above(threshold)
        if len(links.left) < options.minimum:
            raise Refused(f"minimum: got fewer links than the agreed {options.minimum}; want at least so many")
        figures |= {
            "size": np.array(len(links.left)),
            "threshold": np.array(threshold),
        }
        passes = (sides[0].tags[links.left] == sides[1].tags[links.right]).sum(1)
        shared = np.bincount(passes, minlength=len(options.block) + 1)
        figures["links_by_passes"] = np.vstack(grouped(shared[None], options.minimum))
        if options.estimate != "none":
            self._count(found, threshold, sides[0].tags[:, 0])
        number = Stream(os.urandom(16)).permutation(len(links.left))
        for name, side in zip(holders, (links.left, links.right), strict=True):
            if name in options.pairs_to:
                content = np.stack([side[number], np.arange(len(number))]).astype("<i8").tobytes()
                figures[f"pairs:{name}"] = self.channels.seal(name, "pairs", content)
        return figures

    def _count(self, found: Candidates, threshold: float, tags: NDArray[np.uint64]) -> None:
        """Count pairs and links of records. Raises Refused where a holder has fewer records than the minimum."""
        holders, options = self.agreement.holders, self._options
        real = [np.concatenate(self._real[name]) for name in holders]
        if min(int(side.sum()) for side in real) < options.minimum:
            raise Refused(f"minimum: got fewer records than the agreed {options.minimum}; want at least so many")
        if options.level is not None and options.level > threshold:
            raise Refused(f"level: got {options.level:g}, above the threshold that was found; want a lower one")
        self._counted = counted(found, threshold, options.level, (real[0], real[1]), tags)
        self._counted.refuse_few(options.minimum)
        if options.values and sum(self._counted.most) > options.weight:
            raise Refused(
                f"weight: got a record with more than the agreed {options.weight} pairs behind totals of values; want "
                "lists without repeated records, smaller blocks, or a higher level"
            )
        if self._columns:
            self._columns.weigh(self._counted.weights(holders.index(self._columns.plan.owner)))

    def _estimate(self, packet: Packet) -> Packet:
        if self._counted is None:
            raise Refused("estimate: got no links to work from")
        options = self._options
        rates = self._counted.rates()
        told = of_unit(self._counted, rates, options.estimate == "coverage")
        if not self._columns:
            return told
        plan = self._columns.plan
        theirs = self.channels.open(plan.owner, "counts", text(packet, "counts"))
        counts, values = self._columns.opened(theirs)
        shown = shown_cells(counts[0], counts[1], options.minimum, self._counted.most)
        told |= of_cells(self._counted, rates, counts[0], counts[1], shown)
        return told | {"sums": np.where(shown, values, np.uint64(0)), "all": values.sum(2, dtype=np.uint64)}

    def _diagnostics(self, links: Candidates, quality: Quality, at: int, most: int, share: int) -> dict[str, Any]:
        """Links by score, and quality in steps. most: records of the first holder that one record of the other is
        best or next to best for; share: quality is of one record in so many."""
        kinds = np.bincount(binned(links.score), minlength=BINS + 1)[None]
        starts, counts = grouped(kinds, self._options.minimum, at)
        reached = np.maximum(np.cumsum(kinds[0, ::-1])[::-1], 1)
        weight = share * max(most, 1)
        precision = [
            _rate(quality.precision[i], quality.precision_interval[:, i], weight / reached[i]) for i in (at, *starts)
        ]
        recall = [
            _rate(quality.recall[i], quality.recall_interval[:, i], weight / max(quality.matched, 1.0))
            for i in (at, *starts)
        ]
        low, high = quality.matched_interval
        return {
            "matched": _stepped_count(quality.matched, low, high, most),
            "quality": np.array([precision[0], recall[0]]),
            "thresholds": starts / BINS,
            "linked": counts[0],
            "precision": np.array(precision[1:]).reshape(-1, 3),
            "recall": np.array(recall[1:]).reshape(-1, 3),
        }


def _stepped_count(value: float, low: float, high: float, most: int) -> NDArray[np.float64]:
    """An estimated number of records with its limits, in steps of `most`."""
    by = step(max(most, 1))
    return np.array([np.rint(value / by), np.floor(low / by), np.ceil(high / by)]) * by


def _rate(value: float, interval: NDArray[np.float64], weight: float) -> tuple[float, float, float]:
    """A share with its limits, in steps of what a record weighs."""
    low, high = limits(float(interval[0]), float(interval[1]), float(value), weight)
    return min(stepped(float(value), weight), 1.0), low, min(high, 1.0)


def telling(options: Options) -> tuple[str, ...]:
    """Parts of which a record needs one: those compared that are of no column of a block; all where there are none.

    Records that have what makes blocks alone, a place and a date that many have by default say, would all be alike.
    """

    def columns(part: str) -> set[str]:
        return {re.split(r"[\[:]", piece)[0] for piece in part.split("+")}

    blocked = {column for part in options.block for column in columns(part)}
    return tuple(part for part in options.attributes if not columns(part) <= blocked) or tuple(options.attributes)


def _repeated(units: Units, options: Options) -> tuple[int, float]:
    """The largest number of records with the same key, of those that have one, and the share that shares one's key."""
    texts = [units.texts(part) for part in options.parts]
    compared = [units.texts(part) for part in telling(options)]
    some = [any(value is not None for value in row) for row in zip(*compared, strict=True)]
    times = list(Counter(row for row, has in zip(zip(*texts, strict=True), some, strict=True) if has).values())
    return max(times, default=0), sum(n for n in times if n > 1) / max(sum(times), 1)
