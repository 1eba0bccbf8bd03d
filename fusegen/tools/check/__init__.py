"""Check: is a built package right? Compares each element with a float64 reference, in units of its rounding
error.

The reference is the same chain by torch's own functions (`reference.py`), and by its own programs
(`reference_chain.py`).
"""
