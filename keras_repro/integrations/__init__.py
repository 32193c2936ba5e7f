"""For other programs: the pytest plugin and the notebook magic.

May import all folders but `cli`.
"""
