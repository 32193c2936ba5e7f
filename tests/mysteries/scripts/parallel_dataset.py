"""Two workers draw from one generator, and race for it (keras#11365)."""

import keras
import numpy as np

keras.utils.set_random_seed(1)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        batch = np.concatenate(
            [np.random.normal(size=(1, 4)) for _ in range(200)]
        )
        return batch, batch[:, :1]


model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
data = Batches(workers=3)  # <- parallel_loading
model.fit(data, epochs=1, verbose=0)
