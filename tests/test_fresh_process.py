"""A seed means the same in every process, whatever ran there before."""

import importlib.util
import json
import sys

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.runs.file import load_run
from tests.checkout import run_command

SEED = 7
# Run here and in fresh processes: the same text, so the same training.
TRAINING = """
import json, sys
import keras
import numpy as np
import keras_repro as kr


def make_model():
    model = kr.ReproducibleModel(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return model


def train(model, seed, *callbacks, epochs=2):
    x = np.linspace(-1, 1, 60, dtype="float32").reshape(20, 3)
    model.reset(seed=seed)
    losses = model.fit(
        x, x[:, :1] ** 2, epochs=epochs, batch_size=8, verbose=0,
        callbacks=list(callbacks),
    ).history["loss"]
    return [repr(loss) for loss in losses], kr.compute_checksum(model)
"""
SCRIPT = (
    TRAINING
    + """
seed, path = int(sys.argv[1]), sys.argv[2]
result = train(make_model(), seed, kr.ChecksumCallback(path))
print(json.dumps([hash("salt"), *result]))
"""
)


def records(path):
    """What two runs must share: all but their names and times."""
    run = load_run(path)
    kept = []
    for record in run.records:
        data = dict(vars(record))
        assert data.pop("run_id") == run.run_id
        kept.append(data)
    assert run.finished
    return kept


@pytest.fixture(scope="module")
def here():
    """The training as this process runs it."""
    names = {}
    exec(TRAINING, names)
    return names


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The training of one seed in two processes with other hash seeds."""
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "script.py").write_text(SCRIPT)
    results = []
    for salt in ("1", "2"):
        path = folder / f"{salt}.jsonl"
        output = run_script(folder / "script.py", SEED, path, salt=salt)
        results.append((*json.loads(output.splitlines()[-1]), path))
    return results


def run_script(script, *args, salt):
    """Run a script on this checkout, with a hash seed of its own."""
    return run_command(
        sys.executable,
        script,
        *args,
        without=["JAX_COMPILATION_CACHE_DIR"],  # It compiles for itself.
        PYTHONHASHSEED=salt,
    ).stdout


@pytest.mark.slow
def test_two_processes_write_the_same_records(fresh):
    """One seed, two processes, other hash seeds: equal records."""
    (salt_1, *one, path_1), (salt_2, *two, path_2) = fresh
    assert salt_1 != salt_2
    assert one == two
    assert len(records(path_1)) == 3
    assert records(path_1) == records(path_2)
    assert kr.compare_runs(load_run(path_1), load_run(path_2)).equal
    assert load_run(path_1).header.seed == SEED
    assert load_run(path_1).run_id != load_run(path_2).run_id


@pytest.mark.slow
def test_another_seed_writes_other_records(fresh, here, tmp_path):
    """The twin: another seed shares no record with it."""
    path = tmp_path / "other.jsonl"
    model = here["make_model"]()
    other = here["train"](model, SEED + 1, kr.ChecksumCallback(path))
    _, *expected, fresh_path = fresh[0]
    assert list(other) != expected
    pairs = zip(records(path), records(fresh_path), strict=True)
    assert not any(a["model"] == b["model"] for a, b in pairs)


def test_thirtieth_in_a_loop_equals_a_fresh_process(fresh, here, tmp_path):
    """A seed does not feel what ran before it, in data nor in records."""
    make_model, train = here["make_model"], here["train"]
    keras.utils.set_random_seed(99)
    model = make_model()
    results = []
    for number in range(29):
        np.random.random(number)
        # Long trials would show nothing more.
        results.append(train(model, 100 + number, epochs=1)[1])
    assert len(set(results)) == 29
    path = tmp_path / "thirtieth.jsonl"
    thirtieth = train(model, SEED, kr.ChecksumCallback(path))
    _, *expected, fresh_path = fresh[0]
    assert list(thirtieth) == expected
    assert records(path) == records(fresh_path)
    # The twin: going on without a reset is another training.
    again = model.fit(
        np.ones((8, 3), "float32"), np.ones((8, 1), "float32"), verbose=0
    )
    assert again.history["loss"] != expected[0]
    assert kr.compute_checksum(model) != expected[1]


def test_first_in_this_process_equals_a_fresh_one(fresh, here):
    """With a global seed, without one, seeded at birth or by a reset."""
    _, *expected, _ = fresh[1]
    for seed in (None, 3):
        if seed is not None:
            keras.utils.set_random_seed(seed)
        result = here["train"](here["make_model"](), SEED)
        assert list(result) == expected


LOADED = """
import sys
import keras_repro
names = sorted({name.split(".")[0] for name in sys.modules})
heavy = ("keras", "tensorflow", "jax", "torch", "click")
print(*[n for n in names if n in heavy])
"""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", ""),
        ("import keras_repro.runs.run, keras_repro.runs.comparison", ""),
        ("keras_repro.load_run, dir(keras_repro), keras_repro.__all__", ""),
        # The twin: a name that needs Keras, so that the check can fail.
        pytest.param(
            "keras_repro.seed_everything", "keras", marks=pytest.mark.slow
        ),
    ],
    ids=["import", "runs", "names", "twin"],
)
def test_import_loads_no_keras(run_python, more, expected):
    """Importing the package leaves the choice of a backend open."""
    code = LOADED.replace("names =", f"{more}\nnames =")
    loaded = run_python("-c", code).stdout.split()
    assert ("keras" in loaded) == bool(expected)
    assert bool(loaded) == bool(expected)


RECORD = """
import sys
import keras, numpy as np
import keras_repro as kr
from keras_repro.recording import header

if sys.argv[1:] == ["--without"]:
    from contextlib import nullcontext
    header.tensorflow_unloaded = nullcontext
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
model.compile("adam", "mse")
checks = kr.ChecksumCallback()
x = np.ones((8, 3))
model.fit(x, x[:, :2], verbose=0, callbacks=[checks])
assert checks.run.header.compile["optimizer"]["class"] == "Adam"
print("tensorflow" in sys.modules)
"""


@pytest.mark.requires_backend("jax")
def test_recording_does_not_load_tensorflow(tmp_path, run_python):
    """Keras would load it for a look at the settings; the twin shows that."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    script = tmp_path / "record.py"
    script.write_text(RECORD, encoding="utf-8")
    assert run_python(script).stdout.split()[-1] == "False"
    assert run_python(script, "--without").stdout.split()[-1] == "True"
