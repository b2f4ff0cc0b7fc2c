"""A protection and an analysis for statfed."""
