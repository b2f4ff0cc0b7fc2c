"""Small studies that stand for the linkages of a case: the number of matched units, or a figure over them."""

from functools import lru_cache
from typing import Any

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.core.linkage import Linking, linking_of, load_linkage, restricted
from statfed.core.scenario import Case
from statfed.core.terms import Privacy, Protection, Terms

_COLUMNS = {
    "id": {"type": "id"},
    "amount": {"type": "integer", "low": 0, "high": 100},
    "region": {"type": "category", "categories": ["north", "south"]},
    "sector": {"type": "category", "categories": ["a", "b"]},
}
_JOINT: dict[str, dict[str, Any]] = {
    "table": {"rows": ["region"], "columns": ["sector"]},
    "ols": {"formula": "amount ~ C(sector)"},
}
"""Analyses that read columns of two holders, with options for the columns above."""


def study_of(case: Case, linkage: str, holders: int, epsilon: float | None) -> Terms:
    """A study like the case's: matched units; where figures are wanted, a total of one holder's column, or, of other
    variables of the same units, an analysis of columns of two.

    The first of the kind that the linkage has; where it has none, one that it refuses, saying what it has.
    """
    return _study(case.output, case.partitioning, linkage, holders, epsilon)


def refusal(terms: Terms) -> str:
    """Why a study's linkage does not do what it asks; empty where it does."""
    try:
        linking_of(terms)
    except UsageError as error:
        return str(error)
    return ""


@lru_cache(maxsize=256)
def _study(output: str, partitioning: str, linkage: str, holders: int, epsilon: float | None) -> Terms:
    module, names = load_linkage(linkage), tuple(f"office-{i + 1}" for i in range(holders))
    method, options = "count", dict[str, Any]()
    if output == "statistics":
        single = partitioning == "linkage" and "total" in module.METHODS
        method = "total" if single else next((name for name in _JOINT if name in module.METHODS), "table")
        options = {"columns": ["amount"]} if single else _JOINT[method]
    linking = Linking(
        key="id",
        reveal="size" if method == "count" else "totals",
        block="id[:2]" if module.PARTED else "",
        estimate="total" if method != "count" and module.ESTIMATES else "none",
    )
    joined = make_codebook({"columns": _COLUMNS})
    return Terms(
        method=method,
        options=options,
        codebook=joined,
        codebooks={name: _own(joined, place) for place, name in enumerate(names)},
        holders=names,
        seed=None,
        privacy=None if epsilon is None else Privacy(epsilon=min(epsilon, 1000.0)),
        protection=Protection(name=linkage, options=linking.model_dump(mode="json")),
    )


def _own(joined: Codebook, place: int) -> Codebook:
    """The codebook of a holder: the key, and numbers and regions with the first, sectors with the second."""
    columns = (("amount", "region"), ("sector",))
    return restricted(joined, ("id", *(columns[place] if place < len(columns) else ())))
