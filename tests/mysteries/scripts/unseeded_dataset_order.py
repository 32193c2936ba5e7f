"""`fit` shuffles the batches of a PyDataset with Python's `random`."""

import keras
import numpy as np

np.random.seed(0)


class Batches(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return len(self.x) // 16

    def __getitem__(self, index):
        batch = self.x[16 * index : 16 * (index + 1)]
        return batch, batch[:, :1]


x = np.random.normal(size=(64, 4)).astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(1, kernel_initializer="ones"),
    ]
)
model.compile("adam", "mse")
model.fit(Batches(x), epochs=2, verbose=0)  # <- unseeded
