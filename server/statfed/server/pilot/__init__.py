"""The coordinator's side of a pilot."""
