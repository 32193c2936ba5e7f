"""`ChecksumCallback`: a training recorded and compared as it goes.

May import `model` and what lies below. Begin with `callback.py`.
"""
