"""Estimates under linkage errors: error rates without clerical review, corrected totals, regressions and coverage.

Pure functions of counts and sums; results are frozen dataclasses. What each correction is for, and when it misleads,
is in docs/linkage-errors.md and in the docstring of each.
"""
