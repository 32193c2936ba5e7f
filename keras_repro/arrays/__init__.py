"""What an array is, bit for bit: checksums, norms, distances, HDF5.

Imports nothing of ours. Begin with `checksums.py`.
"""
