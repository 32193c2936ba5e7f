"""A model saved in the midst of a training, and loaded, goes on exactly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.model.midst import Midst
from keras_repro.model.model import ReproducibleModel

pytestmark = [
    pytest.mark.requires_backend(),
    # Of Keras, where a pass does not end with an epoch.
    pytest.mark.filterwarnings("ignore:Your input ran out:UserWarning"),
]
L = keras.layers
X = np.random.default_rng(0).normal(size=(35, 4)).astype("float32")
Y = (X.sum(1, keepdims=True) > 0).astype("float32")
CALL: dict[str, Any] = {"batch_size": 8, "verbose": 0}  # Five batches.
EPOCHS = 4


def make_model() -> Any:
    """All that a training moves: dropout, moving averages, slots, metrics."""
    model = ReproducibleModel(
        [
            keras.Input((4,)),
            L.Dense(6, "relu"),
            L.BatchNormalization(),
            L.Dropout(0.3),
            L.Dense(1, "sigmoid"),
        ],
        seed=3,
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


class Save(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves the model at one place of a training."""

    def __init__(self, path: Path, when: str, epoch: int, batch: int) -> None:
        super().__init__()
        self.path, self.when, self.place = path, when, (epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch."""
        del logs
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Perhaps save before a batch."""
        del logs
        self._save("before", batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Perhaps save after a batch."""
        del logs
        self._save("after", batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Perhaps save behind an epoch."""
        del logs
        self._save("epoch", 0)

    def _save(self, when: str, batch: int) -> None:
        if (when, self.epoch, batch) == (self.when, *self.place):
            self.model.save(self.path)


def find_bits(model: Any) -> list[bytes]:
    """All variables of a model, the trained first, and of its optimizer."""
    variables = *model.trainable_variables, *model.variables
    return [
        np.asarray(keras.ops.convert_to_numpy(one)).tobytes()
        for one in (*variables, *model.optimizer.variables)
    ]


def go_on(model: Any, epoch: int, **more: Any) -> tuple[Any, ...]:
    """A training to its end, and another one behind it."""
    history = model.fit(
        X, Y, epochs=EPOCHS, initial_epoch=epoch, **{**CALL, **more}
    ).history
    second = model.fit(X, Y, epochs=1, **CALL).history
    return history, second, find_bits(model)


def save(path: Path, when: str, epoch: int, batch: int, **more: Any) -> Any:
    """A whole training within which its model is saved."""
    saved = Save(path, when, epoch, batch)
    return go_on(make_model(), 0, callbacks=[saved], **more)


def cut(found: tuple[Any, ...], epoch: int) -> tuple[Any, ...]:
    """What a whole training gave from an epoch on."""
    history, *rest = found
    return {name: one[epoch:] for name, one in history.items()}, *rest


@contextmanager
def told(text: str) -> Iterator[None]:
    """One warning of ours, with a text."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    ours = [one for one in found if "saved" in str(one.message)]
    assert [one.filename for one in ours] == [__file__]  # Whose call it was.
    assert text in str(ours[0].message)


PLACES = {
    "after a batch": ("after", 1, 2, 1, {}),
    "before a batch": ("before", 1, 2, 1, {}),
    "in the first epoch": ("after", 0, 0, 0, {}),
    "after the last batch": ("after", 1, 4, 2, {}),
    "behind an epoch": ("epoch", 1, 0, 2, {}),
    "in a pass of several epochs": ("after", 1, 0, 1, {"steps_per_epoch": 2}),
    "behind a part of a pass": ("epoch", 0, 0, 1, {"steps_per_epoch": 2}),
    "before the last batches": ("before", 2, 3, 2, {"shuffle": "batch"}),
    "a last part of a pass": ("after", 2, 0, 3, {"steps_per_epoch": 2}),
    "steps at once": ("after", 1, 3, 1, {"steps_per_execution": 2}),
}


@pytest.mark.sampled(20)
@pytest.mark.parametrize("place", PLACES)
def test_goes_on(place: str, tmp_path: Path) -> None:
    """Weights, optimizer, history, and what is trained after it are equal."""
    when, epoch, batch, first, more = PLACES[place]
    if place == "steps at once" and keras.backend.backend() == "torch":
        pytest.skip("Keras has none on PyTorch")
    path, more = tmp_path / "m.keras", dict(more)
    per_execution = more.pop("steps_per_execution", 1)
    more["validation_data"] = (X[:9], Y[:9])
    model = make_model()
    model.steps_per_execution = per_execution
    saved = Save(path, when, epoch, batch)
    whole = go_on(model, 0, callbacks=[saved], **more)
    loaded = keras.saving.load_model(path)
    loaded.steps_per_execution = per_execution
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The model was saved")
        assert go_on(loaded, first, **more) == cut(whole, first)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("left_out", [None, "place", "streams", "metrics"])
def test_each_part_is_needed(
    left_out: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one of the parts the training is another one."""
    whole = save(tmp_path / "m.keras", "after", 1, 2)
    loaded = keras.saving.load_model(tmp_path / "m.keras")

    class Draw(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            del logs
            if epoch == 1:  # As it had done before the model was saved.
                self.model.layers[2](np.ones((2, 6)), training=True)

    callbacks = [Draw()]
    if left_out == "place":
        loaded._repro.progress.saved = None
        callbacks = []
    elif left_out == "streams":
        monkeypatch.setattr(
            "keras_repro.model.around_fit.put_streams", lambda *_: None
        )
    elif left_out == "metrics":
        monkeypatch.setattr(Midst, "put_metrics", lambda *_: True)
    found = go_on(loaded, 1, callbacks=callbacks)
    monkeypatch.undo()
    expected = cut(whole, 1)
    if left_out is None:
        assert found == expected
    elif left_out == "metrics":
        assert found[1:] == expected[1:]
        assert found[0]["loss"][0] != expected[0]["loss"][0]
        assert found[0]["loss"][1:] == expected[0]["loss"][1:]
    else:
        assert found[2] != expected[2]


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "epoch": ("another `initial_epoch` (1 then)", {"initial_epoch": 0}),
    "batch size": ("another `batch_size`", {"batch_size": 5}),
    "shuffle": ("another `shuffle`", {"shuffle": False}),
    "data": ("another content of the data", {"x": X + 1}),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("other", OTHERS)
def test_another_training_is_told_of(other: str, tmp_path: Path) -> None:
    """It begins its epoch anew, and says why; once, and in the record."""
    text, changed = OTHERS[other]
    save(tmp_path / "m.keras", "after", 1, 2)
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    call = {"x": X, "y": Y, "epochs": 2, "initial_epoch": 1, **CALL, **changed}
    record = kr.ChecksumCallback()
    with told(text):
        loaded.fit(**call, callbacks=[record])
    assert any(text in note for note in record.run.header.notes)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The model was saved")
        loaded.fit(**call)


@pytest.mark.slow
def test_other_steps_are_told_of(tmp_path: Path) -> None:
    """A model that was trained by hand in between is at another place."""
    save(tmp_path / "m.keras", "after", 1, 2)
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    loaded.train_on_batch(X[:8], Y[:8])
    with told("another step of the optimizer"):
        go_on(loaded, 1)


@pytest.mark.slow
def test_other_metrics_are_told_of(tmp_path: Path) -> None:
    """The weights go on exactly; what the epoch shows is of its rest."""
    whole = save(tmp_path / "m.keras", "after", 1, 2)
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    loaded.compile(loaded.optimizer, "binary_crossentropy", metrics=["mae"])
    num_trained = len(loaded.trainable_variables)
    with told("with other metrics"):
        found = go_on(loaded, 1)
    assert found[2][:num_trained] == whole[2][:num_trained]


def test_other_kinds_of_data_are_told_of(tmp_path: Path) -> None:
    """Only arrays begin in the midst; a backup keeps the place in others."""

    class Rows(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return X[index * 8 :][:8], Y[index * 8 :][:8]

    model = make_model()
    saved = Save(tmp_path / "m.keras", "after", 1, 2)
    model.fit(Rows(), epochs=2, verbose=0, callbacks=[saved])
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    with told("kind of data (PyDataset; arrays can)"):
        loaded.fit(Rows(), epochs=2, initial_epoch=1, verbose=0)


class Drawing(keras.utils.PyDataset):  # type: ignore[misc]
    """Draws its order for each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(1)
        self.on_epoch_end()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        rows = self.order[index * 8 :][:8]
        return X[rows], Y[rows]

    def on_epoch_end(self) -> None:
        """Draw the next order."""
        self.order = self.rng.permutation(len(X))


@pytest.mark.slow
def test_data_that_begin_anew_are_told_of(tmp_path: Path) -> None:
    """Behind an epoch too; who trains anew is left in peace."""
    model, path = make_model(), tmp_path / "m.keras"
    saved = Save(path, "epoch", 0, 0)
    model.fit(Drawing(), epochs=2, verbose=0, callbacks=[saved])
    loaded = keras.saving.load_model(path)
    with told("kind of data (PyDataset; arrays can)"):
        loaded.fit(Drawing(), epochs=2, initial_epoch=1, verbose=0)
    loaded = keras.saving.load_model(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The model was saved")
        loaded.fit(Drawing(), epochs=1, verbose=0)


@pytest.mark.slow
def test_reset_goes_to_the_start(tmp_path: Path) -> None:
    """Nothing of the place is left, and nothing is told."""
    whole = save(tmp_path / "m.keras", "after", 1, 2)
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    loaded.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The model was saved")
        assert go_on(loaded, 0) == whole


@pytest.mark.slow
def test_later_trainings_go_on_too(tmp_path: Path) -> None:
    """The epochs before a second training count in a file of that."""
    model, path = make_model(), tmp_path / "m.keras"
    model.fit(X, Y, epochs=2, **CALL)
    whole = go_on(model, 0, callbacks=[Save(path, "epoch", 0, 0)])
    loaded = keras.saving.load_model(path)
    assert go_on(loaded, 1) == cut(whole, 1)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """Nothing in it is trusted."""
    found: list[Midst] = []

    class Look(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            del batch, logs
            found.append(Midst.of(self.model))  # type: ignore[arg-type]

    make_model().fit(X, Y, epochs=1, callbacks=[Look()], **CALL)
    assert found[-1] is None  # The epoch has ended.
    whole = found[0].to_json()
    assert Midst.from_json(whole) == found[0]
    for name, value in (
        ("place", {**whole["place"], "batch": -1}),
        ("first_epoch", -1),
        ("iterations", 1.5),
        ("data", {}),
        ("metrics", None),
        ("more", 0),
    ):
        with pytest.raises(ValueError, match=r"cannot be|unknown"):
            Midst.from_json({**whole, name: value})
    model = make_model()
    name = whole["metrics"][0][0]
    for content in ([name, "float32", "zz"], [name, "int64", "00" * 8], 1):
        broken = Midst.from_json({**whole, "metrics": [content] * 2})
        assert not broken.put_metrics(model)
