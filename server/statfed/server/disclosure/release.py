"""Release of a pooled result: rules, treatment and the disclosure record.

Contributions of single holders have passed those holders' own rules; this looks at what becomes public. The record
says which rules ran and how many rows they treated, never a threshold.

Differentially private results pass unchanged: their guarantee holds whatever the data are, and their noisy numbers
are not sums of each other.
"""

from collections.abc import Mapping
from typing import Any

from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused
from statfed.core.randomness import Stream
from statfed.core.result import Result, Row
from statfed.server.disclosure.primary import FREQUENCY
from statfed.server.disclosure.tabular import Treated, blank_facts, control_table, number
from statfed.server.disclosure.withhold import OBSERVATIONS, blank, control_rows, observations

RESIDUAL, PARAMETERS = "residual degrees of freedom", "parameters per record"
SECRET = ("dominance_bound", "dominance_decided", "cell_key")
"""How the columns begin that analyses send for these rules alone; no release holds them."""


def release(result: Result, codebook: Codebook, rules: Rules, *, source: Stream, seconds: float = 10.0) -> Result:
    """The result as it may be published, with its `disclosure` record.

    rules: the release's own. source: random numbers of random rounding. seconds: for the search for the best pattern.
    A table (`cells`, `margins`) is treated by `rules.method`; other rows are withheld where too few records are behind
    them, and so are rows that would give them away. Raises Refused, naming the rule, for a model of too few records;
    UsageError where `rules.method` does not fit the result.
    """
    if result.privacy is not None:
        record = _record(Treated(skipped=dict.fromkeys(_asked(rules), "differentially private")), rules)
        return result.with_(tables=_without_secrets(result.tables), disclosure=record)
    treated = Treated()
    tables, facts = dict(result.tables), dict(result.facts)
    if "coefficients" in tables:
        _control_model(result, rules, treated)
    if "cells" in tables and result.by:
        tables, facts = control_table(tables, facts, result.by, codebook, rules, treated, source, seconds)
        rest = [name for name in tables if name not in ("cells", "margins")]
    else:
        rest = list(tables)
    few = rules.minimum_frequency is not None and 0 < (observations(facts) or 0) < rules.minimum_frequency
    for name in rest:
        if any(number(row, *OBSERVATIONS) is not None for row in tables[name]):
            tables[name] = control_rows(name, tables[name], result, codebook, rules, treated, seconds)
        elif few:
            tables[name] = [blank(row, result.by) for row in tables[name]]
            treated.add(FREQUENCY, "withheld", len(tables[name]))
    if few:
        treated.add(FREQUENCY, "facts", sum(isinstance(v, int | float) for v in facts.values()))
    if few or treated.hides_total:
        facts = blank_facts(facts)
    return result.with_(
        tables=_without_secrets(tables),
        facts=facts,
        notes=(*_kept(result.notes, treated), *treated.notes),
        disclosure=_record(treated, rules),
    )


def _control_model(result: Result, rules: Rules, treated: Treated) -> None:
    """Refuse a model that says too much about too few records."""
    found = observations(result.facts)
    if found is None:
        wanted = [r for r in (FREQUENCY, RESIDUAL, PARAMETERS) if r in _asked(rules)]
        if wanted:
            raise Refused(f"{', '.join(wanted)}: the result does not say how many records it is from; nothing released")
        return
    parameters = sum(row.get("estimate") is not None for row in result.tables["coefficients"])
    told = result.facts.get("residual_df")
    residual = float(told) if isinstance(told, int | float) else found - parameters
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


def _kept(notes: tuple[str, ...], treated: Treated) -> tuple[str, ...]:
    """The analysis's own notes; those with figures only while everything is shown."""
    if not (treated.changed or treated.hides_total or treated.counts.get("facts")):
        return notes
    return tuple(note for note in notes if not any(c.isdigit() for c in note))


def _without_secrets(tables: Mapping[str, Any]) -> dict[str, list[Row]]:
    return {
        name: [{key: value for key, value in row.items() if not key.startswith(SECRET)} for row in rows]
        for name, rows in tables.items()
    }


def _record(treated: Treated, rules: Rules) -> dict[str, Any]:
    return {
        "applied_to": "pooled release",
        "rules": sorted(treated.rules),
        "not_evaluated": dict(treated.skipped),
        "treated": dict(treated.counts),
        "by_rule": dict(treated.by_rule),
        "method": treated.method or rules.method,
        "audit": dict(treated.audit),
    }
