"""TensorFlow's own generator, from a state that nobody knows."""
# backends: tensorflow

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
generator = tf.random.Generator.from_non_deterministic_state()  # <- entropy
x += generator.normal(x.shape).numpy()
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0)
