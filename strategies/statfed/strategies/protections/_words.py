"""What *who learns what* calls the sums of a study and what protects them, the same under every protection.

A protection says what it hides; what is summed, how often, and whose noise or rules stand behind it follow from the
study alone.
"""

from dataclasses import dataclass

from statfed.core.method import is_training, load_method
from statfed.core.privacy.placement import in_words
from statfed.core.protection import Disclosure
from statfed.core.terms import Terms

RULES = "each holder's disclosure rules, as far as its policy sets any"
NETWORK = Disclosure("anyone on the network", "message sizes and times", "TLS hides the content")
_TRAINING = ("model update", "model updates", "round", "the model")


@dataclass(frozen=True)
class Words:
    """One study in words.

    one, many: a contribution, contributions; total: all totals; every: "to every sum", "in every round"; public: what
    all holders are told on the way; result: what comes out. seen: what protects a sum that the coordinator sees;
    noise: what protects what everybody else is told; alone: what protects one contribution without the protection;
    released: what protects the result.
    """

    one: str
    many: str
    total: str
    every: str
    public: str
    result: str
    seen: str
    noise: str
    alone: str
    released: str


def words_of(terms: Terms) -> Words:
    """The words of a study."""
    if not is_training(terms.method):
        private = terms.privacy
        tells = getattr(load_method(terms.method), "tells", None)
        told = tells(terms.options) if tells and (private is None or private.noise == "central") else ""
        return Words(
            one="contribution",
            many="contributions",
            total="every sum of contributions" + (f" ({told})" if told else ""),
            every="to every sum",
            public="public parameters of every sum, such as means and coefficients so far",
            result=f"the released result of {terms.method}",
            seen=in_words(private, to_coordinator=True) if private else RULES,
            noise=in_words(private) if private else RULES,
            alone=_alone(terms, in_words(private, to_coordinator=True) if private else RULES),
            released=in_words(private) if private else "release rules, as far as the study sets any",
        )
    one, many, round_, model = getattr(load_method(terms.method), "WORDS", _TRAINING)
    noise = (
        "nothing: without differential privacy updates and their sums can reveal training records, and single ones to "
        "a coordinator that sends a model made for it"
    )
    if terms.privacy:
        shared = terms.privacy.noise == "shared"
        who = "shared by the holders" if shared else "at the holder"
        noise = f"noise {who}: epsilon {terms.privacy.epsilon:g} per {terms.privacy.unit} over all {round_}s"
        if shared:
            known = (
                f"the noise of at most {terms.privacy.colluders}" if terms.privacy.colluders else "the noise of none"
            )
            noise += f", against whoever knows {known} of them"
    return Words(
        one=one,
        many=many,
        total=f"the sum of {many} in every {round_}",
        every=f"in every {round_}",
        public=f"{model} before every {round_}",
        result="the final model and its scores on the held-out persons",
        seen=noise,
        noise=noise,
        alone=_alone(terms, noise),
        released=noise,
    )


def _alone(terms: Terms, otherwise: str) -> str:
    """A share of the noise is too little: what it adds to one contribution is not differentially private."""
    if terms.privacy and terms.privacy.noise == "shared":
        return "nothing: a share of the noise alone is not differentially private"
    return otherwise


def to_all() -> list[Disclosure]:
    """What the answers to a statement tell everybody, whatever the protection."""
    return [Disclosure("all parties", "if each holder's data fit the codebook; which rule refused, if one did", "none")]


def with_holders(number: int, *, more: bool = False) -> str:
    """The coordinator with colluding holders, as a role.

    >>> with_holders(1), with_holders(3)
    ('coordinator with one holder', 'coordinator with up to 3 holders')
    >>> with_holders(1, more=True), with_holders(3, more=True)
    ('coordinator with any holder', 'coordinator with 3 holders or more')
    """
    if more:
        return f"coordinator with {number} holders or more" if number > 1 else "coordinator with any holder"
    return f"coordinator with up to {number} holders" if number > 1 else "coordinator with one holder"
