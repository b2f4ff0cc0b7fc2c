"""What can be recommended: every installed protection and linkage with every way to keep results safe, and techniques
outside.

An installed protection describes itself (`REQUIRES`, `TRUST`, `third_parties`), and so does a linkage (`PARTIES`,
`METHODS`, `PARTED`, `TRUST`, `Options`), so that one installed from outside is judged by the same rules. A technique
outside this software is described in `techniques.toml`, in the same terms, from
published facts; none of them was measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from statfed.core.beside import beside, closed, read_as
from statfed.core.discovery import LINKAGES, load, modules
from statfed.core.linkage import load_linkage
from statfed.core.protection import PACKAGE, Requirements, load_protection
from statfed.core.protection import Protection as Module
from statfed.core.scenario import Case, Partitioning
from statfed.core.section import Section
from statfed.core.terms import Privacy, Protection, Terms
from statfed.lab.recommend.linked import study_of
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
    """One technique. protection: its id, or a linkage's, where it is installed; None outside this software.

    linkage: it matches units. most: holders at most. similar: it links keys that are alike, so that some links are
    wrong and some are missed. methods: analyses over the matched. nodes: parties beside holders and coordinator.
    semi_honest: it holds only while the coordinator follows the protocol. partitionings, outputs, identifiers: values
    of the case's facts that it is for. built: False where a protocol is planned here and not built. note: published
    facts, with their source.
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
    linkage: bool = False
    most: int | None = None
    similar: bool = False
    methods: tuple[str, ...] = ()
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


def linkages() -> Iterator[Candidate]:
    """Every installed linkage, with its own noise too where its options have some. Keys that are compared as a whole
    are of use where there is an exact identifier alone; where none of its analyses comes out, matched units do."""
    for name in sorted(modules(LINKAGES)):
        module, place = load_linkage(name), load_protection(name)
        helped = "helper" in module.Options.model_fields
        for release in ("exact", "local") if module.PRIVATE else ("exact",):
            noise = ", with noise on sizes and totals" if release == "local" else ""
            yield Candidate(
                f"{name}, {release}",
                f"{module.TITLE}{noise}",
                release,
                place.REQUIRES,
                module.TRUST,
                nodes=int(helped),
                protection=name,
                partitionings=("linkage", "vertical"),
                outputs=("linkage", "statistics") if module.METHODS else ("linkage",),
                identifiers=("noisy", "common") if module.PARTED else ("common",),
                linkage=True,
                most=module.PARTIES[1],
                similar=module.PARTED,
                methods=tuple(module.METHODS),
            )


def representative(case: Case, candidate: Candidate) -> Terms:
    """A study like the case's under an installed candidate: a table of counts, or a small model; over the matched."""
    holders = min(case.parties, _MOST_HOLDERS)
    if candidate.linkage:
        noise = case.epsilon or ASSUMED_EPSILON if candidate.noisy else None
        return study_of(case, str(candidate.protection), holders, noise)
    epsilon = min(case.epsilon or ASSUMED_EPSILON, 1000.0)
    privacy = Privacy.model_validate({"epsilon": epsilon, "noise": candidate.release}) if candidate.noisy else None
    protection = Protection(name=candidate.protection or "plain")
    if case.output == "model":
        return sample("training", holders, protection, privacy)
    return sample("a statistic", holders, protection, privacy, exact=case.exact)


OUTSIDE = read_as(beside(__file__), _Outside, "fields of Candidate and Requirements only").techniques


def candidates() -> tuple[Candidate, ...]:
    """Everything that can be recommended, installed techniques first."""
    return (*installed(), *linkages(), *OUTSIDE)
