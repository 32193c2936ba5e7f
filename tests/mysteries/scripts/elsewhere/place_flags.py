"""Recorded with XLA told to take shortcuts in its sums (JAX)."""
# backends: jax
# there: XLA_FLAGS=--xla_cpu_enable_fast_math=true
# kind: environment

import keras
import numpy as np

keras.utils.set_random_seed(1)
x = np.random.normal(size=(256, 64)).astype("float32")
model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, activation="tanh"),
        keras.layers.LayerNormalization(),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, shuffle=False, verbose=0)
