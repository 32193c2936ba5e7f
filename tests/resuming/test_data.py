"""Whatever a training reads, it goes on with the batch that comes next."""

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends import data_passes
from keras_repro.backends.data_passes import Passes
from keras_repro.backends.pipeline_passes import PipelinePasses
from keras_repro.backends.reading import Reading
from keras_repro.resuming import keeper
from keras_repro.resuming.state import Late
from tests.builders import make_model
from tests.resuming.interrupting import (
    InterruptError,
    StopAt,
    as_a_new_process,
    differs,
    go_on,
    interrupt,
    run,
)

pytestmark = [
    pytest.mark.requires_backend,
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),
]
RNG = np.random.default_rng(0)
NUM_ROWS, SIZE = 18, 4
NUM_BATCHES = 5  # In each of three epochs; the last one is shorter.
X = RNG.normal(size=(NUM_ROWS, 3)).astype("float32")
Y = RNG.integers(0, 2, size=(NUM_ROWS, 1))


def make():
    """A model that draws, and whose optimizer remembers."""
    return make_model(
        keras.layers.Dropout(0.4), shape=(3,), seed=2, optimizer="adam"
    )


def batch_at(index, order=slice(None)):
    """A batch of the rows in an order."""
    rows = np.arange(NUM_ROWS)[order][index * SIZE : (index + 1) * SIZE]
    return X[rows], Y[rows]


def arrays(**options):
    """Arrays, and how they are read."""
    return {"x": X, "y": Y, "batch_size": SIZE, **options}


def pandas_frames():
    pandas = pytest.importorskip("pandas")
    return {**arrays(), "x": pandas.DataFrame(X), "y": pandas.Series(Y[:, 0])}


class Batches(keras.utils.PyDataset):
    """Batches in order."""

    def __len__(self):
        return NUM_BATCHES

    def __getitem__(self, index):
        return batch_at(index)


class OwnOrder(Batches):
    """Batches in an order, and with noise, of a generator of their own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.rng, self.order = np.random.default_rng(3), np.arange(NUM_ROWS)

    def __getitem__(self, index):
        x, y = batch_at(index, self.order)
        return x + self.rng.normal(size=x.shape).astype("float32"), y

    def on_epoch_end(self):
        self.rng.shuffle(self.order)


class Counting(Batches):
    """Each batch is scaled by how many were read."""

    def __init__(self):
        super().__init__()
        self.num_read = 0

    def __getitem__(self, index):
        self.num_read += 1
        x, y = batch_at(index)
        return x * (1 + self.num_read % 7), y


class GlobalOrder(Batches):
    """Draws from NumPy's global generator."""

    def __init__(self):
        super().__init__()
        self.order = np.arange(NUM_ROWS)

    def __getitem__(self, index):
        x, y = batch_at(index, self.order)
        return x + np.random.normal(size=x.shape).astype("float32"), y

    def on_epoch_end(self):
        np.random.shuffle(self.order)


def endless(draws):
    """A generator over the rows, in order or not."""
    while True:
        order = np.random.permutation(NUM_ROWS) if draws else slice(None)
        for index in range(NUM_BATCHES):
            yield batch_at(index, order)


def once():
    """A generator that ends with the training."""
    for number in range(12):
        x, y = batch_at(number % 3)
        yield x * (number + 1), y


def steps(data, number=4):
    """Data without an end."""
    return {"x": data, "steps_per_epoch": number}


def pipeline(change, **options):
    """A pipeline of the rows."""
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y))
    return {"x": change(data, tf), **options}


def with_noise(data, tf):
    """Random ops in a map."""
    return data.map(lambda x, y: (x + tf.random.uniform((3,)), y)).batch(SIZE)


# Each sample that a data set of PyTorch was asked for in this process.
samples_read = []


def loader(*, noisy=False, own=False, module="torch.utils.data", **options):
    """A loader of PyTorch."""
    torch = pytest.importorskip("torch")
    kind = "DataLoader" if module == "torch.utils.data" else STATEFUL[1]
    torch.manual_seed(3)  # A StatefulDataLoader draws when it is made.

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return NUM_ROWS

        def __getitem__(self, index):
            samples_read.append(index)
            noise = torch.randn(3) if noisy else 0.0
            return torch.tensor(X[index]) + noise, torch.tensor(Y[index])

    if own:
        options["generator"] = torch.Generator().manual_seed(4)
    skip_where_forks_hang(options)
    make_loader = getattr(pytest.importorskip(module), kind)
    return {"x": make_loader(Rows(), batch_size=SIZE, shuffle=True, **options)}


def skip_where_forks_hang(options):
    """Workers are forked, which threads of JAX and TensorFlow may not bear."""
    if "num_workers" in options and keras.backend.backend() != "torch":
        pytest.skip("workers are forked")


STATEFUL = ("torchdata.stateful_dataloader", "StatefulDataLoader")


def stateful(**options):
    """A loader of torchdata, whose samples have indices."""
    return loader(module=STATEFUL[0], **options)


def stream(*, noisy=False):
    """A loader of PyTorch whose samples come in a row."""
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            for x, y in zip(X, Y, strict=True):
                noise = torch.randn(3) if noisy else 0.0
                yield torch.tensor(x) + noise, torch.tensor(y)

    return {"x": torch.utils.data.DataLoader(Stream(), batch_size=SIZE)}


def stateful_stream(*, forgets=False, **options):
    """A loader of torchdata whose data set tells where it stands."""
    torch = pytest.importorskip("torch")
    torchdata = pytest.importorskip(STATEFUL[0])

    class Stream(torch.utils.data.IterableDataset):
        def __init__(self):
            self.rng, self.first, self.next = np.random.default_rng(3), 0, 0

        def __iter__(self):
            first, self.first = self.first, 0
            for index in range(first, NUM_ROWS):
                samples_read.append(index)
                noise = self.rng.normal() + torch.randn(3)
                self.next = index + 1
                yield torch.tensor(X[index]) + noise, torch.tensor(Y[index])

        def state_dict(self):
            return {"next": self.next, "rng": self.rng.bit_generator.state}

        def load_state_dict(self, state):
            self.first = self.next = state["next"]
            if not forgets:
                self.rng.bit_generator.state = state["rng"]

    skip_where_forks_hang(options)
    return {
        "x": torchdata.StatefulDataLoader(Stream(), batch_size=SIZE, **options)
    }


def rows_of_grain():
    """Rows in an order of their own, with noise."""
    grain = pytest.importorskip("grain")

    class Noise(grain.transforms.RandomMap):
        def random_map(self, element, rng):
            x, y = element
            return x + rng.normal(size=3).astype("float32"), y

    source = grain.MapDataset.source(list(zip(X, Y, strict=True)))
    return source.seed(1).shuffle().random_map(Noise()).batch(SIZE)


def loader_of_grain():
    """A `DataLoader` of Grain."""
    grain = pytest.importorskip("grain")
    sampler = grain.samplers.IndexSampler(
        NUM_ROWS, shuffle=True, seed=3, num_epochs=1
    )
    return grain.DataLoader(
        data_source=list(zip(X, Y, strict=True)),
        sampler=sampler,
        operations=[grain.transforms.Batch(SIZE)],
    )


DATA = {
    "arrays": arrays,
    "arrays, not shuffled": lambda: arrays(shuffle=False),
    "arrays, shuffled in batches": lambda: arrays(shuffle="batch"),
    "arrays, some steps": lambda: arrays(steps_per_epoch=3),
    "arrays, more steps than a pass": lambda: arrays(steps_per_epoch=7),
    "validation_data": lambda: arrays(validation_data=(X[:5], Y[:5])),
    "validation_split": lambda: arrays(validation_split=0.2),
    "validation_freq": lambda: arrays(
        validation_data=(X[:5], Y[:5]), validation_freq=2
    ),
    "validation by a PyDataset": lambda: arrays(validation_data=OwnOrder()),
    "validation by tf.data": lambda: arrays(
        validation_data=pipeline(lambda d, _: d.batch(SIZE))["x"]
    ),
    "class_weight": lambda: arrays(class_weight={0: 1.0, 1: 3.0}),
    "sample_weight": lambda: arrays(sample_weight=np.arange(NUM_ROWS)),
    "frames of pandas": pandas_frames,
    "PyDataset": lambda: {"x": Batches()},
    "PyDataset, some steps": lambda: steps(Batches(), 3),
    "PyDataset, class_weight": lambda: {
        "x": Batches(),
        "class_weight": {0: 1.0, 1: 3.0},
    },
    "PyDataset with an order": lambda: {"x": OwnOrder()},
    "PyDataset that counts": lambda: {"x": Counting()},
    "PyDataset that draws": lambda: {"x": GlobalOrder()},
    "PyDataset with workers": lambda: {"x": Batches(workers=2)},
    "generator": lambda: steps(endless(draws=False)),
    "generator that draws": lambda: steps(endless(draws=True)),
    "generator that ends": lambda: steps(once()),
    "tf.data": lambda: pipeline(lambda d, _: d.batch(SIZE).prefetch(2)),
    "tf.data, shuffled": lambda: pipeline(
        lambda d, _: d.shuffle(NUM_ROWS).batch(SIZE)
    ),
    "tf.data, seeded": lambda: pipeline(
        lambda d, _: d.shuffle(9, seed=3).batch(SIZE)
    ),
    "tf.data, noise": lambda: pipeline(with_noise),
    "tf.data, repeated": lambda: pipeline(
        lambda d, _: d.shuffle(NUM_ROWS).batch(SIZE).repeat(),
        steps_per_epoch=4,
    ),
    "tf.data, filtered": lambda: pipeline(
        lambda d, _: d.shuffle(9).filter(lambda x, _: x[0] > -1).batch(SIZE)
    ),
    "tf.data, from a cache": lambda: pipeline(
        lambda d, _: d.cache().shuffle(9).batch(SIZE)
    ),
    "tf.data, read ahead": lambda: pipeline(
        lambda d, _: d.shuffle(9).batch(SIZE).prefetch(NUM_BATCHES),
    ),
    "tf.data, concatenated": lambda: pipeline(
        lambda d, _: d.shuffle(9).take(9).concatenate(d.skip(9)).batch(SIZE)
    ),
    "tf.data, class_weight": lambda: pipeline(
        lambda d, _: d.shuffle(9).batch(SIZE), class_weight={0: 1.0, 1: 3.0}
    ),
    "loader": loader,
    "loader with a generator": lambda: loader(own=True),
    "loader with noise": lambda: loader(noisy=True),
    "loader, some steps": lambda: {**loader(), "steps_per_epoch": 3},
    "loader with workers": lambda: loader(own=True, noisy=True, num_workers=2),
    "loader with lasting workers": lambda: loader(
        own=True, noisy=True, num_workers=2, persistent_workers=True
    ),
    "loader of a stream": stream,
    "loader of a stream, noise": lambda: stream(noisy=True),
    "stateful loader": stateful,
    "stateful loader with a generator": lambda: stateful(own=True, noisy=True),
    "stateful loader with workers": lambda: stateful(noisy=True, num_workers=2),
    "stateful loader of a stream": stateful_stream,
    "stateful loader of a stream, workers": lambda: stateful_stream(
        num_workers=2
    ),
    "stateful loader that forgets": lambda: stateful_stream(forgets=True),
    "Grain": lambda: {"x": rows_of_grain()},
    "Grain, repeated": lambda: steps(
        rows_of_grain().repeat().to_iter_dataset()
    ),
    "DataLoader of Grain": lambda: {"x": loader_of_grain()},
}


def training_on(name, epochs=3):
    """What trains a model on new data."""

    def train(model):
        call = {"epochs": epochs, "verbose": 0, **DATA[name]()}
        call.setdefault("shuffle", "batch_size" in call)
        return model.fit(**call).history

    return train


@pytest.mark.sampled(30)
@pytest.mark.parametrize("name", DATA)
def test_goes_on(name, tmp_path):
    """Interrupted in the middle of an epoch, and all is as it would be."""
    assert differs(make, training_on(name), tmp_path, 7) == []


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    ("name", "number", "is_read_again"),
    [
        ("tf.data, shuffled", 7, False),
        ("tf.data, shuffled", 6, False),  # The next pass is yet to be made.
        ("tf.data, repeated", 7, False),
        ("tf.data, filtered", 6, False),
        ("tf.data, class_weight", 7, False),
        ("tf.data, noise", 7, True),
        ("tf.data, from a cache", 7, True),
        # Of the shuffle that has ended TensorFlow tells nothing.
        ("tf.data, concatenated", 9, True),
    ],
)
def test_pipelines_are_read_again_where_they_must(
    name, number, is_read_again, tmp_path, monkeypatch
):
    """What is written of an iterator is used where it is exact."""
    ways, begin_at = [], Reading.begin_at

    def begin(reading, place, *, goes_through):
        ways.append(goes_through)
        begin_at(reading, place, goes_through=goes_through)

    monkeypatch.setattr(Reading, "begin_at", begin)
    train = training_on(name)
    assert differs(make, train, tmp_path, number, save_freq=1) == []
    assert ways == [is_read_again]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["loader", "stateful loader"])
def test_loaders_leave_samples_out(name, tmp_path):
    """Nothing that was read before is read again, where that is exact."""
    assert count_read_again(name, tmp_path) == 0


def test_a_data_set_that_tells_its_place_is_not_read_again(
    tmp_path, monkeypatch
):
    """It begins at what it told; the twin, which does not ask, reads again."""
    name = "stateful loader of a stream"
    assert count_read_again(name, tmp_path / "told") == 0
    monkeypatch.setattr(data_passes, "read_place", lambda _: None)
    assert count_read_again(name, tmp_path / "twin") == 2 * SIZE


@pytest.mark.slow
def test_a_data_set_that_tells_its_place_wrongly_is_read_again(
    tmp_path, monkeypatch
):
    """What is told is used if the last batch is the same; the twin trusts."""
    name = "stateful loader that forgets"
    assert count_read_again(name, tmp_path / "forgets") > 0
    monkeypatch.setattr(Passes, "_is_there", lambda *_: True)
    with pytest.raises(AssertionError):
        count_read_again(name, tmp_path / "twin")


@pytest.mark.slow
def test_a_stream_is_read_again(tmp_path, monkeypatch):
    """The twin: it has no indices to leave out."""
    train = training_on("loader of a stream, noise")
    assert differs(make, train, tmp_path / "whole", 14, save_freq=1) == []
    interrupt(make, train, tmp_path, 14, save_freq=1)
    monkeypatch.setattr(data_passes, "gives_indices", lambda _: True)
    _, result = go_on(make, train, tmp_path)
    assert result["trained"] != run(make, train)["trained"]


def test_an_order_is_drawn_when_a_pass_is_made(tmp_path, monkeypatch):
    """The twin: without how the data stood then it is another one."""
    train = training_on("stateful loader with a generator")
    interrupt(make, train, tmp_path, 14)
    begin_at = Passes.begin_at

    def begin(passes, written):
        begin_at(passes, {**written, "made_data": []})

    monkeypatch.setattr(Passes, "begin_at", begin)
    _, result = go_on(make, train, tmp_path)
    assert result["trained"] != run(make, train)["trained"]


def count_read_again(name, folder, number=13):
    """How many samples are read again, but for the last batch.

    The twin of each is a training that is not interrupted.
    """
    train = training_on(name)
    whole = run(make, train)
    interrupt(make, train, folder, number + 1, save_freq=1)
    looked = num_looked_at(name)
    samples_read.clear()
    place, result = go_on(make, train, folder, save_freq=1)
    assert place == f"epoch 3, batch {number % NUM_BATCHES + 1}"
    assert result == whole
    left = NUM_ROWS - number % NUM_BATCHES * SIZE
    return len(samples_read) - looked - left - SIZE


def num_looked_at(name):
    """How many samples Keras looks at before a training."""
    samples_read.clear()
    training_on(name, epochs=1)(make())
    return len(samples_read) - NUM_ROWS


@pytest.mark.parametrize("number", [1, 2, 3, 5, 6, 10, 11, 14, 15])
@pytest.mark.parametrize("save_freq", [1, "epoch"])
@pytest.mark.sampled(9)
def test_wherever_it_was_interrupted(number, save_freq, tmp_path):
    """In any batch, the first and the last of an epoch too."""
    train = training_on("arrays")
    options = {"save_freq": save_freq}
    whole = run(make, train)
    interrupt(make, train, tmp_path, number, **options)
    place, result = go_on(make, train, tmp_path, **options)
    if save_freq == 1 and number > 1:
        epoch, batch = divmod(number - 1, NUM_BATCHES)
        assert place == f"epoch {epoch + 1}, batch {batch + 1}"
    assert result == whole


@pytest.mark.slow
def test_interrupted_again_and_again(tmp_path):
    """Each goes on from where the last one came to."""
    train = training_on("PyDataset with an order")
    whole = run(make, train)
    for number in (4, 4, 5):
        interrupt(make, train, tmp_path, number, save_freq=1)
    place, result = go_on(make, train, tmp_path)
    assert place == "epoch 3, batch 1"
    assert result == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arrays", "arrays, some steps", "loader"])
def test_epochs_are_added(name, tmp_path):
    """A training that had ended goes on from within its last epoch."""
    backup = kr.BackupAndRestore(tmp_path, 2, delete_checkpoint=False)
    run(make, training_on(name, epochs=2), backup, StopAt())
    place, result = go_on(make, training_on(name), tmp_path)
    assert place is not None
    assert result == run(make, training_on(name))


# On which data an ingredient is what counts; some are told by others too.
NEEDED_BY = {
    "the place of an iterator": "tf.data, shuffled",
    "the place in the epoch": "generator",
    "the streams": "PyDataset that draws",
}
LEFT_OUT = {
    "the place in the pass": (Passes, "begin_at", lambda *_: None),
    "the place of an iterator": (PipelinePasses, "_restore", lambda *_: None),
    "the place in the epoch": (Reading, "begin_at", lambda *_, **__: None),
    "the streams": (keeper, "put_streams", lambda *_: None),
    "the variables": (Late, "put", lambda *_: None),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("left_out", LEFT_OUT)
def test_without_it_the_training_is_another_one(
    left_out, tmp_path, monkeypatch
):
    """The twin: each ingredient is needed."""
    train = training_on(NEEDED_BY.get(left_out, "PyDataset with an order"))
    whole = run(make, train)
    interrupt(make, train, tmp_path, 7)
    monkeypatch.setattr(*LEFT_OUT[left_out])
    _, result = go_on(make, train, tmp_path)
    assert result["trained"] != whole["trained"]


CHANGED = {
    "batch size": (lambda d, _: d.batch(4), lambda d, _: d.batch(6)),
    "map": (
        lambda d, _: d.map(lambda x, y: (x * 2.0, y)).batch(4),
        lambda d, _: d.map(lambda x, y: (x * 3.0, y)).batch(4),
    ),
    "seed": (
        lambda d, _: d.shuffle(8, seed=1).batch(4),
        lambda d, _: d.shuffle(8, seed=2).batch(4),
    ),
    "rows": (lambda d, _: d.batch(4), lambda d, _: d.take(16).batch(4)),
}


def on(data, **options):
    """What trains a model on data that are made anew each time."""

    def train(model):
        call = {"epochs": 3, "verbose": 0, "shuffle": False, **options}
        return model.fit(data(), **call).history

    return train


@pytest.mark.sampled(4)
@pytest.mark.parametrize("what", CHANGED)
def test_another_pipeline_is_refused(what, tmp_path):
    """What it does is compared, also where nothing is read again."""
    before, after = CHANGED[what]
    interrupt(make, on(lambda: pipeline(before)["x"]), tmp_path, 7)
    with pytest.raises(ValueError, match="begun with"):
        go_on(make, on(lambda: pipeline(after)["x"]), tmp_path)


@pytest.mark.slow
def test_a_pipeline_of_pipelines_is_read_again(tmp_path):
    """The one within goes on by itself, and TensorFlow restores another."""

    def within(data, tf):
        one = tf.data.Dataset.from_tensors(data.shuffle(8, seed=3))
        return one.flat_map(lambda d: d).batch(4)

    train = on(lambda: pipeline(within)["x"])
    assert differs(make, train, tmp_path, 7) == []


@pytest.mark.parametrize("name", ["y", "sample_weight"])
def test_what_keras_refuses_beside_a_pipeline_is_refused(name, tmp_path):
    """Its own message, and nothing is dropped."""
    data = pipeline(lambda d, _: d.batch(4))["x"]
    train = on(lambda: data, **{name: Y})
    with pytest.raises(ValueError, match=f"`{name}s?`"):
        run(make, train, kr.BackupAndRestore(tmp_path))


@pytest.mark.slow
def test_other_workers_are_refused(tmp_path):
    """What was to be left out by its index would be read from the start."""
    interrupt(make, on(lambda: Batches(workers=1)), tmp_path, 7)
    with pytest.raises(ValueError, match="read as they were"):
        go_on(make, on(lambda: Batches(workers=2)), tmp_path)


class Evaluates(keras.callbacks.Callback):
    """Evaluates on data of its own after each epoch."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def on_epoch_end(self, epoch, logs=None):
        self.model.evaluate(self.data, steps=2, verbose=0)

    def get_state(self):
        """It remembers nothing."""

    def set_state(self, state):
        """It remembers nothing."""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("moves", [False, True])
def test_data_of_an_evaluation_within(moves, tmp_path):
    """Those that go on from where they were have a place that nobody knows."""

    def train(model):
        callback = Evaluates(OwnOrder() if moves else Batches())
        call = {**arrays(), "epochs": 3, "verbose": 0}
        return model.fit(**call, callbacks=[callback]).history

    if moves:
        with pytest.warns(RuntimeWarning, match="`evaluate` or `predict`"):
            interrupt(make, train, tmp_path, 12, save_freq="epoch")
        assert not list(tmp_path.glob("*/*.backup"))
    else:
        assert differs(make, train, tmp_path, 12, save_freq="epoch") == []


@pytest.mark.slow
@pytest.mark.parametrize("moves", [False, True])
def test_a_later_training_in_the_same_process(moves, tmp_path):
    """What was read again from its start stands elsewhere by now."""
    as_a_new_process()
    data = pipeline(with_noise)["x"] if moves else Batches(workers=2)
    model = make()

    def train(epochs, *callbacks):
        call = {"epochs": epochs, "verbose": 0, "shuffle": False}
        return model.fit(data, **call, callbacks=callbacks).history

    train(1)
    with pytest.raises(InterruptError):
        train(3, kr.BackupAndRestore(tmp_path, 2), StopAt(8))
    if moves:
        with pytest.raises(ValueError, match="moved on"):
            train(3, kr.BackupAndRestore(tmp_path, 2))
        return
    history = train(3, kr.BackupAndRestore(tmp_path, 2))
    model.reset()
    train(1)
    assert train(3) == history
