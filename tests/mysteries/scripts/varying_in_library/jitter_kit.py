import time

import numpy as np


def jitter(x):
    rng = np.random.default_rng(time.time_ns())  # <- varying_seed
    return x + rng.normal(scale=0.1, size=x.shape).astype("float32")
