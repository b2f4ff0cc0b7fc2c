"""Kinds of input and what happens to them: `python benchmarks/inputs.py` writes the page, a test tries them all."""
