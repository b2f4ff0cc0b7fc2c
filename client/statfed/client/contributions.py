"""What a holder's contributions are made of: its data, kept open for a run, and control of what leaves in the clear.

Exact contributions pass the holder's disclosure rules and its differencing guard before they leave. The rules do not
apply to private ones, since their guarantee does not depend on the data. What leaves for a coordinator that adds the
noise (`statfed.core.privacy.placement`, central) is both: charged, since the release costs that, and exact towards the
coordinator.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Timer
from typing import Any

import ibis

from statfed.client.data.tables import Source, connect, inspect, open_table
from statfed.client.guard.admission import weighing
from statfed.client.guard.differencing import FILE as RELEASES
from statfed.client.guard.differencing import LINKED, Releases
from statfed.client.guard.disclosure import check, reads, without_few
from statfed.client.guard.policy import Policy
from statfed.client.linking import key_of
from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import InPlace
from statfed.core.method import Arrays, Ask, Cells, Counts, Model, Part, read_question
from statfed.core.privacy.spending import Price
from statfed.core.randomness import Stream
from statfed.core.resolve import Resolved
from statfed.core.table import Size, Table
from statfed.core.terms import Protection
from statfed.core.weighing import Cuts

log = logging.getLogger("statfed.holder")


@dataclass
class _Kept:
    """What methods keep of these very data. state: of the data; by study and bound a unit."""

    state: str = ""
    by: dict[tuple[str, int | None], dict[Any, Any]] = field(default_factory=dict)


class Contributions:
    """The data of one holder, and what may leave of them. home: its folder."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._source: tuple[str, Source] | None = None
        self._began: dict[str, str] = {}
        self._plain: dict[tuple[str, str], frozenset[str]] = {}
        self._passed: dict[tuple[str, str, Rules, Cells | Model], tuple[str, ...]] = {}
        self._kept = _Kept()

    def provable(self, run: str, study: Resolved, policy: Policy, size: Size) -> None:
        """Raises Refused where the proof of the noise does not cover this holder's database, or its rules could not
        follow what a central study sums."""
        source = self._open(run, policy)
        if study.budget is not None and not study.own_noise and not source.embedded:
            most = study.most_summed(size)
            if size.records > most:
                raise Refused(
                    f"privacy: this holder's database adds floats up without compensation, for which the proof of the "
                    f"noise covers {most:,} records; want its data in Parquet or DuckDB"
                )
        _guardable(study, policy.disclosure)

    def state(self, run: str, policy: Policy) -> str:
        """Names the data as they are now, opened for a run; of a server, whose changes show nowhere, it is the run."""
        source = self._open(run, policy)
        return source.fingerprint() if source.embedded else run

    def selected(self, run: str, study: Resolved, policy: Policy) -> int:
        """How many records the conditions of a study select."""
        source, plain = self.checked(run, study, policy)
        table = open_table(source, study.codebook, study.where, study.columns, plain=plain)
        return int(table.aggregate(records=ibis._.count())["records"])

    def table(
        self, run: str, study: Resolved, policy: Policy, paid: Price | None, random: Callable[[str], Stream]
    ) -> Table:
        """The records that a study looks at, found to fit the codebook. random: streams of this ask, by purpose."""
        source, plain = self.checked(run, study, policy)
        bound = None if paid and paid.mechanism else per_unit(study)
        table = open_table(source, study.codebook, study.where, study.columns, bound, plain)
        state = source.fingerprint() if source.embedded else run
        if self._kept.state != state:
            self._kept = _Kept(state)
        kept = self._kept.by.setdefault((study.digest, bound), {})
        compensated = paid is not None and paid.noise is not None and table.embedded
        size = Size(policy.dataset.records, policy.dataset.persons)
        return replace(table, compensated=compensated, size=size, random=random, kept=kept)

    def _open(self, run: str, policy: Policy) -> Source:
        """The data source, kept open for one run."""
        if self._source is None or self._source[0] != run:
            self.close()
            try:
                self._source = (run, connect(policy.dataset.path, self._home))
            except UsageError as error:  # of the source nothing travels: where it is, is this holder's own business
                log.error("data: %s", error)
                raise UsageError("this holder's data cannot be opened; its own log says why") from None
        source, most = self._source[1], policy.limits.memory
        if source.embedded and most is not None:
            _engine(source).execute(f"SET memory_limit = '{most}MB'")
        return source

    @contextmanager
    def within(self, run: str, policy: Policy) -> Iterator[None]:
        """Interrupt what the database does in this process when it takes longer than the policy's `limits.seconds`.

        The engine then raises. A server's queries have its own limit (PostgreSQL: statement_timeout of the role).
        """
        source, seconds = self._open(run, policy), policy.limits.seconds
        if not source.embedded or seconds is None:
            yield
            return
        timer = Timer(seconds, _engine(source).interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # one that is firing is about these queries and not about later ones

    def checked(self, run: str, study: Resolved, policy: Policy) -> tuple[Source, frozenset[str]]:
        """The data source, found to fit the codebook, and its columns that need no conversion.

        Noise is calibrated from the codebook's bounds, and the sums of a run have to be about the same records: files
        must not change during it, and are looked at once while they do not. A server's tables, whose changes cannot be
        told cheaply, are looked at once a run, and again before each private sum. Raises UsageError with every
        mismatch; Refused when a file changed.
        """
        codebook, names = study.codebook, study.columns
        source = self._open(run, policy)
        state = source.fingerprint() if source.embedded else run
        if self._began.setdefault(run, state) != state:
            raise Refused("the data changed since this run began; want a new run")
        columns = {name: codebook.columns[name].model_dump(mode="json") for name in names}
        weights = weighing(study)
        key = (state, json.dumps([columns, weights], sort_keys=True))
        if key not in self._plain or (study.privacy and not source.embedded):
            found = inspect(source, codebook, names, weights)
            if found.mismatches:
                raise UsageError("data do not fit the codebook:\n  " + "\n  ".join(found.mismatches))
            self._plain[key] = found.plain
        return source, self._plain[key]

    def controlled(
        self,
        run: str,
        study: Resolved,
        policy: Policy,
        ask: Ask,
        parts: Mapping[str, Part],
        contribution: Arrays,
    ) -> tuple[tuple[str, ...], Arrays]:
        """The disclosure rules and the differencing guard. Returns the names of the rules that were passed, and what
        may leave.

        Checked once while run, study, rules and what is disclosed are the same, unless the contribution itself has
        counts in it or the method says how records weigh in it.
        """
        rules, question = policy.disclosure, study.question
        if rules.silent:
            return (), contribution
        _guardable(study, rules)
        discloses = study.method.discloses(question, ask)
        key = (run, study.digest, rules, discloses)
        counted = any(isinstance(part.what, Counts) or part.what is None for part in parts.values())
        if key in self._passed and not counted and not hasattr(study.method, "weighs"):
            return self._passed[key], contribution
        source, plain = self.checked(run, study, policy)
        columns = dict.fromkeys((*study.columns, *reads(question.codebook)))
        table = open_table(source, question.codebook, study.terms.where, tuple(columns), plain=plain)
        contribution = without_few(table, parts, contribution, rules)

        def table_of(codebook: Codebook, names: Sequence[str]) -> Table:
            some = tuple(names) or tuple(columns)[:1]  # populations of all records read none, and a table has one
            return open_table(source, codebook, (), some)

        with Releases(self._home / RELEASES, dataset=policy.dataset.id) as releases:

            def on_cuts(cuts: Sequence[Cuts], least: int) -> None:
                if cuts:
                    releases.cut(run, study.digest, question, cuts, least)

            passed = check(table, question, ask, parts, contribution, rules, discloses, on_cuts)
            if key not in self._passed:
                told = (run, study.digest, question, discloses, source.fingerprint(), table_of, rules)
                releases.admit(*told)
                releases.together(*told)
        self._passed[key] = passed
        return passed, contribution

    def linked(self, run: str, study: Resolved, policy: Policy) -> None:
        """The differencing guard of linkages: among this holder's units, those that one is about and an earlier one was
        not are none or at least the minimum frequency, in every cell of this holder's own columns. Raises Refused.

        Who of them matches is not known here, so that two linkages may differ by fewer matches. Without a minimum
        frequency they are recorded alone, for the time when there is one.
        """
        asked, rules, name = study.linking, policy.disclosure, policy.holder.name
        if asked is None:
            return
        source, _ = self.checked(run, study, policy)
        terms = study.terms.model_copy(
            update={"method": "count", "options": {}, "where": study.where, "protection": Protection()}
        )
        _, question = read_question(terms, study.codebook)
        ask: Ask = next(study.method.coordinate(study.question))
        cells = study.method.discloses(study.question, ask)
        by = cells.by if isinstance(cells, Cells) else ()
        about = Cells(by=tuple(one for one in by if one in asked.columns[name]), complete=study.columns)

        def table_of(codebook: Codebook, names: Sequence[str]) -> Table:
            return open_table(source, codebook, (), tuple(names))

        with Releases(self._home / LINKED, dataset=policy.dataset.id) as releases:
            releases.admit(run, study.digest, question, about, source.fingerprint(), table_of, rules)
            parted = isinstance(study.protection, InPlace) and study.protection.module.PARTED
            key, others = key_of(asked, study.codebook, parted=parted), [one for one in study.holders if one != name]
            releases.units(
                run, study.digest, question, about, key, parted, others, source.fingerprint(), table_of, rules
            )

    def close(self) -> None:
        """Close the data source, if one is open."""
        if self._source is not None:
            self._source[1].close()
            self._source = None
        self._began.clear()
        self._passed.clear()


def _engine(source: Source) -> Any:
    """The DuckDB connection of a source in this process."""
    return source.expr.get_backend().con


def per_unit(study: Resolved) -> int | None:
    """Most records of one privacy unit that a private study uses; None where each record is a unit."""
    privacy = study.privacy
    return privacy.max_records_per_unit if privacy is not None and privacy.unit == "person" else None


def _guardable(study: Resolved, rules: Rules) -> None:
    """Raises Refused where exact contributions would pass rules that do not know their population."""
    if study.central and per_unit(study) and not rules.silent:
        raise Refused(
            "privacy.noise: got central for sums over a bounded number of records of each person, which this holder's "
            "disclosure rules and differencing guard cannot follow; want local or shared noise, or unit record"
        )
