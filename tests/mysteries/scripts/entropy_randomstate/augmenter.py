import numpy as np


class Augmenter:
    def __init__(self, seed=None):
        self.state = np.random.RandomState(seed)  # <- entropy

    def transform(self, x):
        flips = self.state.randint(0, 2, size=(len(x), 1)) * 2 - 1
        return (x * flips).astype("float32")
