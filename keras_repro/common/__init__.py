"""What every folder may use: files, JSON, text, checks, whose code a line is.

Imports nothing of ours and neither Keras nor a backend. `files.py` is the one
way to write a file.
"""
