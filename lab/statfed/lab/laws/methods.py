"""`check_method`: every law of `statfed.core.method`, of an installed method by its name, of statistics or of training.

A method from outside brings `example() -> (options, codebook, frame)`: options, the codebook of a table and its
records, of all holders together, some 200 or more. Built-ins are asked about `universe`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from statfed.client.guard.disclosure import undeclared
from statfed.core.codebook import Codebook
from statfed.core.discovery import plugins
from statfed.core.errors import UsageError
from statfed.core.method import (
    Cells,
    Model,
    Part,
    Public,
    Update,
    columns_read,
    is_training,
    load_method,
    package_of,
    read_question,
)
from statfed.core.progress import Progress, silent
from statfed.core.result import Result
from statfed.core.section import Section
from statfed.core.terms import Privacy, Terms
from statfed.lab.laws import declared, universe
from statfed.lab.laws.budgets import accounted, private_form
from statfed.lab.laws.check import Broken, Check, Lacking, Law, holds, judge
from statfed.lab.laws.errors import told
from statfed.lab.laws.frames import dealt, holder_table, size_of
from statfed.lab.laws.precision import SAME, WIDER, precise, wide
from statfed.lab.laws.walk import Step, finished, steps

if TYPE_CHECKING:
    import pandas as pd

HOLDERS = 3
CALLED = ("TITLE", "GROUP", "PUSHES_DOWN", "Options", "columns", "coordinate", "parts", "contribute", "discloses")


@dataclass(frozen=True)
class Case:
    """One example of a method. frame: the records of all holders together."""

    options: dict[str, Any]
    codebook: Codebook
    frame: "pd.DataFrame" = field(repr=False)


@dataclass(frozen=True)
class Subject:
    """A method under test. example: which of its examples; all of them by default."""

    name: str
    module: Any
    example: int | None = None

    @property
    def training(self) -> bool:
        """Does it train a model?"""
        return is_training(self.name)

    @property
    def cases(self) -> list[Case]:
        """Its examples. Raises Broken where it brings none, or something else."""
        if not plugins(package_of(self.name)).get(self.name):
            frame = universe.people(240, 3)
            made = [Case(options, universe.CODEBOOK, frame) for options in universe.examples_of(self.name)]
        else:
            made = [self._brought()]
        return made if self.example is None else [made[self.example]]

    def _brought(self) -> Case:
        make = getattr(self.module, "example", None)
        holds(callable(make), "example: missing; want `example() -> (options, codebook, frame)`")
        found = make()  # type: ignore[misc]  # callable, as was looked at
        holds(isinstance(found, tuple) and len(found) == 3, "example: want a tuple of options, Codebook and DataFrame")
        options, codebook, frame = found
        holds(isinstance(options, Mapping), f"example: options: got {type(options).__name__}; want a dict")
        holds(isinstance(codebook, Codebook), f"example: codebook: got {type(codebook).__name__}; want a Codebook")
        holds(len(frame) >= 50, f"example: got {len(frame)} records; want 50 or more, so that laws have something on")
        return Case(dict(options), codebook, frame)

    def terms(self, case: Case, holders: int = 1, privacy: Privacy | None = None) -> Terms:
        """A study of a case, with noise where there is no other form. Raises UsageError where the case is refused."""
        from statfed.core.applicability import obstacles

        names = tuple(f"h{i + 1}" for i in range(holders))
        terms = Terms(method=self.name, options=case.options, codebook=case.codebook, holders=names, seed=1)
        read_question(terms)
        if privacy is None and self.training and obstacles(terms):
            privacy = universe.NOISE
        return terms.model_copy(update={"privacy": privacy})


def _nested(subject: Subject, case: Case) -> str | None:
    """The column whose values lie with one holder each, where the study rests on that."""
    read, codebook = columns_read(read_question(subject.terms(case))[1]), case.codebook
    for role in ("psu", "enterprise"):
        name = codebook.role(role)
        if name in read and not (role == "psu" and codebook.design.psu_spans_holders):
            return name
    return None


def _steps(subject: Subject, case: Case) -> Iterator[Step]:
    """Every ask of one run over a case's records at one holder, in order."""
    return steps(subject.terms(case), {"h1": case.frame})


def _result(subject: Subject, case: Case, frames: "list[pd.DataFrame]") -> Result:
    """What both halves give over frames, one a holder."""
    terms = subject.terms(case, len(frames))
    found = finished(terms, dict(zip(terms.holders, frames, strict=True)))
    if not isinstance(found, Result):
        raise Broken(f"coordinate: got {type(found).__name__}; want a Result")
    return found


def _contract(subject: Subject) -> str:
    module = subject.module
    for name in CALLED:
        holds(hasattr(module, name), f"{name}: missing; want it, as statfed.core.method says")
    for name in ("TITLE", "GROUP", "PUSHES_DOWN"):
        text = getattr(module, name)
        holds(isinstance(text, str) and text.strip(), f"{name}: got {text!r}; want a line of text")
    holds(module.PUSHES_DOWN.startswith("all"), f'PUSHES_DOWN: got {module.PUSHES_DOWN!r}; want "all" or "all but ..."')
    holds(
        isinstance(module.Options, type) and issubclass(module.Options, Section),
        "Options: want a subclass of statfed.core.section.Section",
    )
    if getattr(module, "WITHIN", False):
        linked = getattr(module, "LINKED", False) and not hasattr(module, "budget")
        holds(linked, "WITHIN: got it without LINKED, or with a budget; want LINKED, and no form with noise")
    cases = subject.cases
    for case in cases:
        read_question(subject.terms(case))
    return f"{len(module.Options.model_fields)} options; {len(cases)} examples of {len(cases[0].frame)} records"


def _over_records(subject: Subject, parts: Mapping[str, Part]) -> Iterator[tuple[str, Part]]:
    """Parts that are sums over records: neither of training at a holder, nor of what holders find among their records
    together, nor the same whatever the data are."""
    if getattr(subject.module, "WITHIN", False):
        return iter(())
    return ((key, part) for key, part in parts.items() if not isinstance(part.what, Update | Public))


def _additive(subject: Subject) -> str:
    looked = []
    for case in subject.cases:
        pieces = [*dealt(case.frame, _nested(subject, case), HOLDERS), case.frame.iloc[:0]]
        for step in _steps(subject, case):
            ask = step.ask.name
            split = [step.sent(holder_table(piece, case.codebook)) for piece in pieces]
            for key in step.parts if getattr(subject.module, "WITHIN", False) else ():
                holds(not np.any(split[-1][key]), f"{ask}: {key}: an empty holder sent something; want zeros")
            for key, part in _over_records(subject, step.parts):
                total, whole = np.sum([piece[key] for piece in split], axis=0), step.contributions["h1"][key]
                slack: Any = 0.0
                if not part.integer:
                    possible = np.minimum(np.asarray(part.bound), 1e9) * len(case.frame)  # what cancelled on the way
                    slack = 1e-9 * np.abs(whole).max(initial=0) + 1e-13 * possible
                off = np.abs(total - whole)
                holds(
                    (off <= slack).all(),
                    f"{ask}: {key}: holders' contributions add up to something that is off by "
                    f"{np.max(off, initial=0):.3g} from what one holder of all records sends; want the same",
                )
                holds(not np.any(split[-1][key]), f"{ask}: {key}: an empty holder sent something; want zeros")
                looked.append(ask)
    if not looked:
        return "has no sums over records: what leaves is of training, or of what holders find within their records"
    return f"sums {', '.join(dict.fromkeys(looked))}, over {HOLDERS} holders and an empty one"


def _public(subject: Subject) -> str:
    """Holders of one public size and other records."""
    looked = []
    for case in subject.cases:
        size = size_of(case.frame, case.codebook)
        for step in _steps(subject, case):
            named = [key for key, part in step.parts.items() if isinstance(part.what, Public)]
            for piece in (case.frame.iloc[:7], case.frame.iloc[7:]) if named else ():
                sent = step.sent(holder_table(piece, case.codebook, size))
                for key in named:
                    same = np.array_equal(sent[key], step.contributions["h1"][key])
                    text = "got other figures of other records; want the same, or not Public"
                    holds(same, f"{step.ask.name}: {key}: {text}")
            looked += [f"{step.ask.name}: {key}" for key in named]
    return ", ".join(dict.fromkeys(looked)) or "no part is declared public"


def _declared(subject: Subject) -> str:
    looked, noisy = [], _noisy_cases(subject)
    asked = [(case, subject.terms(case)) for case in subject.cases] + noisy
    for case, terms in asked:
        linked = getattr(subject.module, "LINKED", False) and terms.privacy is None
        for step in steps(terms, {"h1": case.frame}):
            if linked:
                said = [name for name, part in step.parts.items() if part.what is not None]
                holds(not said, f"{step.ask.name}: {', '.join(said)}: declared; want nothing said of LINKED sums")
                continue
            discloses = step.study.method.discloses(step.study.question, step.ask)
            astray = undeclared(step.parts, discloses, declared.says_weights(step.study.method, discloses, bool(noisy)))
            holds(
                not astray,
                f"{step.ask.name}: {', '.join(astray)}: not declared, or as what does not go with {discloses!r}; want "
                "`what` of every part",
            )
            looked += [f"{step.ask.name}.{name}" for name in step.parts]
    return f"{len(dict.fromkeys(looked))} parts"


def _said(law: Law[declared.Subject]) -> Law[Subject]:
    """A law of what parts and results say of themselves."""

    def test(subject: Subject) -> str:
        found = []
        for case in subject.cases:
            method, question = read_question(subject.terms(case))
            found.append(law.test(declared.Subject(method, question, case.frame)))
        return "; ".join(dict.fromkeys(found))

    return Law(law.id, law.title, test)


def _bounded(subject: Subject) -> str:
    """A study that reads primary sampling units sums over them, and its bounds are about those."""
    looked = 0
    for case in subject.cases:
        frame = case.frame.iloc[:50].reset_index(drop=True)
        for step in _steps(subject, case):
            question = step.study.question
            design = question.codebook.role("psu") in columns_read(question)
            everything = step.sent(holder_table(frame, case.codebook))
            for left_out in (0, 7, 23, 49):
                rest = step.sent(holder_table(frame.drop(index=left_out), case.codebook))
                for key, part in _over_records(subject, step.parts):
                    looked += 1
                    _one_record(f"{step.ask.name}: {key}: one record", part, everything[key], rest[key], design)
    return f"{looked} times one record was left out"


def _one_record(where: str, part: Part, everything: Any, rest: Any, design: bool) -> None:
    whole, less = (np.asarray(sent, np.float64) for sent in (everything, rest))
    change, slack = np.abs(whole - less), 1e-9 * (1 + np.abs(whole))
    bound = np.broadcast_to(part.bound, change.shape)
    beyond = (change > bound + slack) & (not design)
    if beyond.any():
        raise Broken(f"{where} changes an entry by {change[beyond][0]:.6g}; want at most {bound[beyond][0]:.6g}")
    entries = np.count_nonzero(change > (0 if part.integer else slack))
    alone = not part.single or entries <= 1
    holds(alone, f"{where} changes {entries} entries; want 1, as `single` says")
    if part.together is not None:
        there = bound > 0
        moved = np.maximum(change[there] - slack[there], 0.0) / bound[there]
        norms = float(moved.sum()), float(np.sqrt((moved**2).sum()))
        within = all(norm <= most * (1 + 1e-9) for norm, most in zip(norms, part.together, strict=True))
        holds(within, f"{where} changes entries by {norms} bounds; want {part.together} at most, as `together` says")


def _private_bounds(subject: Subject) -> str:
    """Noise is scaled to bounds: a bound that is too small is a false epsilon. Records at the corners of the codebook
    are added one by one to what every ask of a private run is about."""
    looked = 0
    for case, terms in _noisy_cases(subject):
        frame = case.frame.iloc[:50].reset_index(drop=True)
        for step in steps(terms, {"h1": case.frame}):
            if not any(_over_records(subject, step.parts)):
                continue
            question, size = step.study.question, size_of(case.frame, case.codebook)
            design = question.codebook.role("psu") in columns_read(question)
            before = step.sent(holder_table(frame, case.codebook, size))
            for number, more in enumerate(_corners(case, frame)):
                after = step.sent(holder_table(more, case.codebook, size))
                for key, part in _over_records(subject, step.parts):
                    looked += 1
                    where = f"{step.ask.name}, private: {key}: record {number} at the bounds"
                    _one_record(where, part, after[key], before[key], design)
    return f"{looked} times a record at the bounds was added" if looked else NO_FORM


def _corners(case: Case, frame: "pd.DataFrame") -> Iterator["pd.DataFrame"]:
    """The frame with one record more: every number at a bound, high, low and either; every level by turns."""
    import pandas as pd

    rng = np.random.default_rng(4)
    for number in range(6):
        record = frame.iloc[[number]].copy()
        for name, column in case.codebook.columns.items():
            if name not in record:
                continue
            if column.levels:
                level = column.levels[number % len(column.levels)]
                record[name] = level == "true" if column.type == "boolean" else level
            elif column.type in ("number", "integer") and column.bounds is not None:
                high = number % 2 == 0 if number < 4 else bool(rng.integers(2))
                bound = column.bounds[1] if high else column.bounds[0]
                record[name] = int(bound) if column.type == "integer" else bound
            elif column.type == "id":
                record[name] = "one more"
        yield pd.concat([frame, record.astype(frame.dtypes.to_dict())], ignore_index=True)


def _order(subject: Subject) -> str:
    from statfed.lab.laws.runs import same

    figures = 0
    for case in subject.cases:
        pieces = dealt(case.frame, _nested(subject, case), HOLDERS)
        one, two = (_result(subject, case, each).to_dict() for each in (pieces, pieces[::-1]))
        figures += same(two, one, _close(subject, 1e-9), 1e-12)
    return f"{figures} figures"


def _close(subject: Subject, relative: float) -> float:
    """Relative differences that rounding makes: of models it is that of single precision, over several steps."""
    return 1e-4 if subject.training else relative


def _accounted(subject: Subject) -> str:
    """Of exact results. The universe has records with missing values."""
    looked = 0
    for case in subject.cases:
        if subject.terms(case).privacy is not None:
            return "of exact results alone"
        facts = _result(subject, case, dealt(case.frame, _nested(subject, case), HOLDERS)).facts
        known = {name: facts[name] for name in ("observations", "missing", "left_out", "records") if name in facts}
        if not known and plugins(package_of(subject.name)).get(subject.name):
            return "tells no numbers of records"
        if "records" in known:
            holds(known["records"] == len(case.frame), f"facts: got {known}; want {len(case.frame)} records")
        else:
            added = sum(int(value or 0) for value in known.values())
            holds(
                len(known) > 1 and added == len(case.frame),
                f"facts: got {known}; want observations, missing and left_out, which add up to {len(case.frame)}",
            )
        looked += 1
    return f"{looked} examples"


def _json(subject: Subject) -> str:
    for case in subject.cases:
        result = _result(subject, case, [case.frame, case.frame.iloc[:0]])
        try:
            json.dumps(result.to_dict(), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise Broken(f"result: {error}; want text, finite numbers, booleans and None") from None
        holds(result.title in result.summary(), "result: summary() does not show the title")
        holds(result.tables, "result: got no table; want one at least")
    return "also where one holder has no records"


def _names(subject: Subject) -> str:
    looked = []
    for case in subject.cases:
        known = case.codebook.columns
        levels = {name for name, column in known.items() if column.levels}
        for step in _steps(subject, case):
            ask, question = step.ask, step.study.question
            disclosed = subject.module.discloses(question, ask)
            holds(isinstance(disclosed, Cells | Model), f"{ask.name}: got {disclosed!r}; want Cells or a Model")
            by = disclosed.by if isinstance(disclosed, Cells) else ()
            values = disclosed.values if isinstance(disclosed, Cells) else ()
            read = columns_read(question)
            strange = sorted(({*values, *disclosed.complete, *read} - set(known)) | (set(by) - levels))
            holds(not strange, f"{ask.name}: got {', '.join(strange)}; want columns of the codebook, with levels in by")
            unread = sorted({*by, *values, *disclosed.complete} - set(read))
            holds(
                not unread, f"{ask.name}: discloses {', '.join(unread)}, which `columns` does not name; want it there"
            )
            looked.append(f"{ask.name}: {type(disclosed).__name__.lower()}")
    return ", ".join(dict.fromkeys(looked))


def _private_cases(subject: Subject) -> list[tuple[Case, Terms]]:
    """The examples that can be asked with noise. Raises Lacking where there is none, though there could be."""
    found = _noisy_cases(subject)
    if not found and hasattr(subject.module, "budget"):
        raise Lacking("no example can be asked with noise; want one that can")
    return found


def _noisy_cases(subject: Subject) -> list[tuple[Case, Terms]]:
    found = []
    for case in subject.cases:
        terms = subject.terms(case, privacy=universe.NOISE)
        try:
            read_question(terms)
        except UsageError:  # not with these options
            continue
        found.append((case, terms))
    return found


NO_FORM = "has none, and is refused where noise is asked for"


def _private(subject: Subject) -> str:
    looked = [one for case, terms in _private_cases(subject) for one in private_form(terms, case.frame)]
    return f"finite noise of sums {', '.join(dict.fromkeys(looked))}" if looked else NO_FORM


def _budget(subject: Subject) -> str:
    looked = [accounted(terms, case.frame) for case, terms in _private_cases(subject)]
    return "; ".join(dict.fromkeys(looked)) if looked else NO_FORM


def _errors(subject: Subject) -> str:
    found = [ratio for case, terms in _noisy_cases(subject) for ratio in told(terms, case.frame)]
    if not found:
        return "shows no standard errors under noise"
    return f"{len(found)} figures; spread over standard error {max(found):.2f} at most"


def _protected(subject: Subject) -> str:
    from statfed.lab.laws.runs import asked, same

    figures = 0
    for case in subject.cases:
        pieces = dealt(case.frame, _nested(subject, case), HOLDERS)
        privacy = subject.terms(case).privacy
        clear, hidden = (
            asked(subject.name, case.options, case.codebook, pieces, name, privacy)
            for name in ("plain", "secure-aggregation")
        )
        if privacy is None:
            figures += same(hidden.to_dict(), clear.to_dict(), _close(subject, 1e-7), 1e-9)
        for key, array in clear.arrays.items():  # noise of scores is drawn anew under another protection
            off = float(np.abs(np.asarray(hidden.arrays[key]) - np.asarray(array)).max(initial=0))
            holds(off <= 1e-4, f"{key}: off by {off:.2g} from that under plain; want the same")
            figures += np.size(array)
    return f"{figures} figures as under plain"


def _precise(subject: Subject) -> str:
    refused: dict[float, str] = {}
    looked: dict[float, str] = {}
    for case in subject.cases:
        terms = subject.terms(case, HOLDERS)
        pieces = dealt(case.frame.iloc[:120], _nested(subject, case), HOLDERS)
        found = precise(terms, pieces, WIDER if wide(terms) else (1.0,))
        looked |= found
        refused |= {times: why for times, why in found.items() if why != SAME}
    kept = f"; refused at {', '.join(f'{times:g}' for times in refused)}" if refused else ""
    return f"bounds up to {max(looked):g} times as wide{kept}"


CONTRACT: Law[Subject] = Law("contract", "The module has what the contract asks for, and an example", _contract)
LAWS: tuple[Law[Subject], ...] = (
    CONTRACT,
    Law("additive", "Contributions add up over any split of the records; an empty holder sends zeros", _additive),
    Law("public", "What is declared public is the same whatever the records are", _public),
    Law("declared", "Every part says what it is, and that goes with what the ask discloses", _declared),
    Law("bounded", "No record changes an entry by more than its bound", _bounded),
    Law("private bounds", "In a private run no record at the bounds changes an entry by more", _private_bounds),
    Law("order", "The result does not depend on the order of the holders", _order),
    Law("json", "Results are JSON without NaN, and have a summary", _json),
    Law("names", "What it reads and what an ask discloses are columns of the codebook", _names),
    Law("private", "A form with noise has finite bounds, and makes the asks that its budget says", _private),
    Law("budget", "What is charged over a private run is what was claimed, in several attempts too", _budget),
    Law("protected", "It gives under secure-aggregation, over the wire, what it gives under plain", _protected),
)
"""Of every method."""
PRECISE: Law[Subject] = Law(
    "precise", "In fixed point figures are as without it, or refused, whatever the bounds", _precise
)
SAID = tuple(_said(law) for law in (*declared.LEAVES, *declared.SHOWS) if law.id not in ("declared", "public"))
"""Of statistics alone; what leaves in training is of a model. Two of `statfed.lab.laws.declared` hold of both."""


ACCOUNTED: Law[Subject] = Law(
    "records", "Records used, those that miss a value and those left out add up to all", _accounted
)
ERRORS: Law[Subject] = Law(
    "errors", "Private figures differ between releases by no more than their standard errors and limits say", _errors
)
"""Of statistics."""


def laws_of(name: str) -> tuple[Law[Subject], ...]:
    """The laws of a method."""
    return LAWS if is_training(name) else (*LAWS, ACCOUNTED, *SAID, PRECISE, ERRORS)


def check_method(name: str, progress: Progress = silent) -> list[Check]:
    """Every law on the method `name`, built-in or from outside; the contract alone where it breaks that.

    Raises UsageError on an unknown name, and where a plugin cannot be imported.
    """
    subject = Subject(name, load_method(name))
    first = judge((CONTRACT,), subject, silent)
    if not first[0].passed:
        return first
    return first + judge(laws_of(name)[1:], subject, progress)
