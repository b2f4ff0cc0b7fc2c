"""Studies of tables that stay with their holders, from Python.

>>> from statfed.federation import Federation
"""

from statfed.core.study import Study, load_study, make_study
from statfed.federation.answers import Answer, load_answer
from statfed.federation.federation import Federation
from statfed.federation.run import DryRun, Options, resume_study, run_study

__all__ = [
    "Answer",
    "DryRun",
    "Federation",
    "Options",
    "Study",
    "load_answer",
    "load_study",
    "make_study",
    "resume_study",
    "run_study",
]
