"""Linkages: ways to match units of several holders, one a file; see `statfed.core.linkage`."""
