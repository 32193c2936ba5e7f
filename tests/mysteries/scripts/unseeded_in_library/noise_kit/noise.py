import numpy as np


def add_noise(x, scale):
    """As augmentation libraries do it."""
    noise = np.random.normal(scale=scale, size=x.shape)  # <- unseeded
    return (x + noise).astype("float32")
