"""Small studies that stand for their kind: a table of counts, and the training of a small model."""

from functools import cache
from typing import Any, Literal

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.terms import Privacy, Protection, Terms

Kind = Literal["a statistic", "training"]
_CLASSES = ["still", "moving"]


@cache
def codebook(kind: Kind) -> Codebook:
    """The columns of a kind's tables."""
    if kind == "a statistic":
        return make_codebook({"columns": {"region": {"type": "category", "categories": ["north", "south"]}}})
    array = {"type": "array", "length": 8, "low": -8, "high": 8, "scale": 1, "unit": "g"}
    person = {"type": "id", "role": "unit"}
    return make_codebook(
        {"columns": {"x": array, "class": {"type": "category", "categories": _CLASSES}, "person": person}}
    )


def sample(kind: Kind, holders: int, protection: Protection, privacy: Privacy | None = None, **more: Any) -> Terms:
    """A study of so many holders. more: further fields of its terms. Noise that holders share is that of dp-fedsgd."""
    shared = privacy is not None and privacy.noise == "shared"
    method = "table" if kind == "a statistic" else "dp-fedsgd" if shared else "local-sgd"
    options: dict[str, Any] = {"rows": ["region"]} if kind == "a statistic" else {"target": "class", "features": ["x"]}
    return Terms(
        method=method,
        options=options,
        codebook=codebook(kind),
        holders=tuple(f"office-{i + 1}" for i in range(holders)),
        seed=None,
        privacy=privacy,
        protection=protection,
        **more,
    )
