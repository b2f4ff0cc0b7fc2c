"""Methods of synthetic data, one a file: what is asked of holders, and how records are drawn from the answers.

Contract: `statfed.core.synthesis`.
"""
