"""`diagnose`: the rung that differs first, and the cause there."""

import os
import random
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.diagnosis.causes import (
    CLOCK,
    ENTROPY,
    PARALLEL_LOADING,
    SEEDED_TOO_LATE,
    STATE_LEAK,
    UNKNOWN,
    UNSEEDED,
    VARYING_SEED,
)
from keras_repro.watching.traps import (
    LOADED_RATE,
    NAN_FEATURES,
    SAME_ORDER,
    SEED_IGNORED,
    SHARED_START,
    VALIDATION_STEERS,
)
from tests.builders import make_model

BACKEND = keras.backend.backend()
X = np.linspace(-1, 1, 256).reshape(64, 4).astype("float32")
Y = X[:, :1]
# Torch tensors warn when NumPy asks them for an array, also without us.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _unseeded():
    """TensorFlow has no seed at first, whatever other tests have set."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.random.set_seed(None)


def build(*layers, rate=0.01):
    """A small compiled model."""
    model = keras.Sequential(
        [keras.Input((4,)), *layers, keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse")
    return model


def fit(model, x=X, **settings):
    """Two epochs."""
    model.fit(x, Y, **{"epochs": 2, "batch_size": 16, "verbose": 0, **settings})


def diagnose(train, model=None, **settings):
    """Without the last rung, which takes seconds."""
    return kr.diagnose(train, model, fresh_process=False, **settings)


def line_of(function, text):
    """The place of a line of a function, as it is shown."""
    import inspect
    from pathlib import Path

    lines, start = inspect.getsourcelines(function)
    (number,) = [i for i, line in enumerate(lines) if text in line]
    path = Path(__file__)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{start + number}"


def statuses(found):
    """What each rung said."""
    return [rung.status for rung in found.rungs]


# --- trainings, and what is wrong with them ----------------------------------


def seeded():
    keras.utils.set_random_seed(1)
    fit(build(keras.layers.Dropout(0.3)))


def unseeded_layers():
    np.random.seed(1)
    fit(build(), shuffle=False)  # drawn here


def unseeded_data():
    random.seed(1)
    x = X + np.random.normal(size=X.shape)  # drawn here
    fit(build(), x, shuffle=False)


def unseeded_order():
    random.seed(1)
    model = build()
    model.fit(X, Y, epochs=2, batch_size=16, verbose=0)  # drawn here


def late():
    model = build()  # drawn here
    keras.utils.set_random_seed(1)
    fit(model)


def entropy():
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng()  # drawn here
    fit(build(), X + rng.normal(size=X.shape))


def entropy_in_a_layer():
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng()  # drawn here
    value = float(rng.normal())
    fit(build(keras.layers.Rescaling(value)))


def varying():
    keras.utils.set_random_seed(time.time_ns() % 2**32)  # drawn here
    fit(build())


def by_the_clock():
    keras.utils.set_random_seed(1)
    fit(build(), X * (1 + time.time() % 1))  # drawn here


OUTER = {"count": 0}


def counting():
    keras.utils.set_random_seed(1)
    OUTER["count"] += 1
    fit(build(), X * OUTER["count"])


DRAWN = {
    unseeded_layers: (UNSEEDED, "initial state", "def build"),
    unseeded_data: (UNSEEDED, "data", "drawn here"),
    unseeded_order: (UNSEEDED, "whole fit", "drawn here"),
    late: (SEEDED_TOO_LATE, "initial state", "def build"),
    entropy: (ENTROPY, "data", "drawn here"),
    entropy_in_a_layer: (ENTROPY, "one step", "drawn here"),
    varying: (VARYING_SEED, "initial state", "drawn here"),
    by_the_clock: (CLOCK, "data", "drawn here"),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("train", DRAWN, ids=lambda one: one.__name__)
def test_cause_and_rung(train):
    """The rung that differs first is named, the kind, and the line."""
    kind, rung, text = DRAWN[train]
    found = diagnose(train)
    assert not found.reproducible
    (cause,) = found.causes
    assert cause.kind == kind
    where = line_of(train, text) if "here" in text else None
    if where is not None:
        assert cause.location == where
    else:
        assert cause.location.rpartition(":")[2] == str(
            build.__code__.co_firstlineno + 3
        )
    differing = [one.name for one in found.rungs if one.status == "different"]
    assert differing == [rung]
    reached = [one.name for one in found.rungs].index(rung)
    assert all(one.status == "" for one in found.rungs[reached + 1 :])
    assert str(found).startswith("Not reproducible")
    assert cause.advice in " ".join(str(found).split())


def test_reproducible():
    """A seeded training is equal on every rung, and nothing is blamed."""
    found = diagnose(seeded)
    assert found.reproducible
    assert "equal on every rung, in 1 call and 2 epochs" in found.headline
    assert statuses(found) == ["equal"] * 4 + ["-"]
    assert (found.causes, found.suspects, found.first_mismatch) == (
        (),
        (),
        None,
    )
    # Keras feeds all epochs alike on TensorFlow once a seed is set.
    kinds = {one.kind for one in found.traps}
    assert kinds == ({SAME_ORDER} if BACKEND == "tensorflow" else set())


def seeded_with_a_process():
    """As `seeded`, beside a process that nobody watches here."""
    command = [sys.executable, "-c", "1"]
    subprocess.run(command, check=True)
    seeded()


def seeded_with_a_fork():
    """As `seeded`, beside a forked process that calls a model."""
    if os.fork() == 0:
        try:
            build().load_weights("no such file")
        finally:
            os._exit(0)
    os.wait()
    seeded()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # JAX warns of forks.
@pytest.mark.parametrize(
    ("train", "told"),
    [
        (seeded_with_a_process, "python -c 1` at "),
        pytest.param(
            seeded_with_a_fork,
            "a forked process",
            marks=pytest.mark.requires_backend("torch"),
        ),
    ],
)
def test_what_may_train_elsewhere_is_told(train, told):
    """All that was compared is equal, and not all was; the twin is above."""
    found = diagnose(train)
    assert not found.reproducible
    assert found.first_mismatch is None
    assert told in found.unwatched[0]
    text = " ".join(str(found).split())
    assert text.startswith("Equal as far as was watched: equal on every rung")
    assert "1 process was not watched: what it trained was not compared" in text


@pytest.mark.slow
def test_unknown_says_what_was_ruled_out():
    """What the program counts for itself is not blamed on a generator."""
    found = diagnose(counting)
    (cause,) = found.causes
    assert cause.kind == UNKNOWN


@pytest.mark.slow
def test_model_that_goes_on():
    """One model trained twice leaks its state, and the state is named."""
    model = build()
    found = diagnose(lambda: fit(model))
    (cause,) = found.causes
    assert cause.kind == STATE_LEAK
    assert "layers.0.kernel" in cause.evidence
    assert "optimizer" in cause.evidence
    # The twin: the same model, but reset before each training.
    model = make_model()
    before = kr.compute_checksum(model)
    found = diagnose(fit, model)
    assert found.reproducible
    assert kr.compute_checksum(model) == before


class Counter(keras.layers.Layer):
    """Keeps what Keras does not see."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.times = 0

    def call(self, x):
        return x


def test_state_that_keras_does_not_see():
    """A counter of a layer that goes on is named too."""
    keras.utils.set_random_seed(1)
    layer = Counter()
    model = build(layer)
    start = model.get_weights()

    def train():
        layer.times += 1
        model.set_weights(start)
        model.compile(keras.optimizers.SGD(0.01), "mse")
        fit(model)

    found = diagnose(train)
    (cause,) = found.causes
    assert cause.kind == STATE_LEAK
    assert "times" in cause.evidence


@pytest.mark.slow
def test_racing_workers():
    """Workers that race for one generator are told as what they are."""
    keras.utils.set_random_seed(1)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            rows = []
            for _ in range(20):
                rows.append(np.random.normal(size=(1, 4)))
                time.sleep(1e-4)  # So that they meet on a busy machine too.
            batch = np.concatenate(rows).astype("float32")
            return batch, batch[:, :1]

    def train():
        keras.utils.set_random_seed(1)
        model = build()
        model.fit(Batches(workers=3), epochs=1, verbose=0)

    found = diagnose(train)
    assert [one.kind for one in found.causes] == [PARALLEL_LOADING]


@pytest.mark.slow
def test_generator_that_is_used_up():
    """A generator outside of the training feeds other data each time."""
    rng = np.random.default_rng(1)

    def batches():
        while True:
            x = rng.normal(size=(16, 4)).astype("float32")
            yield x, x[:, :1]

    data = batches()

    def train():
        keras.utils.set_random_seed(1)
        model = build()
        model.fit(data, steps_per_epoch=3, verbose=0)

    found = diagnose(train)
    assert [one.name for one in found.rungs if one.status == "different"] == [
        "data"
    ]


@pytest.mark.slow
def test_function_imported_by_name():
    """A draw by a name that was bound before is seen, if not its line."""
    rand = np.random.rand

    def train():
        random.seed(1)
        fit(build(), X + rand(*X.shape), shuffle=False)

    found = diagnose(train)
    (cause,) = found.causes
    assert (cause.kind, cause.library) == (UNSEEDED, "numpy")
    assert cause.location == line_of(train, "def train")


def test_train_on_batch():
    """A loop of one's own is diagnosed as well."""

    def train():
        np.random.seed(1)
        model = build()
        for _ in range(3):
            model.train_on_batch(X, Y)

    found = diagnose(train)
    assert found.causes[0].kind == UNSEEDED
    assert found.rungs[0].status == "different"


# --- traps -------------------------------------------------------------------


def kinds_of_traps(train, model=None):
    found = diagnose(train, model)
    assert found.reproducible, str(found)
    # On TensorFlow every training with a seed feeds all epochs alike.
    return {one.kind for one in found.traps} - {SAME_ORDER}


@pytest.mark.slow
def test_nan_features():
    """Features that are NaN in every sample are told with their number."""

    def train():
        keras.utils.set_random_seed(1)
        x = X.copy()
        x[:, 2] = np.nan
        fit(build(), x)

    found = diagnose(train)
    (trap,) = [one for one in found.traps if one.kind == NAN_FEATURES]
    assert "1 of 4 features are NaN in every sample: 2" in trap.evidence


@pytest.mark.slow
def test_shared_initializer():
    """Two layers that start alike are told; two of their own are not."""

    def train(shared=None):
        keras.utils.set_random_seed(1)
        one = shared or keras.initializers.HeNormal()
        other = shared or keras.initializers.HeNormal()
        fit(
            build(
                keras.layers.Dense(4, kernel_initializer=one),
                keras.layers.Dense(4, kernel_initializer=other),
            )
        )

    shared = keras.initializers.HeNormal(seed=3)
    assert kinds_of_traps(lambda: train(shared)) == {SHARED_START}
    assert kinds_of_traps(train) == set()


@pytest.mark.slow
def test_loaded_rate(tmp_path):
    """Weights that bring another learning rate along are told."""
    path = tmp_path / "saved.weights.h5"
    saved = build(rate=0.5)
    saved.optimizer.build(saved.trainable_variables)
    saved.save_weights(path)

    def train(rate):
        keras.utils.set_random_seed(1)
        model = build(rate=rate)
        model.optimizer.build(model.trainable_variables)
        model.load_weights(path)
        fit(model)

    assert kinds_of_traps(lambda: train(0.01)) == {LOADED_RATE}
    assert kinds_of_traps(lambda: train(0.5)) == set()


@pytest.mark.slow
def test_validation_that_steers():
    """On PyTorch validation draws from the generator of the training."""

    def train(**validation):
        keras.utils.set_random_seed(1)
        fit(build(), epochs=3, **validation)

    steered = kinds_of_traps(lambda: train(validation_data=(X, Y)))
    assert steered == ({VALIDATION_STEERS} if BACKEND == "torch" else set())
    split = kinds_of_traps(lambda: train(validation_split=0.25))
    assert split == steered
    assert kinds_of_traps(train) == set()


@pytest.mark.slow
def test_validation_does_not_steer_a_reproducible_model():
    """The twin: evaluation draws from a stream of its own."""
    model = make_model(keras.layers.Dropout(0.5), seed=3)
    assert (
        kinds_of_traps(lambda m: fit(m, validation_data=(X, Y)), model) == set()
    )


@pytest.mark.slow
def test_seed_without_effect():
    """A seed that does nothing is told; one that does something is not."""

    def ignoring(seed=3):
        keras.utils.set_random_seed(1)
        fit(build())

    def obeying(seed=3):
        keras.utils.set_random_seed(seed)
        fit(build())

    assert kinds_of_traps(ignoring) == {SEED_IGNORED}
    assert kinds_of_traps(obeying) == set()
    given = kr.ReproducibleModel(
        [
            keras.Input((4,)),
            keras.layers.Dense(1, kernel_initializer="ones"),
        ]
    )
    given.compile("sgd", "mse")
    given.capture_initial_state()
    found = kinds_of_traps(
        lambda model: fit(model, shuffle=False, batch_size=64), given
    )
    assert found == {SEED_IGNORED}


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow")
def test_same_order():
    """The order of all epochs is told, where `fit` shuffles."""
    assert SAME_ORDER in {one.kind for one in diagnose(seeded).traps}

    def unshuffled():
        keras.utils.set_random_seed(1)
        fit(build(), shuffle=False)

    assert SAME_ORDER not in {one.kind for one in diagnose(unshuffled).traps}


# --- around it ---------------------------------------------------------------


@pytest.mark.slow
def test_program_is_left_as_it_was():
    """Generators, `fit` and the path stand where they stood."""
    keras.utils.set_random_seed(7)
    own, finders = keras.Model.fit, list(sys.meta_path)
    expected = random.random(), np.random.rand()
    keras.utils.set_random_seed(7)
    for train in (seeded, unseeded_data, entropy):
        diagnose(train)
    assert (random.random(), np.random.rand()) == expected
    assert keras.Model.fit is own
    assert "fit" not in vars(keras.Model)
    assert sys.meta_path == finders


@pytest.mark.alike
@pytest.mark.slow
def test_diagnosis_within_a_diagnosis():
    """The outer one names what is unseeded inside, as the inner one does."""
    inner = []

    def ask():
        inner.append(diagnose(unseeded_data))

    found = diagnose(ask)
    for one in (found, *inner):
        assert [(cause.kind, cause.location) for cause in one.causes] == [
            (UNSEEDED, line_of(unseeded_data, "# drawn here"))
        ], one
    assert diagnose(lambda: diagnose(seeded)).reproducible


def test_error_of_the_training():
    """What `train` raises comes out as it is, and all is put back."""
    own = keras.Model.fit

    def train():
        build()
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        diagnose(train)
    assert keras.Model.fit is own
    with pytest.raises(KeyboardInterrupt):
        diagnose(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert keras.Model.fit is own


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ((3,), TypeError, "must be a function"),
        ((lambda a: a,), TypeError, "callable with no arguments"),
        ((lambda: 1, 3), TypeError, "must be a Keras model"),
        ((lambda: 1,), ValueError, "must train a model"),
    ],
)
def test_misuse(arguments, kind, text):
    """What cannot be diagnosed is refused, with what came."""
    with pytest.raises(kind, match=text):
        kr.diagnose(*arguments)
    if len(arguments) == 1 and kind is ValueError:
        with pytest.raises(ValueError, match="Received: -1"):
            kr.diagnose(seeded, max_runs=-1)


def test_budget():
    """Without experiments the causes are suspects only."""
    found = diagnose(entropy, max_runs=0)
    assert not found.reproducible
    assert found.causes == ()
    assert ENTROPY in {one.kind for one in found.suspects}


def test_assert_reproducible():
    """It fails with the first mismatch and the cause, or says nothing."""
    kr.assert_reproducible(seeded)
    with pytest.raises(AssertionError) as caught:
        kr.assert_reproducible(unseeded_data)
    text = str(caught.value)
    assert text.startswith("The training must be reproducible.")
    assert "First mismatch" in text
    assert f"unseeded at {line_of(unseeded_data, 'drawn here')}" in text


@pytest.mark.slow
def test_shown_in_a_notebook_and_as_a_picture():
    """It displays as HTML with everything escaped, and plots."""
    found = diagnose(unseeded_data)
    html = found._repr_html_()
    assert "unseeded" in html
    assert "np.random.normal" in html
    assert "<script" not in html
    figure = found.plot()
    texts = {one.get_text() for one in figure.axes[0].texts}
    assert {"initial state", "data", "whole fit"} <= texts
    values = found.to_json()
    assert values["causes"][0]["kind"] == UNSEEDED
    assert [one["name"] for one in values["rungs"]][-1] == "fresh process"


TYPED = """
def typed():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)
"""


@pytest.mark.slow
def test_fresh_process():
    """The last rung: equal in another interpreter.

    Also for code without a file, as `python -c` has it.
    """
    names = {"keras": keras, "x": X}
    exec(compile(TYPED, "<string>", "exec"), names)
    found = kr.diagnose(names["typed"])
    assert found.reproducible, str(found)
    assert statuses(found) == ["equal"] * 5


@pytest.mark.alike
@pytest.mark.slow
def test_this_process_is_not_like_a_fresh_one():
    """What another process lacks is told, where its environment tells it."""
    keras.config.set_floatx("float16")
    try:
        found = kr.diagnose(seeded)
    finally:
        keras.config.set_floatx("float32")
    assert statuses(found) == ["equal"] * 4 + ["different"]
    assert [one.kind for one in found.causes] == ["environment"] * len(
        found.causes
    )
    assert any("floatx" in one.evidence for one in found.causes)


@pytest.mark.gallery
def test_order_of_a_set():
    """The order of a set, which one process cannot change, is found there."""

    def ordered():
        keras.utils.set_random_seed(1)
        names = {f"row {i}" for i in range(64)}
        rows = [int(name[4:]) for name in names]  # ordered here
        fit(build(), X[rows])

    found = kr.diagnose(ordered)
    assert not found.reproducible
    assert [one.kind for one in found.causes] == ["hash_order"]
    assert found.causes[0].location == line_of(ordered, "ordered here")


@pytest.mark.slow
def test_what_cannot_be_sent():
    """A function that holds what cannot be pickled skips the last rung."""
    lock = __import__("threading").Lock()

    def train():
        with lock:
            seeded()

    found = kr.diagnose(train)
    assert found.reproducible
    assert found.rungs[-1].status == "-"
    assert "cannot be sent" in found.rungs[-1].told
