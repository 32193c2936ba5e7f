"""Interrupts from the keyboard at random moments of what a person does.

    python interrupted.py FOLDER NUM_INTERRUPTS [SEED]

So many for each operation, one half by the clock, the other half at a place
where Python would hear one: each call of a function, and each return from one
in C. Of these every other one lies in our code, or on the way into it. Prints a
JSON object of what was found.
"""

import json
import os
import random
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

import keras_repro as kr
from keras_repro.backends import owners, random_streams
from keras_repro.backends.keras_internals import get_global_generator

X = np.linspace(0, 1, 32, dtype="float32").reshape(8, 4)
Y = X[:, :1]


def make_model(seed=3):
    layers = keras.layers
    model = kr.ReproducibleModel(
        [
            keras.Input((4,)),
            layers.Dense(4),
            layers.Dropout(0.2),
            layers.Dense(1),
        ],
        seed=seed,
    )
    model.compile("adam", "mse")
    return model


def train(model):
    return model.fit(X, Y, epochs=2, batch_size=4, verbose=0)


def draw_in_a_trial(model, folder):
    with model.trial(seed=5):
        random.random()
        keras.random.uniform((1,))
        model.train_on_batch(X, Y)


def draw_in_a_block(model, folder):
    with kr.isolate_rng(5):
        random.random()
        np.random.random()
        keras.random.uniform((1,))


# What is done with a model and a folder that holds a start of it.
OPERATIONS = {
    "reset": lambda model, folder: model.reset(),
    "reset to a seed": lambda model, folder: model.reset(seed=8),
    "fit": lambda model, folder: train(model),
    "train_on_batch": lambda model, folder: model.train_on_batch(X, Y),
    "evaluate": lambda model, folder: model.evaluate(X, Y, verbose=0),
    "predict": lambda model, folder: model.predict(X, verbose=0),
    "trial": draw_in_a_trial,
    "isolate_rng": draw_in_a_block,
    "seed_everything": lambda model, folder: kr.seed_everything(
        6, deterministic=False
    ),
    "clone": lambda model, folder: model.clone(),
    "make": lambda model, folder: make_model(4),
    "load": lambda model, folder: model.load_initial_state(folder / "start.h5"),
    "capture": lambda model, folder: model.capture_initial_state(),
}


def is_ours(frame):
    """Whether code of ours runs in a frame, or what enters and leaves it."""
    name = frame.f_globals.get("__name__", "")
    return name == "contextlib" or name.startswith("keras_repro.")


def profiled(act, hear):
    """Do something; `hear` is told of each place that hears an interrupt."""

    def profile(frame, event, arg):
        if event in ("call", "c_return"):
            hear(frame)

    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(None)


def count(act, only_ours):
    """How many places of an operation hear an interrupt."""
    places = []

    def hear(frame):
        if not only_ours or is_ours(frame):
            places.append(1)

    profiled(act, hear)
    return len(places)


def interrupt_at(act, number, only_ours=True):
    """Interrupt an operation at one of these places, the first being 0.

    Gives `None` if it had fewer this time, as where JAX found what it did not
    find when they were counted.
    """
    left = number

    def hear(frame):
        nonlocal left
        if not only_ours or is_ours(frame):
            left -= 1
            if left == -1:
                signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)

    heard = is_heard(lambda: profiled(act, hear))
    return None if left >= 0 else heard


def interrupt_after(act, seconds):
    """Interrupt an operation after a time, by a real signal."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))

    def run():
        timer.start()
        act()
        timer.join()

    try:
        return is_heard(run)
    finally:
        timer.join()


def is_heard(act):
    """Whether an operation is interrupted, be it when it has ended."""
    try:
        act()
        time.sleep(1)  # It may still be on its way.
    except KeyboardInterrupt:
        return True
    return False


class Program(NamedTuple):
    """Where the program's generators stand, and what they are."""

    python: Any
    others: str
    generator: int


def read_program():
    """Where the program's generators stand, and what they are."""
    state = random_streams.rng_to_json(random_streams.capture_rng())
    python = random.getstate()
    del state["python"]
    return Program(python, json.dumps(state), id(get_global_generator()))


def has_moved(before, may_draw):
    """Whether the program's generators are not where they may stand.

    Who makes layers draws their seeds from Python's, and nothing else.
    """
    outside, state = read_program(), random.getstate()
    random.setstate(before.python)
    reached = [random.getstate()]
    for _ in range(50 * may_draw):
        random.randint(1, int(1e9))  # As Keras draws a seed.
        reached.append(random.getstate())
    random.setstate(state)
    return outside[1:] != before[1:] or state not in reached


def find_faults(model, before, expected, may_draw):
    """What an interrupt has left that is not as it was."""
    if before is not None and has_moved(before, may_draw):
        yield "the program's generators moved"
    if owners._owners or owners._waiting or random_streams._programs:
        yield "somebody has the generators"
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield "the handler is ours"
    now = read_program()
    model.reset(seed=3)
    if train(model).history != expected:
        yield "another training"
    if read_program() != now:
        yield "the program's generators moved later"


class Tries:
    """One operation after the other on one model, each interrupted."""

    def __init__(self, folder):
        self.folder = folder
        kr.seed_everything(11, deterministic=False)
        keras.random.uniform((1,))
        self.model = make_model()
        self.expected = train(self.model).history
        self.model.predict(X, verbose=0)
        self.model.evaluate(X, Y, verbose=0)
        self.model.reset()
        self.model.save_initial_state(folder / "start.h5")

    def act(self, name):
        """What is done, once."""
        return lambda: OPERATIONS[name](self.model, self.folder)

    def prepare(self, name):
        """Have the model stand as a person finds it."""
        if name == "capture":  # What it captures no seed draws any more.
            self.model = make_model()
        self.model.reset(seed=3)
        if name in ("reset", "reset to a seed", "load"):
            train(self.model)

    def measure(self, name):
        """How long an operation takes, and how many places hear."""
        self.prepare(name)
        self.act(name)()
        self.prepare(name)
        began = time.perf_counter()
        self.act(name)()
        seconds = time.perf_counter() - began
        places = []
        for only_ours in (False, True):
            self.prepare(name)
            places.append(count(self.act(name), only_ours))
        return seconds, places

    def interrupt(self, name, how):
        """Interrupt it once; whether that was heard, and what it left."""
        self.prepare(name)
        before = None if name == "seed_everything" else read_program()
        heard = how(self.act(name))
        may_draw = name in ("clone", "make")
        try:
            faults = list(
                find_faults(self.model, before, self.expected, may_draw)
            )
        except Exception as error:  # noqa: BLE001 - whatever was broken
            faults = [repr(error)]
        if faults:
            self.model = make_model()
        return heard, faults


def choose(rng, number, seconds, places):
    """Where to interrupt, for one of the tries."""
    if number % 2:
        delay = rng.uniform(0, seconds)
        return f"after {delay:.4f} s", lambda act: interrupt_after(act, delay)
    only_ours = bool(number % 4)
    place = rng.randrange(places[only_ours])
    text = f"at place {place} {'of ours' if only_ours else 'of all'}"
    return text, lambda act: interrupt_at(act, place, only_ours)


def main(folder, num_interrupts, seed=0):
    tries, rng = Tries(folder), random.Random(seed)
    faults, num_heard = [], {}
    for name in OPERATIONS:
        seconds, places = tries.measure(name)
        num_heard[name] = 0
        for number in range(num_interrupts):
            where, how = choose(rng, number, seconds, places)
            heard, found = tries.interrupt(name, how)
            num_heard[name] += heard
            faults += [f"{name}, {where}: {one}" for one in found]
    print(json.dumps({"heard": num_heard, "faults": faults}))


if __name__ == "__main__":
    # A program that runs in the background of a shell ignores interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
