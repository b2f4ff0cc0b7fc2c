"""The guide of synthetic data, as data: which use asks for what, which method suits it, what each measure means.

Its text stands in `guide.toml`; `statfed synth guide` and the documentation show it, and the evaluation takes its
limits by use from it.
"""

from functools import cache
from typing import Literal

from pydantic import model_validator

from statfed.core.beside import beside, read_as
from statfed.core.errors import UsageError
from statfed.core.names import one_of
from statfed.core.section import Section
from statfed.core.synthetic.measured import Measured

Figure = Literal["value", "excess"]


class Limit(Section):
    """What a figure of a measure may be at most, or has to be at least, for a use. A convention, with its reason."""

    measure: str
    figure: Figure = "value"
    most: float | None = None
    least: float | None = None
    reason: str

    @model_validator(mode="after")
    def _one(self) -> "Limit":
        if (self.most is None) == (self.least is None):
            raise ValueError("most, least: got both or none; want one of them")
        return self

    def kept(self, measured: Measured) -> bool | None:
        """Is it kept? By the whole 95 % interval where there is one; None where only a part of it keeps it, or nothing
        is known: that is no evidence, and no pass. Where fresh records of the population are themselves above the most
        (S_pMSE of very many parameters), a value of utility breaks it by no less than that much above theirs."""
        value = getattr(measured, self.figure)
        low, high = measured.limits(self.figure)
        if value is None:
            return None
        least, most = (value, value) if low is None or high is None else (low, high)
        fresh = measured.baseline if self.figure == "value" and measured.kind == "utility" else None
        if self.most is not None:
            broken = self.most if fresh is None or fresh <= self.most else fresh + self.most
            return True if most <= self.most else False if least > broken else None
        wanted = self.least or 0.0
        return True if least >= wanted else False if most < wanted else None

    def __str__(self) -> str:
        bound = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        return f"{self.figure} {bound}"


class Limits(Section):
    """A user's own limits, as a file has them."""

    limits: tuple[Limit, ...]


class Use(Section):
    """A use of synthetic data. methods: that suit it, the first one first; unsuitable: that do not."""

    id: str
    title: str
    what: str
    needs: str
    risk: str
    methods: tuple[str, ...]
    unsuitable: tuple[str, ...]
    why: str
    measures: tuple[str, ...]
    limits: tuple[Limit, ...]


class Method(Section):
    """A method of synthetic data. built: is it one of this software's?"""

    id: str
    title: str
    built: bool
    idea: str
    assumes: str
    when: str
    when_not: str
    private: str
    cost: str
    source: str


class Measure(Section):
    """A measure. reads: what its figure says; misleads: where it says something else."""

    id: str
    kind: Literal["utility", "risk"]
    title: str
    reads: str
    misleads: str
    source: str


class Source(Section):
    """A kind of data that is no ordinary survey."""

    id: str
    title: str
    advice: str


class Population(Section):
    """What is other of a whole population. not_judged: measures that need fresh records; limits: in the place of every
    use's on risks; measures: of risk that are taken whatever the use."""

    warning: str
    utility: str
    not_judged: tuple[str, ...]
    measures: tuple[str, ...]
    limits: tuple[Limit, ...]


class Guide(Section):
    """All of it."""

    challenge: str
    population: Population
    uses: tuple[Use, ...]
    methods: tuple[Method, ...]
    measures: tuple[Measure, ...]
    sources: tuple[Source, ...]

    @model_validator(mode="after")
    def _whole(self) -> "Guide":
        methods, measures = {one.id for one in self.methods}, {one.id for one in self.measures}
        for use in self.uses:
            astray = sorted({*use.methods, *use.unsuitable} - methods)
            astray += sorted({*use.measures, *(limit.measure for limit in use.limits)} - measures)
            if astray:
                raise ValueError(f"uses.{use.id}: got {', '.join(astray)}; want methods and measures of the guide")
        whole = self.population
        named = {*whole.not_judged, *whole.measures, *(limit.measure for limit in whole.limits)}
        if astray := sorted(named - measures):
            raise ValueError(f"population: got {', '.join(astray)}; want measures of the guide")
        return self

    def use(self, name: str) -> Use:
        """Raises UsageError naming those there are."""
        known = {one.id: one for one in self.uses}
        if name not in known:
            raise UsageError(f"use: got {name!r}; want {one_of(known, name)}")
        return known[name]

    def of_population(self, use: Use) -> Use:
        """A use of data of a whole population: its limits on utility, as far as they need no fresh records, and the
        population's on risk."""
        kept = [
            limit
            for limit in use.limits
            if self.measure(limit.measure).kind == "utility" and limit.measure not in self.population.not_judged
        ]
        measures = dict.fromkeys((*use.measures, *self.population.measures))
        return use.model_copy(update={"limits": (*kept, *self.population.limits), "measures": tuple(measures)})

    def measure(self, name: str) -> Measure:
        """Raises UsageError naming those there are."""
        known = {one.id: one for one in self.measures}
        if name not in known:
            raise UsageError(f"measure: got {name!r}; want {one_of(known, name)}")
        return known[name]


@cache
def guide() -> Guide:
    """The guide. It is read once."""
    return read_as(beside(__file__), Guide, "fields of Guide, Use, Method, Measure and Limit only")
