"""Differential privacy: events and their composition, discrete noise and who adds it."""
