"""`secure-aggregation`: holders mask their contributions so that the masks cancel in the sum, and only there.

Bonawitz et al. 2017 with signed keys and a signed list of survivors, on the sparse graphs of Bell et al. 2020 where
there are many holders. docs/secure-aggregation.md is the specification; the proofs stand with the code they are about:

- every holder or none (`_secagg_all`), where the fewest holders of a sum are all of them: one message a sum;
- surviving dropout (`_secagg_party`, `_secagg_coordinator`), where they are fewer, always more than two thirds;
- who masks with whom (`_secagg_graph`), secret sharing (`_secagg_shamir`), masks (`_secagg_words`), what is signed and
  derived (`_secagg_messages`).

Everything of a contribution is inside the masks, counts and metrics included. What masks hide nobody can check: a
contribution is bounded by the holder's own software when it is encoded (`statfed.core.fixed_point`), and a total
outside the agreed range is refused.
"""

from collections.abc import Sequence

from pydantic import Field

from statfed.core.card import read_card, read_trust
from statfed.core.errors import Refused, UsageError
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Coordinator, Disclosure, Party, Requirements, minimum_holders
from statfed.core.section import Section
from statfed.core.terms import Terms
from statfed.strategies.protections._secagg_all import AllCoordinator, AllParty
from statfed.strategies.protections._secagg_coordinator import DropoutCoordinator
from statfed.strategies.protections._secagg_graph import Shape, default_colluders
from statfed.strategies.protections._secagg_party import DropoutParty
from statfed.strategies.protections._words import NETWORK, to_all, with_holders, words_of

TITLE = "Secure aggregation: the coordinator gets only the sum, by masks that cancel"
TRUST = read_trust(__file__)
CARD = read_card(__file__)
REQUIRES = Requirements(minimum_holders=3, fixed_point=True, survives_dropout=True, identities=True, cost="10")


class Options(Section):
    """How a run that survives dropout is set up. Without dropout none of these matters."""

    sums: int = Field(default=16, ge=1, le=1024, description="sums that one setup of keys and shares provides for")
    neighbours: int | None = Field(
        default=None,
        ge=2,
        description="holders that each holder masks with; default: all up to 32 holders, then what 40 bits take",
    )
    colluders: int | None = Field(
        default=None,
        ge=0,
        json_schema_extra={"weaker": True},
        description="holders that may collude with the coordinator; default: just under a third, at most what the "
        "signed list of survivors withstands",
    )


def third_parties(options: Options) -> tuple[str, ...]:  # noqa: ARG001
    """None."""
    return ()


def shape_of(holders: int, minimum: int, options: Options) -> Shape | None:
    """What graphs a run has; None where every holder is needed.

    Raises UsageError on numbers with which the protection would not hold.
    """
    if holders < 2 or not 2 * holders < 3 * minimum <= 3 * holders:
        raise UsageError(
            f"secure-aggregation: got sums over {minimum} of {holders} holders; want two or more, and more than two "
            "thirds of them"
        )
    if minimum == holders:
        return None
    most = 2 * minimum - holders - 1
    if options.colluders is not None and options.colluders > most:
        raise UsageError(f"secure-aggregation: colluders: got {options.colluders}; want at most {most}")
    colluders = default_colluders(holders, minimum) if options.colluders is None else options.colluders
    shape = Shape(holders, minimum, colluders, options.neighbours)
    shape.width(holders)
    return shape


def _read(agreement: Agreement) -> tuple[Shape | None, int]:
    """The shape and how many sums a setup provides for."""
    options = Options.model_validate(agreement.options.model_dump())
    return shape_of(len(agreement.holders), agreement.minimum_holders, options), options.sums


def party(agreement: Agreement, identity: Identity) -> Party:
    """A holder's half of a run. Raises Refused on an agreement with which the protection would not hold."""
    try:
        shape, sums = _read(agreement)
    except UsageError as error:
        raise Refused(str(error)) from None
    return AllParty(agreement, identity) if shape is None else DropoutParty(agreement, identity, shape, sums)


def coordinator(agreement: Agreement) -> Coordinator:
    """The coordinator's half of a run. Raises UsageError on an agreement with which the protection would not hold."""
    shape, sums = _read(agreement)
    return AllCoordinator(agreement) if shape is None else DropoutCoordinator(agreement, shape, sums)


def learns(terms: Terms) -> Sequence[Disclosure]:
    """The coordinator gets the sums; nobody gets a single contribution."""
    holders, minimum = len(terms.holders), minimum_holders(terms, REQUIRES)
    shape = shape_of(holders, minimum, Options.model_validate(terms.protection.options))
    if shape is None:
        withstood, over, guard = holders - 2, f"all {holders} holders", "masks"
    else:
        withstood = shape.colluders if shape.rings else 2 * minimum - holders - 1
        over, guard = f"at least {minimum} of {holders} holders", f"masks, and lists of survivors that {minimum} sign"
    words, together = words_of(terms), to_all()
    if shape is not None:
        together.append(Disclosure("all parties", "who took part in each sum and who dropped out", "none"))
    alone = words.alone if terms.privacy else "nothing: so many must not collude"
    return [
        Disclosure("coordinator", f"{words.total}, over {over}", words.seen),
        _withstood(withstood, guard, terms),
        Disclosure(
            with_holders(withstood + 1, more=True), f"it may learn another holder's {words.one} {words.every}", alone
        ),
        Disclosure("other holders", f"{words.public}; names and public keys of all", words.noise),
        Disclosure("result party", words.result, words.released),
        *together,
        NETWORK,
    ]


def _withstood(number: int, guard: str, terms: Terms) -> Disclosure:
    """What the coordinator learns with so many holders that the masks still hold."""
    if number == 0:
        return Disclosure("coordinator", "nothing of any one holder", guard)
    if terms.privacy and terms.privacy.noise == "shared" and terms.privacy.colluders < number:
        guard += f"; the noise in that sum is sized for {terms.privacy.colluders} of them"
    return Disclosure(with_holders(number), "the sum over the others; nothing of any one", guard)
