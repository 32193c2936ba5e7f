"""SIGINT at random moments: what it leaves is as it was, and can go on."""

import gc
import importlib.util
import json
import signal
import time
from contextlib import nullcontext

import keras
import pytest
from keras.src.utils import python_utils

from keras_repro.backends import interrupts, owners, random_streams
from tests.builders import make_model
from tests.checkout import SCRIPTS

pytestmark = pytest.mark.requires_backend()
SCRIPT = SCRIPTS / "interrupted.py"
MANY = 100 if keras.backend.backend() == "jax" else 20


@pytest.fixture(autouse=True)
def pythons_handler():
    """As in a terminal; what runs in the background ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "num_interrupts",
    [
        pytest.param(4, marks=pytest.mark.slow),
        pytest.param(MANY, marks=pytest.mark.gallery),
    ],
)
def test_interrupts_leave_all_in_place(run_python, tmp_path, num_interrupts):
    """The program's generators, the handler, and what a model trains."""
    output = run_python(SCRIPT, tmp_path, num_interrupts).stdout
    found = json.loads(output.splitlines()[-1])
    assert found["faults"] == []
    assert max(found["heard"].values()) > 0


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("interrupted", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_collection():
    """Garbage of other tests would add places, now and then."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def interrupt_everywhere(script, every):
    """Interrupt a block at each place of ours that hears it."""

    def act():
        script.draw_in_a_block(None, None)

    act()
    found = []
    for place in range(0, script.count(act, only_ours=True), every):
        before = script.read_program()
        state = random_streams.capture_rng()
        heard = script.interrupt_at(act, place)
        if heard is not None:
            found.append((heard, script.read_program() == before))
        random_streams.restore_rng(state)
    return found


@pytest.mark.usefixtures("no_collection")
def test_a_block_is_entered_and_left_whole(script):
    """At whichever place an interrupt comes, it is heard, and nothing moves."""
    found = interrupt_everywhere(script, every=3)
    assert len(found) > 20
    assert set(found) == {(True, True)}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("no_collection")
def test_without_the_sections_it_would_not_be(script, monkeypatch):
    """The twin: Python's own handler raises in the middle of them."""
    monkeypatch.setattr(owners, "listen", lambda: False)
    found = interrupt_everywhere(script, every=3)
    assert (True, False) in found
    owners._owners.clear()


def test_a_handler_of_the_program_stays():
    """Its own is called at once, and never replaced."""
    heard = []

    @interrupts.undivided
    def interrupt():
        signal.raise_signal(signal.SIGINT)
        return len(heard)

    def handler(number, frame):
        heard.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        assert interrupt() == 1
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupt() == 1  # In a section it waits.
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)


class Interrupting:
    """A value whose conversion is interrupted, as a wait for a step is."""

    def __float__(self):
        signal.raise_signal(signal.SIGINT)
        return 0.0


class Dying:
    """An object that is interrupted as it goes."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def collect():
    """Interrupt where libraries clean up with Python."""

    def interrupt(phase, info):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            gc.callbacks.remove(interrupt)

    gc.callbacks.append(interrupt)
    gc.collect()


DROPPED = {
    "by Keras": lambda: python_utils.pythonify_logs({"loss": Interrupting()}),
    "with an object": Dying,
    "with garbage": collect,
}


class Dropping(keras.callbacks.Callback):
    """Has an interrupt come where it would be dropped."""

    def __init__(self, drop):
        super().__init__()
        self.drop, self.num_batches = drop, 0

    def on_train_batch_end(self, batch, logs=None):
        self.num_batches += 1
        if self.num_batches == 2:
            self.drop()
        elif self.num_batches > 2:  # It is asked for again meanwhile.
            time.sleep(0.2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("drop", DROPPED)
@pytest.mark.parametrize("is_ours", [True, False])
def test_an_interrupt_that_would_be_dropped_is_heard(is_ours, drop):
    """Of a reproducible model; the twin of plain Keras trains on."""
    model, dropping = make_model(seed=1), Dropping(DROPPED[drop])
    if not is_ours:
        model = keras.Sequential(model.layers)
        model.compile("sgd", "mse")
    call = {"epochs": 4, "batch_size": 1, "verbose": 0}
    x = keras.ops.ones((2, 4))
    with pytest.raises(KeyboardInterrupt) if is_ours else nullcontext():
        model.fit(x, x[:, :1], callbacks=[dropping], **call)
    assert (dropping.num_batches == 8) is not is_ours
