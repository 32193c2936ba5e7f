"""What all reports share, whatever they report on.

May import `arrays` and `common`; knows no result. `document.py` has the parts
of which a result makes its description; `text.py`, `page.py` and `figures.py`
render any of these, and `result.py` is what all results share.
"""
