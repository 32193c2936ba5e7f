"""A recorded run: record, file, snapshots, and how two of them differ.

Needs no Keras; may import `reports`, `environment` and what lies below. Begin
with `run.py`, then `comparison.py`.
"""
