"""Simulated holders of tables: each a home folder with its policy and its ledger; the data stay where they are.

The same source under the same name keeps its home between runs, so that budgets, disclosures and past releases
accumulate as they would in life.
"""

import hashlib
from pathlib import Path

from statfed.analyse._study import AnalysisStudy
from statfed.client.data import connect
from statfed.client.policy import (
    Allow,
    Budget,
    Dataset,
    Disclosure,
    HolderName,
    Minimum,
    Policy,
    load_policy,
    write_policy,
)
from statfed.core.codebook import Codebook


def make_homes(study: AnalysisStudy, codebook: Codebook, root: Path) -> dict[str, Path]:
    """Write (or find again) one home folder per holder of `study` under `root`. Returns holder name to folder.

    Sources have to be absolute. Raises UsageError when one cannot be opened.
    """
    homes = {}
    unit = study.unit
    for name, source in study.holders.items():
        records, persons = _sizes(source, codebook)
        digest = hashlib.sha256(f"{name}\n{source}\n{unit}".encode()).hexdigest()[:12]
        home = root / f"{name}-{digest}"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        units = records if unit == "record" else persons
        policy = Policy(
            holder=HolderName(name=name),
            dataset=Dataset(id=f"{name}-{digest}", path=source, records=records, persons=persons),
            allow=Allow(
                analyses=("*",),
                protections=("plain",),
                columns=("*",),
                without_privacy=study.simulation.allow_without_privacy,
                public_seed=True,
            ),
            minimum=Minimum(records=study.simulation.minimum_records),
            disclosure=Disclosure.model_validate(study.simulation.disclosure.model_dump()),
            budget=Budget(
                unit=unit,
                epsilon=study.simulation.lifetime_epsilon,
                delta=min(study.simulation.lifetime_delta, 0.5 / units),
            ),
        )
        path = home / "policy.toml"
        if not path.exists() or load_policy(path) != policy:
            write_policy(policy, path)
        homes[name] = home.resolve()
    return homes


def _sizes(source: str, codebook: Codebook) -> tuple[int, int]:
    """Numbers of records and of persons, at least 1: the simulated holders declare them as public."""
    unit = codebook.role("unit")
    with connect(source, Path()) as opened:
        records = max(1, int(opened.expr.count().to_pyarrow().as_py()))
        if unit is None or unit not in opened.expr.columns:
            return records, records
        return records, max(1, min(records, int(opened.expr[unit].nunique().to_pyarrow().as_py())))
