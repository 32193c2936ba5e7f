"""A generator of PyTorch's is seeded with entropy."""
# backends: torch

import keras
import numpy as np
import torch

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
generator = torch.Generator()
generator.seed()  # <- entropy
x += torch.randn(64, 4, generator=generator).numpy()
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
