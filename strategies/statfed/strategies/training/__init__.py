"""Training methods, one a file, both halves side by side."""
