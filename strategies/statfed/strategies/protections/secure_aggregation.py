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

from statfed.core.errors import Refused, UsageError
from statfed.core.identity import Identity
from statfed.core.placement import in_words
from statfed.core.protection import Agreement, Coordinator, Disclosure, Party, Requirements, minimum_holders
from statfed.core.query import Query
from statfed.core.study import Section, Terms
from statfed.strategies.protections._secagg_all import AllCoordinator, AllParty
from statfed.strategies.protections._secagg_coordinator import DropoutCoordinator
from statfed.strategies.protections._secagg_graph import Shape, default_colluders
from statfed.strategies.protections._secagg_party import DropoutParty

TITLE = "Secure aggregation: the coordinator gets only the sum, by masks that cancel"
TRUST = (
    "the coordinator may do anything, together with fewer than a third of the holders; where every holder is needed, "
    "with all but two",
    "holders have pinned each other's keys, which were compared outside this system",
    "every honest holder's software, for what its own contribution contains",
)
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


def learns(terms: Terms | Query) -> Sequence[Disclosure]:
    """The coordinator gets the sums; nobody gets a single contribution."""
    holders, minimum = len(terms.holders), minimum_holders(terms, REQUIRES)
    shape = shape_of(holders, minimum, Options.model_validate(terms.protection.options))
    if shape is None:
        withstood, over, guard = holders - 2, f"all {holders} holders", "masks"
    else:
        withstood = shape.colluders if shape.rings else 2 * minimum - holders - 1
        over, guard = f"at least {minimum} of {holders} holders", f"masks, and lists of survivors that {minimum} sign"
    everybody = []
    if isinstance(terms, Query):
        sums, public = (
            "every sum of contributions",
            "public parameters of every sum, such as means and coefficients so far",
        )
        result = f"the released result of {terms.analysis}"
        rules = "each holder's disclosure rules, as far as its policy sets any"
        noise = in_words(terms.privacy) if terms.privacy else rules
        seen = in_words(terms.privacy, to_coordinator=True) if terms.privacy else rules
        released = noise if terms.privacy else "release rules, as far as the study sets any"
        refusal = "if each holder's data fit the codebook; which rule refused, if one did"
        everybody.append(Disclosure("all parties", refusal, "none"))
    else:
        sums, public = "the sum of weighted model updates in every round", "the averaged model before every round"
        result = "the final model and its scores on the held-out persons"
        noise = seen = released = _noise(terms)
    if shape is not None:
        everybody.append(Disclosure("all parties", "who took part in each sum and who dropped out", "none"))
    return [
        Disclosure("coordinator", f"{sums}, over {over}", seen),
        Disclosure(f"coordinator with up to {withstood} holders", "the sum over the others; nothing of any one", guard),
        Disclosure(
            f"coordinator with {withstood + 1} holders or more",
            "it may learn another holder's contributions",
            seen if terms.privacy else "nothing: so many must not collude",
        ),
        Disclosure("other holders", f"{public}; names and public keys of all", noise),
        Disclosure("result party", result, released),
        *everybody,
        Disclosure("anyone on the network", "message sizes and times", "TLS hides the content"),
    ]


def _noise(terms: Terms) -> str:
    if terms.privacy is None:
        return "nothing: without differential privacy sums of updates can reveal training records"
    who = "shared by the holders" if terms.privacy.noise == "shared" else "at the holder"
    return f"noise {who}: epsilon {terms.privacy.epsilon:g} per {terms.privacy.unit} over all rounds"
