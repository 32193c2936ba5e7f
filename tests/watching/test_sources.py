"""What a program draws, seeds and reads: noted, held, and put back."""

import datetime
import os
import random
import secrets
import sys
import time
import uuid
from dataclasses import replace

import numpy as np
import pytest

from keras_repro.watching.holds import KEYED, Plan
from keras_repro.watching.observations import (
    CLOCK,
    DRAW,
    ENTROPY,
    OP,
    PARALLEL,
    PROCESS,
    SEED,
    THREADS,
)
from keras_repro.watching.watch import Watch, inherit_keys

pytestmark = pytest.mark.no_backend

HERE = __file__
FIXED = {name: f"{number:02d}" * 32 for number, name in enumerate(KEYED, 10)}


class Sink:
    """Keeps what an audit writes."""

    def __init__(self):
        self.values = {}

    def write(self, notes):
        pass

    def write_values(self, values):
        self.values = values


class Watched:
    """A watch, and what it noted."""

    def __init__(self, plan):
        self.sink = Sink()
        self.watch = Watch(plan, self.sink)

    def __enter__(self):
        self.watch.start()
        return self

    def __exit__(self, *_):
        self.watch.finish()
        self.watch.stop()

    def find(self, kind):
        """Names and counts of the notes of a kind made by this file."""
        return {
            note.name: note.count
            for note in self.watch.audit.notes
            if note.kind == kind and note.site.file == HERE
        }


@pytest.fixture(autouse=True)
def _kept_generators():
    """The generators of the test process stay where they are."""
    python, numpy = random.getstate(), np.random.get_state()
    yield
    random.setstate(python)
    np.random.set_state(numpy)


@pytest.fixture
def watch(tmp_path):
    """Start a watch."""

    def watch(**plan):
        plan = {"folder": str(tmp_path), "keys": FIXED, **plan}
        return Watched(Plan(**plan))

    return watch


# --- noted -------------------------------------------------------------------

DRAWS = {
    "random.random": (lambda: random.random() + 0, "python"),
    "random.shuffle": (lambda: random.shuffle([1, 2, 3]), "python"),
    "random.gauss": (lambda: random.gauss(0, 1), "python"),
    "random.choice": (lambda: random.choice("abc"), "python"),
    "numpy.random.rand": (lambda: np.random.rand(3), "numpy"),
    "numpy.random.shuffle": (lambda: np.random.shuffle([1, 2, 3]), "numpy"),
    "numpy.random.normal": (lambda: np.random.normal(size=2), "numpy"),
    "numpy state": (
        lambda: np.random.mtrand._rand.permutation(3),
        "numpy",
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_that_nobody_seeded(watch, name):
    """A draw from a global generator is noted until somebody seeds it."""
    draw, generator = DRAWS[name]
    with watch() as watched:
        draw()
        assert set(watched.find(DRAW)) == {generator}
        before = watched.find(DRAW)
        random.seed(1)
        np.random.seed(1)
        draw()
        assert watched.find(DRAW) == before
        assert set(watched.find(SEED)) == {"random.seed", "numpy.random.seed"}


ENTROPIES = {
    "uuid.uuid4": lambda: uuid.uuid4().hex,
    "uuid.uuid1": lambda: uuid.uuid1().hex,
    "os.urandom": lambda: os.urandom(8),
    "secrets": lambda: secrets.token_bytes(8),
    "random.SystemRandom": lambda: random.SystemRandom().random(),
    "random.Random": lambda: random.Random().random(),
    "random.seed": lambda: (random.seed(), random.random())[1],
    "numpy.random.default_rng": lambda: np.random.default_rng().random(),
    "numpy.random.RandomState": lambda: np.random.RandomState().rand(),
    "numpy.random.SeedSequence": lambda: np.random.SeedSequence().entropy,
    "numpy.random.PCG64": lambda: np.random.Generator(
        np.random.PCG64()
    ).random(),
    "numpy.random.seed": lambda: (np.random.seed(), np.random.rand())[1],
}


@pytest.mark.parametrize("name", ENTROPIES)
def test_fresh_entropy_is_noted_and_repeated(watch, name):
    """Fresh entropy is noted; with the same keys it comes again."""
    drawn = []
    for _ in range(2):
        with watch() as watched:
            drawn.append(ENTROPIES[name]())
        assert name in watched.find(ENTROPY)
    # The twin: with another key it does not.
    with watch(keys={**FIXED, "entropy": "99" * 32}):
        other = ENTROPIES[name]()
    assert drawn[0] == drawn[1]
    assert other != drawn[0]


def test_generators_start_from_their_keys(watch):
    """A global generator repeats with its key, and only its own."""

    def draw(**keys):
        with watch(keys={**FIXED, **keys}):
            return random.random(), np.random.rand()

    assert draw() == draw()
    python, numpy = draw(python="98" * 32)
    assert (python == draw()[0], numpy == draw()[1]) == (False, True)


def test_seeds_that_are_given(watch):
    """Explicit seeds are noted with their values, once for each place."""
    with watch() as watched:
        for seed in (3, 4):
            random.Random(seed)
            np.random.default_rng(seed)
            np.random.RandomState(seed)
            np.random.SeedSequence(seed)
            random.seed(seed)
            np.random.seed(seed)
    values = {
        note.name: note.values
        for note in watched.watch.audit.notes
        if note.kind == SEED
    }
    assert values == dict.fromkeys(
        (
            "random.Random",
            "numpy.random.default_rng",
            "numpy.random.RandomState",
            "numpy.random.SeedSequence",
            "random.seed",
            "numpy.random.seed",
        ),
        ("3", "4"),
    )


def test_a_generator_passed_on_is_no_seed(watch):
    """`default_rng(generator)` gives the generator back, unnoted."""
    generator = np.random.default_rng(1)
    with watch() as watched:
        assert np.random.default_rng(generator) is generator
    assert watched.find(SEED) == {}


def test_states_put_back_are_known(watch):
    """Who puts an unseeded state back has seeded nothing."""
    with watch() as watched:
        python, numpy = random.getstate(), np.random.get_state()
        random.seed(1)
        np.random.seed(1)
        random.setstate(python)
        np.random.set_state(numpy)
        random.random()
        np.random.rand()
        assert set(watched.find(DRAW)) == {"python", "numpy"}
        before = watched.find(DRAW)["python"]
        random.setstate(random.Random(3).getstate())
        random.random()
        assert watched.find(DRAW)["python"] == before


def test_clocks_that_the_program_reads(watch):
    """The person's own reading of a clock is noted; a library's is not."""
    with watch() as watched:
        time.time()
        time.perf_counter_ns()
        datetime.datetime.now()  # noqa: DTZ005
        datetime.date.today()  # noqa: DTZ011
        time.strftime("%Y")
        time.strftime("%Y", time.gmtime(0))
        os.getpid()
        import logging

        logging.LogRecord("a", 1, "b", 1, "c", (), None)
    clocks = watched.find(CLOCK)
    assert {"time.time", "time.perf_counter_ns"} < set(clocks)
    assert {"datetime.now", "time.strftime"} < set(clocks)
    assert clocks["time.strftime"] == 1
    assert watched.find(PROCESS) == {"os.getpid": 1}


def test_clock_is_given_again(watch, tmp_path):
    """Another process reads the times of the first, place by place."""

    def read():
        return [
            (time.time(), datetime.datetime.now(datetime.UTC)) for _ in range(3)
        ]

    first_folder = tmp_path / "first"
    first_folder.mkdir()
    from keras_repro.watching.observations import NoteFile

    first = Watch(
        Plan(folder=str(first_folder), keys=FIXED), NoteFile(first_folder)
    )
    first.start()
    times = read()
    first.finish()
    first.stop()
    line = read.__code__.co_firstlineno + 2
    plan = Plan(
        folder=str(tmp_path),
        keys=FIXED,
        reference=str(first_folder),
        replayed=(f"clock {HERE}:{line}",),
    )
    with Watched(plan):
        assert read() == times
        # More than the first process has read comes from the clock.
        assert read()[0][0] > times[-1][0]
    # The twin: what is not held goes on.
    with Watched(replace(plan, replayed=(f"clock {HERE}:{line + 1}",))):
        assert read() != times


def test_pools_are_noted_and_held(watch):
    """More than one worker is noted; held, there is one."""
    import concurrent.futures
    from concurrent.futures import ThreadPoolExecutor, as_completed

    with watch() as watched:
        with ThreadPoolExecutor(3) as pool:
            assert pool._max_workers == 3
        with ThreadPoolExecutor(1):
            pass
    assert watched.find(PARALLEL) == {"ThreadPoolExecutor": 1}
    with watch(num_workers=1), ThreadPoolExecutor(3) as pool:
        assert pool._max_workers == 1
        waiting = [pool.submit(int, number) for number in range(20)]
        found = concurrent.futures.as_completed(waiting)
        assert [one.result() for one in found] == list(range(20))
    assert as_completed is concurrent.futures.as_completed


def test_watch_within_another(watch):
    """Each notes what is drawn within both; what the outer holds is held."""

    def draw():
        with Watched(Plan(folder="", keys=inherit_keys())) as inner:
            drawn = random.random(), np.random.rand(), np.random.default_rng()
            assert isinstance(drawn[2], np.random.Generator)
            np.random.PCG64()
            found = inner.find(DRAW), inner.find(ENTROPY)
        return drawn[:2], drawn[2].random(), found

    keys = {name: key[::-1] for name, key in FIXED.items()}
    with watch() as outer:
        random.seed(1)  # Does not reach into the inner watch.
        first, second = draw(), draw()
        after = random.random()
        assert outer.find(DRAW) == {"python": 2, "numpy": 2}
    drawn = {"numpy.random.default_rng": 1, "numpy.random.PCG64": 1}
    assert first[2] == ({"python": 1, "numpy": 1}, drawn)
    assert first[:2] != second[:2]
    with watch():
        random.seed(1)
        assert (draw(), draw(), random.random()) == (first, second, after)
    with watch(keys=keys):  # The twin: not held.
        assert draw()[0] != first[0]
    outer.watch.stop()  # Once more changes nothing.
    assert inherit_keys() is None
    assert type(random._inst) is random.Random
    assert type(np.random.PCG64) is type


def test_start_that_fails_puts_everything_back(watch):
    """Whatever ends a start: nothing stays replaced."""
    before = [vars(one).copy() for one in (random, os, np.random, time)]
    finders = list(sys.meta_path)

    def fail(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch().watch.start({"numpy.random": fail})
    assert [vars(one) for one in (random, os, np.random, time)] == before
    assert sys.meta_path == finders
    assert inherit_keys() is None


def test_freed_place_draws_anew(watch):
    """A place that is let go differs; all others draw what they drew."""

    def draw(**plan):
        with watch(**plan):
            first = random.random(), np.random.rand()
            second = random.random(), np.random.rand()
        return first, second

    line = draw.__code__.co_firstlineno + 2
    held, again = draw(), draw()
    assert held == again
    freed = draw(freed=(f"python {HERE}:{line}",))
    assert freed[0][0] != held[0][0]
    assert (freed[0][1], freed[1]) == (held[0][1], held[1])
    freed = draw(freed=(f"numpy {HERE}:{line + 1}",))
    assert freed[1][1] != held[1][1]
    assert (freed[0], freed[1][0]) == (held[0], held[1][0])


# --- put back ----------------------------------------------------------------


def snapshot():
    """Everything of the standard library and NumPy that is replaced."""
    names = ("seed", "random", "uniform", "shuffle", "getrandbits", "gauss")
    return [
        *(getattr(random, name) for name in names),
        *(random.Random.seed, type(random._inst), random._urandom),
        *(os.urandom, os.getpid, uuid.uuid1, time.time, time.strftime),
        *(datetime.datetime.now, datetime.date.today),
        *(np.random.rand, np.random.seed, np.random.default_rng),
        *(np.random.RandomState, np.random.PCG64, np.random.mtrand._rand),
        *(np.random.bit_generator.randbits, *sys.meta_path),
    ]


def test_everything_is_put_back(watch):
    """After the watch nothing knows of it, also after an error."""
    before = snapshot()
    with watch():
        assert snapshot() != before
    assert snapshot() == before
    with pytest.raises(ZeroDivisionError), watch():
        raise ZeroDivisionError
    assert snapshot() == before
    random.seed(1)
    np.random.seed(1)
    assert (random.random(), np.random.rand()) == (
        0.13436424411240122,
        0.417022004702574,
    )


def test_types_stay_what_they_are(watch):
    """Watched classes make instances of the classes themselves."""
    state, sequence = np.random.RandomState, np.random.SeedSequence
    with watch():
        made = np.random.RandomState(1)
        assert type(made) is state
        assert isinstance(made, np.random.RandomState)
        assert isinstance(np.random.mtrand._rand, np.random.RandomState)
        assert isinstance(np.random.SeedSequence(1), sequence)
        assert issubclass(np.random.RandomState, state)

        class Own(np.random.RandomState):
            pass

        assert isinstance(Own(3), np.random.RandomState)
        assert Own(3).rand() == np.random.RandomState(3).rand()
    assert isinstance(made, state)
    assert type(datetime.datetime.now()) is datetime.datetime  # noqa: DTZ005


def test_numbers_are_those_of_the_libraries(watch):
    """What is seeded gives the numbers that it gives without us."""

    def draw():
        random.seed(5)
        np.random.seed(5)
        return [
            *(random.random(), random.randint(1, 100), random.gauss(0, 1)),
            *(random.sample(range(100), 5), random.Random(2).random()),
            *(np.random.rand(), np.random.normal(), np.random.randint(100)),
            np.random.permutation(10).tolist(),
            np.random.default_rng(4).random(),
            np.random.RandomState(4).rand(),
            np.random.Generator(np.random.Philox(key=3)).random(),
            np.random.Generator(np.random.PCG64(3)).random(),
            np.random.SeedSequence(7).generate_state(2).tolist(),
            uuid.uuid5(uuid.NAMESPACE_DNS, "example.org"),
        ]

    plain = draw()
    with watch():
        assert draw() == plain


# --- backends ----------------------------------------------------------------


@pytest.mark.requires_backend("tensorflow")
def test_tensorflow(watch):
    """Unseeded ops, seeds, pipelines and racing ops of TensorFlow."""
    import tensorflow as tf

    tf.random.set_seed(None)
    with watch() as watched:
        tf.random.normal((2,))
        tf.data.Dataset.range(3).shuffle(3)
        tf.data.Dataset.range(3).map(lambda i: i, num_parallel_calls=2)
        tf.math.bincount([1, 2])
        tf.random.Generator.from_non_deterministic_state()
        assert set(watched.find(DRAW)) == {"tensorflow"}
        assert watched.find(PARALLEL) == {"tf.data.Dataset.map": 1}
        assert watched.find(OP) == {"tensorflow.math.bincount": 1}
        tf.random.set_seed(3)
        assert watched.find(SEED)["tensorflow.random.set_seed"] == 1
    with watch(seed_kernels=True):
        tf.random.set_seed(None)
        drawn = [float(tf.random.normal(())) for _ in range(2)]
    from keras_repro.backends.tensorflow import rewind_kernels

    rewind_kernels()
    with watch(seed_kernels=True):
        again = [float(tf.random.normal(())) for _ in range(2)]
    # Another place of the program draws from a stream of its own.
    assert drawn[0] != drawn[1]
    assert again[0] != drawn[0]


@pytest.mark.requires_backend("torch")
def test_torch(watch):
    """Draws, seeds, loaders and racing ops of PyTorch."""
    import torch

    state = torch.get_rng_state()
    functional = torch.nn.functional.dropout
    try:
        with watch() as watched:
            torch.randn(3)
            torch.empty(3).uniform_()
            torch.nn.functional.dropout(torch.ones(3), 0.5)
            torch.Generator().seed()
            torch.zeros(4).put_(
                torch.tensor([1, 1]), torch.ones(2), accumulate=True
            )
            torch.utils.data.DataLoader([1, 2], num_workers=2)
            assert set(watched.find(DRAW)) == {"torch"}
            assert "torch.Generator.seed" in watched.find(ENTROPY)
            assert watched.find(OP) == {"torch.Tensor.put_": 1}
            assert watched.find(PARALLEL) == {"DataLoader": 1}
            torch.manual_seed(3)
            assert watched.find(SEED) == {"torch.manual_seed": 1}
        with watch():
            first = torch.rand(3)
        with watch():
            assert (torch.rand(3) == first).all()
        with watch(num_workers=1):
            loader = torch.utils.data.DataLoader(
                [1, 2], num_workers=2, prefetch_factor=2
            )
            assert loader.num_workers == 0
    finally:
        torch.set_rng_state(state)
    assert torch.nn.functional.dropout is functional


def _draw_scripted():
    x = torch.rand([2])  # noqa: F821 - put there by the test
    return torch.nn.functional.dropout(x, 0.5, True)  # noqa: F821


@pytest.mark.requires_backend("torch")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torch_scripts_under_watch(watch, monkeypatch):
    """A function that is scripted while watched finds what it calls."""
    import torch

    monkeypatch.setitem(_draw_scripted.__globals__, "torch", torch)
    with watch():
        assert torch.jit.script(_draw_scripted)().shape == (2,)


@pytest.mark.requires_backend("torch")
def test_torch_threads(watch):
    """The number of threads is noted, and held."""
    import torch

    number = torch.get_num_threads()
    try:
        with watch() as watched:
            torch.set_num_threads(1)
            assert watched.find(THREADS) == {"torch.set_num_threads": 1}
        with watch(num_threads=1):
            torch.set_num_threads(2)
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(number)


@pytest.mark.requires_backend
def test_keras_draws_from_python(watch):
    """A layer without a seed draws when it is made, at the person's line."""
    import keras

    with watch() as watched:
        keras.layers.Dense(1)
        keras.layers.Dropout(0.5)
        keras.layers.Dropout(0.5, seed=3)
        keras.initializers.HeNormal(seed=4)
        sites = [
            note.site for note in watched.watch.audit.notes if note.kind == DRAW
        ]
        assert {site.through for site in sites} <= {
            "keras.Dense",
            "keras.Dropout",
            "keras.SeedGenerator",
        }
        assert all(site.library == "keras" for site in sites)
        seeds = {
            note.name: note.values
            for note in watched.watch.audit.notes
            if note.kind == SEED
        }
        assert seeds["keras.random.SeedGenerator"] == ("3",)
        assert seeds["keras.initializers"] == ("4",)


@pytest.mark.requires_backend
def test_workers_of_a_dataset(watch):
    """A PyDataset with workers is noted where it is made, and held."""
    import keras

    class Data(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)

    def make():
        return Data(workers=3)

    with watch() as watched:
        assert make().workers == 3
        (note,) = [
            one for one in watched.watch.audit.notes if one.kind == PARALLEL
        ]
        assert note.site.line == make.__code__.co_firstlineno + 1
    with watch(num_workers=1):
        assert make().workers == 1
