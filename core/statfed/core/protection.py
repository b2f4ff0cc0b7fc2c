"""What a protection is: how a sum over holders is formed, what it needs, and what each role learns by it.

One module of `statfed.strategies.protections` is one protection, with both halves side by side. A protection is a
protocol of named stages between the coordinator and the parties (the holders, and third parties that a protection may
need). It knows nothing of Flower, policies or ledgers: adapters at both ends carry its packets.

- The coordinator's half is a straight line: `replies = yield Stage("keys", packets)`. In one stage of every sum the
  request for the contribution travels along (`carries`).
- A party's half answers a stage with a packet, once, from secrets that never leave it, and refuses anything else.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from statfed.core.beside import closed
from statfed.core.discovery import LINKAGES, load, modules
from statfed.core.errors import EngineError, UsageError
from statfed.core.fixed_point import MOST_RECORDS, Layout
from statfed.core.method import Arrays, load_method
from statfed.core.names import one_of
from statfed.core.section import Section, describe
from statfed.core.terms import Terms

if TYPE_CHECKING:
    from statfed.core.identity import Identity

PACKAGE = "statfed.strategies.protections"
Packet = Mapping[str, bytes | NDArray[Any]]
"""What goes one way in one stage: bytes and arrays by name."""
Cost = Literal["1", "10", "1000", "100000"]


@closed
@dataclass(frozen=True)
class Requirements:
    """What a study must offer for the protection to apply, and what it offers in return. All of it is checked.

    minimum_holders: fewest holders of a sum without differential privacy. reveals_updates: the coordinator gets each
    holder's contribution; strategies that look at single updates need that. fixed_point: contributions become whole
    numbers, so that totals are exact and bit-identical everywhere. survives_dropout: a sum can do without some
    holders. identities: every party signs with its identity key and has pinned the others'. extra: optional packages
    that it needs. third_parties: parties beside holders and coordinator, in words. cost: processor time of a sum of a
    million numbers, order of magnitude, as a multiple of a plain one. functions: what its coordinator's `evaluate` can
    form beside sums, of which a study names those it uses in the option `functions`. colluders: most holders that may
    collude with the coordinator before it can tell a single contribution, where that is fewer than all but two.
    """

    minimum_holders: int = 1
    reveals_updates: bool = False
    fixed_point: bool = False
    survives_dropout: bool = False
    identities: bool = False
    extra: str = ""
    third_parties: str = ""
    cost: Cost = "1"
    functions: tuple[str, ...] = ()
    colluders: int | None = None


@dataclass(frozen=True)
class Disclosure:
    """One row of *who learns what*."""

    role: str
    learns: str
    protected_by: str


@dataclass(frozen=True)
class Agreement:
    """Public facts of one run that all parties derive alike and that every signature and key is bound to.

    study: digest of the study's terms; minimum_holders: a sum over fewer is never formed; sizes: public number of
    records by holder; options: the protection's own, validated.
    """

    run: str
    study: str
    protection: str
    holders: tuple[str, ...]
    third_parties: tuple[str, ...]
    minimum_holders: int
    sizes: Mapping[str, int]
    options: Section

    @property
    def parties(self) -> tuple[str, ...]:
        """Every party that packets go to."""
        return (*self.holders, *self.third_parties)

    def context(self, purpose: str) -> bytes:
        """32 bytes that stand for this run and `purpose` in signatures and key derivations."""
        facts: list[object] = [purpose, self.run, self.study, self.protection, self.holders, self.third_parties]
        facts += [self.minimum_holders, sorted(self.sizes.items()), self.options.model_dump(mode="json")]
        return hashlib.sha256(json.dumps(["statfed 1", *facts], separators=(",", ":")).encode()).digest()


@dataclass(frozen=True)
class Stage:
    """One exchange with parties. packets: by party; who is not in it is not asked. carries: to each holder the request
    for its contribution travels along. standing: for people at the coordinator, what is being done, how much of it is
    done before this exchange, and how much there is."""

    name: str
    packets: Mapping[str, Packet]
    carries: bool = False
    standing: tuple[str, int, int] = ("", 0, 1)


@dataclass(frozen=True)
class Aggregate:
    """What the coordinator ends up with. holders: whose contributions are in it; each: by holder, where the protection
    reveals them. resolution: what entries may be off by, of a protection whose totals are coarser than the layout's."""

    total: Arrays
    holders: tuple[str, ...]
    each: Mapping[str, Arrays] = field(default_factory=dict)
    resolution: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


Replies = Mapping[str, Packet]
"""Packets by party: of those that answered. Who is missing has dropped out."""
Rounds = Generator[Stage, Replies, Aggregate]


class Party(Protocol):
    """One party's half in one run. Raises Refused, in public words, on whatever does not fit its state."""

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Answer a stage that carries no request."""
        ...

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        """Answer the stage that carries the request. arrays: this holder's contribution, private; layout: its own."""
        ...


class Coordinator(Protocol):
    """The coordinator's half in one run."""

    def total(self, layout: Layout) -> Rounds:
        """Form one sum, with whatever stages that takes. Raises EngineError when too few holders are left."""
        ...


def formed(coordinator: Coordinator, layout: Layout, function: str = "") -> Rounds:
    """The stages of a sum or, where one is named, of a function of holders' figures.

    Raises UsageError when the protection forms no functions.
    """
    if not function:
        return coordinator.total(layout)
    evaluate: Callable[[str, Layout], Rounds] | None = getattr(coordinator, "evaluate", None)
    if evaluate is None:
        raise UsageError(f"function: got {function} under a protection that forms sums only")
    return evaluate(function, layout)


class Protection(Protocol):
    """The module contract of `statfed.strategies.protections.*`.

    TITLE: one line for lists. TRUST: assumptions under which the protection holds. Options: pydantic model of
    `[protection] options`. A module may have CARD, its organisational, business and legal questions, which
    `statfed.core.card.card_of` gives. TRUST and CARD may stand in the TOML file beside the module (`read_trust`,
    `read_card`).
    """

    TITLE: str
    TRUST: tuple[str, ...]
    REQUIRES: Requirements
    Options: type[Section]

    def third_parties(self, options: Any) -> tuple[str, ...]:
        """Names of the parties that take part beside the holders."""
        ...

    def party(self, agreement: Agreement, identity: "Identity") -> Party:
        """A party's half of a run; `identity.name` says whose."""
        ...

    def coordinator(self, agreement: Agreement) -> Coordinator:
        """The coordinator's half of a run."""
        ...

    def learns(self, terms: Terms) -> Sequence[Disclosure]:
        """What each role learns by this protection alone."""
        ...


def package_of(name: str) -> str:
    """The package that a study's protection is found in; that of protections where there is none of this name."""
    return LINKAGES if name in modules(LINKAGES) else PACKAGE


def load_protection(name: str) -> Protection:
    """The module of a protection, or a linkage in the place of one. Raises UsageError naming those there are."""
    if name in modules(LINKAGES):
        from statfed.core.linkage import InPlace, load_linkage  # which is about agreements and parties, as this is

        return cast(Protection, InPlace(name, load_linkage(name)))
    try:
        module: Protection = load(PACKAGE, name, "protection")
    except UsageError as error:
        if name in modules(PACKAGE):  # it is there, and cannot be imported
            raise
        raise UsageError(f"{error}, or of linkages {one_of(sorted(modules(LINKAGES)), name)}") from None
    return module


def read_protection(terms: Terms) -> tuple[Protection, Section]:
    """The protection that a study names and its options. Raises UsageError on unknown names or options."""
    return named_protection(terms.protection.name, terms.protection.options)


def named_protection(name: str, options: Mapping[str, Any]) -> tuple[Protection, Section]:
    """The protection `name` with its options read. Raises UsageError on unknown names or options."""
    module = load_protection(name)
    try:
        return module, module.Options.model_validate(dict(options))
    except ValidationError as error:
        known = ", ".join(module.Options.model_fields)
        want = f"one of {known}" if known else "none: it has no options"
        raise UsageError(describe(error, f"protection {name}", want, module.Options)) from None


def shown_options(module: Protection, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as reports show them: those that a protection marks with `json_schema_extra={"secret": True}` are named,
    and their values kept back from the public."""

    def value(name: str, given: Any) -> Any:
        field = module.Options.model_fields.get(name)
        extra = field.json_schema_extra if field else None
        return "not shown" if isinstance(extra, dict) and extra.get("secret") else given

    return {name: value(name, given) for name, given in options.items()}


def agree(run: str, terms: Terms, sizes: Mapping[str, int]) -> Agreement:
    """The agreement of a run.

    Raises UsageError when holders and sizes differ, a holder is named twice (it would count as two), too few are asked
    for, or sizes are none: they are the coordinator's word but for one's own, and ranges and units follow from them.
    """
    module, options = read_protection(terms)
    if set(sizes) != set(terms.holders):
        raise UsageError(f"sizes: got {', '.join(sorted(sizes))}; want {', '.join(sorted(terms.holders))}")
    if len(sizes) != len(terms.holders):
        raise UsageError(f"holders: got {', '.join(sorted(terms.holders))}; want each once")
    if min(sizes.values()) < 1 or sum(sizes.values()) > MOST_RECORDS:
        least, most = (choose(sizes, key=lambda name: sizes[name]) for choose in (min, max))
        raise UsageError(
            f"sizes: got {sizes[least]} records ({least}) to {sizes[most]} ({most}); want 1 or more each, and "
            f"at most {MOST_RECORDS} together"
        )
    minimum = minimum_holders(terms, module.REQUIRES)
    agreed: Callable[[Terms, Section], Section] | None = getattr(module, "agreed", None)
    options = agreed(terms, options) if agreed else options
    return agreement_over(sizes, run, terms.digest(), terms.protection.name, options, minimum)


def agreement_over(
    sizes: Mapping[str, int], run: str, study: str, protection: str, options: Section, minimum: int
) -> Agreement:
    """The agreement of a run over the holders of `sizes`, in whatever order they come. options: read."""
    module = load_protection(protection)
    third = tuple(sorted(module.third_parties(options)))
    ordered = dict(sorted(sizes.items()))
    return Agreement(run, study, protection, tuple(ordered), third, minimum, ordered, options)


def minimum_holders(terms: Terms, requires: Requirements) -> int:
    """Fewest holders that a sum may be formed over.

    As the study says; else every holder, since a method's sums have to be about the same records, and more than two
    thirds for a method that is tolerant (training) under a protection that survives dropout.
    """
    wanted, count = terms.protection.minimum_holders, len(terms.holders)
    if wanted is None:
        return default_minimum(count, requires) if getattr(load_method(terms.method), "TOLERANT", False) else count
    check_minimum(wanted, count, terms.protection.name, requires, "protection.minimum_holders")
    return wanted


def default_minimum(count: int, requires: Requirements) -> int:
    """Fewest of `count` holders: more than two thirds where the protection survives dropout, else all."""
    return 2 * count // 3 + 1 if requires.survives_dropout else count


def check_minimum(wanted: int, count: int, protection: str, requires: Requirements, key: str) -> None:
    """Raises UsageError, naming `key`, where a sum may not be formed over as few as `wanted` of `count` holders."""
    if wanted > count:
        raise UsageError(f"{key}: got {wanted}; want at most the {count} holders")
    if wanted < count and not requires.survives_dropout:
        raise UsageError(f"{key}: got {wanted} of {count} holders; {protection} needs every holder")
    if requires.survives_dropout and 3 * wanted <= 2 * count:
        raise UsageError(
            f"{key}: got {wanted}; want more than two thirds of the {count} holders: with fewer a coordinator could "
            "form two different totals"
        )


def conduct(rounds: Rounds, send: Callable[[Stage], Replies]) -> Aggregate:
    """Run the coordinator's half of one sum; `send` carries a stage out and brings the replies."""
    try:
        stage = next(rounds)
        while True:
            stage = rounds.send(send(stage))
    except StopIteration as end:
        aggregate: Aggregate = end.value
        return aggregate


def request_of(layout: Layout, packet: Packet) -> str:
    """Digest of what a contribution is: form and units of the vector, and what the party was asked for.

    The latter is the packet's field `request`, a digest that the party's own adapter has put there in place of whatever
    came. So contributions to different requests never unmask together (Pasquini et al. 2022). Without the field only
    the layout is bound.
    """
    slots = []
    for name, slot in sorted(layout.slots.items()):
        exponents = b""
        if not slot.integer:
            exponents = np.asarray(np.frexp(np.asarray(slot.limit, np.float64))[1], "<i8").tobytes()
        slots.append([name, list(slot.shape), slot.integer, hashlib.sha256(exponents).hexdigest()])
    request = packet.get("request")
    facts = [layout.bits, layout.fine, slots, request.hex() if isinstance(request, bytes) else ""]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def whole_numbers(packet: Packet, name: str) -> NDArray[Any]:
    """An array of a packet. Raises UsageError when it is missing."""
    array = packet.get(name)
    if not isinstance(array, np.ndarray):
        raise UsageError(f"packet: got no array {name}; want one")
    return array


def text(packet: Packet, name: str) -> bytes:
    """Bytes of a packet. Raises UsageError when they are missing."""
    found = packet.get(name)
    if not isinstance(found, bytes):
        raise UsageError(f"packet: got no bytes {name}; want some")
    return found


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Whatever is raised within it on reading a party's packet is a failure of that party, which it names."""
    try:
        yield
    except (UsageError, EngineError) as error:
        raise EngineError(f"{name}: {error}") from None


def one_request(stage: str, asked: Mapping[str, bytes]) -> bytes:
    """What all parties say that they were asked for. Raises EngineError, naming those that say otherwise than most."""
    (common, most), *others = Counter(asked.values()).most_common()
    if others:
        odd = [name for name, said in sorted(asked.items()) if said != common or most == others[0][1]]
        raise EngineError(
            f"{stage}: got contributions to different requests, from {', '.join(odd)}; want all to the same"
        )
    return common
