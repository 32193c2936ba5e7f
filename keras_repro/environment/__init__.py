"""What else changes the bits of a run, beside the code and the seed.

May import `arrays` and `common`. `capture.py` reads it, `differences.py`
compares it, `switches.py` says what must be set before Python starts.
"""
