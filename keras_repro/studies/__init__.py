"""Results of many seeds: scores, files, comparison of studies.

Needs no Keras; may import `runs` and what lies below. Begin with `results.py`,
then `comparison.py`.
"""
