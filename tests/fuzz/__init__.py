"""Parsers and readers under mutated input: `python -m tests.fuzz [EXAMPLES] [TARGET ...]` prints what came out."""
