"""Release of a pooled result: rules, treatment and the disclosure record.

Contributions of single holders have passed those holders' own rules; this looks at what becomes public. What the rules
know of a table is what its `Basis` says, never a name; what nobody has declared is not released while a rule is on. The
record says which rules ran and how many rows were treated, never a threshold, nor which rule treated a row: a row
that is known to break the minimum frequency is known to within it.

Differentially private results pass unchanged: their guarantee holds whatever the data are, and their noisy numbers
are not sums of each other.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused
from statfed.core.randomness import Stream
from statfed.core.result import Additive, Coefficients, Result, Row, Scalar
from statfed.server.disclosure.history import Asked, Beside, beside
from statfed.server.disclosure.memory import Memory
from statfed.server.disclosure.primary import FREQUENCY
from statfed.server.disclosure.tabular import SUPPRESSED, Treated, control_table, number
from statfed.server.disclosure.withhold import blank, control_rows

RESIDUAL, PARAMETERS = "residual degrees of freedom", "parameters per record"


def release(
    result: Result,
    codebook: Codebook,
    rules: Rules,
    *,
    source: Stream,
    seconds: float = 10.0,
    asked: Asked | None = None,
    memory: Memory | None = None,
) -> Result:
    """The result as it may be published, with its `disclosure` record.

    rules: the release's own. source: random numbers of random rounding. seconds: for the search for the best pattern.
    asked, memory: what was asked, and what was released before, which this release is compared with and added to; both
    or none. Without them each release is looked at by itself.
    Tables of cells are treated by `rules.method`; other rows are withheld where too few records are behind them, and so
    are rows that would give them away. Raises Refused, naming the rule, for a model of too few records, and naming what
    is not declared while a rule is on; UsageError where `rules.method` does not fit the result.
    """
    if result.privacy is not None:
        record = _record(Treated(skipped=dict.fromkeys(_asked(rules), "differentially private")), rules)
        return result.with_(tables=_without_secrets(result, result.tables), disclosure=record)
    treated = Treated()
    now = beside(asked, rules, memory) if asked is not None and memory is not None and not rules.silent else None
    if result.undeclared:
        if not rules.silent:
            raise Refused(f"not declared: {', '.join(result.undeclared)}; nothing is released")
        return result.with_(tables=_without_secrets(result, result.tables), disclosure=_record(treated, rules))
    bases = {name: basis for name in result.tables if (basis := result.basis_of(name)) is not None}
    tables, facts = dict(result.tables), dict(result.facts)
    for name, basis in bases.items():
        if isinstance(basis.kind, Coefficients):
            _control_model(result, name, basis.kind, rules, treated)
            if now:
                now.check_model()
    done: set[str] = set()
    for name, basis in bases.items():
        if isinstance(basis.kind, Additive) and tables[name] and basis.kind.margins != name and name in result.basis:
            cells = control_table(name, basis, result, codebook, rules, treated, source, seconds, now)
            tables |= cells.tables
            done |= {*cells.tables}
            if cells.changed:
                facts = _blanked(result, facts) | cells.facts
    rest = {name: basis for name, basis in bases.items() if name not in done}
    observed = None if result.observations is None else number(facts, result.observations)
    few = rules.minimum_frequency is not None and 0 < (observed or 0) < rules.minimum_frequency
    if treated.changed:
        tables |= {name: [blank(row, basis) for row in tables[name]] for name, basis in rest.items()}
    for name, basis in rest.items():
        if few and not basis.counts:
            tables[name] = [blank(row, basis) for row in tables[name]]
            treated.add(FREQUENCY, SUPPRESSED, len(tables[name]))
        elif basis.counts and not treated.changed:
            tables[name] = control_rows(name, tables[name], basis, result, codebook, rules, treated, seconds, now)
    if few:
        treated.add(FREQUENCY, "facts", sum(isinstance(v, int | float) for v in facts.values()))
    if few or treated.hides_total:
        facts = _blanked(result, facts)
    tables, facts = _without_small_numbers(result, tables, facts, rules, treated)
    if treated.counts.get(SUPPRESSED):
        tables |= {name: [_without(row, basis.derived) for row in tables[name]] for name, basis in rest.items()}
    if now:
        _remember(now, result, facts)
        now.commit()
    record = _record(treated, rules) | ({"memory": len(now.memory.entries)} if now else {})
    return result.with_(
        tables=_without_secrets(result, tables),
        facts=facts,
        notes=(*_kept(result.notes, treated), *treated.notes),
        disclosure=record,
    )


def _remember(now: Beside, result: Result, facts: Mapping[str, Scalar]) -> None:
    """The number of records of a model: what it says of a population is compared with later figures of it."""
    models = [basis for basis in result.basis.values() if isinstance(basis.kind, Coefficients)]
    found = None if result.observations is None else number(facts, result.observations)
    if models and found is not None:
        now.remember(now.box({}, models[0], {}, (-math.inf, math.inf)), {"hidden": False, "count": found})


def _control_model(result: Result, table: str, model: Coefficients, rules: Rules, treated: Treated) -> None:
    """Refuse a model that says too much about too few records."""
    found = None if result.observations is None else number(result.facts, result.observations)
    if found is None:
        wanted = [r for r in (FREQUENCY, RESIDUAL, PARAMETERS) if r in _asked(rules)]
        if wanted:
            raise Refused(f"{', '.join(wanted)}: the result does not say how many records it is from; nothing released")
        return
    parameters = sum(row.get(model.estimate) is not None for row in result.tables[table])
    told = number(result.facts, model.residual_df)
    residual = found - parameters if told is None else told
    checks = {
        FREQUENCY: rules.minimum_frequency is None or found >= rules.minimum_frequency,
        RESIDUAL: rules.residual_df is None or residual >= rules.residual_df,
        PARAMETERS: rules.parameters_per_record is None or parameters <= rules.parameters_per_record * found,
    }
    broken = [rule for rule, kept in checks.items() if not kept]
    if broken:
        raise Refused(f"{', '.join(broken)}: the model may not be released")
    for rule in checks:
        if rule in _asked(rules):
            treated.ran(rule)


def _asked(rules: Rules) -> tuple[str, ...]:
    """Names of the rules for models and frequencies that are switched on."""
    switches = {
        FREQUENCY: rules.minimum_frequency,
        RESIDUAL: rules.residual_df,
        PARAMETERS: rules.parameters_per_record,
    }
    return tuple(rule for rule, parameter in switches.items() if parameter is not None)


def _without_small_numbers(
    result: Result,
    tables: Mapping[str, Sequence[Row]],
    facts: Mapping[str, Scalar],
    rules: Rules,
    treated: Treated,
) -> tuple[dict[str, Sequence[Row]], dict[str, Scalar]]:
    """Tables and facts without the numbers of records that stand for themselves and are too small. Where one of a row
    is, the number of all records goes too: it would give it away."""
    minimum = rules.minimum_frequency

    def small(row: Row, names: Sequence[str]) -> list[str]:
        found = {name: number(row, name) or 0.0 for name in names}
        return [name for name, n in found.items() if minimum is not None and 0 < n < minimum]

    shown: dict[str, Sequence[Row]] = dict(tables)
    hidden = 0
    for name in tables:
        basis = result.basis_of(name)
        if basis is not None and basis.numbers:
            lacking = [small(row, basis.numbers) for row in tables[name]]
            shown[name] = [_without(row, names) for row, names in zip(tables[name], lacking, strict=True)]
            hidden += sum(map(len, lacking))
    if hidden:
        treated.add(FREQUENCY, "numbers", hidden)
    few = small(facts, result.numbers)
    if hidden and result.observations is not None and facts[result.observations] is not None:
        few.append(result.observations)
    if few:
        treated.add(FREQUENCY, "facts", len(few))
    if few or hidden:
        treated.notes.append("Numbers of records that are too small to be shown are withheld.")
    return shown, _without(facts, few)


def _blanked(result: Result, facts: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Facts without those that were computed from records."""
    return {name: value if name in result.public else None for name, value in facts.items()}


def _without(row: Row, names: Sequence[str]) -> dict[str, Scalar]:
    return {key: None if key in names else value for key, value in row.items()}


def _kept(notes: tuple[str, ...], treated: Treated) -> tuple[str, ...]:
    """The analysis's own notes; those with figures only while everything is shown."""
    if not (treated.changed or treated.hides_total or treated.counts.get("facts")):
        return notes
    return tuple(note for note in notes if not any(c.isdigit() for c in note))


def _without_secrets(result: Result, tables: Mapping[str, Sequence[Row]]) -> dict[str, Sequence[Row]]:
    shown: dict[str, Sequence[Row]] = {}
    for name, rows in tables.items():
        basis = result.basis_of(name)
        secret = basis.secret if basis else ()
        shown[name] = [{key: value for key, value in row.items() if key not in secret} for row in rows]
    return shown


def _record(treated: Treated, rules: Rules) -> dict[str, Any]:
    return {
        "applied_to": "pooled release",
        "rules": sorted(treated.rules),
        "not_evaluated": dict(treated.skipped),
        "treated": dict(treated.counts),
        "method": treated.method or rules.method,
        "audit": dict(treated.audit),
    }
