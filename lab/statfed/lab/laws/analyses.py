"""`check_analysis`: every law of `statfed.core.method`, of an installed analysis by its name.

An analysis from outside brings `example() -> (options, codebook, frame)`: options, the codebook of a table and its
records, of all holders together, some 200 or more. Built-ins are asked about `universe`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.discovery import load, plugins
from statfed.core.errors import UsageError
from statfed.core.method import (
    PACKAGE,
    Analysis,
    Ask,
    Cells,
    Model,
    Part,
    Question,
    Total,
    checked,
    columns_read,
    read_question,
    summed,
)
from statfed.core.privacy.noise import plan
from statfed.core.progress import Progress, silent
from statfed.core.result import Result
from statfed.core.section import Section
from statfed.core.table import Table
from statfed.core.terms import Privacy, Terms
from statfed.lab.laws import universe
from statfed.lab.laws.check import Broken, Check, Lacking, Law, holds, judge
from statfed.lab.laws.frames import dealt, table_of

if TYPE_CHECKING:
    import pandas as pd

HOLDERS = 3


@dataclass(frozen=True)
class Case:
    """One example of an analysis. frame: the records of all holders together."""

    options: dict[str, Any]
    codebook: Codebook
    frame: "pd.DataFrame" = field(repr=False)


@dataclass(frozen=True)
class Subject:
    """An analysis under test."""

    name: str
    module: Any

    @property
    def cases(self) -> list[Case]:
        """Its examples. Raises Broken where it brings none, or something else."""
        if not plugins(PACKAGE).get(self.name):
            frame = universe.people(240, 3)
            return [Case(options, universe.CODEBOOK, frame) for options in universe.EXAMPLES[self.name]]
        make = getattr(self.module, "example", None)
        holds(callable(make), "example: missing; want `example() -> (options, codebook, frame)`")
        found = make()  # type: ignore[misc]  # callable, as was looked at
        holds(isinstance(found, tuple) and len(found) == 3, "example: want a tuple of options, Codebook and DataFrame")
        options, codebook, frame = found
        holds(isinstance(options, Mapping), f"example: options: got {type(options).__name__}; want a dict")
        holds(isinstance(codebook, Codebook), f"example: codebook: got {type(codebook).__name__}; want a Codebook")
        holds(len(frame) >= 50, f"example: got {len(frame)} records; want 50 or more, so that laws have something on")
        return [Case(dict(options), codebook, frame)]

    def query(self, case: Case, **more: Any) -> Terms:
        """The query of a case."""
        return Terms(method=self.name, options=case.options, codebook=case.codebook, holders=("a", "b"), seed=1, **more)


def _nested(question: Question[Any]) -> str | None:
    """The column whose values lie with one holder each, where the query rests on that."""
    read, codebook = columns_read(question), question.codebook
    for role in ("psu", "enterprise"):
        name = codebook.role(role)
        if name in read and not (role == "psu" and codebook.design.psu_spans_holders):
            return name
    return None


def _asks(subject: Subject, case: Case) -> Iterator[tuple[Analysis, Question[Any], Ask, Mapping[str, Part]]]:
    """Every ask of one run over a case's records, in order, with its parts."""
    module, question = read_question(subject.query(case))
    table = table_of(case.frame, case.codebook)
    run = module.coordinate(question)
    ask = next(run)
    while True:
        parts = module.parts(question, ask)
        yield module, question, ask, parts
        sent = checked(module.contribute(table, question, ask), parts, ask.name)
        try:
            ask = run.send(Total(summed({"all": sent}, parts)))
        except StopIteration:
            return


def _result(subject: Subject, case: Case, tables: Mapping[str, Table]) -> Result:
    """What both halves give over ready tables, one a holder."""
    module, question = read_question(subject.query(case))
    run, total = module.coordinate(question), None
    while True:
        try:
            ask = next(run) if total is None else run.send(total)
        except StopIteration as end:
            holds(isinstance(end.value, Result), f"coordinate: got {type(end.value).__name__}; want a Result")
            result: Result = end.value
            return result
        parts = module.parts(question, ask)
        sent = {name: checked(module.contribute(t, question, ask), parts, name) for name, t in tables.items()}
        total = Total(summed(sent, parts))


def _contract(subject: Subject) -> str:
    module = subject.module
    for name in (
        "TITLE",
        "GROUP",
        "PUSHES_DOWN",
        "Options",
        "columns",
        "coordinate",
        "parts",
        "contribute",
        "discloses",
    ):
        holds(hasattr(module, name), f"{name}: missing; want it, as statfed.core.method says")
    for name in ("TITLE", "GROUP", "PUSHES_DOWN"):
        text = getattr(module, name)
        holds(isinstance(text, str) and text.strip(), f"{name}: got {text!r}; want a line of text")
    holds(module.PUSHES_DOWN.startswith("all"), f'PUSHES_DOWN: got {module.PUSHES_DOWN!r}; want "all" or "all but ..."')
    holds(
        isinstance(module.Options, type) and issubclass(module.Options, Section),
        "Options: want a subclass of statfed.core.study.Section",
    )
    cases = subject.cases
    for case in cases:
        read_question(subject.query(case))
    return f"{len(module.Options.model_fields)} options; {len(cases)} examples of {len(cases[0].frame)} records"


def _additive(subject: Subject) -> str:
    looked = []
    for case in subject.cases:
        for module, question, ask, parts in _asks(subject, case):
            pieces = [*dealt(case.frame, _nested(question), HOLDERS), case.frame.iloc[:0]]
            tables = [table_of(piece, case.codebook) for piece in (case.frame, *pieces)]
            whole, *split = (checked(module.contribute(t, question, ask), parts, ask.name) for t in tables)
            for key, part in parts.items():
                total = np.sum([piece[key] for piece in split], axis=0)
                slack: Any = 0.0
                if not part.integer:
                    possible = np.minimum(np.asarray(part.bound), 1e9) * len(case.frame)  # what cancelled on the way
                    slack = 1e-9 * np.abs(whole[key]).max(initial=0) + 1e-13 * possible
                off = np.abs(total - whole[key])
                holds(
                    (off <= slack).all(),
                    f"{ask.name}: {key}: holders' contributions add up to something that is off by "
                    f"{np.max(off, initial=0):.3g} from what one holder of all records sends; want the same",
                )
                holds(not np.any(split[-1][key]), f"{ask.name}: {key}: an empty holder sent something; want zeros")
            looked.append(ask.name)
    return f"sums {', '.join(dict.fromkeys(looked))}, over {HOLDERS} holders and an empty one"


def _bounded(subject: Subject) -> str:
    """A query that reads primary sampling units sums over them, and its bounds are about those."""
    looked = 0
    for case in subject.cases:
        for module, question, ask, parts in _asks(subject, case):
            frame = case.frame.iloc[:50].reset_index(drop=True)
            design = question.codebook.role("psu") in columns_read(question)
            everything = module.contribute(table_of(frame, case.codebook), question, ask)
            for left_out in (0, 7, 23, 49):
                rest = module.contribute(table_of(frame.drop(index=left_out), case.codebook), question, ask)
                for key, part in parts.items():
                    whole, less = (np.asarray(sent[key], np.float64) for sent in (everything, rest))
                    change, slack = np.abs(whole - less), 1e-9 * (1 + np.abs(whole))
                    where = f"{ask.name}: {key}: one record"
                    bound = np.broadcast_to(part.bound, change.shape)
                    beyond = (change > bound + slack) & (not design)
                    if beyond.any():
                        got, most = change[beyond][0], bound[beyond][0]
                        raise Broken(f"{where} changes an entry by {got:.6g}; want at most {most:.6g}")
                    entries = np.count_nonzero(change > (0 if part.integer else slack))
                    alone = not part.single or entries <= 1
                    holds(alone, f"{where} changes {entries} entries; want 1, as `single` says")
                    looked += 1
    return f"{looked} times one record was left out"


def _order(subject: Subject) -> str:
    from statfed.lab.laws.runs import same

    figures = 0
    for case in subject.cases:
        _, question = read_question(subject.query(case))
        pieces = dealt(case.frame, _nested(question), HOLDERS)
        tables = {f"h{i}": table_of(piece, case.codebook) for i, piece in enumerate(pieces)}
        other = {f"h{i}": table_of(piece, case.codebook) for i, piece in enumerate(reversed(pieces))}
        one, two = (_result(subject, case, each).to_dict() for each in (tables, other))
        figures += same(two, one, 1e-9, 1e-12)
    return f"{figures} figures"


def _json(subject: Subject) -> str:
    for case in subject.cases:
        tables = {"a": table_of(case.frame, case.codebook), "b": table_of(case.frame.iloc[:0], case.codebook)}
        result = _result(subject, case, tables)
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
        for module, question, ask, _ in _asks(subject, case):
            disclosed = module.discloses(question, ask)
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


def _private(subject: Subject) -> str:
    if not hasattr(subject.module, "private"):
        return "has none, and is refused where noise is asked for"
    looked = []
    for case in subject.cases:
        privacy = Privacy(epsilon=1.0)
        try:
            module, question = read_question(subject.query(case, privacy=privacy))
        except UsageError:  # not with these options
            continue
        name, times = subject.module.private(question)
        noise = plan(module.parts(question, Ask(name)), privacy, times)
        for key, deviation in noise.std().items():
            holds(np.isfinite(deviation).all(), f"{name}: {key}: no finite bound; want one, for noise follows from it")
        looked.append(f"{name} ({times} times)")
    if not looked:
        raise Lacking("no example can be asked with noise; want one that can")
    return f"finite bounds of sums {', '.join(dict.fromkeys(looked))}"


def _protected(subject: Subject) -> str:
    from statfed.lab.laws.runs import asked, same

    figures = 0
    for case in subject.cases:
        _, question = read_question(subject.query(case))
        pieces = dealt(case.frame, _nested(question), HOLDERS)
        clear, hidden = (
            asked(subject.name, case.options, case.codebook, pieces, name).to_dict()
            for name in ("plain", "secure-aggregation")
        )
        figures += same(hidden, clear, 1e-7, 1e-9)
    return f"{figures} figures as under plain"


CONTRACT: Law[Subject] = Law("contract", "The module has what the contract asks for, and an example", _contract)
LAWS: tuple[Law[Subject], ...] = (
    CONTRACT,
    Law("additive", "Contributions add up over any split of the records; an empty holder sends zeros", _additive),
    Law("bounded", "No record changes an entry by more than its bound", _bounded),
    Law("order", "The result does not depend on the order of the holders", _order),
    Law("json", "Results are JSON without NaN, and have a summary", _json),
    Law("names", "What it reads and what an ask discloses are columns of the codebook", _names),
    Law("private", "A form with noise has finite bounds", _private),
    Law("protected", "It gives under secure-aggregation, over the wire, what it gives under plain", _protected),
)


def check_analysis(name: str, progress: Progress = silent) -> list[Check]:
    """Every law on the analysis `name`, built-in or from outside; the contract alone where it breaks that.

    Raises UsageError on an unknown name, and where a plugin cannot be imported.
    """
    subject = Subject(name, load(PACKAGE, name, "analysis"))
    first = judge((CONTRACT,), subject, silent)
    if not first[0].passed:
        return first
    return first + judge(LAWS[1:], subject, progress)
