"""`ReproducibleModel`: a Keras model that can go back to its start.

May import `backends` and what lies below. Begin with `model.py`, then
`trial.py`; `around_fit.py` is what happens around a training call.
"""
