"""Synthetic data: what is measured of it, in numbers that need neither a federation nor a model.

A table is read by its codebook into codes and numbers (`coded`); measures compare the coded tables: of utility
(`utility`), of disclosure risk (`attacks`, `targets`, `membership`), each with the value that fresh records of the same
population have (`measured.Measured.baseline`). What a measure is for, when it misleads, and which use of synthetic data
asks for it, is data in `guide.toml`.
"""
