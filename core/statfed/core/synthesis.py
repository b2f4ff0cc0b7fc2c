"""What a method of synthetic data is: a recipe over released results, and a generator of records.

One module of `statfed.strategies.synthesis` is one method. `fit` asks questions as any user does (`ask`), so that every
number it gets has passed a protection, the holders' policies and ledgers, and the rules of a release; what it makes of
them is the *model*, public as they are, in JSON. `generate` draws records from a model and looks at nothing else. So
neither needs a guard of its own: what holders lose is what was asked of them, and no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from statfed.core.codebook import Codebook
from statfed.core.discovery import SYNTHESIS, load
from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.section import Section, describe

Model = Mapping[str, Any]
"""What was learnt, ready for JSON."""
Columns = Mapping[str, NDArray[Any]]
"""Columns by name, as in `statfed.core.synthetic.coded.Coded`."""
Private = Literal["always", "possible", "never", "no data"]
"""Is a fit differentially private? `no data`: nothing is asked of anybody."""


class Ask(Protocol):
    """Asks holders one analysis, as a user does: under their policies, and under a protection. The only way to them.

    share: part of the privacy budget that this question takes. Raises UsageError, Refused or EngineError.
    """

    def __call__(self, analysis: str, *, share: float = 1.0, where: str | Sequence[str] = (), **options: Any) -> Result:
        """The released result."""
        ...


class Synthesis(Protocol):
    """The module contract of `statfed.strategies.synthesis.*`.

    TITLE: one line for lists. PRIVATE: can a fit be private, has it to be? EXTRA: optional packages that it needs.
    Options: pydantic model; its descriptions are the help. Its entry in the guide of synthetic data has its name. One
    whose private answers are to other questions may have `fit_private`, which then stands in the place of `fit`.
    """

    TITLE: str
    PRIVATE: Private
    EXTRA: str
    Options: type[Section]

    def fit(self, ask: Ask, codebook: Codebook, options: Any) -> Model:
        """What is learnt from the answers. Raises UsageError on a codebook that does not suit, before it asks."""
        ...

    def generate(self, model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
        """So many records, of the columns that the model is about. Raises UsageError on a model that is none."""
        ...


@dataclass(frozen=True)
class Fitted:
    """A model with what it is a model of. method: its name; codebook: of the records; origin: what the answers were,
    with epsilon, rules and holders, for people and files."""

    method: str
    codebook: Codebook
    model: Model
    origin: Mapping[str, Any] = field(default_factory=dict)


def load_synthesis(name: str) -> Synthesis:
    """The module of a method of synthetic data. Raises UsageError naming those there are."""
    module: Synthesis = load(SYNTHESIS, name, "method of synthetic data")
    return module


def read_synthesis(name: str, options: Mapping[str, Any]) -> tuple[Synthesis, Section]:
    """A method and its options. Raises UsageError on unknown names, keys or values."""
    module = load_synthesis(name)
    fields = module.Options.model_fields
    lists = {key for key, field in fields.items() if field.annotation == tuple[str, ...]}
    given = {
        key: [one.strip() for one in value.split(",")] if key in lists and isinstance(value, str) else value
        for key, value in options.items()
    }
    try:
        return module, module.Options.model_validate(given)
    except ValidationError as error:
        known = ", ".join(module.Options.model_fields) or "none"
        raise UsageError(describe(error, name, f"one of {known}", module.Options)) from None
