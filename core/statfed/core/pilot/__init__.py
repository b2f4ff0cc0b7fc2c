"""What the parties of a pilot give each other: requests, kits, certificates, and words to compare by telephone."""

PROTOCOL = 1
"""Of what pilots exchange. It changes only where older parties could not take part, whatever the package's version."""
