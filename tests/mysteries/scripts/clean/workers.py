"""Two workers, each batch drawn with a generator keyed by its index."""

import keras
import numpy as np

keras.utils.set_random_seed(1)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        rng = np.random.default_rng([1, index])
        batch = rng.normal(size=(16, 4)).astype("float32")
        return batch, batch[:, :1]


model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(Batches(workers=2), epochs=2, verbose=0)
model.predict(np.ones((3, 4)), verbose=0)
