"""What `dealer-masks` tells each role, in words."""

from collections.abc import Sequence

from statfed.core.method import is_training
from statfed.core.privacy.placement import in_words
from statfed.core.protection import Disclosure
from statfed.core.terms import Terms

MASKS = "masks, if the dealer does not collude with the coordinator"


def rows(terms: Terms) -> Sequence[Disclosure]:
    """*Who learns what*, for a statistic and for training. What stands behind a sum is the noise that is in it."""
    private, one, every = terms.privacy, "contribution to every sum", "every sum of contributions"
    public, released = "public parameters of every sum", "the released result"
    rules = "each holder's disclosure rules, as far as its policy sets any"
    seen, told, last = rules, rules, "release rules, as far as the study sets any"
    if terms.privacy:
        seen, told = in_words(terms.privacy, to_coordinator=True), in_words(terms.privacy)
        last = told
    if is_training(terms.method):
        one, every = "model update or gradient in every round", "the sum of all holders' updates in every round"
        public, released = "the model before every round", "the final model"
        seen = told = "nothing: without noise updates and their sums can reveal training records"
        if terms.privacy:
            seen = told = f"noise: epsilon {terms.privacy.epsilon:g} per {terms.privacy.unit} over the whole training"
        last = told
    alone = "nothing: so many must not collude"
    if private and private.noise == "local":
        alone = told
    elif private and private.noise == "shared":
        alone = "nothing: a share of the noise alone is not differentially private"
    return [
        Disclosure("coordinator", f"{every}, over all {len(terms.holders)} holders", seen),
        Disclosure("coordinator", "nothing of any one holder", MASKS),
        Disclosure("coordinator with one holder", "the sum over the others; nothing of any one", MASKS),
        Disclosure("coordinator with 2 holders or more", f"the {one} of a holder between two of them", alone),
        Disclosure("coordinator with the dealer", f"every holder's {one}", alone),
        Disclosure("dealer", "who takes part; no contribution and no sum", "masked vectors never reach it"),
        Disclosure("other holders", f"{public}; names and public keys of all", told),
        Disclosure("result party", released, last),
        Disclosure("anyone on the network", "message sizes and times", "TLS hides the content"),
    ]
