"""A holder's data: sources, and tables checked against a codebook."""
