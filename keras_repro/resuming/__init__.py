"""A killed training that goes on to the same bits.

May import `recording`, `model` and what lies below. Begin with `backup.py`;
`state.py` is what a backup holds, `files.py` where it lies.
"""
