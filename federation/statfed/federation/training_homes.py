"""Simulated data holders: each a home folder with its data, its policy and its ledger.

A pilot's holders make their own home folder; a simulation writes one per holder from the population. Without
`fresh`, the same simulated dataset keeps its homes between runs, so that ledgers accumulate as they would in life.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from statfed.client.guard.policy import (
    Allow,
    Budget,
    Dataset,
    HolderName,
    Minimum,
    Parties,
    Policy,
    load_policy,
    write_policy,
)
from statfed.core.records import Records, load_records
from statfed.core.study import Study
from statfed.federation.parties import admit_third_parties, home_of, identities, third_parties


def dataset_key(study: Study, synthetic: bool) -> str:
    """Names a simulated dataset and its privacy unit: scenario, unit and a digest of where the data come from.

    synthetic tells real data from a generated stand-in for them: they are two datasets, with two ledgers.
    """
    unit = study.privacy.unit if study.privacy else "record"
    made_of = [study.scenario, study.data, study.holders, study.seed, unit, synthetic]
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{study.scenario}-{unit}-{digest}"


def make_homes(study: Study, holders: Mapping[str, Records], root: Path, dataset: str) -> dict[str, Path]:
    """Write (or find again) one home folder per party of `dataset` under `root`. Returns party name to folder."""
    others = third_parties(study.protection, holders, study.engine, root)
    homes = {name: home_of(root, name) for name in holders}
    pins = identities(homes | others)
    admit_third_parties(others, study.protection.name, pins)
    for name, records in holders.items():
        home = homes[name]
        data = home / "data.npz"
        if not (data.exists() and _same(load_records(data), records)):
            records.save(data)
        policy = _policy(study, name, records, dataset, pins)
        path = home / "policy.toml"
        if not path.exists() or load_policy(path) != policy:
            write_policy(policy, path)
    return homes | others


def _same(one: Records, other: Records) -> bool:
    return all(
        np.array_equal(getattr(one, column), getattr(other, column)) for column in ("windows", "labels", "persons")
    )


def _policy(study: Study, name: str, records: Records, dataset: str, pins: Mapping[str, str]) -> Policy:
    options = study.simulation
    return Policy(
        holder=HolderName(name=name),
        dataset=Dataset(id=dataset, path="data.npz", records=len(records), persons=len(np.unique(records.persons))),
        allow=Allow(
            scenarios=(study.scenario,),
            protections=("*",),
            columns=("*",),
            without_privacy=options.allow_without_privacy,
            public_seed=True,
        ),
        minimum=Minimum(records=options.minimum_records),
        parties=Parties(dict(pins)),
        budget=Budget(
            unit=study.privacy.unit if study.privacy else "record",
            epsilon=options.lifetime_epsilon,
            delta=options.lifetime_delta,
        ),
    )
