"""Analyses, one a file with both halves; see `statfed.core.analysis` for the contract."""
