"""A fabricated comparison: every status, several seeds, missing measures, hostile names, an entry without trials."""

import math
from typing import Any

from statfed.core.card import Card
from statfed.core.protection import Disclosure
from statfed.core.scenario import EXACT, About, Case, Figure, Level, private
from statfed.lab.compare.tables import Tables
from statfed.lab.compare.trial import Cell, Role, Technique, Trial

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> | & {{ 7 * 7 }}\nsecond line"
FORMULA = '=HYPERLINK("http://example.org")'
SUPPRESS = Level("suppress", "minimum frequency 10")
LEVELS = (EXACT, SUPPRESS, private(10.0), private(1.0), private(1.0, "shared"))
PROTECTIONS = ("plain", "secure-aggregation", "homomorphic-encryption", "multi-party")
SEEDS = (1, 2, 3)


def about(title: str, **more: Any) -> About:
    fields: dict[str, Any] = {
        "title": title,
        "purpose": "One table of all offices",
        "parties": "four offices",
        "data": "generated",
        "partitioning": "horizontal",
        "protections": PROTECTIONS,
        "source": "a pilot",
        "gsbpm": "5.7 Calculate aggregates",
        "roles": {"input parties": "the offices"},
        "case": Case(),
        "card": Card(()),
    }
    return About(**(fields | more))


ABOUT = {
    "income-tables": about("Income tables"),
    "time-use": about("Activity recognition"),
    "hostile": about(HOSTILE, parties=HOSTILE, source=HOSTILE),
    "linkage-entry": about("Linkage of two registers", partitioning="linkage"),
}


def done(cell: Cell, tolerance: float = 0.02) -> Trial:
    """A trial with figures that follow from the cell: error falls with epsilon, cost grows with protection."""
    epsilon = (cell.technique.level.privacy or {}).get("epsilon")
    shared = cell.technique.level.id.endswith("shared")
    heavy = PROTECTIONS.index(cell.technique.protection) if cell.technique.protection in PROTECTIONS else 2
    noise = 0.0 if epsilon is None else 0.011 / epsilon * (0.4 if shared else 1.0)
    error = noise * (1 + 0.1 * cell.seed) + (1e-9 * heavy if heavy else 0.0)
    trial = Trial(
        cell, "done", error=error, tolerance=tolerance, reached=error <= tolerance, local=0.08 + cell.seed / 100
    )
    trial.bias, trial.coverage = -error / 3, 0.95 - 0.01 * cell.seed
    trial.suppressed = 0.12 if cell.technique.level is SUPPRESS else 0.0
    if epsilon is not None:
        trial.epsilon, trial.delta, trial.unit = epsilon * (1 - 0.01 * cell.seed), 1e-6, "person"
    trial.wall = 0.4 * 3**heavy + 0.01 * cell.seed
    trial.processor, trial.memory_mib, trial.stages = trial.wall * 1.5, 210.0 + 40 * heavy, 1 + heavy
    roles = [
        Role("holder", f"h{i}", 0.1 * 3**heavy, 3000 * (1 + heavy), 20_000 * 4**heavy, 1 + heavy) for i in range(4)
    ]
    if cell.technique.protection in ("homomorphic-encryption", "multi-party"):
        roles.append(Role("third party", "keys", 0.3, 900, 1200, 2))
    trial.roles = (*roles, Role("coordinator", "coordinator", 0.2, 4 * 20_000 * 4**heavy, 12_000, 4 + heavy))
    trial.learns = (
        Disclosure("coordinator", "each contribution" if not heavy else "the sum", cell.technique.protection),
    )
    trial.measures = {
        "overhead": 3.0**heavy * (1 + cell.seed / 50),
        "wan_seconds.office": 0.3 * (1 + heavy),
        "violations": 0.0 if epsilon is not None or trial.suppressed else 4.0,
        "leakage.membership_auc": 0.62 if epsilon is None else 0.51,
    }
    if cell.seed != 2:
        trial.measures["dropout.finished"] = 1.0
    trial.figures = {"accuracy": Figure(0.87 - error), "macro_f1": Figure(0.85 - error)}
    trial.reference = {"accuracy": 0.88, "macro_f1": 0.86}
    return trial


def trials() -> list[Trial]:
    made = []
    for scenario in ("income-tables", "time-use"):
        for protection in PROTECTIONS:
            for level in LEVELS:
                for seed in SEEDS:
                    cell = Cell(scenario, "quick", Technique(protection, level), seed)
                    if protection == "multi-party" and level is SUPPRESS:
                        made.append(Trial(cell, "not-applicable", "shared noise: got multi-party; want plain"))
                    elif protection == "homomorphic-encryption" and level.id == "epsilon-10":
                        made.append(Trial(cell, "failed", "TimeoutError: 600 s"))
                    elif protection == "secure-aggregation" and level is EXACT and seed == 3:
                        made.append(Trial(cell, "failed", "a holder was away"))
                    else:
                        made.append(done(cell, 0.005 if scenario == "time-use" else 0.02))
    hostile = Cell("hostile", "quick", Technique(HOSTILE, Level(FORMULA, ""), {"key": "<b>"}), 1)
    made.append(Trial(hostile, "failed", HOSTILE))
    nothing = done(Cell("hostile", "full", Technique("plain", EXACT), 1))
    nothing.error, nothing.reached, nothing.measures, nothing.roles, nothing.learns = math.inf, False, {}, (), ()
    return [*made, nothing]


def tables() -> Tables:
    return Tables.of_trials(trials())
