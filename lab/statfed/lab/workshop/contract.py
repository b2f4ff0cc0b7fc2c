"""What a kit of the workshop is: a story, a codebook, and two generators of records, of which nobody's are real.

One module of `statfed.lab.workshop.kits` is one kit. Adding one is writing the file: it is then listed, written and
scored, and the tests of kits try it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.discovery import load, modules
from statfed.core.synthesis import Columns
from statfed.core.synthetic import edits
from statfed.core.synthetic.coded import Coded, joined
from statfed.core.synthetic.guide import guide

PACKAGE = "statfed.lab.workshop.kits"
RARE_SHARE = 0.02
"""Of the training records and of fresh ones: planted rare records."""
FEWEST_RARE = 60
"""Planted among the training records at least: an attack on fewer says little."""


class Kit(Protocol):
    """The module contract of `statfed.lab.workshop.kits.*`.

    TITLE: one line for lists. VERSION: raised with every change after which the same seed gives other records. STORY:
    paragraphs for teams. RARE: who the planted rare records are, in a few words. CODEBOOK: a codebook as its file has
    it, with rules. KEYS, SECRETS: columns that an attacker knows, and would like to know. TARGET: of a model that is
    trained. MODELS: models that are compared, each in one line as `ols wage ~ age`.
    """

    TITLE: str
    VERSION: int
    STORY: str
    RARE: str
    CODEBOOK: Mapping[str, Any]
    KEYS: tuple[str, ...]
    SECRETS: tuple[str, ...]
    TARGET: str
    MODELS: tuple[str, ...]

    def records(self, count: int, rng: np.random.Generator) -> Columns:
        """Independent ordinary records: by name, as in `statfed.core.synthetic.coded.Coded`."""
        ...

    def rare(self, count: int, rng: np.random.Generator) -> Columns:
        """Independent rare records, far from ordinary ones and from each other. They obey the rules too."""
        ...


@dataclass(frozen=True)
class Drawn:
    """The records of a kit. original: for the teams; fresh: of the same population, twice as many, for the judge;
    members: the planted rare records, which are among the original; others: as many again and as many, which are not.
    """

    codebook: Codebook
    original: Coded
    fresh: Coded
    members: Coded
    others: Coded


def names() -> tuple[str, ...]:
    """The kits there are."""
    return tuple(sorted(modules(PACKAGE)))


def load_kit(name: str) -> Kit:
    """The module of a kit. Raises UsageError naming those there are."""
    module: Kit = load(PACKAGE, name, "kit")
    return module


def draw(kit: Kit, records: int, original: int, held: int) -> Drawn:
    """The records of a kit. original, held: seeds of what teams get and of what the judge keeps, so that the first
    alone tells nothing of the second."""
    codebook = make_codebook(dict(kit.CODEBOOK))
    planted = max(FEWEST_RARE, round(RARE_SHARE * records))
    own, other = np.random.default_rng(original), np.random.default_rng(held)
    members = _of(kit, codebook, "rare", planted, own)
    training = joined(_of(kit, codebook, "records", records - planted, own), members)
    others = _of(kit, codebook, "rare", 2 * planted, other)
    strangers = _of(kit, codebook, "rare", 2 * planted, other)
    fresh = joined(_of(kit, codebook, "records", 2 * (records - planted), other), strangers)
    return Drawn(
        codebook,
        training.take(own.permutation(training.count)),
        fresh.take(other.permutation(fresh.count)),
        members,
        others,
    )


def independent(table: Coded, rng: np.random.Generator) -> Coded:
    """Every column in an order of its own: all columns by themselves are right, and no relation is."""
    order = {name: values[rng.permutation(table.count)] for name, values in table.columns.items()}
    return Coded(table.codebook, order)


def uses() -> tuple[str, ...]:
    """Uses that a kit can be judged for."""
    return tuple(use.id for use in guide().uses)


def _of(kit: Kit, codebook: Codebook, what: str, count: int, rng: np.random.Generator) -> Coded:
    generate = kit.rare if what == "rare" else kit.records
    table = Coded(codebook, dict(generate(count, rng)))
    broken = int((~edits.obeys(table, edits.clauses(codebook))).sum())
    if broken or table.names != tuple(codebook.columns):
        raise ValueError(f"{what}: got {broken} records that break rules, columns {table.names}; want those of a kit")
    return table
