"""Kits of the workshop, one module each, found by looking. The contract is `statfed.lab.workshop.contract.Kit`."""
