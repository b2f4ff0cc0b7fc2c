"""The document that a recommendation is. `Answer.model_json_schema()` is its JSON Schema (docs/schema)."""

from pydantic import Field

from statfed.core.scenario import Case
from statfed.core.section import Section
from statfed.lab.recommend.synthetic import Synthetic
from statfed.lab.recommend.techniques import Release


class Reason(Section):
    """One reason for or against a technique. points: what it adds to the score."""

    aspect: str
    points: float
    text: str


class Evidence(Section):
    """Trials of one technique at one release level in one scenario, over seeds.

    Medians over finished trials; None where nothing came out or nothing was measured. reached: share of finished and
    failed trials that reached the scenario's success measure. multiple: processor time over that of plain in the same
    scenario and level.
    """

    scenario: str
    distance: float = Field(ge=0, le=1, description="of the scenario's facts from the case's: 0 same, 1 opposite")
    profile: str
    protection: str
    options: str
    level: str
    release: Release
    trials: int
    failed: int
    reached: float | None
    error: float | None
    tolerance: float | None
    local: float | None
    coverage: float | None
    suppressed: float | None
    epsilon: float | None
    multiple: float | None
    version: str
    machine: str


class Learned(Section):
    """One row of *who learns what*."""

    role: str
    learns: str
    protected_by: str


class Ranked(Section):
    """A technique that no rule excludes.

    origin: package that brings the protection, empty for those of statfed itself; install: command for a package that
    is missing, empty where none is.
    """

    id: str
    title: str
    protection: str
    release: Release
    score: float
    reasons: tuple[Reason, ...]
    trust: tuple[str, ...] = Field(description="the protection's own assumptions")
    learns: tuple[Learned, ...] = Field(description="who learns what by the protection, for a study like the case's")
    evidence: tuple[Evidence, ...]
    origin: str = ""
    install: str = ""


class Exclusion(Section):
    """A hard rule that a technique breaks."""

    rule: str
    text: str
    source: str


class Rejected(Section):
    """A technique that a hard rule excludes. evidence: what was measured of it all the same, where facts differ."""

    id: str
    title: str
    protection: str
    release: Release
    exclusions: tuple[Exclusion, ...]
    evidence: tuple[Evidence, ...]


class NotMeasured(Section):
    """A technique outside this software. exclusions: rules that it breaks; none where it might do."""

    id: str
    title: str
    needs: tuple[str, ...]
    trust: tuple[str, ...]
    exclusions: tuple[Exclusion, ...]
    built: bool = Field(description="false: planned here, not built yet")
    note: str
    source: str


class Flip(Section):
    """What the shortlist would be if one fact were another."""

    fact: str
    value: str
    text: str
    enters: tuple[str, ...]
    leaves: tuple[str, ...]
    first: str = Field(description="id of the technique that would be ranked first; empty where none would remain")


class Remedy(Section):
    """A smallest change of facts that lets something through, where nothing remains."""

    changes: tuple[str, ...] = Field(description="fact = value")
    text: str
    lets: tuple[str, ...]


class Near(Section):
    """A reference scenario, by distance of its facts. differs: the facts in which it differs from the case."""

    scenario: str
    distance: float
    differs: tuple[str, ...]
    measured: int = Field(description="trials of it among the measurements")


class Answer(Section):
    """A recommendation: deterministic in the case, the measurements and what is installed."""

    version: str
    case: Case
    headline: str
    measurements: str = Field(description="where evidence is from, or how to get some")
    ranked: tuple[Ranked, ...]
    rejected: tuple[Rejected, ...]
    not_measured: tuple[NotMeasured, ...]
    sensitivity: tuple[Flip, ...] = Field(description="facts that change the shortlist, one at a time")
    indifferent: tuple[str, ...] = Field(description="facts whose other values change neither members nor first place")
    remedies: tuple[Remedy, ...]
    nearest: tuple[Near, ...]
    synthetic: tuple[Synthetic, ...] = Field(
        default=(), description="what synthetic records would take, by use: what comes out, or a twin to rehearse on"
    )
