"""Every line that differs between TensorFlow, JAX and PyTorch.

One class per framework behind one protocol, the private attributes of Keras,
random streams and the places of variables. May import `studies` and what lies
below. Begin with `protocol.py`; no other folder asks which backend runs.
"""
