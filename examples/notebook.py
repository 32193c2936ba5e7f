"""A notebook whose cells may run in any order, twice, or after a failure.

Open it where `# %%` cells are understood (VS Code, Spyder, Jupytext), or run
it as a script: the asserts then stand for what you would see.
"""

# %% Set up: run this first, once
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_repro as kr

kr.seed_everything(7)
rng = np.random.default_rng(0)
x = rng.normal(size=(200, 4)).astype("float32")
y = (x[:, :1] - 2 * x[:, 1:2]).astype("float32")
model = kr.ReproducibleModel(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")


# %% Training A: a cell that begins with `reset()` means the same each time
def cell_a():
    model.reset()
    return model.fit(x, y, epochs=3, verbose=0).history["loss"]


loss_a = cell_a()
print("A      ", loss_a)


# %% Training B: another learning rate, and a draw from NumPy for good measure
def cell_b():
    model.reset()
    model.optimizer.learning_rate = 0.01
    np.random.random()
    return model.fit(x, y, epochs=3, verbose=0).history["loss"]


loss_b = cell_b()
print("B      ", loss_b)

# %% A look in between: it changes nothing that comes after
model.evaluate(x, y, verbose=0)
model.predict(x, verbose=0)

# %% A cell that somebody stopped in the middle of an epoch
try:
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, **_: 1 // (2 - batch)
    )
    model.fit(x, y, epochs=3, verbose=0, callbacks=[stop])
except ZeroDivisionError:
    print("stopped")

# %% Run them again, in another order
for name, cell, expected in [
    ("B again", cell_b, loss_b),
    ("A again", cell_a, loss_a),
    ("A again", cell_a, loss_a),
]:
    loss = cell()
    print(name, loss)
    assert loss == expected, f"{name} differs: {loss}, not {expected}"

# %% A random search still draws a new rate each time: trials keep to themselves
rates = []
for _ in range(3):
    rates.append(10 ** np.random.uniform(-4, -2))
    model.reset()
    model.optimizer.learning_rate = rates[-1]
    model.fit(x, y, epochs=1, verbose=0)
assert len(set(rates)) == 3

# %% Another seed is another trial, and it can be had again
model.reset(seed=1)
first = model.fit(x, y, epochs=1, verbose=0).history
model.reset(seed=2)
other = model.fit(x, y, epochs=1, verbose=0).history
model.reset(seed=1)
assert model.fit(x, y, epochs=1, verbose=0).history == first != other
print("All cells gave what they gave before.")
