"""Statistics scenarios in a comparison: their worlds of tables, what one holder finds alone, broken release rules."""

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any

import pandas as pd

from statfed.core.linkage import Linking, key_columns, restricted
from statfed.core.scenario import EXACT, Figures, Matching, Profile, Reference, World, matching_of
from statfed.federation.answers import Answer
from statfed.lab.compare.bench import Bench
from statfed.lab.compare.dictionary import HASH_JOIN, on_hashes, refused
from statfed.lab.compare.questions import Questions
from statfed.lab.compare.reconstruct import pinned
from statfed.lab.compare.release import too_few
from statfed.lab.compare.trial import Cell, Technique

LEAST = 10
"""Fewest records behind a released cell, for counting violations (ACRO, UK LLC)."""


def bench_of(
    module: Any,
    world: World,
    sources: Mapping[str, str] | None = None,
    reference: Reference | None = None,
    **more: Any,
) -> Bench:
    """A scenario's world as techniques are tried on it.

    sources: its tables as files, needed for all but `obstacle`; reference: `module.pooled(world)`; more: of `Bench`.
    """
    matched = matching_of(module)
    codebooks = {name: restricted(world.codebook, frame.columns) for name, frame in world.holders.items()}
    return Bench(
        compute=lambda ask: module.compute(ask, world.public),
        sources=sources or {name: f"{name}.parquet" for name in world.holders},
        codebook=world.codebook,
        success=module.SUCCESS,
        reference=reference or {},
        truth=world.truth,
        matched=matched,
        codebooks=codebooks if matched else {},
        refused={HASH_JOIN: partial(_hash_join, world, matched)} if matched and matched.guesses else {},
        beside=lambda cell, answers: violations(answers, world, cell, matched),
        **more,
    )


def opened(module: Any, profile: Profile, seed: int, folder: Path) -> Bench:
    """Draw a world, write its tables to `folder`, and find what it is compared with."""
    from statfed.lab.compare.probes import Probes

    world = module.world(profile, seed)
    reference = module.pooled(world)
    sources = write_sources(world, folder)
    some = [] if matching_of(module) else _some(world, profile)
    alone = {name: run_alone(module, world, name, sources[name], seed) for name in some}
    probes = Probes(module, world, sources, reference, profile, seed)
    return bench_of(module, world, sources, reference, alone=alone, probed=probes.of)


def write_sources(world: World, folder: Path) -> dict[str, str]:
    """Each holder's table as a Parquet file in `folder`. Returns holder to path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, frame in world.holders.items():
        paths[name] = str(folder / f"{name}.parquet")
        frame.to_parquet(paths[name], index=False)
    return paths


def run_alone(module: Any, world: World, holder: str, source: str, seed: int) -> Figures:
    """What one holder finds out by itself: the same questions of its own table, without noise or protection."""
    alone = Technique("plain", EXACT)
    with tempfile.TemporaryDirectory(prefix="statfed-trial-") as folder:
        ask = Questions({holder: source}, world.codebook, alone, seed, Path(folder))
        return dict(module.compute(ask, {**world.public, "holders": (holder,)}))


def _some(world: World, profile: Profile) -> list[str]:
    """Holders that are tried alone: all, or in the quick profile the smallest, the middle one and the largest."""
    names = sorted(world.holders, key=lambda name: (len(world.holders[name]), name))
    return names if profile == "full" or len(names) <= 3 else [names[0], names[len(names) // 2], names[-1]]


def joined(world: World, matched: Matching) -> pd.DataFrame:
    """The plain join of all holders' tables, by equal values of the key's columns."""
    by = list(key_columns(Linking(key=matched.key), world.codebook))
    return reduce(lambda one, other: one.merge(other, on=by), world.holders.values())


def identifiers(world: World, matched: Matching) -> dict[str, set[str]]:
    """By holder, the different values of the key's columns, put together."""
    by = list(key_columns(Linking(key=matched.key), world.codebook))
    return {name: set(frame[by].astype(str).agg("".join, axis=1)) for name, frame in world.holders.items()}


def _hash_join(world: World, matched: Matching) -> tuple[str, dict[str, float]]:
    guesses = matched.guesses(world.public) if matched.guesses else ()
    attack = on_hashes(guesses, set().union(*identifiers(world, matched).values()))
    return refused(attack), {
        "leakage.identifiers_coordinator": attack.recovered,
        "leakage.guesses_a_second": attack.rate,
    }


def violations(
    answers: Sequence[Answer], world: World, cell: Cell, matched: Matching | None = None
) -> dict[str, float]:
    """Released cells that have too few records behind them, and the largest share of a table's suppressed cells that
    its margins pin down. Nothing where releases are noisy or rounded: their rows are not what was counted."""
    level = cell.technique.level
    if level.privacy is not None or level.disclosure.method in (
        "cell-key",
        "round",
        "random-round",
        "controlled-round",
    ):
        return {}
    frame = joined(world, matched) if matched else pd.concat(world.holders.values())
    found = 0
    for answer in answers:
        result = answer.result
        rows = result.tables[result.main]
        if result.by and all(name in frame for name in result.by):
            found += too_few(rows, result.by, frame, answer.terms.where, LEAST)
    shares = [share for answer in answers for share in map(partial(pinned, answer.result), ("count", "total"))]
    attacked = [share for share in shares if share is not None]
    return {"violations": float(found)} | ({"leakage.pinned_cells": max(attacked)} if attacked else {})
