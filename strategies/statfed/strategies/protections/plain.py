"""`plain`: every holder's contribution reaches the coordinator as it is, over an authenticated, encrypted channel.

The baseline of every comparison. It protects against outsiders only. With differential privacy each contribution is
noised at its holder before it leaves, so the coordinator's view is covered by that guarantee; without, the
coordinator sees exact model updates, from which training records can be reconstructed (Zhu et al. 2019).
"""

from collections.abc import Mapping, Sequence

from statfed.core.protection import Disclosure, Requirements, Update
from statfed.core.study import Terms

TITLE = "Plain: contributions in clear to the coordinator, over TLS"
TRUST = ("the coordinator is trusted with each holder's contribution",)
REQUIRES = Requirements(minimum_holders=1, reveals_updates=True)


def protect(update: Update) -> Update:
    """The contribution itself."""
    return update


def combine(updates: Mapping[str, Update]) -> Sequence[Update]:
    """Every contribution, in the order of the holders' names, so that sums do not depend on arrival."""
    return [updates[name] for name in sorted(updates)]


def learns(terms: Terms) -> Sequence[Disclosure]:
    """The coordinator sees each holder's update of each round."""
    noise = (
        f"noise at the holder: epsilon {terms.privacy.epsilon:g} per {terms.privacy.unit} over all rounds"
        if terms.privacy
        else "nothing: without differential privacy an update can reveal training records"
    )
    return [
        Disclosure("coordinator", "each holder's model update in every round", noise),
        Disclosure("other holders", "the averaged model before every round", noise),
        Disclosure("result party", "the final model and its scores on the held-out persons", noise),
        Disclosure("anyone on the network", "message sizes and times", "TLS hides the content"),
    ]
