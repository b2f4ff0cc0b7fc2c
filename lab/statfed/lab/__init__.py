"""Where techniques are tried: comparison, recommendation, laws of plugins."""
