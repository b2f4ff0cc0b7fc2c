"""Faults on the real processes of a pilot."""
