"""Of an evaluation without pooling: what takes records together, by `propensity` and `synthetic-within`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.measured import Measured, of_auc, succeeded
from statfed.core.synthetic.membership import FEWEST
from statfed.core.synthetic.packing import packed
from statfed.core.synthetic.utility import Propensity, logistic_measured, propensity_measured

if TYPE_CHECKING:
    from statfed.federation.federation import Federation

MODELLED = ("pmse", "s-pmse", "logistic-auc")
WITHIN = ("replicated-uniques", "singling-out", "membership")


def propensity_apart(federation: "Federation", synthetic: Coded, apart: str) -> list[Measured]:
    """pMSE, S_pMSE and the area under the curve of the propensity model: those of the pooled records with all synthetic
    ones, the area in classes. baseline: of the records kept apart, all of them, scaled to the same numbers. Raises
    UsageError where there is no model, and Refused as the holders do."""
    result = federation.ask("propensity", table=packed(synthetic), records=synthetic.count, apart=apart)
    (model, area, off), *others = [_model(row) for row in result.tables["models"]]
    fresh = others[0] if others else None
    return [
        *propensity_measured(model, fresh[0] if fresh else None),
        logistic_measured(area, model, fresh[1][0] if fresh else None, off),
    ]


def _model(row: Mapping[str, Any]) -> tuple[Propensity, tuple[float, float], float]:
    """The model, its area under the curve with the standard error, and how far the area can be off."""
    others = int(row["others"])
    model = Propensity(
        float(row["pmse"]), int(row["parameters"]), others, int(row["made_from"]) + others, int(row["products"])
    )
    return model, (float(row["auc"]), float(row["auc_error"])), float(row["auc_off_by"])


def within(
    federation: "Federation", synthetic: Coded, keys: tuple[str, ...], apart: str, attempts: int
) -> tuple[list[Measured], list[tuple[str, str]]]:
    """What each holder finds within its records, and what could not be measured, with the reason.

    attempts: of singling out, at each holder and width.
    """
    result = federation.ask(
        "synthetic-within",
        table=packed(synthetic),
        records=synthetic.count,
        keys=keys,
        apart=apart,
        predicates=min(max(attempts, 1), 5000),
    )
    counts: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
    for row in result.tables["attacks"]:
        side = int(row["succeeded"] or 0), int(row["tried"] or 0)
        counts.setdefault((str(row["measure"]), str(row["about"])), {})[str(row["records"])] = side
    found = []
    for (name, about), sides in counts.items():
        hits, control = sides["made from"], sides["apart"]
        if hits[1]:
            said = f"{about}; within holders"
            found.append(succeeded(name, hits, control if control[1] else None, None, said))
    left_out = [(name, _NONE) for name in WITHIN[:2] if not any(one.name == name for one in found)]
    (row,) = result.tables["membership"]
    members, others = int(row["members"] or 0), int(row["others"] or 0)
    if min(members, others) < FEWEST:
        why = f"got {members} rare members and {others} others at holders; want {FEWEST} of each"
        left_out.append(("membership", why if apart else "it takes records that were kept apart (--apart)"))
    else:
        area, error = float(row["auc"] or 0.0), float(row["std_error"] or 0.0)
        about = "the 5% rarest records of each holder; within holders"
        found.append(of_auc("membership", "risk", area, error, members + others, about))
    return found, left_out


_NONE = "no holder has records of both sides, or no predicate is true of one synthetic record alone"
