"""What a process draws, reads or races: observed, kept fixed, put back.

May import `recording` and what lies below. Begin with `watch.py`; `sources/`
has one file a library.
"""
