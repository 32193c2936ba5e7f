"""One training under many seeds: here, in processes, on any executor.

May import `watching` and what lies below, not `diagnosis`. Begin with `run.py`.
"""
