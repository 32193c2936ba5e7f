"""A vocabulary is numbered in the order of a set (gensim#662)."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
text = "the cat sat on the mat and the dog lay by the door of the house"
words = text.split()
vocabulary = {}
for word in set(words):  # <- hash_order
    vocabulary[word] = len(vocabulary)
x = np.array([vocabulary[word] for word in words])
model = keras.Sequential(
    [
        keras.Input((), dtype="int32"),
        keras.layers.Embedding(len(vocabulary), 4),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(x, x % 3, epochs=2, batch_size=4, shuffle=False, verbose=0)
