"""`plain`: every holder's contribution reaches the coordinator as it is, over an authenticated, encrypted channel.

The baseline of every comparison. It protects against outsiders only. With differential privacy each contribution is
noised at its holder before it leaves, so the coordinator's view is covered by that guarantee; without, the
coordinator sees exact model updates, from which training records can be reconstructed (Zhu et al. 2019).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from statfed.core.analysis import Arrays, Part, checked, summed
from statfed.core.protection import Disclosure, Requirements, Update
from statfed.core.query import Query
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


def protect_sum(contribution: Arrays, parts: Mapping[str, Part]) -> Arrays:  # noqa: ARG001
    """The contribution itself."""
    return contribution


def combine_sums(arrived: Mapping[str, Arrays], parts: Mapping[str, Part]) -> dict[str, NDArray[Any]]:
    """The sum, the same whatever the order of the holders."""
    return summed({name: checked(contribution, parts, name) for name, contribution in arrived.items()}, parts)


def learns(terms: Terms | Query) -> Sequence[Disclosure]:
    """The coordinator sees each holder's contribution to each round or sum."""
    if isinstance(terms, Query):
        return _of_query(terms)
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


def _of_query(query: Query) -> Sequence[Disclosure]:
    noise = (
        f"noise at the holder: epsilon {query.privacy.epsilon:g} per {query.privacy.unit} over all sums"
        if query.privacy
        else "each holder's disclosure rules, as far as its policy sets any"
    )
    released = noise if query.privacy else "release rules, as far as the study sets any"
    return [
        Disclosure("coordinator", "each holder's contribution to every sum", noise),
        Disclosure("other holders", "public parameters of every sum, such as means and coefficients so far", noise),
        Disclosure("result party", f"the released result of {query.analysis}", released),
        Disclosure("all parties", "if each holder's data fit the codebook; which rule refused, if one did", "none"),
        Disclosure("anyone on the network", "message sizes and times", "TLS hides the content"),
    ]
