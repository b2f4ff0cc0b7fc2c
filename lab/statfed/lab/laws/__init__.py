"""The laws that protections and analyses from outside are put under, built-ins alike: `check_protection` (protections),
`check_analysis` (analyses); results are data (`check.Check`). `network` drives a protection in memory.
"""
