"""What an open run was answered last, on this holder's own disk: a sum that was lost on its way is given again.

A sum is lost where a holder was charged for it and the coordinator does not have it: either was killed, or the network
between them. Another attempt of the run (`NAME~2`) then asks for the same sum again. It is given the very contribution
that was given before, with its noise, and nothing is charged.

Why that costs nothing.

1. *The same output twice is post-processing.* What is given again is a function of what was given, whoever asks however
   often, and no data are read. Any difference in the ask (study, number of the sum, name, share, public arrays) is
   another question: it is refused, and never answered from here.
2. *Protections hide it anew.* An attempt is a session of its own at every protection, with keys and masks that were
   never used; only what goes into it is the same.
3. *Two totals tell no more than one*, where both are over all holders: they are equal. Where a total may do without
   some holders (`minimum_holders`), two totals over different ones would differ by the contributions of a few, hidden
   by nothing but their own noise. So there a contribution is given again only if its own noise is enough: with local
   noise (`Resolved.repeatable`). Shared noise and exact figures are not given again there, nor is an exact statistic
   computed again: a sum that one attempt was given is refused to another, which the ledger's `disclose` entries tell.
4. *A coordinator that adds the noise* (central) is trusted to draw it once for each total that it uses. It has not
   used that of a lost sum: the run has no result, and once it has one, or has none on seeing totals, nothing is kept.
5. *What was charged and never left is computed late.* `pending` is on disk before the charge, and what is kept takes
   its place, on disk, before it leaves; it is not written for a sum that any attempt was charged for. While it stands
   for the last sum that was charged nothing of that left, so that a later attempt may have it computed, for the charge
   that was made: exactly one contribution to it ever leaves, whatever ends this process when. This is why the folder
   is no part of a backup: an old `pending` put back would say of a contribution that it never left.
6. *What cannot be recorded does not leave.* Where the disk is full the answer is an error, before or after the charge.
7. *The same figures or none.* Without this file (it is old, damaged or gone) an exact sum that the ledger says was
   given is computed again only for the same question about the same state of the data: editing records between attempts
   gives nothing new. Training without noise draws its batches anew, about the same records.
8. *Over is over.* That a run ended, with a result or with none on seeing totals, is an entry of the ledger where
   anything was set aside for it or given to it. From then on none of its attempts is given anything, whatever becomes
   of this file.

Beside it stands what follows from earlier asks and outlives a restart: the asks that an exact study made, since later
ones are held to their course, and the state of the data, since sums of one run are about the same records. Without the
file an exact study has to begin anew, and what was charged is lost.

One file for each of the `MOST` runs that were last at work, for `DAYS` at most; plain figures, mode 0600.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.conditions import canonical
from statfed.core.errors import EngineError
from statfed.core.method import Arrays, Ask
from statfed.core.resolve import Resolved

FOLDER = "open"
MOST, DAYS = 16, 7.0
log = logging.getLogger("statfed.holder")


@dataclass(frozen=True)
class Answered:
    """What a run was answered last.

    study: digest of its terms; attempt: which one asked; number, asked: of the sum, and the digest of the ask; pending:
    nothing of it has left; found: the contribution, after noise and before protection, None where it is not given
    again; rules: that it passed, and under which; course: the asks of an exact study by number; data: names their
    state, empty where it cannot be told.
    """

    study: str
    attempt: str
    number: int
    asked: str
    data: str = ""
    pending: bool = False
    found: Arrays | None = None
    rules: tuple[str, ...] = ()
    under: str = ""
    course: Mapping[int, Ask] = field(default_factory=dict)

    def again(self, run: str, number: int, asked: str, under: str) -> bool:
        """Is this what another attempt asks for again?"""
        return run != self.attempt and (number, asked) == (self.number, self.asked) and under == self.under

    def before(self, number: int) -> tuple[Ask, ...]:
        """The asks that came before one, in order."""
        return tuple(ask for key, ask in sorted(self.course.items()) if key < number)


class Repeats:
    """The open runs of the holder with this home folder."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    def read(self, run: str, study: str) -> Answered | None:
        """What a run of a study, in any of its attempts, was answered last; None where that is not known."""
        try:
            with self._path(run, study).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            found = _read(arrays)
        except FileNotFoundError:
            return None
        except Exception:  # a damaged file raises whatever its reader meets first: it is as none
            log.exception("open runs: %s cannot be read", self._path(run, study))
            return None
        return found if found.study == study else None

    def write(self, answered: Answered) -> None:
        """Put a run's record in place of its last one, on disk. Raises EngineError where it cannot be written."""
        path = self._path(answered.attempt, answered.study)
        part = path.with_suffix(".part")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if not path.exists():
                self._prune()
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                np.savez(file, **_written(answered))  # type: ignore[arg-type]  # as of checkpoints
                file.flush()
                os.fsync(descriptor)
            part.replace(path)
            _sync(self._folder)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise EngineError(f"open runs: {path} cannot be written: {error.strerror}; nothing was given") from None

    def forget(self, run: str, study: str) -> None:
        """Nothing of a run is given again. Raises EngineError where the file cannot be removed."""
        try:
            self._path(run, study).unlink(missing_ok=True)
        except OSError as error:
            raise EngineError(f"open runs: {self._path(run, study)} cannot be removed: {error.strerror}") from None

    def _path(self, run: str, study: str) -> Path:
        named = json.dumps([run.partition("~")[0], study])
        return self._folder / f"{sha256(named.encode()).hexdigest()[:32]}.npz"

    def _prune(self) -> None:
        """Remove what is old, and the oldest of what is too much for one more."""
        begun = {path: path.stat().st_mtime for path in self._folder.iterdir()}
        late = time.time() - DAYS * 86_400
        kept = sorted((path for path, at in begun.items() if at >= late), key=lambda path: begun[path])
        for path in set(begun) - set(kept[-(MOST - 1) :]):
            path.unlink(missing_ok=True)


def figures_of(study: Resolved, ask: Ask, state: str) -> str:
    """Names the exact figures that an ask gives: the same whoever asks, in whatever run and with whomever.

    state: of the data.
    """
    terms = study.terms
    facts = [
        state,
        terms.method,
        terms.options,
        study.codebook.digest(),
        sorted(map(canonical, terms.where)),
        ask.name,
    ]
    digest = sha256(json.dumps(facts, sort_keys=True).encode())
    for name, array in sorted(ask.arrays.items()):
        made = np.ascontiguousarray(array)
        digest.update(json.dumps([name, made.dtype.str, made.shape]).encode())
        digest.update(made.tobytes())
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(answered: Answered) -> dict[str, NDArray[Any]]:
    facts = {
        "study": answered.study,
        "attempt": answered.attempt,
        "number": answered.number,
        "asked": answered.asked,
        "data": answered.data,
        "pending": answered.pending,
        "given": answered.found is not None,
        "rules": list(answered.rules),
        "under": answered.under,
        "course": {number: [ask.name, ask.share] for number, ask in answered.course.items()},
    }
    arrays = {f"found/{name}": np.asarray(array) for name, array in (answered.found or {}).items()}
    for number, ask in answered.course.items():
        arrays |= {f"course/{number}/{name}": np.asarray(array) for name, array in ask.arrays.items()}
    return {**arrays, "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}


def _read(arrays: Mapping[str, NDArray[Any]]) -> Answered:
    facts = json.loads(bytes(arrays["facts"]))

    def under(prefix: str) -> dict[str, NDArray[Any]]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    return Answered(
        study=str(facts["study"]),
        attempt=str(facts["attempt"]),
        number=int(facts["number"]),
        asked=str(facts["asked"]),
        data=str(facts["data"]),
        pending=facts["pending"] is True,
        found=under("found/") if facts["given"] is True else None,
        rules=tuple(map(str, facts["rules"])),
        under=str(facts["under"]),
        course={
            int(number): Ask(str(name), under(f"course/{number}/"), float(share))
            for number, (name, share) in facts["course"].items()
        },
    )
