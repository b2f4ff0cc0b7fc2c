"""Synthetic records for a case: the use, methods that suit it, how they are measured, and what is typed.

All words of methods, measures and limits are the guide's (`statfed.core.synthetic.guide`); what a method can keep is
what its module says (`PRIVATE`). Nothing here clears a file: that takes an evaluation, and somebody who decides.
"""

from typing import Literal

from pydantic import Field

from statfed.core.scenario import Case
from statfed.core.section import Section
from statfed.core.synthesis import load_synthesis
from statfed.core.synthetic.guide import Limit, Method, Use, guide

FEW = 3
"""Holders of whom a command shows one each."""


class Suited(Section):
    """A method for a use, in the guide's words. stands_against: what of the case does; empty where nothing does."""

    method: str
    title: str
    built: bool
    assumes: str
    when: str
    when_not: str
    private: str
    stands_against: str = ""


class Shown(Section):
    """A measure that has to be shown, and what the use wants of it; limits are conventions."""

    measure: str
    title: str
    reads: str
    misleads: str
    limits: tuple[str, ...] = ()


class Synthetic(Section):
    """What synthetic records would take for one use. No clearance."""

    use: str
    title: str
    role: Literal["records", "rehearsal"] = Field(
        description="records: they are what comes out; rehearsal: a twin, beside figures from the real records"
    )
    what: str
    needs: str
    risk: str
    why: str
    methods: tuple[Suited, ...] = Field(description="that suit the use, the first choice first")
    unsuitable: tuple[str, ...]
    measures: tuple[Shown, ...]
    commands: tuple[str, ...]
    caution: str


def of_case(case: Case, use: str = "") -> tuple[Synthetic, ...]:
    """What applies to a case. use: one of the guide, if it is known.

    Where records come out and no use is told: every use of the guide, since the use decides. Where figures come out,
    a twin for rehearsing programs, with data only where they lie horizontally and would do no great harm. Raises
    UsageError on a use that is none.
    """
    known = guide()
    if case.output == "synthetic-data":
        chosen = (known.use(use),) if use else known.uses
        return tuple(_for(case, one, "records") for one in chosen)
    if use:
        return (_for(case, known.use(use), "rehearsal"),)
    if case.output == "linkage":
        return ()
    looks = case.partitioning == "horizontal" and case.sensitivity != "high"
    return (_for(case, known.use("testing-analysis" if looks else "testing-technology"), "rehearsal"),)


def first(told: Synthetic) -> Suited | None:
    """The first method that is built and nothing of the case stands against."""
    return next((one for one in told.methods if one.built and not one.stands_against), None)


def _for(case: Case, use: Use, role: Literal["records", "rehearsal"]) -> Synthetic:
    known = guide()
    methods = {one.id: one for one in known.methods}
    suited = tuple(_suited(case, methods[name]) for name in use.methods)
    names = dict.fromkeys((*use.measures, *(limit.measure for limit in use.limits)))
    told = Synthetic(
        use=use.id,
        title=use.title,
        role=role,
        what=use.what,
        needs=use.needs,
        risk=use.risk,
        why=use.why,
        methods=suited,
        unsuitable=use.unsuitable,
        measures=tuple(_measure(name, use.limits) for name in names),
        commands=(),
        caution=f"No file is cleared by this. {known.challenge}",
    )
    chosen = first(told)
    more = _commands(case, use, chosen.method) if chosen else ()
    return told.model_copy(update={"commands": (guide_command(use.id), *more)})


def _suited(case: Case, one: Method) -> Suited:
    return Suited(
        method=one.id,
        title=one.title,
        built=one.built,
        assumes=one.assumes,
        when=one.when,
        when_not=one.when_not,
        private=one.private,
        stands_against=_against(case, one) if one.built else "it is not built",
    )


def _against(case: Case, one: Method) -> str:
    """What of the case a method cannot keep, by what its module says of itself."""
    private = load_synthesis(one.id).PRIVATE
    if private == "no data":
        return ""
    if case.partitioning != "horizontal":
        return f"it is fitted to sums over units that lie apart, and the partitioning is {case.partitioning}"
    if case.epsilon is not None and private == "never":
        return f"epsilon {case.epsilon:g} is required, and it has no differentially private form"
    return ""


def _measure(name: str, limits: tuple[Limit, ...]) -> Shown:
    measure = guide().measure(name)
    wanted = tuple(f"{limit}: {limit.reason}" for limit in limits if limit.measure == name)
    return Shown(measure=name, title=measure.title, reads=measure.reads, misleads=measure.misleads, limits=wanted)


def guide_command(use: str) -> str:
    """The guide on a use."""
    return f"statfed synth guide --use {use}"


def _commands(case: Case, use: Use, method: str) -> tuple[str, ...]:
    """Fit, sample and evaluate, with as many holders as a line has room for."""
    private = load_synthesis(method).PRIVATE
    alone = case.parties == 1 or private == "no data"
    names = "abc"[: min(case.parties, FEW)]
    holders = " ".join(f"--holder {name}={name}.parquet" for name in names)
    noise = private == "always" or (private == "possible" and case.epsilon is not None)
    shared = not alone and case.parties >= FEW and case.coordinator != "trusted"
    spent = f"{case.epsilon or 1.0:g}"
    fit = ["statfed synth fit", "data.parquet" if alone else holders, "--codebook codebook.toml", f"--method {method}"]
    fit += [f"--privacy {'shared:' if shared else ''}epsilon={spent}"] if noise else []
    fit += ["--protect secure-aggregation"] if shared and private != "no data" else []
    own, apart = "--original data.parquet --fresh apart.parquet", f"{holders} --apart 'part = kept'"
    original = own if case.parties == 1 else apart
    return (
        " ".join([*fit, "-o model.json"]),
        "statfed synth sample model.json -n 10000 -o synthetic.parquet",
        f"statfed synth evaluate synthetic.parquet {original} --codebook codebook.toml --use {use.id} -o report.html",
    )
