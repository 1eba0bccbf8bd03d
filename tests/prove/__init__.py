"""What a sceptic can run: measures and attacks that are too long for the suite, each with a record.

`make prove` runs them all; `page.py` writes their records into docs/evidence.md.
"""
