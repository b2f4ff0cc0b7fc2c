"""What a linkage is: how units of several holders are matched, what is worked out over the matched, who learns what.

One module of `statfed.strategies.linkages` is one linkage, with the halves of all roles side by side. A linkage is a
protocol of named stages between the coordinator and the parties (holders, and third parties such as a helper), as a
protection is (`statfed.core.protection`: stages, packets, agreement). What one party has for another travels through
the coordinator, which relays it and cannot read it: packets between parties are sealed. It knows nothing
of Flower, policies or ledgers: adapters at both ends carry its packets, and take what is `Sealed` to its receiver
by a line of their own where a study says `direct`.

- The coordinator's half is a straight line: `replies = yield Stage("tags", packets)`; what it returns is an `Outcome`.
- A party's half answers a stage with a packet, once, from secrets that never leave it, and refuses anything else.
- Every direction is declared: `learns` has a row for every role, and what is not in it does not happen.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_origin

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from statfed.core.card import Card, card_of
from statfed.core.codebook import Codebook
from statfed.core.conditions import columns_of
from statfed.core.discovery import LINKAGES, is_linkage, load
from statfed.core.errors import UsageError
from statfed.core.identity import Identity
from statfed.core.linkkeys import KeyPart, Texts, packed_texts, read_key
from statfed.core.method import load_method, read_question
from statfed.core.names import one_of
from statfed.core.privacy.noise import Noise
from statfed.core.protection import (
    Agreement,
    Disclosure,
    Packet,
    Replies,
    Requirements,
    Stage,
    agree,
    read_protection,
)
from statfed.core.result import Result
from statfed.core.section import NAME, Section
from statfed.core.terms import Terms

Reveal = Literal["size", "totals", "pairs"]
"""What comes out: the number of matched units; figures over them; the pairs themselves, at the parties named."""
Estimate = Literal["none", "total", "coverage"]
"""What is corrected for linkage errors: nothing; numbers and totals over matches; those and the population's size."""


@dataclass(frozen=True)
class Units:
    """One holder's units as a linkage sees them. Private.

    keys: by name of the key's part, one text a unit in its normal form (`statfed.core.linkkeys`), None where it is
    missing: such a unit matches nothing. An exact linkage has one part. columns: what is worked out over the matched,
    by name, float64 (n,), NaN nowhere. n units; the order means nothing and is never told.
    """

    keys: Mapping[str, Texts]
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of units."""
        return len(next(iter(self.keys.values())))

    def packed(self, part: str) -> pa.LargeBinaryArray:
        """One part of the keys as bytes of UTF-8, null where it is missing. (n,)."""
        return packed_texts(self.keys[part])

    def texts(self, part: str) -> Sequence[str | None]:
        """One part of the keys as Python's texts: ten times the memory. (n,)."""
        texts = self.keys[part]
        if isinstance(texts, pa.Array):
            return [
                None if raw is None else raw.decode("utf-8", "surrogatepass") for raw in self.packed(part).to_pylist()
            ]
        found: Sequence[str | None] = texts
        return found

    def __repr__(self) -> str:
        return "Units(<private>)"


@dataclass(frozen=True)
class Pairs:
    """What a holder is told of pairs. Private. unit: places among its own units; number: of the pairs, which others
    that are told have of theirs."""

    unit: NDArray[np.int64]
    number: NDArray[np.int64]

    def __repr__(self) -> str:
        return "Pairs(<private>)"


class Sealed(bytes):
    """What a party has sealed for one other, `to`. How it gets there is nothing that parties know."""

    to: str

    @classmethod
    def of(cls, to: str, content: bytes) -> "Sealed":
        """`content` for `to`."""
        made = cls(content)
        made.to = to
        return made


class Lines(Protocol):
    """A run's direct lines, for a party that has a program of its own talk to its like on Unix sockets."""

    def tunnel(self, peer: str, own: Path, other: Path) -> None:
        """Until the run ends, connections to the socket `other`, which is made here, reach the program of `peer`, and
        those of that program lead to the socket `own`, at which this party's listens."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What the coordinator ends up with. figures: by name; size: matched units, None where that is not told; result:
    that of an analysis over the matched, as of any other. std: standard deviations of the noise in size and figures, by
    name, where there is some."""

    figures: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    size: int | None = None
    result: Result | None = None
    std: Mapping[str, float] = field(default_factory=dict)


Rounds = Generator[Stage, Replies, Outcome]


class Party(Protocol):
    """One party's half of one linkage. Raises Refused, in public words, on whatever does not fit its state.

    A holder that may learn pairs has them in `pairs` once it was told; one that works in steps says in `steps` how many
    it has answered. Where `standing` is there, it says in words what was answered last, how much of it is done and how
    much there is: public, for the party's own log. A party that has a program of its own may have `lined`, which is
    given the run's direct lines (None without), and `close`, at the end of the run.
    """

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Answer one stage."""
        ...


class Linkage(Protocol):
    """The module contract of `statfed.strategies.linkages.*`.

    TITLE: one line for lists. TRUST: assumptions under which it holds. REVEALS: what may come out of it. PARTIES:
    fewest and most holders. EXTRA: optional packages that it needs. METHODS: analyses that it works out over the
    matched. ESTIMATES: what it can correct for linkage errors, other than none. PARTED: does it compare the parts of
    a key one by one? Options: pydantic model of what all parties agree on, in the agreement; where it has a field
    `helper`, a third party of that name takes part; fields with which it protects less, if they are other than by
    default or above it, have `json_schema_extra={"weaker": True or "above"}`. PRIVATE: what may come out with noise (a
    study's [privacy]); PRIVATELY: the analyses of it. A module may have CARD, its questions for the parties
    (`statfed.core.card`), QUALITY, sentences on how right its links are, and, if it needs something of a holder's
    machine, `ready`, which raises Refused, in public words, where that is not there.
    """

    TITLE: str
    TRUST: tuple[str, ...]
    REVEALS: tuple[Reveal, ...]
    PARTIES: tuple[int, int]
    EXTRA: str
    METHODS: tuple[str, ...]
    ESTIMATES: tuple[Estimate, ...]
    PARTED: bool
    PRIVATE: tuple[Reveal, ...]
    PRIVATELY: tuple[str, ...]
    Options: type[Section]

    def agreed(self, asked: "Asked") -> Section:
        """What the parties agree on, of a study. Raises UsageError on what this linkage cannot do."""
        ...

    def figures(self, agreement: Agreement) -> int:
        """Most exact figures that come out of it, for whoever: what it counts as in the holders' ledgers."""
        ...

    def lists(self, agreement: Agreement) -> Mapping[str, int]:
        """Places of each holder's list, padding included: so many guesses it can try at the others."""
        ...

    def stepwise(self, agreement: Agreement, holder: str) -> tuple[int, int]:
        """Of the figures, how many come out at once, and how many at each step that a holder's half counts (`steps`):
        all at once where it does not know of steps."""
        ...

    def noise(self, options: Any) -> Noise | None:
        """The noise of what the coordinator is told, None where none is added. options: what the parties agree on.

        Who adds it draws from this object, and its event is what every holder is charged. One unit more or less at one
        holder is in at most one match, and all figures together change by no more than `noise` covers.
        """
        ...

    def seen(self, options: Any, holders: Sequence[str]) -> Mapping[str, Reveal]:
        """Parties that see figures before there is noise in them, with which: against those epsilon does not hold."""
        ...

    def third_parties(self, options: Any) -> tuple[str, ...]:
        """Names of the parties that take part beside the holders."""
        ...

    def party(self, agreement: Agreement, identity: Identity, units: Units | None, keep: Path | None = None) -> Party:
        """A party's half; `identity.name` says whose. units: a holder's own, None of a third party. keep: a file for
        what another attempt at the same run can go on with, others beside it whose names begin with its name; secret.
        """
        ...

    def coordinator(self, agreement: Agreement) -> Rounds:
        """The coordinator's half."""
        ...

    def learns(self, agreement: Agreement, reveal: Reveal) -> Sequence[Disclosure]:
        """What each role learns."""
        ...


class Linking(Section):
    """What a study says of its linkage: the options of `[protection]`, in whose place a linkage stands."""

    key: str = Field(min_length=1, max_length=400, description="what units are matched by, as id or name,birth_date")
    reveal: Reveal = Field(default="size", description="what comes out: size, totals or pairs")
    to: tuple[str, ...] = Field(default=(), description="holders that learn which of their own units match, of pairs")
    minimum_frequency: int = Field(default=10, ge=1, le=1000, description="fewest matched units that a figure is about")
    block: str = Field(default="", max_length=400, description="fuzzy: parts of which one is equal in every pair")
    salt: str = Field(default="", max_length=400, description="fuzzy: part that is right in nearly all records")
    estimate: Estimate = Field(
        default="none",
        description="what is corrected for missed and false links: numbers and totals over the matches, or those and "
        "the coverage of both lists",
    )
    helper: str = Field(default="helper", description="name of the helper, where there is one; no holder's")
    cap: int | None = Field(default=None, ge=1, description="units that every holder fills its own up to; public")
    direct: bool = Field(
        default=False,
        description="do sealed packets go from party to party, at addresses that each party's own home says?",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the linkage's own further options")

    def parts(self, codebook: Codebook, where: str = "key") -> tuple[KeyPart, ...]:
        """The parts of the key, and those that are needed beside it. Raises UsageError on what is none."""
        written = {where: self.key, "block": self.block, "salt": self.salt}
        found = [part for what, text in written.items() if text for part in read_key(text, codebook, what)]
        return tuple({part.name: part for part in found}.values())

    @model_validator(mode="after")
    def _fits(self) -> "Linking":
        if not NAME.fullmatch(self.helper):
            raise ValueError(f"helper: got {self.helper!r}; want lower-case letters, digits and hyphens, 40 at most")
        if (self.reveal == "pairs") != bool(self.to):
            raise ValueError(
                "to: got holders without pairs, or pairs without them; want both (--reveal pairs --to NAME) or neither"
            )
        return self


DIRECTLY = (
    Disclosure("coordinator", "sizes and SHA-256 of the packets that go from party to party, and when", "none"),
    Disclosure("parties with a direct line", "each other's address, while a run is open", "TLS 1.3, pinned keys"),
    Disclosure("anyone on the network", "addresses of the parties, sizes and times of what they send", "TLS 1.3"),
)
"""What is learned beside, where packets go directly."""


@dataclass(frozen=True)
class Asked:
    """A study with a linkage, read. columns: by holder, those of the analysis that it has; terms: the study's."""

    linking: Linking
    terms: Terms
    columns: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class InPlace:
    """A linkage in the place of a protection: what studies, policies and reports know of one holds for it too."""

    name: str
    module: Linkage
    Options = Linking

    @property
    def TITLE(self) -> str:
        return self.module.TITLE

    @property
    def TRUST(self) -> tuple[str, ...]:
        return self.module.TRUST

    @property
    def CARD(self) -> Card:
        return card_of(self.module)

    @property
    def REQUIRES(self) -> Requirements:
        helped = "a helper, which works with no other party" if "helper" in self.module.Options.model_fields else ""
        fewest = self.module.PARTIES[0]
        return Requirements(minimum_holders=fewest, identities=True, extra=self.module.EXTRA, third_parties=helped)

    def third_parties(self, options: Section) -> tuple[str, ...]:
        """The helper, where there is one. options: of the study, or those that the parties agree on."""
        if isinstance(options, Linking):
            return (options.helper,) if "helper" in self.module.Options.model_fields else ()
        return tuple(self.module.third_parties(options))

    def party(self, agreement: Agreement, identity: Identity, units: Units | None = None) -> Party:
        """A party's half."""
        return self.module.party(agreement, identity, units)

    def coordinator(self, agreement: Agreement) -> Rounds:
        """The coordinator's half."""
        return self.module.coordinator(agreement)

    def agreed(self, terms: Terms, options: Linking) -> Section:
        """What the parties agree on. Raises UsageError on a study that does not suit."""
        return self.module.agreed(asked(terms, options, self.module))

    def noise(self, terms: Terms) -> Noise | None:
        """The noise of what a study is told, of whose event every holder is charged."""
        return self.module.noise(self.agreed(terms, Linking.model_validate(terms.protection.options)))

    def seen(self, terms: Terms) -> Mapping[str, Reveal]:
        """Parties that see figures before there is noise in them, with which."""
        options = self.agreed(terms, Linking.model_validate(terms.protection.options))
        return self.module.seen(options, terms.holders)

    def learns(self, terms: Terms) -> Sequence[Disclosure]:
        """What each role learns, whatever the sizes are that holders state."""
        options = Linking.model_validate(terms.protection.options)
        sizes = dict.fromkeys(terms.holders, options.cap or options.minimum_frequency)
        return [*self.module.learns(agree("", terms, sizes), options.reveal), *(DIRECTLY if options.direct else ())]


def asked(terms: Terms, linking: Linking, module: Linkage) -> Asked:
    """A study's linkage, held against its codebooks. Raises UsageError, naming what does not go together.

    Each holder has a codebook of its own; what all have in common are the columns of the key, and everything else that
    is looked at is of one holder.
    """
    where = f"linkage {terms.protection.name}"
    least, most = module.PARTIES
    if not least <= len(terms.holders) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise UsageError(f"{where}: got {len(terms.holders)} holders; want {wanted}")
    if linking.reveal not in module.REVEALS:
        raise UsageError(f"reveal: got {linking.reveal}; want {one_of(module.REVEALS, linking.reveal)} of {where}")
    if astray := sorted(set(linking.to) - set(terms.holders)):
        raise UsageError(f"to: got {', '.join(astray)}; want holders of the study")
    if linking.estimate != "none" and linking.estimate not in module.ESTIMATES:
        offered = " or ".join(module.ESTIMATES) or "none: its keys are equal, and it compares no others; fuzzy has some"
        raise UsageError(f"estimate: got {linking.estimate} under {terms.protection.name}; want {offered}")
    method, question = read_question(terms)
    if linking.reveal != "totals" and (terms.method != "count" or any(terms.options.values())):
        raise UsageError(f"reveal: got {linking.reveal} with {terms.method}; want count alone, or reveal totals")
    if linking.reveal == "totals" and terms.method == "count" and "count" not in module.METHODS:
        raise UsageError("reveal: got totals without an analysis of them; want one (--analysis), or reveal size")
    if linking.reveal == "totals" and terms.method not in module.METHODS:
        raise UsageError(f"{where}: got {terms.method}; want {one_of(module.METHODS, terms.method)} over the matched")
    _check_private(terms, linking, module)
    missing = sorted(set(terms.holders) - set(terms.codebooks))
    if missing:
        raise UsageError(f"codebooks: got none for {', '.join(missing)}; want one of each holder that is linked")
    parts = {holder: linking.parts(terms.codebooks[holder], f"key at {holder}") for holder in terms.holders}
    if (linking.block or linking.salt) and not module.PARTED:
        raise UsageError(f"block, salt: got some under {where}; want a key alone: it compares keys as a whole")
    rules = {holder: ", ".join(part.name for part in listed) for holder, listed in parts.items()}
    if len(set(rules.values())) > 1:
        told = "; ".join(f"{rule} at {holder}" for holder, rule in rules.items())
        raise UsageError(f"key: got {told}; want the same rules in all codebooks")
    keys = {name for listed in parts.values() for part in listed for name in part.columns}
    read = method.columns(question) if linking.reveal == "totals" else ()
    columns: dict[str, list[str]] = {holder: [] for holder in terms.holders}
    for name in dict.fromkeys((*read, *columns_of(terms.where))):
        having = [holder for holder in terms.holders if name in terms.codebooks[holder].columns]
        if name in keys or len(having) != 1:
            got = f"{name} of the key" if name in keys else f"{name} at {' and '.join(having) or 'no holder'}"
            raise UsageError(f"columns: got {got}; want columns of one holder each, beside the key")
        columns[having[0]].append(name)
    for clause in terms.where:
        if sum(bool(set(clause.columns) & {*listed}) for listed in columns.values()) > 1:
            raise UsageError(f"where: got {clause}, on columns of several holders; want those of one in each condition")
    return Asked(linking, terms, {holder: tuple(names) for holder, names in columns.items()})


def _check_private(terms: Terms, linking: Linking, module: Linkage) -> None:
    """Raises UsageError where a linkage adds no noise of the kind that a study asks for."""
    where, privacy = f"linkage {terms.protection.name}", terms.privacy
    if privacy is None:
        return
    if linking.reveal not in module.PRIVATE:
        wanted = f"it for {one_of(module.PRIVATE, linking.reveal)} alone" if module.PRIVATE else "none"
        raise UsageError(f"{where}: got [privacy] with {linking.reveal}; want {wanted}: there is no noise for others")
    if linking.reveal == "totals" and terms.method not in module.PRIVATELY:
        wanted = one_of(module.PRIVATELY, terms.method)
        raise UsageError(f"{where}: got [privacy] with {terms.method}; want {wanted}: others have no noise on shares")
    if privacy.noise != "local" or privacy.unit != "record":
        raise UsageError(
            f"{where}: got {privacy.noise} noise per {privacy.unit}; want local noise per record: a unit is a record "
            "with a key of its own, and who adds the noise is the linkage's to say"
        )


def key_columns(linking: Linking, codebook: Codebook) -> tuple[str, ...]:
    """The columns of a key. Raises UsageError on one that is none of the codebook's, or cannot be of a key."""
    return tuple(dict.fromkeys(name for part in linking.parts(codebook) for name in part.columns))


def linking_of(terms: Terms) -> Asked | None:
    """The linkage of a study, None where it has none. Raises UsageError on one that does not suit it."""
    if not is_linkage(terms.protection.name):
        return None
    module: object
    module, options = read_protection(terms)
    if not isinstance(module, InPlace) or not isinstance(options, Linking):
        return None
    found = asked(terms, options, module.module)
    module.module.agreed(found)
    return found


def read_analysis(line: str) -> tuple[str, dict[str, Any]]:
    """An analysis and its options in one line: `table rows=region columns=sector`, `ols income ~ age + C(region)`.

    Words without a sign of equality are the formula, or the columns where there is none. Raises UsageError.
    """
    name, _, rest = line.strip().partition(" ")
    fields = load_method(name).Options.model_fields
    words, options = [], dict[str, Any]()
    for word in rest.split():
        option, sign, value = word.partition("=")
        if sign and option in fields:
            options[option] = value.split(",") if get_origin(fields[option].annotation) is tuple else value
        else:
            words.append(word)
    if words and "formula" in fields:
        options["formula"] = " ".join(words)
    elif words and "columns" in fields and "columns" not in options and "=" not in "".join(words):
        options["columns"] = [column for word in words for column in word.split(",") if column]
    elif words:
        raise UsageError(f"analysis: got {' '.join(words)}; want options of {name}: {', '.join(fields)}")
    return name, options


def restricted(codebook: Codebook, columns: Iterable[str]) -> Codebook:
    """The codebook of a table with these columns alone."""
    there = set(columns)
    return codebook.model_copy(update={"columns": {n: c for n, c in codebook.columns.items() if n in there}})


def load_linkage(name: str) -> Linkage:
    """The module of a linkage. Raises UsageError naming those there are."""
    module: Linkage = load(LINKAGES, name, "linkage")
    return module


def linked(rounds: Rounds, parties: Mapping[str, Party]) -> Outcome:
    """Run a linkage whose parties are all in this process: for rehearsals and tests."""
    try:
        stage = next(rounds)
        while True:
            astray = sorted(set(stage.packets) - set(parties))
            if astray:
                raise UsageError(
                    f"{stage.name}: got packets for {', '.join(astray)}; want {', '.join(sorted(parties))}"
                )
            stage = rounds.send(
                {name: parties[name].answer(stage.name, packet) for name, packet in stage.packets.items()}
            )
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
