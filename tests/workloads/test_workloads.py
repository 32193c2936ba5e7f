"""What must hold of each workload, as a person would train it."""

import contextlib
import functools
import json
import random
import sys

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.runs.file import load_runs
from tests.checkout import run_command

from .models import ALL_WORKLOADS, WORKLOADS
from .workload import (
    BACKEND,
    OURS,
    STOCK,
    count_passes,
    observe,
    observe_under,
)

# What Keras says of stock models too: when it loads the transformers, and the
# optimizer of the distillation's teacher, and of its IoU metrics on JAX.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have a `build:UserWarning",
    "ignore:Skipping variable loading for optimizer:UserWarning",
    "ignore:Explicitly requested dtype int64:UserWarning",
)
SEEDS = 7, 8


def is_in_share(workload):
    """Whether it is asked about without `-m gallery`, too.

    What is traced takes long: TensorFlow and JAX take one in three each,
    PyTorch all of them.
    """
    turn = ALL_WORKLOADS.index(workload) % 3
    return BACKEND == "torch" or turn == (BACKEND == "jax")


each_workload = [
    pytest.mark.sampled(50),
    pytest.mark.parametrize(
        "workload",
        [
            pytest.param(
                one, marks=() if is_in_share(one) else pytest.mark.gallery
            )
            for one in WORKLOADS
        ],
        ids=lambda one: one.name,
    ),
]


def for_each_workload(test):
    """One of them is quick to run, the others are slow."""
    for mark in each_workload:
        test = mark(test)
    return test


def disturb(workload, model):
    """What a person does between two trainings, but for a reset."""
    if workload.x is not None:
        model.predict(workload.x, verbose=0)
    if workload.y is not None:
        model.evaluate(workload.x, workload.y, verbose=0)
    random.random()
    np.random.random(7)
    keras.random.normal((2,))
    workload.train(model)


def predict(workload, model):
    """Checksum of two predictions in a row, which draw one after the other."""
    if workload.x is None:
        return None
    pair = [model.predict(workload.x, verbose=0) for _ in range(2)]
    return kr.compute_checksum(pair)


def story(workload, kind):
    """Train, disturb, reset if there is a reset, and train again, twice.

    Returns:
        The model, what each training gave, and how often the Python bodies ran
        until the first was over, and after it.
    """
    results = []
    with kr.isolate_rng():
        kr.seed_everything(5, deterministic=False)
        model = workload.build(kind)
        # To draw a block without a `build` it is called once more.
        passes = [count_passes()]
        for number in range(3):
            if number == 1:
                disturb(workload, model)
                if kind is OURS:
                    model.reset()
            result = observe(workload, model)
            passes.append(count_passes())
            results.append({**result, "draws": predict(workload, model)})
    return model, results, (passes[1] - passes[0], count_passes() - passes[1])


@functools.cache
def ours(workload):
    """The story, told by our model."""
    return story(workload, OURS)


@functools.cache
def trained(workload):
    """A model that was trained under both seeds, and what they gave."""
    model = workload.build(OURS)
    with told_of_traces(workload):
        return model, [observe_under(workload, model, s) for s in SEEDS]


def told_of_traces(workload):
    """Another seed traces anew what drew in a trace, which is said once."""
    if workload.draws_in_trace and BACKEND != "torch":
        return pytest.warns(UserWarning, match="while it was traced")
    return contextlib.nullcontext()


def parting(a, b):
    """What differs between two results, by its name."""
    names = sorted(name for name in a.keys() | b.keys())
    return {
        name: (a.get(name), b.get(name))
        for name in names
        if a.get(name) != b.get(name)
    }


@for_each_workload
def test_reset_repeats_training(workload):
    """After all that a person does, `reset()` gives the first training."""
    _, (first, second, third), _ = ours(workload)
    assert parting(first, second) == {}
    # The twin: without a reset the third is another one.
    assert {"history", "model"} <= set(parting(second, third))


@pytest.mark.slow
@for_each_workload
def test_traces_as_often_as_keras(workload):
    """The Python bodies run as often as with Keras' own model."""
    *_, (first, later) = ours(workload)
    *_, (stock_first, stock_later) = story(workload, STOCK)
    assert later == stock_later
    if BACKEND == "tensorflow":
        # Keras traces once more what made the slots of the optimizer, which
        # our model has made before; ours is called once with shapes, so that
        # callbacks find its metrics, as on the other backends.
        assert first <= stock_first + 1
    else:
        assert first == stock_first


@for_each_workload
def test_seeds_in_both_orders(workload):
    """A seed gives one training, whatever was trained before."""
    _, (seven, eight) = trained(workload)
    model, *_ = ours(workload)
    with told_of_traces(workload):
        assert parting(eight, observe_under(workload, model, 8)) == {}
        assert parting(seven, observe_under(workload, model, 7)) == {}
    assert {"history", "model"} <= set(parting(seven, eight))


@pytest.fixture(scope="module")
def fresh(request):
    """What seed 7 gives in a process of its own, for all that are tested."""
    names = {
        item.callspec.params["workload"].name
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    }
    output = run_command(
        sys.executable,
        "-m",
        "tests.workloads.fresh",
        SEEDS[0],
        *sorted(names),
        PYTHONHASHSEED="2",
    ).stdout
    return json.loads(output.splitlines()[-1])


@pytest.mark.slow
@for_each_workload
def test_equals_a_fresh_process(workload, fresh):
    """A seed gives what it gives in a process that trains nothing else."""
    model, _ = trained(workload)
    expected = fresh[workload.name]
    assert "error" not in expected, expected
    assert parting(expected, observe_under(workload, model, 7)) == {}
    assert parting(expected, observe_under(workload, model, 8)) != {}


@for_each_workload
def test_callback_tells_of_drift_alone(workload, tmp_path):
    """After a reset there is no mismatch; without one there is."""
    model, _ = trained(workload)
    path = tmp_path / "runs.jsonl"
    for _ in range(2):
        model.reset(seed=7)
        workload.train(model, [kr.ChecksumCallback(path)])
    runs = load_runs(path)
    half = len(runs) // 2
    for a, b in zip(runs[:half], runs[half:], strict=True):
        assert kr.compare_runs(a, b).equal
    with pytest.warns(kr.DriftWarning):
        workload.train(model, [kr.ChecksumCallback(reference=runs[0])])


@for_each_workload
def test_save_and_load(workload, tmp_path):
    """A model that was saved in the middle goes back to the same start."""
    if workload.cannot_load:
        pytest.skip(workload.cannot_load)
    model, (seven, eight) = trained(workload)
    model.reset(seed=7)
    workload.train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", compile=not workload.own_compile
    )
    if workload.own_compile:
        workload.compile(loaded)
    loaded.reset()
    assert parting(seven, observe(workload, loaded)) == {}
    assert parting(seven, observe(workload, loaded)) != {}
    with told_of_traces(workload):
        assert parting(eight, observe_under(workload, loaded, 8)) == {}


def test_table_is_long_enough():
    """There are as many workloads as the project promises, none twice."""
    assert len(ALL_WORKLOADS) >= 30
    assert len(WORKLOADS) >= 29
    assert len({one.name for one in ALL_WORKLOADS}) == len(ALL_WORKLOADS)
