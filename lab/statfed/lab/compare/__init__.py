"""Techniques side by side: each scenario under every protection and release level, on the same data and seeds."""
