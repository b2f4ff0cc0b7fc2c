"""An attacker that searches by itself. See `search`."""
