"""An answer: a finished run of any study, with its released result, what it took, what it cost, and who learned what.

`to_dict` is `result.json` (docs/json.md); `load_answer` reads one back.
"""

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from statfed.core import VERSION
from statfed.core.errors import UsageError
from statfed.core.protection import Disclosure, load_protection
from statfed.core.resolve import Resolved
from statfed.core.result import Result, Scalar
from statfed.core.statement import Admission, Closing
from statfed.core.terms import Terms
from statfed.federation.published import has_secrets, kept_in, public_study, public_terms, restored
from statfed.federation.trained import Candidate, Phase, Round, Spending, Trained
from statfed.server.driver import Sum
from statfed.server.engine import Meter

FORMAT = "statfed.answer/2"
ACCOUNTANT = (
    "Privacy loss distributions (dp-accounting, pessimistic) over all sums of a study; "
    "the lifetime budget is gated on a Renyi filter of one fixed order"
)


@dataclass(frozen=True)
class Answer:
    """A finished run.

    study: the file it was run from, as a mapping; terms: what the holders agreed to; result: what was released;
    drafted: was the codebook drafted from the holders' data?; sums: what each protected sum took; spending: what it
    cost each holder; learns: who learned what; origin: the data, in one line; training: of a model; meters: what each
    party took, where the engine tells; digest: of the terms that the holders saw, where parameters that are not
    published are missing from these.
    """

    run: str
    created: str
    title: str
    study: Mapping[str, Any]
    terms: Terms
    result: Result
    engine: str
    drafted: bool
    sums: tuple[Sum, ...]
    spending: tuple[Spending, ...]
    learns: tuple[Disclosure, ...]
    seconds: float
    origin: str = "tables of the holders"
    synthetic: bool = False
    simulated: bool = True
    warnings: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ()
    memory_mib: Mapping[str, float] = field(default_factory=dict)
    meters: Mapping[str, Meter] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    training: Trained | None = None
    digest: str = ""

    @property
    def scenario(self) -> str:
        """The reference scenario whose population the holders had, if one."""
        return str(self.study.get("scenario") or "")

    @property
    def study_digest(self) -> str:
        """The study's name in every ledger."""
        return self.digest or self.terms.digest()

    @property
    def format(self) -> str:
        return FORMAT

    @property
    def accountant(self) -> str:
        return ACCOUNTANT

    @property
    def trained(self) -> Trained:
        """What a training has. Raises UsageError for other methods."""
        if self.training is None:
            raise UsageError(f"run {self.run}: {self.terms.method} trains no model")
        return self.training

    @property
    def candidates(self) -> list[Candidate]:
        return self.trained.candidates

    @property
    def rounds(self) -> list[Round]:
        return self.trained.rounds

    @property
    def classes(self) -> list[str]:
        return self.trained.classes

    @property
    def test_records(self) -> int:
        return self.trained.test_records

    @property
    def test_persons(self) -> int:
        return self.trained.test_persons

    @property
    def model_digest(self) -> str:
        return self.trained.model_digest

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, to be published: the result's keys, then those of the run; see docs/json.md. Parameters of
        disclosure control are not among them."""
        study, _ = public_study(self.study)
        terms, _ = public_terms(self.terms.model_dump(mode="json"))
        return self.result.to_dict() | {
            "format": FORMAT,
            "run": self.run,
            "created": self.created,
            "version": VERSION,
            "study_title": self.title,
            "engine": self.engine,
            "simulated": self.simulated,
            "synthetic": self.synthetic,
            "origin": self.origin,
            "study": study,
            "terms": terms,
            "study_digest": self.study_digest,
            "codebook_drafted": self.drafted,
            "warnings": list(self.warnings),
            "sums": [asdict(one) for one in self.sums],
            "spending": [one.model_dump(mode="json") for one in self.spending],
            "accountant": ACCOUNTANT,
            "learns": [asdict(row) for row in self.learns],
            "training": self.training.model_dump(mode="json") if self.training else None,
            "phases": [phase.model_dump(mode="json") for phase in self.phases],
            "seconds": self.seconds,
            "memory_mib": dict(self.memory_mib),
            "versions": dict(self.versions),
        }


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Treated(_Strict):
    """What a release says of its rules."""

    rules: list[str] = []
    method: str | None = None
    treated: dict[str, int] = {}
    not_evaluated: dict[str, str] = {}


class _Stored(_Strict):
    """The form of what `to_dict` gives, but for parts that have a model of their own."""

    run: str
    created: str
    study_title: str
    engine: str
    origin: str
    codebook_drafted: bool
    simulated: bool
    synthetic: bool
    seconds: float
    warnings: list[str]
    versions: dict[str, str]
    memory_mib: dict[str, float]
    sums: list[Sum]
    learns: list[Disclosure]
    analysis: str
    title: str
    by: list[str]
    facts: dict[str, Scalar]
    tables: list[str] = Field(min_length=1)
    keys: dict[str, list[str]] = {}
    notes: list[str]
    df: float | None
    privacy: dict[str, Scalar] | None
    disclosure: _Treated


_ROWS = TypeAdapter(list[dict[str, Scalar]], config=ConfigDict(strict=True))


def _check(stored: Mapping[str, Any]) -> None:
    """Raise ValueError where a stored answer has not the form that `to_dict` gives."""
    form = _Stored.model_validate_json(json.dumps(stored))
    for name in form.tables:
        _ROWS.validate_python(stored[name])


def kept_back(answer: Answer) -> dict[str, Any]:
    """What of an answer is not published: parameters of disclosure control in `study` and `terms`."""
    _, study = public_study(answer.study)
    _, terms = public_terms(answer.terms.model_dump(mode="json"))
    return {"study": study, "terms": terms}


def read_answer(stored: Mapping[str, Any], kept: Mapping[str, Any] | None = None) -> Answer:
    """An answer from what `to_dict` gave and, of the run's own folder, what it kept back.

    Raises UsageError where it is damaged, of another version, or its terms are not those that the holders saw. Where
    options of the protection were kept back and are not given, the digest that is stated is taken.
    """
    kept = kept or {}
    found = stored.get("format", "none") if isinstance(stored, Mapping) else "none"
    if found != FORMAT:
        raise UsageError(f"result.json: got format {found}; want {FORMAT}, of this version")
    try:
        _check(stored)
        answer = Answer(
            run=stored["run"],
            created=stored["created"],
            title=stored["study_title"],
            study=restored(stored["study"], kept.get("study", {})),
            terms=Terms.model_validate(restored(stored["terms"], kept.get("terms", {}))),
            result=Result.from_dict(stored),
            engine=stored["engine"],
            drafted=stored["codebook_drafted"],
            sums=tuple(Sum(**{**one, "rules": tuple(one["rules"])}) for one in stored["sums"]),
            spending=tuple(Spending.model_validate(one) for one in stored["spending"]),
            learns=tuple(Disclosure(**row) for row in stored["learns"]),
            seconds=stored["seconds"],
            origin=stored["origin"],
            synthetic=stored["synthetic"],
            simulated=stored["simulated"],
            warnings=tuple(stored["warnings"]),
            phases=tuple(Phase.model_validate(one) for one in stored["phases"]),
            memory_mib=stored["memory_mib"],
            versions=stored["versions"],
            training=Trained.model_validate(stored["training"]) if stored["training"] else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError, ValidationError) as error:
        what = type(error).__name__
        raise UsageError(f"result.json: got one that is damaged ({what}); want one that a run wrote") from None
    stated = str(stored.get("study_digest"))
    if answer.study_digest != stated:
        module = load_protection(answer.terms.protection.name)
        if not kept.get("terms") and has_secrets(module) and re.fullmatch("[0-9a-f]{64}", stated):
            return replace(answer, digest=stated)
        raise UsageError("result.json: got terms whose digest is another than the one holders saw; want it as written")
    return answer


def load_answer(folder: Path) -> Answer:
    """The stored answer of a finished run. Raises UsageError when there is none or it cannot be read."""
    from statfed.federation.runs import read_status

    path = folder / "result.json"
    if not path.exists():
        state = read_status(folder)["state"]
        raise UsageError(f"run {folder.name}: no result, since it is {state}; see status.json and logs/ in {folder}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"run {folder.name}: result.json is damaged ({type(error).__name__})") from None
    try:
        return read_answer(stored, kept_in(folder))
    except UsageError as error:
        raise UsageError(f"run {folder.name}: {error}") from None


def spending_of(
    study: Resolved, admissions: Mapping[str, Admission], closings: Mapping[str, Closing]
) -> tuple[Spending, ...]:
    """What a run cost each holder that was there to its end."""
    privacy, found = study.privacy, []
    unit = privacy.unit if privacy else "record"
    rounds = int(getattr(study.question.options, "rounds", 1))
    for name in study.holders:
        if name not in closings:
            continue
        admission, closing = admissions[name], closings[name]
        found.append(
            Spending(
                holder=name,
                records=admission.size,
                persons=admission.persons,
                units=admission.size if unit == "record" else admission.persons,
                unit=privacy.unit if privacy else None,
                delta=privacy.delta if privacy else None,
                lifetime_delta=closing.delta,
                noise_multiplier=admission.noise_multiplier,
                sampling_rate=admission.sampling_rate,
                steps=admission.steps * rounds if admission.steps is not None else None,
                study_epsilon=closing.study_epsilon if privacy else None,
                history_epsilon=closing.history_epsilon,
                filter_epsilon=closing.filter_epsilon,
                share=closing.share,
                budget_epsilon=closing.budget_epsilon,
                more=closing.more,
                noise_to_signal=admission.noise_to_signal,
                disclosures=closing.disclosures,
                figures=closing.figures,
                most_figures=closing.most_figures,
                ledger_head=closing.ledger_head,
            )
        )
    return tuple(found)


def learns(study: Resolved) -> tuple[Disclosure, ...]:
    """Who learns what: the protection's own rows, then what every run of this package shows."""
    public = "nothing: declared public in the holder's policy"
    always = (
        ("coordinator", "each holder's public numbers of records and persons, and its ledger's head hash", public),
        (
            "coordinator",
            "whether a holder refuses; by which rule, where that does not depend on data",
            "those that do are one text, counted in the ledger and limited by policy; a rehearsal is told all",
        ),
        ("coordinator", "how long each holder computes each time", "nothing: time varies with its records"),
    )
    rows = [*study.protection.learns(study.terms), *(Disclosure(*row) for row in always)]
    return tuple(dict.fromkeys(rows))


def versions() -> dict[str, str]:
    """Of the packages that figures depend on."""
    names = ("flwr", "torch", "opacus", "numpy", "duckdb", "dp-accounting", "scikit-learn", "cryptography")
    found = {"statfed": VERSION, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
