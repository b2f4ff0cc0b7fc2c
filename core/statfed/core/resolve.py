"""A study, read once: the object that stands for it at one end, and that everything after takes instead of names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from statfed.core.applicability import applicable, obstacles
from statfed.core.codebook import Codebook
from statfed.core.conditions import Clause
from statfed.core.errors import Refused
from statfed.core.fixed_point import Layout, layout_of
from statfed.core.linkage import Asked, InPlace, Reveal, key_columns, linking_of
from statfed.core.method import (
    Adaptive,
    Ask,
    Budget,
    Fixed,
    Method,
    Part,
    Question,
    budget_of,
    columns_read,
    functions_of,
    is_training,
    read_question,
)
from statfed.core.privacy.accountant import Event
from statfed.core.privacy.noise import Noise
from statfed.core.privacy.placement import shares
from statfed.core.privacy.spending import Price, Reservation, own_noise, price, reservation
from statfed.core.protection import Protection, minimum_holders, read_protection
from statfed.core.section import Section
from statfed.core.table import Size
from statfed.core.terms import Privacy, Terms


@dataclass(frozen=True, eq=False)
class Resolved:
    """What the names in a study's terms stand for.

    question: of the holder's own codebook where one was named, of a linkage always of the joined one. columns: all that
    are read, conditions' and the privacy unit's included, of the table of that holder; so are codebook and where.
    functions: the asks that are no sums. budget: None without privacy. linking: where units are linked.
    """

    terms: Terms
    digest: str
    question: Question[Any]
    columns: tuple[str, ...]
    protection: Protection
    protection_options: Section
    third_parties: tuple[str, ...]
    functions: Mapping[str, str]
    budget: Budget | None
    codebook: Codebook
    where: tuple[Clause, ...]
    linking: Asked | None = None

    @property
    def method(self) -> Method:
        return self.question.method

    @property
    def privacy(self) -> Privacy | None:
        return self.terms.privacy

    @property
    def holders(self) -> tuple[str, ...]:
        return self.terms.holders

    @cached_property
    def minimum_holders(self) -> int:
        """Fewest holders that a sum may be formed over."""
        return minimum_holders(self.terms, self.protection.REQUIRES)

    @cached_property
    def shares(self) -> int:
        """How many holders' noise the privacy of one sum rests on. Raises UsageError where none would be left."""
        return shares(self.terms)

    @cached_property
    def obstacles(self) -> tuple[str, ...]:
        """Everything that stands against the study's protection."""
        return tuple(map(str, obstacles(self.terms)))

    @cached_property
    def training(self) -> bool:
        """Does the method train a model?"""
        return is_training(self.terms.method)

    @property
    def central(self) -> bool:
        """Does the coordinator add the noise?"""
        return self.privacy is not None and self.privacy.noise == "central"

    @property
    def own_noise(self) -> tuple[str, ...]:
        """The asks whose noise the method adds by itself."""
        return own_noise(self.method) if self.privacy else ()

    def scheduled(self, ask: Ask, number: int) -> None:
        """Raises Refused where a private study may not make this ask as its sum number `number`."""
        if isinstance(self.budget, Fixed):
            order = self.budget.order
            if not 1 <= number <= len(order) or order[number - 1] != ask.name:
                told = ", ".join(f"{one.name} ({one.times})" for one in self.budget.asks)
                raise Refused(f"ask: got {ask.name} number {number}; want in this order {told}")
        elif isinstance(self.budget, Adaptive) and not 1 <= number <= self.budget.most:
            raise Refused(f"ask: got number {number}; want 1 to {self.budget.most}")

    def spent(self, done: int) -> bool:
        """Were all asks of a private study made that were known beforehand?"""
        return isinstance(self.budget, Fixed) and done >= len(self.budget.order)

    def most_summed(self, size: Size) -> int:
        """Most records for which the noise is proven where floats are added up without compensation."""
        if not isinstance(self.budget, Fixed):
            return 0
        prices = [self.price(Ask(one.name), size) for one in self.budget.asks]
        return min((paid.noise.most_summed for paid in prices if paid and paid.noise), default=0)

    @cached_property
    def linked_noise(self) -> Noise | None:
        """The noise of what a linkage tells; None without."""
        return self.protection.noise(self.terms) if self.linking and isinstance(self.protection, InPlace) else None

    @cached_property
    def seen(self) -> Mapping[str, Reveal]:
        """Parties of a linkage with noise that see figures before there is noise in them, with which."""
        if self.linked_noise is None or not isinstance(self.protection, InPlace):
            return {}
        return self.protection.seen(self.terms)

    def price(self, ask: Ask, size: Size | None) -> Price | None:
        """What an ask costs at a holder of this public size; see `statfed.core.privacy.spending`. Of a linkage the one
        disclosure that it is, whatever was asked."""
        if self.linked_noise is not None:
            return Price(self.linked_noise.event(), self.linked_noise)
        return price(self.question, ask, size, self.shares)

    def reservation(self, size: Size, done: int = 0, spent: Sequence[Event] = ()) -> Reservation | None:
        """What a holder of this public size sets aside. spent: what the `done` sums before were charged as."""
        if self.linked_noise is not None:
            return Reservation(((self.linked_noise.event(), 1),))
        return reservation(self.question, size, self.shares, done, spent)

    @cached_property
    def repeatable(self) -> bool:
        """May a holder give one contribution to two sums? Where every holder is in both of them, or where the
        contribution alone is protected by its noise: else the difference of the two is that of fewer holders."""
        local = self.privacy is not None and self.privacy.noise == "local"
        return local or self.minimum_holders == len(self.holders)

    def parts(self, ask: Ask) -> Mapping[str, Part]:
        """Public facts of a contribution."""
        return self.method.parts(self.question, ask)

    def layout(self, ask: Ask, parts: Mapping[str, Part], paid: Price | None, sizes: Mapping[str, int]) -> Layout:
        """How sums of an ask are encoded. sizes: public number of records by holder."""
        if paid is not None and paid.noise is not None:
            return paid.noise.layout(len(self.holders))
        own: Callable[[Question[Any], Ask, Mapping[str, int]], Layout | None] | None
        own = getattr(self.method, "layout", None)
        found = own(self.question, ask, sizes) if own else None
        figures = not self.training and ask.name not in self.functions
        return layout_of(parts, sizes, fine=figures) if found is None else found


def resolve(terms: Terms, holder: str = "") -> Resolved:
    """Read a study. holder: whose end this is, for its codebook; none at the coordinator.

    Raises UsageError on unknown names, options or columns.
    """
    protection, options = read_protection(terms)
    reveals = protection.REQUIRES.reveals_updates
    linking, codebook = linking_of(terms), terms.codebook_of(holder) if holder else terms.codebook
    _, question = read_question(terms, None if linking else codebook, reveals)
    columns, where = columns_read(question), terms.where
    if linking and holder in linking.columns:
        columns = tuple(dict.fromkeys((*key_columns(linking.linking, codebook), *linking.columns[holder])))
        where = tuple(clause for clause in where if set(clause.columns) <= set(columns))
    budget = budget_of(question) if terms.privacy else None
    return Resolved(
        terms=terms,
        digest=terms.digest(),
        question=question,
        columns=columns,
        protection=protection,
        protection_options=options,
        third_parties=tuple(protection.third_parties(options)),
        functions=functions_of(question),
        budget=budget,
        codebook=codebook,
        where=where,
        linking=linking,
    )


def resolve_applicable(terms: Terms) -> Resolved:
    """`resolve`, after everything that stands against the study was looked for: for the coordinator's end."""
    applicable(terms)
    return resolve(terms)
