"""Analyses of tables that stay with their holders, from Python.

>>> from statfed.federation import Federation
"""

from statfed.federation.answering import Answer, DryRun, run_analysis
from statfed.federation.federation import Federation
from statfed.federation.study import AnalysisStudy, load_analysis_study, make_analysis_study

__all__ = [
    "AnalysisStudy",
    "Answer",
    "DryRun",
    "Federation",
    "load_analysis_study",
    "make_analysis_study",
    "run_analysis",
]
