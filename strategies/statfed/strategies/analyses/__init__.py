"""Analyses, one a file with both halves; see `statfed.core.method` for the contract."""
