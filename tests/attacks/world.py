"""Holders with their data and policies, and the two parties who would like to know more than they are told.

`World.release` is what an analyst gets from an honest coordinator: the sums of all holders, after the rules of the
release. `World.session` is the coordinator itself: it writes every ask and its arrays, in any order, and sees what each
holder answers. Both go through `Holder.answer`, as in every engine: policy, ledger, rules and the memory of
releases are the real ones. Under the template rehearsal there is no memory.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from statfed.client.guard.policy import Budget, Dataset, HolderName, Policy, write_policy
from statfed.client.guard.register import point
from statfed.client.guard.templates import Template, made
from statfed.client.holder import Holder
from statfed.core import VERSION
from statfed.core.codebook import Codebook
from statfed.core.conditions import parse_where
from statfed.core.disclosure import Rules
from statfed.core.errors import EngineError, LedgerCorrupt, Refused, UsageError
from statfed.core.method import Arrays, Ask, Cells, Total, summed
from statfed.core.randomness import stream
from statfed.core.resolve import Resolved, resolve
from statfed.core.result import Result
from statfed.core.statement import Statement, Step, outside
from statfed.core.terms import Terms
from statfed.server.disclosure.history import Asked
from statfed.server.disclosure.memory import open_memory
from statfed.server.disclosure.release import release

NO = (Refused, UsageError, EngineError)
"""How the system says no: to an attacker all the same."""


class No(Exception):
    """The answer of a holder or of the release that tells nothing but that there is none."""


@dataclass
class World:
    """Holders under one policy. home: an empty folder; template: of the policies; rules: of the release; changes:
    sections of the policies."""

    home: Path
    frames: Mapping[str, pd.DataFrame]
    codebook: Codebook
    template: Template = "standard"
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: Rules = Rules()  # noqa: RUF009  # frozen
    refusals: int = 0
    questions: int = 0

    def __post_init__(self) -> None:
        self.holders = {name: self._open(name, frame) for name, frame in self.frames.items()}

    def _open(self, name: str, frame: pd.DataFrame) -> Holder:
        folder = self.home / name
        folder.mkdir(parents=True, mode=0o700)
        frame.to_parquet(folder / "data.parquet")
        point(folder, self.home / "register.sqlite")
        policy = policy_of(name, frame, self.codebook, len(self.frames), self.template, self.changes)
        write_policy(policy, folder / "policy.toml")
        return Holder(folder)

    def terms(
        self,
        method: str,
        options: Mapping[str, Any],
        where: Sequence[str] = (),
        codebook: Codebook | None = None,
        holders: Sequence[str] = (),
        **more: Any,
    ) -> Terms:
        """A question in the form that holders are asked."""
        book = codebook or self.codebook
        return Terms(
            method=method,
            options=dict(options),
            codebook=book,
            where=parse_where(where, book),
            holders=tuple(holders or self.holders),
            seed=None,
            **more,
        )

    def session(self, method: str, options: Mapping[str, Any], where: Sequence[str] = (), **more: Any) -> "Session":
        """The coordinator's view of one study. Raises No where it cannot be written down or is not admitted."""
        self.questions += 1
        try:
            made = Session(self, self.terms(method, options, where, **more))
        except NO as error:
            raise self._no(error) from None
        made.admit()
        return made

    def release(
        self,
        method: str,
        options: Mapping[str, Any] | None = None,
        where: Sequence[str] = (),
        rules: Rules | None = None,
        **more: Any,
    ) -> Result:
        """What an analyst is told. Raises No where that is nothing."""
        session = self.session(method, options or {}, where, **more)
        try:
            result = session.run()
            book, applied = session.study.terms.codebook, rules or self.rules
            source = stream(self.questions, "attack", "release")
            if self.template == "rehearsal":
                return release(result, book, applied, source=source)
            with open_memory(self.home / "memory.jsonl") as memory:
                return release(result, book, applied, source=source, asked=session.asked(), memory=memory)
        except NO as error:
            raise self._no(error) from None
        finally:
            session.close()

    def asked(self, method: str, options: Mapping[str, Any] | None = None, *words: Any, **more: Any) -> Result | None:
        """`release`, or None where there is none."""
        with suppress(No):
            return self.release(method, options, *words, **more)
        return None

    def _no(self, error: Exception) -> No:
        self.refusals += 1
        return No(str(error))

    def close(self) -> None:
        """Let go of the data."""
        for holder in self.holders.values():
            holder._contributions.close()


class Session:
    """One study as its coordinator sees it."""

    def __init__(self, world: World, terms: Terms) -> None:
        self.world, self.terms, self.round = world, terms, 0
        self.study: Resolved = resolve(terms)
        self.run_name = f"run-{world.questions}"
        self.made: list[str] = []

    def _say(self, holder: str, step: Step, ask: str = "", arrays: Arrays | None = None) -> Any:
        sizes = {name: self.world.holders[name].policy.dataset.records for name in self.terms.holders}
        statement = Statement(
            version=VERSION,
            run=self.run_name,
            step=step,
            round=self.round,
            ask=ask,
            sizes=sizes,
            outside=outside(self.terms),
            terms=self.terms,
        )
        return self.world.holders[holder].answer(json.dumps(statement.model_dump(mode="json")), dict(arrays or {}))

    def admit(self) -> None:
        """Have every holder admit the study. Raises No."""
        try:
            for name in self.terms.holders:
                self._say(name, "admit")
        except (*NO, LedgerCorrupt) as error:
            raise self.world._no(error) from None

    def ask(self, name: str, arrays: Arrays | None = None, holder: str = "") -> dict[str, np.ndarray]:
        """One sum, over all holders or what one of them sends. Raises No where any holder refuses."""
        self.round += 1
        self.made.append(name)
        given = {key: np.asarray(array) for key, array in (arrays or {}).items()}
        try:
            parts = self.study.parts(Ask(name, given))
            names = (holder,) if holder else self.terms.holders
            sent = {one: dict(self._say(one, "ask", name, given).packet or {}) for one in names}
            return summed(sent, parts)
        except (*NO, LedgerCorrupt) as error:
            raise self.world._no(error) from None

    def run(self) -> Result:
        """The method's own course, as an honest coordinator follows it."""
        course = self.study.method.coordinate(self.study.question)
        total: Total | None = None
        refused: Refused | None = None
        while True:
            try:
                ask = course.throw(refused) if refused else course.send(total)  # type: ignore[arg-type]
            except StopIteration as end:
                made: Result = end.value
                return made
            refused = None
            try:
                total = Total(self.ask(ask.name, ask.arrays))
            except No as error:
                refused = Refused(str(error))

    def asked(self) -> Asked:
        """What the coordinator compares with earlier releases."""
        told = [self.study.method.discloses(self.study.question, Ask(name)) for name in dict.fromkeys(self.made)]
        values = [name for one in told if isinstance(one, Cells) for name in one.values]
        complete = [name for one in told for name in one.complete]
        return Asked(
            study=self.study.digest,
            method=self.terms.method,
            where=self.terms.where,
            values=tuple(dict.fromkeys(values)),
            complete=tuple(dict.fromkeys(complete)),
            holders={name: name for name in self.terms.holders},
            codebook=self.terms.codebook,
        )

    def close(self) -> None:
        """End the study at every holder."""
        for name in self.terms.holders:
            with suppress(*NO):
                self._say(name, "release")


def policy_of(
    name: str,
    frame: pd.DataFrame,
    codebook: Codebook,
    holders: int,
    rules: Template,
    changes: Mapping[str, Mapping[str, Any]],
) -> Policy:
    """The policy of one of so many holders, from a template, with changes by section. Contributions travel in plain,
    so that a coordinator sees what each holder sends: more than it would be shown."""
    unit = codebook.role("unit")
    persons = int(frame[unit].nunique()) if unit in frame else len(frame)
    policy = made(
        rules,
        holder=HolderName(name=name),
        dataset=Dataset(
            id=name,
            path="data.parquet",
            records=len(frame),
            persons=persons,
            codebooks=(codebook.digest(),) if rules == "standard" else (),
        ),
        budget=Budget(unit="record", epsilon=20.0, delta=1e-6),
    )
    given = policy.model_dump()
    given["allow"]["protections"] = ["plain"]
    given["minimum"]["holders"] = min(holders, given["minimum"]["holders"])
    for section, keys in changes.items():
        given[section] |= dict(keys)
    return Policy.model_validate(given)
