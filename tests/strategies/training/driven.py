"""Drive a training in process over ready home folders."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.method import Question, read_question
from statfed.core.progress import silent
from statfed.core.resolve import resolve_applicable
from statfed.core.study import Study
from statfed.core.terms import Terms
from statfed.server.driver import Driven, drive
from statfed.server.engine import Deployment
from statfed.server.grid import inprocess
from tests.conftest import TOY


def question_of(terms: Terms) -> Question[Any]:
    """The question of a study."""
    return read_question(terms)[1]


def driven(study: Study, homes: dict[str, Path], run: str = "r1", **options: Any) -> Driven:
    """Train in process. options: wire, fault and tap of the engine."""
    resolved = resolve_applicable(study.terms(TOY.codebook))
    return inprocess.run(
        Deployment(run, homes, Path("unused")),
        lambda session: drive(session, resolved, run, timeout=60, progress=silent),
        silent,
        **options,
    )


def vector_of(done: Driven) -> NDArray[np.float32]:
    """The parameters of the trained model."""
    found: NDArray[np.float32] = done.result.arrays["model"]
    return found
