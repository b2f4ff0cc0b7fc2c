"""Analyses of tables that stay with their holders, from Python.

>>> from statfed.analyse import Federation
"""

from statfed.analyse._run import Answer, DryRun, run_analysis
from statfed.analyse._study import AnalysisStudy, load_analysis_study, make_analysis_study
from statfed.analyse.federation import Federation

__all__ = [
    "AnalysisStudy",
    "Answer",
    "DryRun",
    "Federation",
    "load_analysis_study",
    "make_analysis_study",
    "run_analysis",
]
