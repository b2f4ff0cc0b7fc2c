"""Disclosure control of pooled releases: rules, secondary suppression and its audit, rounding, cell-key noise."""
