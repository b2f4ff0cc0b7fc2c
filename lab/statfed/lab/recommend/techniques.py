"""What can be recommended: every installed protection with every way to keep results safe, and techniques outside.

An installed protection describes itself (`REQUIRES`, `TRUST`, `third_parties`), so that one installed from outside is
judged by the same rules. A technique outside this software is described in `techniques.toml`, in the same terms, from
published facts; none of them was measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from statfed.core.beside import beside, closed, read_as
from statfed.core.discovery import load, modules
from statfed.core.protection import PACKAGE, Requirements
from statfed.core.protection import Protection as Module
from statfed.core.scenario import Case, Partitioning
from statfed.core.section import Section
from statfed.core.terms import Privacy, Protection, Terms
from statfed.lab.samples import sample

Release = Literal["exact", "local", "central", "shared", "synthetic", "any"]
"""How results are kept safe: exact under disclosure rules; with noise, by who adds it; as synthetic records. `any`: a
technique outside this software that says nothing of its release."""
NOISE: tuple[Release, ...] = ("local", "central", "shared")
IN_WORDS: dict[Release, str] = {
    "exact": "exact results under disclosure rules",
    "local": "differential privacy, each holder adds all the noise",
    "central": "differential privacy, the coordinator adds the noise",
    "shared": "differential privacy, the holders add the noise together",
    "synthetic": "synthetic records",
    "any": "exact results or noise",
}
ASSUMED_EPSILON = 1.0
"""Epsilon per release with which noise is judged where a case sets none."""
_MOST_HOLDERS = 10_000  # of a study; rules do not differ above


@closed
@dataclass(frozen=True)
class Candidate:
    """One technique. protection: its id, where it is installed; None outside this software.

    nodes: parties beside holders and coordinator. semi_honest: it holds only while the coordinator follows the
    protocol. partitionings, outputs, identifiers: values of the case's facts that it is for. built: False where a
    protocol is planned here and not built. note: published facts, with their source.
    """

    id: str
    title: str
    release: Release
    requires: Requirements
    trust: tuple[str, ...]
    nodes: int = 0
    protection: str | None = None
    semi_honest: bool = False
    partitionings: tuple[Partitioning, ...] = ("horizontal",)
    outputs: tuple[str, ...] = ("statistics", "model")
    identifiers: tuple[str, ...] = ("none", "common", "noisy")
    built: bool = True
    note: str = ""
    source: str = ""

    @property
    def noisy(self) -> bool:
        """Does it add noise to what is released?"""
        return self.release in NOISE

    @property
    def shows_contributions(self) -> bool:
        """Does the coordinator get each holder's contribution before any noise?"""
        return self.requires.reveals_updates and self.release != "local"


class _Outside(Section):
    """The file of techniques outside this software."""

    techniques: tuple[Candidate, ...]


def installed() -> Iterator[Candidate]:
    """Every installed protection with every way to keep results safe that this software has."""
    for name in sorted(modules(PACKAGE)):
        module: Module = load(PACKAGE, name, "protection")
        requires = module.REQUIRES
        for release in ("exact", *NOISE):
            yield Candidate(
                f"{name}, {release}",
                f"{module.TITLE}; {IN_WORDS[release]}",
                release,
                requires,
                module.TRUST,
                nodes=len(module.third_parties(module.Options())),
                protection=name,
                semi_honest=not requires.reveals_updates and not requires.identities,
            )


def representative(case: Case, candidate: Candidate) -> Terms:
    """A study like the case's under an installed candidate: a table of counts, or a small model."""
    holders = min(case.parties, _MOST_HOLDERS)
    epsilon = min(case.epsilon or ASSUMED_EPSILON, 1000.0)
    privacy = Privacy.model_validate({"epsilon": epsilon, "noise": candidate.release}) if candidate.noisy else None
    protection = Protection(name=candidate.protection or "plain")
    if case.output == "model":
        return sample("training", holders, protection, privacy)
    return sample("a statistic", holders, protection, privacy, exact=case.exact)


OUTSIDE = read_as(beside(__file__), _Outside, "fields of Candidate and Requirements only").techniques


def candidates() -> tuple[Candidate, ...]:
    """Everything that can be recommended, installed techniques first."""
    return (*installed(), *OUTSIDE)
