"""Policies to begin from, by how much an office lets its data give: `strict`, `standard`, `rehearsal`.

- *strict*: nothing leaves without noise. Analyses with a private form, and of training dp-fedsgd, whose guarantee does
  not depend on the model that the coordinator sends; under protections that show the coordinator sums alone.
- *standard*: besides, exact statistics under every rule of disclosure control, over at least three holders, under such
  protections; exact figures and refusals are counted and end.
- *rehearsal*: one person owns all data. Everything is allowed and explained. Never for data of others.

Under the first two, studies are answered under a codebook that the policy pins.
"""

from collections.abc import Sequence
from typing import Any, Literal

from statfed.client.guard.policy import (
    ANY,
    Allow,
    Budget,
    Dataset,
    Disclosure,
    HolderName,
    Limits,
    Minimum,
    Parties,
    Policy,
    Refusals,
)
from statfed.core.disclosure import OFF
from statfed.core.discovery import LINKAGES, load, modules
from statfed.core.method import ANALYSES, load_method
from statfed.core.protection import PACKAGE as PROTECTIONS

Template = Literal["strict", "standard", "rehearsal"]
TEMPLATES: tuple[Template, ...] = ("strict", "standard", "rehearsal")
PRIVATE_TRAINING = "dp-fedsgd"
FEWEST_HOLDERS = 3
NOBODY = Parties()
LARGE = Limits(
    categories=100_000,
    columns=20_000,
    holders=10_000,
    cells=100_000_000,
    parameters=100_000,
    entries=500_000_000,
    asks=1_000_000,
    megabytes=4_096,
    seconds=None,
    figures=None,
    linkages=None,
    ratio=None,
    refusals=None,
)
"""Bounds of a rehearsal: those within which a study can be read at all."""


def made(
    template: Template,
    *,
    holder: HolderName,
    dataset: Dataset,
    budget: Budget,
    parties: Parties = NOBODY,
    third_parties: Sequence[str] = (),
    **changes: Any,
) -> Policy:
    """A policy of this kind. dataset: with the pinned codebook; third_parties: key holders and compute nodes that are
    trusted with their part; changes: other sections instead of the template's. Raises ValueError as `Policy` does."""
    trusted = tuple(third_parties)
    ruled = {"standard": _standard, "strict": _strict}
    sections = ruled[template](trusted, dataset.records) if template in ruled else _rehearsal(trusted)
    given = {"holder": holder, "dataset": dataset, "budget": budget, "parties": parties}
    return Policy(**(sections | given | changes))


def summing() -> tuple[str, ...]:
    """Protections under which the coordinator sees sums alone."""
    names = sorted(modules(PROTECTIONS))
    return tuple(name for name in names if not load(PROTECTIONS, name, "protection").REQUIRES.reveals_updates)


def analyses(private: bool = False) -> tuple[str, ...]:
    """Every analysis; private: only those with a differentially private form."""
    return tuple(name for name in sorted(modules(ANALYSES)) if not private or hasattr(load_method(name), "budget"))


def most_figures(records: int) -> int:
    """Exact figures that a dataset of this public size gives by default: half as many as it has records, at least 5,000
    and at most 1,000,000.

    Fewer linear figures than records leave their values undetermined by equations alone; as many exact ones, or
    somewhat more that are nearly exact, determine them (Dinur and Nissim 2003). Below 10,000 records the limit is no
    such argument: 5,000 is what some dozens of ordinary questions come to, sums within methods included.
    """
    return min(1_000_000, max(5_000, records // 2))


def _rehearsal(third_parties: tuple[str, ...]) -> dict[str, Any]:
    return {
        "allow": Allow(
            methods=(ANY,),
            protections=(ANY,),
            linkages=tuple(f"{name}{may}" for name in sorted(modules(LINKAGES)) for may in ("", ":pairs")),
            keys=(ANY,),
            third_parties=third_parties,
            columns=(ANY,),
            functions=(ANY,),
            weights=(ANY,),
            without_privacy=True,
            noise=("local", "central", "shared"),
            public_seed=True,
        ),
        "minimum": Minimum(records=1),
        "disclosure": Disclosure.model_validate(OFF.model_dump()),
        "refusals": Refusals(explain=True),
        "limits": LARGE,
    }


def _standard(third_parties: tuple[str, ...], records: int) -> dict[str, Any]:
    return {
        "allow": Allow(
            methods=(*analyses(), PRIVATE_TRAINING),
            protections=summing(),
            third_parties=third_parties,
            columns=(ANY,),
            without_privacy=True,
        ),
        "minimum": Minimum(holders=FEWEST_HOLDERS),
        "disclosure": Disclosure(),
        "limits": Limits(figures=most_figures(records)),
    }


def _strict(third_parties: tuple[str, ...], records: int) -> dict[str, Any]:
    found = _standard(third_parties, records)
    allow = found["allow"].model_copy(
        update={"methods": (*analyses(private=True), PRIVATE_TRAINING), "without_privacy": False}
    )
    return found | {"allow": allow}
