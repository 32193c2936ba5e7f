"""Fits of every kind, in one process; what must be recorded is at the end."""

import contextlib
import sys
import threading

import keras
import numpy as np

import keras_repro as kr

own_log = sys.argv[1]
x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
fit = keras.Model.fit


class Seen(keras.callbacks.Callback):
    """Counts the epochs that it sees."""

    epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        type(self).epochs += 1


class TwiceOverridden(keras.Sequential):
    """Calls `super().fit`, as people do."""

    def fit(self, *args, **kwargs):
        return super().fit(*args, **kwargs)


class FitsAnother(keras.callbacks.Callback):
    """Trains another model at the end of an epoch."""

    def on_epoch_end(self, epoch, logs=None):
        make().fit(x, y, verbose=0)


def make(cls=keras.Sequential):
    """A compiled model."""
    model = cls([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def is_refused(**arguments):
    """Whether Keras refuses a `fit`, as it should."""
    try:
        make().fit(x, y, verbose=0, **arguments)
    except (TypeError, ValueError):
        return True
    return False


make().fit(x, y, 4, 1, 0)  # Positional: batch size, epochs, verbosity.
for callbacks in ([Seen()], (Seen(),), Seen(), [], None):
    make().fit(x, y, verbose=0, callbacks=callbacks)
mine = [Seen()]
make().fit(x, y, verbose=0, callbacks=mine)
model = make()
listed = keras.callbacks.CallbackList(
    [Seen()], add_history=True, model=model, epochs=1, steps=1, verbose=0
)
assert model.fit(x, y, verbose=0, callbacks=listed).epoch == [0]
assert (len(mine), len(listed.callbacks)) == (1, 2)
assert Seen.epochs == 5
# 8 so far.
make(TwiceOverridden).fit(x, y, verbose=0)
make(kr.ReproducibleModel).fit(x, y, verbose=0)
# 10; and 2 with one inside.
make().fit(x, y, verbose=0, callbacks=FitsAnother())
# 12; in a thread: 13.
thread = threading.Thread(target=lambda: make().fit(x, y, verbose=0))
thread.start()
thread.join()
# The script's own callback on another file: 14. On ours: none is added.
own = kr.ChecksumCallback(own_log)
make().fit(x, y, verbose=0, callbacks=own)
if len(sys.argv) > 2:
    ours = kr.ChecksumCallback(sys.argv[2], name="by the script")
    make().fit(x, y, verbose=0, callbacks=[ours])
# Neither is a run.
make().train_on_batch(x, y)
assert is_refused(epoch=1)
assert is_refused(callbacks=None, batch_size="many")


class Failing(keras.callbacks.Callback):
    """Fails at the end of the first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        raise OSError("the disk is full")


# Begun and failed: 15.
with contextlib.suppress(OSError):
    make().fit(x, y, verbose=0, callbacks=Failing())
assert keras.Model.fit is fit
print("done")
