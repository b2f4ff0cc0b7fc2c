"""The laws that protections and methods from outside are put under, built-ins alike: `check_protection` (protections),
`check_method` (analyses and training methods); results are data (`check.Check`). `network` drives a protection in
memory, `walk` a method.
"""
