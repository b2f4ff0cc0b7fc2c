"""What can be recommended: every installed protection with every way to keep results safe, and techniques outside.

An installed protection describes itself (`REQUIRES`, `TRUST`, `third_parties`), so that one installed from outside is
judged by the same rules. A technique outside this software is described here, in the same terms, from published facts;
none of them was measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from statfed.core.codebook import make_codebook
from statfed.core.discovery import load, modules
from statfed.core.protection import PACKAGE, Protection, Requirements
from statfed.core.terms import Privacy
from statfed.core.terms import Terms
from statfed.core.records import Channel, WindowCodebook
from statfed.core.scenario import Case, Partitioning
from statfed.core.terms import Privacy, Terms
from statfed.core.study import make_study

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


def installed() -> Iterator[Candidate]:
    """Every installed protection with every way to keep results safe that this software has."""
    for name in sorted(modules(PACKAGE)):
        module: Protection = load(PACKAGE, name, "protection")
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
    study = make_study({"scenario": "time-use", "holders": holders, "protection": {"name": candidate.protection}})
    noise = candidate.release
    if case.output == "model":
        terms = study.terms(_WINDOWS)
        if noise == "exact" or noise not in NOISE:
            return terms
        method = "dp-fedsgd" if noise == "shared" else "local-sgd"
        return terms.model_copy(
            update={
                "privacy": Privacy.model_validate({"epsilon": epsilon, "noise": noise}),
                "training": terms.training.model_copy(update={"method": method}),
            }
        )
    privacy = Privacy.model_validate({"epsilon": epsilon, "noise": noise}) if candidate.noisy else None
    return Terms(
        method="table",
        options={"rows": ["region"]},
        codebook=_TABLE,
        holders=study.holders,
        seed=None,
        privacy=privacy,
        protection=study.protection,
        exact=case.exact,
    )


_TABLE = make_codebook({"columns": {"region": {"type": "category", "categories": ["north", "south"]}}})
_WINDOWS = WindowCodebook(
    channels=(Channel(name="x", unit="g", low=-8, high=8, scale=1),), samples=8, classes=("still", "moving")
)
_ALL: tuple[Partitioning, ...] = get_args(Partitioning)
_OUTPUTS: tuple[str, ...] = get_args(Case.model_fields["output"].annotation)
_POOLED = ("dominance", "median", "maximum")  # functions of pooled records, which whoever has them can form

OUTSIDE = (
    Candidate(
        "trusted-hardware",
        "Trusted hardware: microdata are pooled inside an enclave that attests to its program",
        "any",
        Requirements(survives_dropout=True, identities=True, cost="10", functions=_POOLED),
        (
            "the maker of the processor and its attestation service",
            "nothing leaks from the enclave by timing, memory access or power",
            "every holder has audited the program that the attestation names",
        ),
        partitionings=_ALL,
        outputs=_OUTPUTS,
        note="the Allegheny County demonstration had the same answers from an enclave as from multi-party computation "
        "on microdata, about 10,000 times faster",
        source="US demonstration report, Allegheny County",
    ),
    Candidate(
        "paillier",
        "Paillier: additively homomorphic encryption of single numbers",
        "any",
        Requirements(
            minimum_holders=3,
            fixed_point=True,
            identities=True,
            third_parties="a key holder that does not collude with the coordinator",
            cost="100000",
        ),
        ("the key holder does not collude with the coordinator", "the coordinator follows the protocol"),
        nodes=1,
        semi_honest=True,
        note="660,000 times a packed plain sum; for all layers of a small model 9 minutes and 528,000 times the size",
        source="StatCan/UN-PML-Pilot notebooks; single sums measured with phe",
    ),
    Candidate(
        "multi-party on microdata",
        "Multi-party computation on secret-shared records instead of holders' own sums",
        "any",
        Requirements(
            minimum_holders=2,
            fixed_point=True,
            identities=True,
            third_parties="three compute nodes, of which no two collude",
            cost="100000",
            functions=_POOLED,
        ),
        ("no two of the three compute nodes collude, and the nodes follow the protocol",),
        nodes=3,
        semi_honest=True,
        partitionings=("horizontal", "vertical"),
        identifiers=("none", "common"),
        note="SPU 0.9.5: cross products of 10,000 x 10 in 0.2 s, logistic regression in 1 s; records first have to be "
        "matched where they are partitioned vertically",
        source="SPU 0.9.5 on two cores; Allegheny County demonstration report",
    ),
    Candidate(
        "private-set-intersection",
        "Private set intersection: which units two holders share, or sums over them",
        "any",
        Requirements(minimum_holders=2, identities=True, cost="1000"),
        ("both holders follow the protocol and use their true lists of identifiers",),
        semi_honest=True,
        partitionings=("vertical", "linkage"),
        outputs=("statistics", "linkage"),
        identifiers=("common",),
        built=False,
        note="Diffie-Hellman: 0.4 ms and about 100 bytes an item; a probe list finds out who is in the other's",
        source="UNECE/Input-Privacy-Preserving-Project; openmined-psi 2.0.6",
    ),
    Candidate(
        "private-record-linkage",
        "Linkage on encodings of names and dates that tolerate typing errors (Bloom filters)",
        "any",
        Requirements(identities=True, third_parties="a linkage unit that sees encodings and nothing else", cost="1000"),
        ("the linkage unit colludes with no holder", "encodings are salted: they are open to frequency attacks"),
        nodes=1,
        semi_honest=True,
        partitionings=("vertical", "linkage"),
        outputs=("statistics", "linkage"),
        identifiers=("common", "noisy"),
        built=False,
        note="100,000 x 100,000 in 38 s: recall 0.97 and precision 0.997 at threshold 0.85, where exact keys with "
        "typing errors reach a recall of 0.57",
        source="anonlink documentation; UNECE/Input-Privacy-Preserving-Project",
    ),
    Candidate(
        "vertical-protocols",
        "Joint estimation on columns of the same units at different holders",
        "any",
        Requirements(minimum_holders=2, fixed_point=True, identities=True, cost="1000"),
        ("all holders follow the protocol", "units have been matched, and who is matched may be known"),
        semi_honest=True,
        partitionings=("vertical",),
        identifiers=("common",),
        built=False,
        note="vertical cross products of 10,000 x 10 in 0.2 s under SPU",
        source="SPU 0.9.5 on two cores",
    ),
    Candidate(
        "remote access",
        "Remote access to a safe centre: microdata are pooled there, and outputs are checked by people",
        "any",
        Requirements(
            survives_dropout=True, third_parties="a centre that may hold everybody's microdata", functions=_POOLED
        ),
        ("the centre, with all microdata", "a legal basis to transfer microdata to it"),
        nodes=1,
        partitionings=_ALL,
        outputs=_OUTPUTS,
        note="the reference where law allows it: pooled microdata, the Five Safes, no cryptography",
        source="Desai, Ritchie and Welpton 2016, Five Safes",
    ),
    Candidate(
        "synthetic data",
        "Synthetic records that each holder, or the holders together, generate and publish",
        "synthetic",
        Requirements(cost="10"),
        ("the generator's privacy: without noise there is none that can be proven",),
        outputs=("statistics", "synthetic-data"),
        built=False,
        note="at epsilon 1 a federated generator had 0.050 total variation of two-way tables, where a fresh sample has "
        "0.025; in the HLG-MOS challenge no method was judged fit for public release",
        source="HLG-MOS Synthetic Data Challenge; mbi 2.0 on 10,000 census records",
    ),
)


def candidates() -> tuple[Candidate, ...]:
    """Everything that can be recommended, installed techniques first."""
    return (*installed(), *OUTSIDE)
