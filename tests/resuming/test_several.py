"""A program that trains several times comes to the one it was killed in."""

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends.reading import Reading
from keras_repro.resuming import backup
from keras_repro.resuming.several import SeveralBackups

pytestmark = pytest.mark.requires_backend

X = np.linspace(0, 1, 48, dtype="float32").reshape(24, 2)
Y = X[:, :1] ** 2


class Rows(keras.utils.PyDataset):
    """Samples in an order that goes on from one training to the next."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(5)
        self.on_epoch_end()

    def __len__(self):
        return 3

    def __getitem__(self, index):
        chosen = self.order[8 * index : 8 * index + 8]
        return X[chosen], Y[chosen]

    def on_epoch_end(self):
        self.order = self.rng.permutation(24)


def make_pipeline():
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y))
    # Seeded, since TensorFlow draws a seed for each pipeline that a process
    # makes once a test before has set a global one.
    return data.shuffle(24, seed=3).batch(8)


def train(data, folder):
    """Two trainings on the same data, as a program makes them."""
    model = kr.ReproducibleModel(
        [
            keras.Input((2,)),
            keras.layers.Dense(4, "relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ],
        seed=1,
    )
    model.compile("adam", "mse")
    backup._ended.clear()  # As in a process of its own.
    backups = SeveralBackups(folder, "epoch")
    found = []
    for _ in range(2):
        history = model.fit(
            data, epochs=2, shuffle=False, verbose=0, callbacks=[backups]
        )
        found.append((history.history["loss"], backups.resumed_from))
    return found


@pytest.mark.sampled(5)
@pytest.mark.parametrize("make_data", [Rows, make_pipeline])
def test_data_stand_where_a_training_that_ended_left_them(
    tmp_path, monkeypatch, make_data
):
    """Also where the next training had no backup yet; else they begin anew."""
    (first, _), (second, _) = train(make_data(), tmp_path)
    for path in (tmp_path / "000001").rglob("0*.h5"):
        path.unlink()
    again = train(make_data(), tmp_path)
    assert again == [(first, "the end"), (second, None)]

    for path in (tmp_path / "000001").rglob("0*.h5"):
        path.unlink()
    monkeypatch.setattr(Reading, "read_through", lambda *_: None)
    assert train(make_data(), tmp_path)[1] != (second, None)
