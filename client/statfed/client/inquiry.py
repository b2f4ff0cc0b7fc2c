"""A holder's half of a query: validate, contribute, control disclosure, account, protect.

Exact contributions pass the holder's disclosure rules and its differencing guard, and are recorded in the ledger as
disclosures before they leave. Private ones are charged before the data are read and get their noise here; the rules do
not apply to them, since their guarantee does not depend on the data. What leaves for a coordinator that adds the noise
(`statfed.core.privacy.placement`, central) is both: charged, since the release costs that, and exact towards the
coordinator.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.client.data.tables import Source, connect, inspect, open_table
from statfed.client.guard.differencing import FILE as RELEASES
from statfed.client.guard.differencing import Releases
from statfed.client.guard.disclosure import FINER, check, reads
from statfed.client.guard.ledger import Ledger
from statfed.client.guard.policy import Policy
from statfed.client.protecting import Protecting, bound, own
from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused, UsageError
from statfed.core.fixed_point import layout_of
from statfed.core.method import (
    Analysis,
    Arrays,
    Ask,
    Cells,
    Model,
    Question,
    checked,
    columns_read,
    functions_of,
    private_asks,
    read_question,
)
from statfed.core.privacy.noise import Noise, plan
from statfed.core.privacy.placement import shares
from statfed.core.protection import Packet
from statfed.core.terms import Terms
from statfed.core.randomness import stream
from statfed.core.statement import Admission, Contributed, Statement
from statfed.core.table import Table


class Inquiry:
    """The queries that one holder takes part in. home: its folder; ledger: opens its ledger; protecting: its halves of
    protected sums."""

    def __init__(self, home: Path, ledger: Callable[[], Ledger], protecting: Protecting) -> None:
        self._home, self._ledger, self._protecting = home, ledger, protecting
        self._source: tuple[str, Source] | None = None
        self._began: dict[str, str] = {}
        self._plain: dict[tuple[str, str], frozenset[str]] = {}
        self._passed: dict[tuple[str, str, Rules, Cells | Model], tuple[str, ...]] = {}

    def admit(self, statement: Statement, query: Terms, policy: Policy) -> Admission:
        """Reserve budget, then check the data against the codebook. Nothing stays reserved when they do not fit."""
        analysis, question = read_question(query)
        noise, times = _noise(analysis, question)
        source = self._open(statement.run, policy)
        if noise and not source.embedded and policy.dataset.records > noise.most_summed:
            raise Refused(
                f"privacy: this holder's database adds floats up without compensation, for which the proof of the "
                f"noise covers {noise.most_summed:,} records; want its data in Parquet or DuckDB"
            )
        _guardable(query, policy.disclosure)
        with self._ledger() as ledger:
            head = ledger.verify()
            if noise:
                head = ledger.reserve(statement.run, query.digest(), times, noise.event(), query.analysis)
        try:
            self._checked(statement.run, policy, question)
        except BaseException:
            with self._ledger() as ledger:
                ledger.release(statement.run)
            raise
        return Admission(
            holder=policy.holder.name,
            size=policy.dataset.records,
            epsilon=noise.epsilon(times, query.privacy.delta) if noise and query.privacy else None,
            delta=query.privacy.delta if query.privacy else None,
            ledger_head=head,
        )

    def contribute(
        self, statement: Statement, query: Terms, policy: Policy, arrays: Arrays, packet: Packet
    ) -> tuple[Contributed, Packet]:
        """The protected contribution to one sum. Raises Refused when a rule or the ledger does not allow it."""
        started = time.perf_counter()
        name = policy.holder.name
        agreement, party = self._protecting.party(statement, name, policy.parties.root, policy.dataset.records)
        for key, array in arrays.items():
            if not np.isfinite(array).all():
                raise Refused(f"{statement.ask}: {key}: got values that are not finite; want finite numbers")
        analysis, question = read_question(query)
        ask = Ask(statement.ask, arrays)
        parts = analysis.parts(question, ask)
        function = functions_of(question).get(ask.name, "")
        noise, times = _noise(analysis, question)
        head = ""
        if noise:
            wanted, _ = private_asks(analysis, question)
            if ask.name != wanted or not 1 <= statement.round <= times:
                raise Refused(f"ask: got {ask.name} number {statement.round}; want {wanted}, 1 to {times}")
            with self._ledger() as ledger:
                head = ledger.charge(statement.run, query.digest(), statement.round, noise.event())
        source, plain = self._checked(statement.run, policy, question)
        table = open_table(source, query.codebook, query.where, columns_read(question), _per_unit(query), plain)
        table = replace(table, compensated=noise is not None and table.embedded)
        contribution: Mapping[str, NDArray[Any]] = checked(
            analysis.contribute(table, question, ask), parts, "contribution"
        )
        rules: tuple[str, ...] = ()
        central = query.privacy is not None and query.privacy.noise == "central"
        if noise is None or central:
            rules = self._controlled(statement, policy, question, ask, contribution, analysis.discloses(question, ask))
            whom = " to the coordinator, which is trusted to add the noise" if central else ""
            use = f", for {function} by the protection" if function else ""
            note = f"{query.analysis}: {ask.name} without noise{whom}{use}"
            with self._ledger() as ledger:
                head = ledger.disclose(statement.run, query.digest(), statement.round, note)
        if noise:
            contribution = noise.units(contribution, stream(query.seed, name, query.digest(), statement.round, "noise"))
        layout = noise.layout(len(query.holders)) if noise else layout_of(parts, agreement.sizes)
        mine = layout.for_holder(1.0 / len(query.holders)) if noise else own(layout, agreement, name)
        protected = party.contribute(bound(packet, statement, arrays, function), contribution, mine)
        seconds = time.perf_counter() - started
        return Contributed(
            holder=name, round=statement.round, rules=rules, seconds=seconds, ledger_head=head
        ), protected

    def _open(self, run: str, policy: Policy) -> Source:
        """The data source, kept open for one run."""
        if self._source is None or self._source[0] != run:
            self.close()
            self._source = (run, connect(policy.dataset.path, self._home))
        return self._source[1]

    def _checked(self, run: str, policy: Policy, question: Question[Any]) -> tuple[Source, frozenset[str]]:
        """The data source, found to fit the codebook, and its columns that need no conversion.

        Noise is calibrated from the codebook's bounds, and the sums of a run have to be about the same records: files
        must not change during it, and are looked at once while they do not. A server's tables, whose changes cannot be
        told cheaply, are looked at once a run, and again before each private sum. Raises UsageError with every
        mismatch; Refused when a file changed.
        """
        source, names = self._open(run, policy), columns_read(question)
        state = source.fingerprint() if source.embedded else run
        if self._began.setdefault(run, state) != state:
            raise Refused("the data changed since this run began; want a new run")
        columns = {name: question.codebook.columns[name].model_dump(mode="json") for name in names}
        key = (state, json.dumps(columns, sort_keys=True))
        if key not in self._plain or (question.privacy and not source.embedded):
            found = inspect(source, question.codebook, names)
            if found.mismatches:
                raise UsageError("data do not fit the codebook:\n  " + "\n  ".join(found.mismatches))
            self._plain[key] = found.plain
        return source, self._plain[key]

    def _controlled(
        self,
        statement: Statement,
        policy: Policy,
        question: Question[Any],
        ask: Ask,
        contribution: Arrays,
        discloses: Cells | Model,
    ) -> tuple[str, ...]:
        """The disclosure rules and the differencing guard.

        Checked once while run, query, rules and what is disclosed are the same: a run's name binds none of the others.
        """
        query = question.terms
        key = (statement.run, query.digest(), policy.disclosure, discloses)
        finer = any(name in contribution for name in FINER)
        if policy.disclosure.silent:
            return ()
        _guardable(query, policy.disclosure)
        if key in self._passed and not finer and not query.privacy:
            return self._passed[key]
        source, plain = self._checked(statement.run, policy, question)
        columns = dict.fromkeys((*columns_read(question), *reads(query.codebook, discloses)))
        table = open_table(source, query.codebook, query.where, tuple(columns), plain=plain)
        views = [contribution]
        if query.privacy:  # parts of a private ask go by other names: all whole numbers in it count records in cells
            names = [n for n, array in contribution.items() if n not in FINER and array.dtype == np.int64]
            views += [{"count": contribution[n]} for n in names]
        passed = [check(table, question, ask, view, policy.disclosure, discloses) for view in views]
        rules = tuple(dict.fromkeys(rule for each in passed for rule in each))
        if key not in self._passed:

            def table_of(codebook: Codebook, names: Sequence[str]) -> Table:
                return open_table(source, codebook, (), tuple(names))

            with Releases(self._home / RELEASES, dataset=policy.dataset.id) as releases:
                releases.admit(statement.run, question, discloses, source.fingerprint(), table_of, policy.disclosure)
        self._passed[key] = rules
        return rules

    def close(self) -> None:
        """Close the data source, if one is open."""
        if self._source is not None:
            self._source[1].close()
            self._source = None
        self._began.clear()
        self._passed.clear()


def _per_unit(query: Terms) -> int | None:
    """Most records of one privacy unit that a private query uses; None where each record is a unit."""
    bounded = query.privacy is not None and query.privacy.unit == "person"
    return query.privacy.max_records_per_unit if bounded and query.privacy else None


def _noise(analysis: Analysis, question: Question[Any]) -> tuple[Noise | None, int]:
    """The noise of one ask and the number of asks; None without privacy."""
    if question.privacy is None:
        return None, 0
    name, times = private_asks(analysis, question)
    parts = analysis.parts(question, Ask(name))
    return plan(parts, question.privacy, times, shares(question.terms)), times


def _guardable(query: Terms, rules: Rules) -> None:
    """Raises Refused where exact contributions would pass rules that do not know their population."""
    if query.privacy and query.privacy.noise == "central" and _per_unit(query) and not rules.silent:
        raise Refused(
            "privacy.noise: got central for sums over a bounded number of records of each person, which this holder's "
            "disclosure rules and differencing guard cannot follow; want local or shared noise, or unit record"
        )
