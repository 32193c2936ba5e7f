"""What all reports share, whatever they report on.

May import `arrays` and `common`; knows no result. `html.py` makes pages of
escaped text, `figures.py` figures by Matplotlib.
"""
