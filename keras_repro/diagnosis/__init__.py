"""Why two trainings differ.

May import `watching` and what lies below. Begin with `verify.py` for a script,
with `diagnose.py` for a function; `causes.py` lists what can be found.
"""
