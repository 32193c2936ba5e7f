"""Adding at repeated indices, by several threads (PyTorch)."""
# backends: torch

import keras
import numpy as np
import torch

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
keys = torch.randint(0, 64, (400_000,))
values = torch.randn(400_000, 4)
table = torch.zeros(64, 4)
for _ in range(40):
    table.index_put_((keys,), values, accumulate=True)  # <- nondeterministic_op
x += table.numpy()
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
