"""What epochs and workers are given alike, told where it is so."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.backends.data_adapters import is_tf_dataset
from keras_repro.backends.data_traps import find_alike_in_python, find_copies
from tests.builders import make_model

pytestmark = [
    pytest.mark.requires_backend(),
    pytest.mark.alike,
    pytest.mark.filterwarnings("ignore:.*shuffle=True.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Your input ran out:UserWarning"),
]


def rows() -> Any:
    """A pipeline of numbers."""
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.range(24)


def noisy(x: Any) -> Any:
    """Draw by an op of TensorFlow."""
    import tensorflow as tf

    return tf.cast(x, "float32") + tf.random.uniform(())


def numbers() -> Any:
    """A data set of Grain."""
    grain = pytest.importorskip("grain")
    return grain.MapDataset.range(24).seed(3)


def jitter(x: Any, rng: Any) -> Any:
    """Draw as Grain has it."""
    return x + rng.random()


def loader(*operations: Any, shuffle: bool = False) -> Any:
    """A loader of Grain."""
    grain = pytest.importorskip("grain")
    sampler = grain.samplers.IndexSampler(
        24, shuffle=shuffle, seed=0, num_epochs=1
    )
    return grain.DataLoader(
        data_source=range(24),
        sampler=sampler,
        operations=operations,
        read_options=grain.ReadOptions(num_threads=0),
    )


def jitters() -> Any:
    """A transform of Grain."""
    grain = pytest.importorskip("grain")

    class Jitter(grain.transforms.RandomMap):
        def random_map(self, element: Any, rng: Any) -> Any:
            return jitter(element, rng)

    return Jitter()


ALIKE = {
    "shuffled once": (
        lambda: rows().shuffle(24, reshuffle_each_iteration=False).batch(8),
        "shuffles once",
    ),
    "cached order": (lambda: rows().shuffle(24).batch(8).cache(), "once"),
    "cached draws": (lambda: rows().map(noisy).cache(), "caches"),
    "seeded op": (lambda: rows().map(noisy).batch(8), "begins anew"),
    "Grain's order": (lambda: numbers().shuffle(), "shuffles by"),
    "Grain's draws": (lambda: numbers().random_map(jitter), "draws by"),
    "Grain in threads": (
        lambda: numbers().shuffle().random_map(jitter).to_iter_dataset(),
        "shuffles and draws by",
    ),
    "Grain's iterator": (
        lambda: numbers().to_iter_dataset().random_map(jitter),
        "draws by",
    ),
    "Grain's loader": (lambda: loader(jitters(), shuffle=True), "and draws by"),
}
OTHERS = {
    "reshuffled": lambda: rows().shuffle(24).batch(8),
    "reshuffled after all": lambda: (
        rows().shuffle(24, reshuffle_each_iteration=False).shuffle(24)
    ),
    "a cache before": lambda: rows().cache().shuffle(24),
    "a cache that is not read to its end": lambda: (
        rows().shuffle(24).cache().take(5)
    ),
}
FIXED = {
    "in order": rows,
    "Grain in order": numbers,
    "Grain's loader in order": loader,
}


def read(x: Any) -> list[Any]:
    """One pass."""
    items = x.as_numpy_iterator() if is_tf_dataset(x) else x
    return [np.asarray(one).tolist() for one in items]


def find_notes(x: Any, **options: Any) -> list[str]:
    """What the record of a training says."""
    model = make_model(shape=(1,), seed=1)
    trained: dict[str, Any] = {"epochs": 2, "verbose": 0, **options}

    class Enough(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            found[:] = model._repro.data.notes
            raise KeyboardInterrupt

    found: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, callbacks=[Enough()], **trained)
    return found


def pairs(x: Any) -> Any:
    """Data that a model can be trained on."""
    if is_tf_dataset(x):
        import tensorflow as tf

        return x.map(
            lambda one: 2 * (tf.reshape(tf.cast(one, "float32"), (-1, 1)),)
        )
    return x.map(lambda one: 2 * (np.reshape(one, (-1, 1)),))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", ALIKE)
def test_what_is_alike(kind: str) -> None:
    """It is so, in two passes of a trial; it is told; for one epoch it is not.

    Loaders are looked at alone, since Keras would read them.
    """
    make, word = ALIKE[kind]
    model, x = make_model(shape=(1,), seed=1), make()
    with model.trial():
        assert read(x) == read(x)
    if "loader" in kind:
        (note,) = find_alike_in_python(x)
    else:
        (note,) = find_notes(pairs(x))
        assert note.startswith("data: ")
        assert find_notes(pairs(make()), epochs=1) == []
    assert word in note


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_alike(kind: str) -> None:
    """The twin: passes that differ, of which nothing is said."""
    x = OTHERS[kind]()
    with make_model(shape=(1,), seed=1).trial():
        assert read(x) != read(x)
    assert find_notes(pairs(x)) == []


@pytest.mark.parametrize("kind", FIXED)
def test_what_is_not_random(kind: str) -> None:
    """What nobody shuffles may be alike."""
    x = FIXED[kind]()
    assert read(x) == read(x)
    if "loader" not in kind:
        assert find_notes(pairs(x)) == []


# --- a PyDataset that seeds its draws ----------------------------------------


def augment(seed: int) -> Any:
    """A function of one's own that draws."""
    return np.random.default_rng(seed).random((2, 1))


class Samples(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches that are drawn, and a state that reading moves."""

    def __init__(self) -> None:
        super().__init__()
        self.rng, self.rows = np.random.default_rng(3), np.ones((8, 1))
        self.num_read, self.is_training = 0, True
        self.on_epoch_end()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        self.num_read += 1
        return self.rows[:2] + self.draw(index), np.zeros((2, 1))

    def draw(self, index: int) -> Any:
        """What a batch holds."""
        raise NotImplementedError


class ByIndex(Samples):
    """Seeds by the number of the batch."""

    def draw(self, index: int) -> Any:
        return np.random.default_rng(index).random((2, 1))


class ByFunction(Samples):
    """The same, elsewhere."""

    def draw(self, index: int) -> Any:
        return augment(index)


class ByGlobalSeed(Samples):
    """Seeds NumPy's global generator."""

    def draw(self, index: int) -> Any:
        np.random.seed(7 + index)
        return np.random.random((2, 1))


class ByRandom(Samples):
    """Seeds a generator of Python."""

    def draw(self, index: int) -> Any:
        import random

        rng = random.Random(index)
        return np.array([[rng.random()], [rng.random()]])


class OwnGenerator(Samples):
    """A generator of its own, which goes on."""

    def draw(self, index: int) -> Any:
        return np.random.default_rng(self.rng.integers(1 << 30)).random((2, 1))


class Unseeded(Samples):
    """A generator of nobody's."""

    def draw(self, index: int) -> Any:
        return np.random.default_rng().random((2, 1))


class Counted(Samples):
    """Counts its epochs by its own `on_epoch_end`."""

    num_passes = 0

    def draw(self, index: int) -> Any:
        return np.random.default_rng([self.num_passes, index]).random((2, 1))

    def on_epoch_end(self) -> None:
        self.num_passes += 1


class Told(Samples):
    """Is told the epoch by somebody else."""

    epoch = 0

    def draw(self, index: int) -> Any:
        return np.random.default_rng([self.epoch, index]).random((2, 1))


class Idle(Samples):
    """Would draw if it were asked to."""

    is_drawing = False

    def draw(self, index: int) -> Any:
        if self.is_drawing:
            return np.random.default_rng(index).random((2, 1))
        return np.zeros((2, 1))


class Fixed(Samples):
    """Draws nothing."""

    def draw(self, index: int) -> Any:
        return np.full((2, 1), index)


class MadeUp(ByIndex):
    """Holds no samples, but makes them from their numbers."""

    def __getitem__(self, index: int) -> Any:
        self.num_read += 1
        return self.draw(index), np.zeros((2, 1))


class Broken(Samples):
    """Cannot be read at all."""

    def draw(self, index: int) -> Any:
        np.random.default_rng(index)
        raise OSError


def test_rows_of_the_program() -> None:
    """Samples that a function or a module holds count as the data set's."""
    rows = np.ones((2, 1))

    class Enclosed(MadeUp):
        def draw(self, index: int) -> Any:
            return rows + super().draw(index)

    assert len(list(find_alike_in_python(Enclosed()))) == 1


@pytest.mark.parametrize("kind", [ByIndex, ByFunction, ByGlobalSeed, ByRandom])
def test_datasets_that_seed_anew(kind: type) -> None:
    """They are told, and stand as they stood; for one epoch they are not."""
    x = kind()
    before = np.random.get_state()[1].copy()
    (note,) = find_alike_in_python(x)
    assert f"{kind.__name__} seeds a generator anew" in note
    assert x.num_read == 0
    assert (np.random.get_state()[1] == before).all()
    assert find_notes(x) == [f"data: {note}"]
    assert find_notes(x, epochs=1) == []


@pytest.mark.parametrize(
    "kind", [OwnGenerator, Unseeded, Counted, Told, Idle, Fixed, MadeUp, Broken]
)
def test_datasets_that_do_not(kind: type) -> None:
    """Their twins: nothing is said, and they stand as they stood."""
    x = kind()
    state = x.rng.bit_generator.state
    assert list(find_alike_in_python(x)) == []
    assert x.num_read == 0
    assert x.rng.bit_generator.state == state


# --- workers -----------------------------------------------------------------


class Source:
    """What workers draw from."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return self.rng.integers(1 << 30), np.random.randint(1 << 30)


@pytest.mark.requires_backend("torch")
def test_copies_in_workers() -> None:
    """Two workers of PyTorch draw alike from what the data set holds."""
    from torch.utils.data import DataLoader

    data = DataLoader(Source(), 1, num_workers=2)
    first, second, _, _ = [[int(one) for one in batch] for batch in data]
    assert first[0] == second[0]
    assert first[1] != second[1]  # PyTorch seeds it for each worker.
    (note,) = find_copies(data)
    assert "copy of rng" in note
    assert list(find_copies(DataLoader(Source(), 1))) == []
    seeds = DataLoader(Source(), 1, num_workers=2, worker_init_fn=print)
    assert list(find_copies(seeds)) == []
    assert list(find_copies(DataLoader(range(4), 1, num_workers=2))) == []


class Workers(keras.utils.PyDataset):  # type: ignore[misc]
    """Draws from NumPy's global generator."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return np.full((1, 1), np.random.random()), np.zeros((1, 1))


def test_copies_of_a_pydataset() -> None:
    """Processes are told as such, and threads as before."""
    (note,) = find_copies(Workers(workers=2, use_multiprocessing=True))
    assert "NumPy's global generator, and" in note
    assert list(find_copies(Workers(workers=2))) == []
    assert list(find_copies(Workers(use_multiprocessing=True))) == []


def test_sample_rng_is_what_differs() -> None:
    """What the notes advise gives each epoch draws of its own."""
    one, two = (kr.sample_rng(3, seed=1, epoch=e).random() for e in (0, 1))
    assert one != two


# --- a loader of PyTorch ------------------------------------------------------


def load(draw: Any, *, by: str = "samples", **options: Any) -> Any:
    """A loader of samples that `draw` makes, somewhere in it."""
    torch = pytest.importorskip("torch")
    here = {by: draw}

    class Views(torch.utils.data.Dataset):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows, self.num_read = np.ones((8, 1)), 0
            self.transform = here.get("transform", lambda _, row: row)

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            self.num_read += 1
            row = self.transform(index, self.rows[index])
            return here.get("samples", lambda _, row: row)(index, row), 0.0

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows, self.num_read = np.ones((8, 1)), 0

        def __iter__(self) -> Any:
            for index, row in enumerate(self.rows):
                self.num_read += 1
                yield draw(index, row), 0.0

    def collate(samples: list[Any]) -> Any:
        batch = torch.utils.data.default_collate(samples)
        return here.get("collate", lambda _, batch: batch)(0, batch[0]), batch[
            1
        ]

    x = Stream() if by == "stream" else Views()
    if by == "subset":
        here["samples"] = draw
        x = torch.utils.data.Subset(x, [3, 1, 2])
    return torch.utils.data.DataLoader(x, 2, collate_fn=collate, **options)


def by_index(index: int, row: Any) -> Any:
    """Add what a generator of this sample draws."""
    return row + np.random.default_rng(index).random(1)


def by_torch(index: int, row: Any) -> Any:
    """The same by PyTorch."""
    import torch

    rng = torch.Generator().manual_seed(index)
    return torch.as_tensor(row) + torch.rand(1, generator=rng)


def unseeded(index: int, row: Any) -> Any:
    """Add what differs each time."""
    return row + np.random.default_rng().random(1)


class Jitters:
    """A transform with a generator, of its own or made for each sample."""

    def __init__(self, seed: int | None) -> None:
        self.seed, self.rng = seed, np.random.default_rng(3)

    def __call__(self, index: int, row: Any) -> Any:
        rng = self.rng
        if self.seed is not None:
            rng = np.random.default_rng(self.seed + index)
        return row + rng.random(1)


SEEDS_ANEW = {
    "a sample": lambda: load(by_index),
    "by PyTorch": lambda: load(by_torch),
    "in random order": lambda: load(by_index, shuffle=True),
    "in workers": lambda: load(by_index, num_workers=2),
    "a subset": lambda: load(by_index, by="subset"),
    "a transform": lambda: load(Jitters(7), by="transform"),
    "a batch": lambda: load(by_torch, by="collate"),
    "a stream": lambda: load(by_index, by="stream"),
}
GOES_ON = {
    "unseeded": lambda: load(unseeded),
    "an own generator": lambda: load(Jitters(None), by="transform"),
    "an own generator of a stream": lambda: load(Jitters(None), by="stream"),
    "nothing is drawn": lambda: load(lambda _, row: row),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", SEEDS_ANEW)
def test_loaders_that_seed_anew(kind: str) -> None:
    """They are told, and stand as they stood."""
    x = SEEDS_ANEW[kind]()
    (note,) = find_alike_in_python(x)
    assert "seeds a generator anew" in note
    assert getattr(x.dataset, "dataset", x.dataset).num_read == 0
    if not x.num_workers:  # A process with threads had better not be forked.
        assert find_notes(x) == [f"data: {note}"]
        assert find_notes(x, epochs=1) == []


@pytest.mark.parametrize("kind", GOES_ON)
def test_loaders_that_do_not(kind: str) -> None:
    """Their twins: nothing is said."""
    x = GOES_ON[kind]()
    assert list(find_alike_in_python(x)) == []
    assert getattr(x.dataset, "dataset", x.dataset).num_read == 0
