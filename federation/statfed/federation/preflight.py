"""What can be refused of a study before any record is read, a codebook is drafted or an engine is started.

`before_data` looks at the study alone, and at its codebook where one is given: names, options, and whether the
protection applies. `before_drafting` knows the names of a holder's columns, and nothing else of its data.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from statfed.core.applicability import applicable
from statfed.core.codebook import Codebook, Column, load_codebook
from statfed.core.conditions import check_syntax, parse_where
from statfed.core.discovery import is_linkage
from statfed.core.errors import UsageError
from statfed.core.method import load_method, read_options, read_question
from statfed.core.resolve import resolve_applicable
from statfed.core.scenario import load_training
from statfed.core.study import Study, agreed_functions
from statfed.core.terms import Privacy, Terms
from statfed.federation.parties import third_party_names
from statfed.federation.population import described

R = TypeVar("R")
_STAND_IN = Column(type="boolean")
"""A column that has levels and can be computed with: what a name may be used for is not known before its type is."""


class _NoColumn(UsageError):
    """A name that the table does not have."""


class _Names(Codebook):
    """The columns of a table of which nothing but their names is known."""

    def column(self, name: str, where: str = "column") -> Column:
        try:
            return super().column(name, where)
        except UsageError as error:
            raise _NoColumn(str(error)) from None


def before_data(study: Study, base: Path, codebook: Codebook | None = None, runs: Path | None = None) -> None:
    """Raises UsageError where the study would be refused whatever the data are.

    base: folder that relative paths start from; codebook: instead of the study's file; runs: folder of runs.
    """
    load_method(study.method)
    started(study.start, runs)
    third_party_names(study.protection, study.holders, study.engine)
    if study.scenario:
        _of_scenario(study)
        return
    read_options(study.method, study.options)
    for text in study.where:
        check_syntax(text)
    if codebook is None and study.codebook is None:
        return
    known = load_codebook(base / study.codebook) if codebook is None and study.codebook else codebook
    if known is not None:
        others = {name: load_codebook(base / path) for name, path in study.codebooks.items()}
        if not is_linkage(study.protection.name) or set(others) == set(study.holders):
            resolve_applicable(study.terms(known, others))


def before_drafting(study: Study, holder: str, columns: Sequence[str]) -> None:
    """Raises UsageError where the study reads a column that the holder's table does not have, or where its protection
    does not apply.

    columns: of that table. What depends on the types of columns is left to the codebook that is drafted, and
    all of it where holders have tables of their own form.
    """
    if study.codebooks or not columns:
        return
    names = _Names(columns=dict.fromkeys(columns, _STAND_IN))
    terms = Terms(
        method=study.method,
        options=study.options,
        codebook=names,
        holders=tuple(study.holders),
        roles=study.roles,
        seed=study.seed,
        privacy=study.privacy if isinstance(study.privacy, Privacy) else None,
        protection=study.protection,
        exact=study.exact,
    )
    try:
        for text in study.where:
            _whatever_its_type(partial(parse_where, (text,), names))
        _whatever_its_type(partial(read_question, terms))
    except _NoColumn as error:
        raise UsageError(f"{holder}: {error}") from None
    protection = _whatever_its_type(partial(agreed_functions, terms, study.disclosure)) or terms.protection
    applicable(terms.model_copy(update={"protection": protection}))


def _whatever_its_type(read: Callable[[], R]) -> R | None:
    """What is read; None where that depends on what is not known yet."""
    try:
        return read()
    except _NoColumn:
        raise
    except UsageError:
        return None


def _of_scenario(study: Study) -> None:
    scenario = load_training(str(study.scenario))
    table = described(scenario.codebook(study))
    named = {"features": list(table.features), "target": table.target}
    filled = study.model_copy(update={"options": {**named, **study.options}})
    resolve_applicable(filled.terms(table.codebook))


def started(start: str | None, runs: Path | None) -> dict[str, NDArray[Any]] | None:
    """The parameters that a study starts from: an earlier run's in `runs`, or of a model.npz; None where it names none.

    Raises UsageError where there are no such parameters.
    """
    if not start:
        return None
    inside = runs / start / "model.npz" if runs else Path(start)
    try:
        path = inside if inside.is_file() else Path(start)
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaves a damaged one open
            vector = np.asarray(file["vector"], np.float32)
    except Exception:  # noqa: BLE001  # a damaged archive raises whatever its reader meets first
        raise UsageError(f"start: got {start!r}; want a finished run's name or the path of its model.npz") from None
    if not np.isfinite(vector).all():
        raise UsageError(f"start: {start!r} has parameters that are not finite")
    return {"model": vector}
