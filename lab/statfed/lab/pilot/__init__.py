"""Rehearsals of a pilot on one machine: organisations in folders of their own, and lines between them that fail."""
