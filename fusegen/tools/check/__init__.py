"""Check: is a built package right? Each element beside float64 truth, in units of what it can be.

The truth is the same chain by torch's own functions (`reference.py`), and by its own programs
(`reference_chain.py`).
"""
