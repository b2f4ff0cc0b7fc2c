"""Measures that take runs of their own: what the coordinator's view and the release tell, and holders that vanish.

A release is the same under every protection, so what it tells is measured once for a level. What a coordinator can read
and which losses a protection bears is measured for each protection at the scenario's first level.
"""

import math
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from statfed.core.errors import StatfedError
from statfed.core.linkage import Linking, key_columns, restricted
from statfed.core.protection import load_protection
from statfed.core.scenario import EXACT, Figures, Matching, Profile, Reference, World, matching_of
from statfed.lab.compare import release
from statfed.lab.compare.dictionary import Dictionary, measured, overheard
from statfed.lab.compare.questions import Answered, Questions
from statfed.lab.compare.statistics import identifiers, joined, write_sources
from statfed.lab.compare.trial import Technique, Trial
from statfed.lab.compare.views import Listener, holder_values, silent_from
from statfed.server.engine import Engine

RUNS = {"quick": 0, "full": 20}
"""Repetitions of each world of a game where releases are random (privacy noise, random rounding): the AUC then has
steps of 1/400. The quick profile does not play it: from a handful of repetitions nothing could be said."""
KILLED_AT: Mapping[Profile, tuple[int, ...]] = {"quick": (2, 3), "full": (2, 3, 4, 5)}
"""Messages from which on a holder stays silent; the first one is admission, which every protection needs."""


@dataclass
class Probes:
    """Probes of one statistics scenario on one world. reference: of the whole world.

    Where units are matched, releases differ by linkage, so what they tell is measured for each; and no linkage sends
    anything in the clear that another's messages could be compared with.
    """

    module: Any
    world: World
    sources: Mapping[str, str]
    reference: Reference
    profile: Profile
    seed: int
    _told: dict[str, dict[str, float]] = field(default_factory=dict)
    _clear: Listener | None = None
    _dictionary: Dictionary | None = None

    def of(self, trial: Trial) -> dict[str, float]:
        """All measures of a technique that gave something."""
        technique = trial.cell.technique
        found = dict(self.released(technique, trial.figures))
        if technique.level.id == self.module.LEVELS[0].id:
            if self.matched is None:
                found["leakage.holder_values"] = self.viewed(technique)
            else:
                found |= self.recovered(technique, self.matched)
            found |= self.dropout(technique)
        return found

    def released(self, technique: Technique, figures: Figures) -> dict[str, float]:
        """What releases at a level tell of the most exposed record; measured under the first technique that asks.

        figures: what came out of the world at this level.
        """
        level = technique.id if self.matched else technique.level.id
        if level not in self._told:
            self._told[level] = self._games(technique, figures)
        return self._told[level]

    @property
    def matched(self) -> Matching | None:
        return matching_of(self.module)

    def _games(self, technique: Technique, figures: Figures) -> dict[str, float]:
        keyed = self.matched is not None and self.matched.estimate != "none"  # encodings are drawn for each linkage
        chance = keyed or technique.level.privacy or technique.level.disclosure.method == "random-round"
        runs = RUNS[self.profile]
        if chance and not runs:
            return {}
        holder, row = self._exposed()
        worlds = {"membership": release.without(self.world, holder, row)}
        other = release.changed(self.world, holder, row)
        if other is not None and self.profile == "full":
            worlds["attribute"] = other

        def tell(technique: Technique) -> release.Tell:
            return lambda world, number: self._asked(technique, world, 1_000 * self.seed + number)

        clear = Technique(technique.protection if self.matched else "plain", EXACT)

        def told(changed: World) -> float:
            if chance:
                return release.game(tell(technique), tell(clear), self.world, changed, runs)
            # the same figures come every time: one of each world tells
            return 0.5 if release.alike(self._asked(technique, changed, self.seed), figures) else 1.0

        return {f"leakage.release_{name}_auc": told(changed) for name, changed in worlds.items()}

    def _exposed(self) -> tuple[str, int]:
        """As `release.exposed`; where units are matched, among those that all holders have, if there are any."""
        if self.matched is None:
            return release.exposed(self.world)
        by = list(key_columns(Linking(key=self.matched.key), self.world.codebook))
        frames = {name: frame.reset_index(drop=True) for name, frame in self.world.holders.items()}
        common = joined(self.world, self.matched)[by]
        shown = {name: frame.merge(common, on=by).drop_duplicates(by) for name, frame in frames.items()}
        if common.empty:
            return release.exposed(self.world)
        holder, place = release.exposed(replace(self.world, holders=shown))
        key = shown[holder][by].iloc[place]
        return holder, int(np.flatnonzero((frames[holder][by] == key).all(axis=1))[0])

    def _asked(self, technique: Technique, world: World, seed: int) -> Figures:
        with tempfile.TemporaryDirectory(prefix="statfed-probe-") as folder:
            sources = self.sources if world is self.world else write_sources(world, Path(folder) / "data")
            ask = Questions(sources, world.codebook, technique, seed, Path(folder), matched=self.matched)
            return dict(self.module.compute(ask, world.public))

    def viewed(self, technique: Technique) -> float:
        """Share of holders' own figures that the coordinator can read off its messages."""
        if self._clear is None:
            self._clear = Listener()
            self._listen(Technique("plain", technique.level), self._clear)
        listener = Listener()
        self._listen(technique, listener)
        return holder_values(listener.seen, self._clear.seen)

    def _listen(self, technique: Technique, listener: Listener) -> None:
        """Ask the scenario's first question; what the others show is of the same kind."""
        with suppress(Answered):
            self._run(technique, listener, last=1)

    def recovered(self, technique: Technique, matched: Matching) -> dict[str, float]:
        """Share of identifiers that a dictionary finds in what each role sees of a linkage."""
        if matched.guesses is None:
            return {}
        if self._dictionary is None:
            self._dictionary = Dictionary.of(matched.guesses(self.world.public))
        codebooks = {name: restricted(self.world.codebook, frame.columns) for name, frame in self.world.holders.items()}
        ask = Questions(self.sources, self.world.codebook, technique, self.seed, Path(), matched=matched)
        terms = ask.study({"method": "count", "options": {}, "where": ()}).terms(self.world.codebook, codebooks)
        return measured(self._dictionary, overheard(terms, self.sources), identifiers(self.world, matched))

    def dropout(self, technique: Technique) -> dict[str, float]:
        """Share of the moments at which a holder can vanish and figures still come out, and their worst error.

        Moments after a holder's last message are none. Who vanished is away for every later question too, and each
        admits its holders anew: figures of several questions do not survive, whatever the protection bears. It is asked
        to do with more than two thirds of the holders where it can.
        """
        holders = sorted(self.world.holders)
        survives = load_protection(technique.protection).REQUIRES.survives_dropout
        fewest = 2 * len(holders) // 3 + 1
        minimum = fewest if survives and fewest < len(holders) else None
        errors, moments = [], 0
        for message in KILLED_AT[self.profile]:
            fault = silent_from(holders[-1], message)
            try:
                figures = self._run(technique, Listener(fault), minimum)
                if fault.happened:
                    errors.append(self.module.SUCCESS.measure(figures, self.reference))
            except StatfedError:
                pass
            moments += fault.happened
        found = {"dropout.survived": len(errors) / moments} if moments else {}
        worst = max(errors, default=math.nan)
        return found | ({"dropout.error": worst} if math.isfinite(worst) else {})

    def _run(
        self, technique: Technique, engine: Engine, minimum: int | None = None, last: int | None = None
    ) -> Figures:
        with tempfile.TemporaryDirectory(prefix="statfed-probe-") as folder:
            ask = Questions(self.sources, self.world.codebook, technique, self.seed, Path(folder), engine)
            ask.minimum_holders, ask.last, ask.matched = minimum, last, self.matched
            return dict(self.module.compute(ask, self.world.public))
