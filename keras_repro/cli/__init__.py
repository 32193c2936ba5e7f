"""The command `keras-repro`, one file a subcommand.

May import all folders but `integrations`. Begin with `main.py`.
"""
