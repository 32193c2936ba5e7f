"""All data of a trial belong to it: each kind of data, each use of it."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.model.data_positions import TRAINING
from keras_repro.model.stored_trial import PREDICT, TEST, VALIDATION
from tests.builders import make_model

pytestmark = [
    pytest.mark.requires_backend(),
    pytest.mark.filterwarnings("ignore:.*shuffle=True.*:UserWarning"),
    # Keras is told only by their end how long pipelines and Grain's sets are.
    pytest.mark.filterwarnings("ignore:Your input ran out:UserWarning"),
]
L = keras.layers
USES = (TRAINING, VALIDATION, TEST, PREDICT)
X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


class Drawing(keras.utils.PyDataset):  # type: ignore[misc]
    """Draws its samples from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(1)

    def __len__(self) -> int:
        return 2

    def choose(self, index: int) -> Any:
        """The samples of a batch."""
        del index
        return self.rng.permutation(24)[:8]

    def __getitem__(self, index: int) -> Any:
        rows = self.choose(index)
        return X[rows], Y[rows]


class Shuffling(Drawing):
    """Shuffles indices in place after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.order = np.arange(24)

    def choose(self, index: int) -> Any:
        """The next of its indices."""
        return self.order[index * 8 : index * 8 + 8]

    def on_epoch_end(self) -> None:
        """Shuffle."""
        np.random.shuffle(self.order)


class Replacing(Shuffling):
    """Makes its list of indices only when it is asked, and then a new one."""

    def __init__(self) -> None:
        super().__init__()
        del self.order

    def choose(self, index: int) -> Any:
        """The next of its indices."""
        if not hasattr(self, "order"):
            self.order = list(range(24))
        return super().choose(index)

    def on_epoch_end(self) -> None:
        """Shuffle a copy."""
        if hasattr(self, "order"):
            self.order = [self.order[i] for i in np.random.permutation(24)]


class Remembering(Drawing):
    """Keeps what it drew for a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: dict[int, Any] = {}
        self.count = 0

    def choose(self, index: int) -> Any:
        """What was drawn at first, moved on by a counter."""
        self.count += 1
        rows = self.batches.setdefault(index, super().choose(index))
        return (rows + self.count) % 24


class Source:
    """What a data set reads from."""

    def __init__(self) -> None:
        self.draws = [np.random.RandomState(2)]

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        noise = np.float32(self.draws[0].normal())
        return X[index] * noise, Y[index]


class Nested(Drawing):
    """Draws from a generator of an object that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.source = Source()

    def choose(self, index: int) -> Any:
        """What the source draws."""
        del index
        return self.source.draws[0].permutation(24)[:8]


class Global(Drawing):
    """Draws from NumPy's global generator."""

    def choose(self, index: int) -> Any:
        """What is drawn."""
        del index
        return np.random.permutation(24)[:8]


def flow(seed: int | None) -> Any:
    """One of Keras' older image iterators."""
    from keras.src.legacy.preprocessing import image

    images = image.ImageDataGenerator(horizontal_flip=True)
    return images.flow(X.reshape(24, 2, 2, 1), Y, batch_size=12, seed=seed)


def shuffled_pipeline(seed: int | None) -> Any:
    """A part of what `tf.data` shuffles."""
    tf = pytest.importorskip("tensorflow")
    pairs = tf.data.Dataset.from_tensor_slices((X, Y))
    return pairs.shuffle(24, seed=seed).take(16).batch(8)


def generated_pipeline() -> Any:
    """A pipeline of a Python function that draws."""
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(3)

    def rows() -> Iterator[Any]:
        for i in rng.permutation(24)[:16]:
            yield X[i], Y[i]

    spec = (tf.TensorSpec((4,)), tf.TensorSpec((1,)))
    pairs = tf.data.Dataset.from_generator(rows, output_signature=spec)
    return pairs.batch(8)


def loader(dataset: Any = None, seed: int | None = None) -> Any:
    """A loader of PyTorch that shuffles."""
    torch = pytest.importorskip("torch")
    if dataset is None:
        dataset = torch.utils.data.TensorDataset(
            torch.from_numpy(X), torch.from_numpy(Y)
        )
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return torch.utils.data.DataLoader(
        dataset, 10, shuffle=True, drop_last=True, generator=generator
    )


def grain_loader() -> Any:
    """A loader of Grain, of a source that draws."""
    grain = pytest.importorskip("grain")
    sampler = grain.samplers.IndexSampler(
        24, shuffle=True, seed=0, num_epochs=1
    )
    return grain.DataLoader(
        data_source=Source(),
        sampler=sampler,
        operations=[grain.transforms.Batch(8)],
        read_options=grain.ReadOptions(num_threads=0),
    )


def grain_dataset() -> Any:
    """Grain's own shuffling."""
    grain = pytest.importorskip("grain")
    pairs = grain.MapDataset.source(list(zip(X, Y, strict=True)))
    return pairs.seed(3).shuffle().batch(8)


KINDS: dict[str, Callable[[], Any]] = {
    "generator": Drawing,
    "shuffled in place": Shuffling,
    "replaced": Replacing,
    "cache and counter": Remembering,
    "nested": Nested,
    "global generator": Global,
    "image iterator": lambda: flow(None),
    "image iterator, seeded": lambda: flow(1),
    "tf.data": lambda: shuffled_pipeline(None),
    "tf.data, seeded": lambda: shuffled_pipeline(1),
    "tf.data of a function": generated_pipeline,
    "loader": loader,
    "loader, seeded": lambda: loader(seed=1),
    "loader of a drawing set": lambda: loader(Source(), seed=1),
    "Grain": grain_dataset,
    "Grain of a drawing source": grain_loader,
}


@pytest.fixture(scope="module")
def models() -> Callable[[Any], Any]:
    """One model for each shape of data, all of which use Dropout."""
    made: dict[Any, Any] = {}

    def get(shape: Any) -> Any:
        if shape not in made:
            made[shape] = make_model(
                L.Flatten(), L.Dropout(0.2), shape=shape, seed=3
            )
        return made[shape]

    return get


def play(model: Any, data: Any, validation: Any = None) -> list[Any]:
    """Use data in each way, and in each once more."""
    results: list[Any] = []
    for epochs in (2, 1):
        fitted = model.fit(
            data,
            epochs=epochs,
            validation_data=data if validation is None else validation,
            verbose=0,
        )
        results += [fitted.history, model.evaluate(data, verbose=0)]
        results.append(model.predict(data, verbose=0).tobytes())
    return results


@pytest.mark.sampled(60)
@pytest.mark.parametrize("kind", KINDS)
def test_every_use_is_rewound(models: Any, kind: str) -> None:
    """One object for each use: all of it is repeated, also by a new model."""
    model = models((2, 2, 1) if "image" in kind else (4,))
    data = KINDS[kind]()
    model.reset()
    first = play(model, data)
    model.reset()
    assert play(model, data) == first
    # Kinds whose passes differ go on within a trial.
    if kind not in ("Grain",):
        assert first[0]["val_loss"][0] != first[0]["val_loss"][1]
        assert first[2] != first[5]


@pytest.mark.sampled(12)
@pytest.mark.parametrize("left_out", USES)
@pytest.mark.parametrize("kind", ["generator", "tf.data", "loader, seeded"])
def test_each_use_needs_its_rewinding(
    models: Any, kind: str, left_out: str, monkeypatch: Any
) -> None:
    """With one use left out of the rewinding that use alone differs."""
    model, data = models((4,)), KINDS[kind]()
    model.reset()
    first = play(model, data)
    rewind = model._repro.data.positions.rewind

    def rewind_others() -> None:
        for use in USES:
            if use != left_out:
                rewind(use)

    monkeypatch.setattr(model._repro.data.positions, "rewind", rewind_others)
    model.reset()
    monkeypatch.undo()
    again = play(model, data)
    differing = {
        use
        for use, a, b in zip(
            (TRAINING, VALIDATION, TEST, PREDICT),
            (first[0]["loss"], first[0]["val_loss"], first[1], first[2]),
            (again[0]["loss"], again[0]["val_loss"], again[1], again[2]),
            strict=True,
        )
        if a != b
    }
    # Other weights give other results in all that follows.
    assert differing == (set(USES) if left_out == TRAINING else {left_out})


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["generator", "tf.data, seeded"])
def test_early_stopping_stops_where_it_did(models: Any, kind: str) -> None:
    """Validation that draws steers a training; the weights are those too."""
    model, data, ends = models((4,)), KINDS[kind](), []
    for _ in range(3):
        model.reset()
        stop = keras.callbacks.EarlyStopping(
            patience=1, restore_best_weights=True
        )
        fitted = model.fit(
            X, Y, epochs=8, validation_data=data, callbacks=[stop], verbose=0
        )
        ends.append((fitted.history, kr.compute_checksum(model)))
    assert ends[0] == ends[1] == ends[2]
    assert len(ends[0][0]["loss"]) < 8


def test_validation_moves_no_training(models: Any) -> None:
    """The same weights with the data of the training as validation too."""
    model, data = models((4,)), Drawing()
    checksums = []
    for validation in (None, data, Global()):
        model.reset()
        model.fit(data, epochs=3, validation_data=validation, verbose=0)
        checksums.append(kr.compute_checksum(model))
    assert checksums[0] == checksums[1] == checksums[2]


def test_objects_that_share_a_generator(models: Any) -> None:
    """Parts of one data set, as of `random_split`, move each other no more."""

    class Part(Drawing):
        def __init__(self, whole: Drawing) -> None:
            super().__init__()
            self.rng = whole.rng
            self.whole = whole
            self.whole.count = 0

        def choose(self, index: int) -> Any:
            self.whole.count += 1
            return super().choose(index)

    whole = Drawing()
    model, parts, found = models((4,)), [Part(whole), Part(whole)], []
    for validation in (None, parts[1], parts[1], parts[1]):
        model.reset()
        fitted = model.fit(
            parts[0], epochs=3, validation_data=validation, verbose=0
        )
        found.append((fitted.history, model.evaluate(parts[0], verbose=0)))
        assert model._repro.data.notes == []
    assert found[0][0]["loss"] == found[1][0]["loss"]
    assert found[0][1] == found[1][1]
    assert found[1] == found[2] == found[3]
    assert len(set(found[1][0]["val_loss"])) == 3


def test_data_that_hold_a_part_of_the_model() -> None:
    """What belongs to the model follows the model's seed."""
    dropout = L.Dropout(0.5, seed=1)
    model = make_model(dropout, seed=1)

    class Holding(Drawing):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

    data, found = Holding(dropout), []
    for seed in (1, 2, 1, 2):
        model.reset(seed=seed)
        model.fit(data, verbose=0)
        found.append(kr.compute_checksum(model))
    assert found[:2] == found[2:]
    held = data.layer
    data.layer = None
    model.reset(seed=2)
    model.fit(data, verbose=0)
    assert held is dropout
    assert kr.compute_checksum(model) == found[1]


def test_uses_within_a_training(models: Any) -> None:
    """A callback that evaluates the data of its training moves no other use."""
    model, data = models((4,)), Drawing()

    class Evaluates(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.losses: list[float] = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            del epoch, logs
            self.losses.append(self.model.evaluate(data, verbose=0))

    model.reset()
    alone = model.fit(data, epochs=3, verbose=0).history
    found = []
    for _ in range(2):
        evaluates = Evaluates()
        model.reset()
        fitted = model.fit(data, epochs=3, verbose=0, callbacks=[evaluates])
        assert fitted.history == alone
        found.append(evaluates.losses)
    assert found[0] == found[1]
    assert len(set(found[0])) == 3


def test_a_new_model_begins_where_the_first_did(models: Any) -> None:
    """An object has one start, whichever model reads it first."""
    model, data = models((4,)), Drawing()
    model.reset()
    first = model.fit(data, verbose=0).history
    other = make_model(L.Flatten(), L.Dropout(0.2), seed=3)
    assert other.fit(data, verbose=0).history == first
    # The first goes on as if there were no other.
    second = model.fit(data, verbose=0).history
    model.reset()
    model.fit(data, verbose=0)
    assert model.fit(data, verbose=0).history == second


def test_what_the_program_sets_stays(models: Any) -> None:
    """A setting that changed is no position; the record names it."""

    class Scaled(Drawing):
        scale = 1.0

        def __getitem__(self, index: int) -> Any:
            x, y = super().__getitem__(index)
            return x * self.scale, y

    model, data, losses = models((4,)), Scaled(), []
    for scale in (1.0, 0.5, 1.0, 0.5):
        data.scale = scale
        data.rng.random()  # Nor is what the program draws.
        model.reset()
        checks = kr.ChecksumCallback(on_drift="ignore")
        fitted = model.fit(data, verbose=0, callbacks=[checks])
        losses.append(fitted.history["loss"])
    assert losses[0] != losses[1]
    assert losses[:2] == losses[2:]
    assert "(scale)" in checks.run.header.notes[0]
    # Set within a trial it stays within it.
    data.scale = 1.0
    model.fit(data, verbose=0)
    model.evaluate(data, verbose=0)
    assert data.scale == 1.0


def test_predictions_are_in_order(models: Any) -> None:
    """Only a training shuffles the batches of a `PyDataset`."""

    class Rows(Drawing):
        def choose(self, index: int) -> Any:
            return np.arange(12) + 12 * index

    model, data = models((4,)), Rows()
    expected = model.predict(X, batch_size=12, verbose=0)
    for _ in range(3):
        found = model.predict(data, verbose=0)
        np.testing.assert_array_equal(found, expected)


def test_validation_that_is_not_read_to_its_end(models: Any) -> None:
    """Nothing is read ahead by chance where validation goes on later."""
    model, found = models((4,)), []

    class Many(Global):
        def __len__(self) -> int:
            return 9

    data = Many()
    for _ in range(3):
        model.reset()
        fitted = model.fit(
            X, Y, epochs=3, validation_data=data, validation_steps=2, verbose=0
        )
        found.append((fitted.history, np.random.random()))
        np.random.seed(4)
    assert found[0][0] == found[1][0] == found[2][0]
    assert found[1] == found[2]


class Counting:
    """Six batches of samples, which are counted as they are read."""

    def __init__(self) -> None:
        self.num_read = 0

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Any:
        self.num_read += 1
        return X[index % 24], Y[index % 24]


def read_by_loader(samples: Counting) -> Any:
    """Its generator draws once more at the end of a pass."""
    return loader(samples, seed=1)


def read_by_grain(samples: Counting) -> Any:
    """The loader of Grain, in no threads of its own."""
    grain = pytest.importorskip("grain")
    return grain.DataLoader(
        data_source=samples,
        sampler=grain.samplers.IndexSampler(60, num_epochs=1),
        operations=[grain.transforms.Batch(10)],
        read_options=grain.ReadOptions(num_threads=0),
    )


def read_by_generator(samples: Counting) -> Any:
    """A generator function."""
    while True:
        rows = [samples[i] for i in range(10)]
        yield tuple(np.stack(part) for part in zip(*rows, strict=True))


@pytest.mark.requires_backend("tensorflow")
@pytest.mark.parametrize(
    ("make", "num_looked_at"),
    [(read_by_loader, 0), (read_by_grain, 0), (read_by_generator, 1)],
)
def test_data_are_read_when_they_are_needed(
    models: Any, make: Any, num_looked_at: int
) -> None:
    """What a thread read ahead would move generators by chance."""
    samples, num_read = Counting(), []

    class Wait(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            time.sleep(0.05)  # Long enough for a thread.
            num_read.append(samples.num_read)

    data = make(samples)
    models((4,)).fit(data, steps_per_epoch=6, callbacks=[Wait()], verbose=0)
    # Batches that Keras looked at in a generator are fed as they are.
    assert num_read[-1] - num_read[0] == 10 * (5 - num_looked_at)
    assert num_read[-2] - num_read[0] == 10 * (4 - num_looked_at)


def generate() -> Iterator[Any]:
    """Batches that are used up."""
    while True:
        yield X[:8], Y[:8]


class Iterating(Drawing):
    """Reads an iterator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = generate()

    def __getitem__(self, index: int) -> Any:
        return next(self.batches)


class Large(Drawing):
    """Holds an array of more than is kept."""

    def __init__(self) -> None:
        super().__init__()
        # Its pages are never touched.
        self.zeros = np.empty(1 << 29, "uint8")


def race() -> Any:
    """Two workers."""
    data = Drawing()
    data.workers = 2
    return data


NAMED = {
    "consumed": generate,
    "races": race,
    "batches": Iterating,
    "zeros": Large,
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("word", NAMED)
@pytest.mark.parametrize("use", ["data", "validation_data"])
def test_what_is_not_rewound_is_named(models: Any, word: str, use: str) -> None:
    """In the record, for training and validation alike."""
    model, checks = models((4,)), kr.ChecksumCallback(on_drift="ignore")
    model.reset()
    options = {"steps_per_epoch": 2, "epochs": 1, "verbose": 0}
    if use == "data":
        model.fit(NAMED[word](), **options, callbacks=[checks])
    else:
        options["validation_data"] = NAMED[word]()
        model.fit(X, Y, **options, validation_steps=2, callbacks=[checks])
    (note,) = checks.run.header.notes
    assert note.startswith(f"{use}: ")
    assert word in note


def test_workers_that_begin_anew(models: Any) -> None:
    """Told where steps leave batches out, which two workers had read."""

    class Many(Global):
        def __len__(self) -> int:
            return 9

    def find_notes(workers: int, steps: int) -> list[str]:
        model, x, y = models((4,)), Many(), Many()
        x.workers = y.workers = workers
        options = {"steps_per_epoch": steps, "validation_steps": steps}
        model.reset()
        model.fit(x, validation_data=y, verbose=0, **options)
        notes = model._repro.data.notes
        return [one.partition(":")[0] for one in notes if "has more" in one]

    assert find_notes(2, 4) == ["data", "validation_data"]
    assert find_notes(2, 9) == find_notes(1, 4) == []


def test_nothing_is_named_without_cause(models: Any) -> None:
    """Data that are rewound leave no note."""
    model, data = models((4,)), Remembering()
    for _ in range(2):
        model.reset()
        model.fit(data, validation_data=data, verbose=0)
        assert model._repro.data.notes == []


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="TensorFlow itself keeps what it has read from Python",
)
def test_data_are_not_kept_alive(models: Any) -> None:
    """What is known of an object goes with it."""
    model, data = models((4,)), Nested()
    model.reset()
    model.fit(data, validation_data=data, verbose=0)
    known, rows = weakref.ref(data), weakref.ref(data.source)
    model.fit(X, Y, verbose=0)
    del data
    gc.collect()
    assert known() is None
    assert rows() is None


@keras.saving.register_keras_serializable("test_data")
class ScaleFlat(keras.layers.Layer):
    """Scales the values of a ragged tensor."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(), name="factor")

    def call(self, x):
        return x.with_flat_values(x.flat_values * self.factor)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.mark.requires_backend("tensorflow")
def test_ragged_tensors_are_data(tmp_path):
    """Rows of different lengths, of which the order is the trial's."""
    import tensorflow as tf

    x = tf.ragged.constant([[1.0], [2.0, 3.0], [4.0], [0.5, 0.1, 7.0], [6.0]])
    model = kr.ReproducibleModel([ScaleFlat()], seed=3)
    model.compile("adam", lambda y, p: tf.reduce_mean(p.flat_values**2))
    checks = kr.ChecksumCallback(tmp_path / "runs.jsonl")

    def train():
        return model.fit(
            *(x, x), epochs=2, batch_size=2, verbose=0, callbacks=[checks]
        ).history

    first = train()
    model.reset()
    assert train() == first
    assert train() != first
    data = kr.load_runs(tmp_path / "runs.jsonl")[0].header.data
    assert data["arrays"][0]["shape"] == [5, None]
