"""Simulated holders of tables: each a home folder with its policy and its ledger; the data stay where they are.

The same source under the same name keeps its home between runs, so that budgets, disclosures and past releases
accumulate as they would in life.
"""

import hashlib
from pathlib import Path

from statfed.client.data.tables import connect
from statfed.client.guard.policy import (
    Allow,
    Budget,
    Dataset,
    Disclosure,
    HolderName,
    Minimum,
    Parties,
    Policy,
    load_policy,
    write_policy,
)
from statfed.core.codebook import Codebook
from statfed.federation.parties import admit_third_parties, home_of, identities, third_parties
from statfed.federation.study import AnalysisStudy


def make_homes(study: AnalysisStudy, codebook: Codebook, root: Path) -> dict[str, Path]:
    """Write (or find again) one home folder per party of `study` under `root`. Returns party name to folder.

    Sources have to be absolute. Raises UsageError when one cannot be opened.
    """
    unit, others = study.unit, third_parties(study.protection, study.holders, study.engine, root)
    digests = {
        name: hashlib.sha256(f"{name}\n{source}\n{unit}".encode()).hexdigest()[:12]
        for name, source in study.holders.items()
    }
    homes = {name: home_of(root, f"{name}-{digest}") for name, digest in digests.items()}
    pins = identities(homes | others)
    admit_third_parties(others, study.protection.name, pins)
    for name, source in study.holders.items():
        records, persons = _sizes(source, codebook)
        units = records if unit == "record" else persons
        policy = Policy(
            holder=HolderName(name=name),
            dataset=Dataset(id=homes[name].name, path=source, records=records, persons=persons),
            allow=Allow(
                analyses=("*",),
                protections=("*",),
                columns=("*",),
                without_privacy=study.simulation.allow_without_privacy,
                noise=("local", "central", "shared"),
                public_seed=True,
            ),
            minimum=Minimum(records=study.simulation.minimum_records),
            disclosure=Disclosure.model_validate(study.simulation.disclosure.model_dump()),
            parties=Parties(pins),
            budget=Budget(
                unit=unit,
                epsilon=study.simulation.lifetime_epsilon,
                delta=min(study.simulation.lifetime_delta, 0.5 / units),
            ),
        )
        path = homes[name] / "policy.toml"
        if not path.exists() or load_policy(path) != policy:
            write_policy(policy, path)
    return homes | others


def _sizes(source: str, codebook: Codebook) -> tuple[int, int]:
    """Numbers of records and of persons, at least 1: the simulated holders declare them as public."""
    unit = codebook.role("unit")
    with connect(source, Path()) as opened:
        records = max(1, int(opened.expr.count().to_pyarrow().as_py()))
        if unit is None or unit not in opened.expr.columns:
            return records, records
        return records, max(1, min(records, int(opened.expr[unit].nunique().to_pyarrow().as_py())))
