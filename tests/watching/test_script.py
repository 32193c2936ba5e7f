"""`keras-repro run`: a script as it is, repeatable, and recorded."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_repro.backends.random_streams import isolate_rng
from keras_repro.cli import main as cli
from keras_repro.cli import runs
from keras_repro.runs.comparison import compare_runs
from keras_repro.runs.file import load_runs
from keras_repro.watching.import_hooks import ImportHook
from keras_repro.watching.model_calls import Options, Recorder
from keras_repro.watching.script import RunSession
from tests.checkout import ROOT, SCRIPTS, run_command

COMMAND = (sys.executable, "-m", "keras_repro", "run")
TRACEBACK_OF_OURS = str(ROOT / "keras_repro")


@pytest.fixture
def start(tmp_path):
    """Run a program in a place of its own, without switches of ours."""

    def start(*arguments, code=0, **environment):
        return run_command(
            *arguments,
            cwd=tmp_path,
            code=code,
            without={"PYTHONHASHSEED", "TF_DETERMINISTIC_OPS"},
            **environment,
        )

    return start


def last_line(text):
    """The line that is ours."""
    return text.splitlines()[-1]


# --- the same bits -------------------------------------------------------


@pytest.mark.slow
def test_run_makes_an_unseeded_script_repeatable(start, tmp_path):
    """Two runs are equal; another seed, and no seed at all, are not."""
    script = SCRIPTS / "unseeded.py"
    outputs = [start(*COMMAND, script).stdout for _ in range(2)]
    other = start(*COMMAND, "--seed", 1, script).stdout
    plain = [start(sys.executable, script).stdout for _ in range(2)]
    assert outputs[0] == outputs[1]
    # The twins: without the command, and with another seed.
    assert len({outputs[0], other, *plain}) == 4
    runs = load_runs(tmp_path / "runs.jsonl")
    assert [run.header.seed for run in runs] == [0, 0, 1]
    assert all(run.finished for run in runs)
    assert compare_runs(runs[0], runs[1]).equal
    different = compare_runs(runs[0], runs[2])
    assert not different.equal
    assert different.identity is not None
    assert "seed" in different.identity.places


@pytest.mark.sampled(2)
@pytest.mark.parametrize("module", ["script", "watch"])
def test_no_library_is_loaded_before_the_script(start, module):
    """What is seeded and watched right after its import is not there yet."""
    code = (
        "import sys, {}; print('numpy' in sys.modules, 'keras' in sys.modules)"
    )
    ours = code.format(f"keras_repro.watching.{module}")
    assert start(sys.executable, "-c", ours).stdout == "False False\n"
    both = code.format("numpy, keras")
    assert start(sys.executable, "-c", both).stdout == "True True\n"


@pytest.mark.slow
def test_every_kind_of_fit(start, tmp_path):
    """Each fit is one run, however it was called; nothing else is."""
    result = start(
        *COMMAND, SCRIPTS / "many_fits.py", "own.jsonl", "runs.jsonl"
    )
    assert result.stdout == "done\n"
    expected = "keras-repro: 15 runs recorded in runs.jsonl"
    assert last_line(result.stderr) == expected
    runs = load_runs(tmp_path / "runs.jsonl")
    # And the one that the script recorded there itself.
    assert len(runs) == 16
    assert [run.header.name for run in runs].count("by the script") == 1
    ends = [run.end.status for run in runs]
    assert ends == ["finished"] * 15 + ["failed"]
    assert runs[0].header.data["batch_size"] == 4
    assert len(load_runs(tmp_path / "own.jsonl")) == 1


@pytest.mark.alike
@pytest.mark.slow
def test_seeds_of_the_script_win(start, tmp_path):
    """What the script seeded or used before Keras came stays so."""
    script = SCRIPTS / "generators.py"
    quiet = (*COMMAND, "--quiet", script)

    def values(result):
        return dict(line.split() for line in result.stdout.splitlines())

    none, before = (
        values(start(*quiet, "none")),
        values(start(*quiet, "before")),
    )
    plain = values(start(sys.executable, script, "before"))
    # Importing Keras draws from both generators; plain Keras then takes its
    # own seeds from Python's. None of that may change.
    for name in ("python", "numpy", "keras", "layer"):
        assert before[name] == plain[name]
        assert before[name] != none[name]
    assert before.get("backend") == none.get("backend")


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow")
def test_keras_through_tensorflow(start, tmp_path):
    """`tf.keras` is recorded, and `tf.random.set_seed` before it stays."""
    script = SCRIPTS / "through_tensorflow.py"
    ours = start(*COMMAND, script).stdout
    assert ours == start(sys.executable, script).stdout
    (run,) = load_runs(tmp_path / "runs.jsonl")
    assert (run.finished, run.header.seed) == (True, 0)


# --- the script as the main program --------------------------------------


@pytest.fixture
def as_main(tmp_path):
    """A script in a folder of its own, so that paths can be told apart."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "__init__.py").touch()
    script = folder / "as_main.py"
    script.write_text((SCRIPTS / "as_main.py").read_text())
    return script.relative_to(tmp_path)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("form", ["script", "module"])
def test_script_sees_what_python_gives(start, as_main, form):
    """Arguments, path, names, traceback: all as with plain Python."""
    target = [as_main] if form == "script" else ["-m", "folder.as_main"]
    arguments = [*target, "-m", "--seed", "3", "a b"]
    plain = start(sys.executable, *arguments, code=1)
    ours = start(*COMMAND, "--seed", 5, *arguments, code=1)
    assert ours.stdout == plain.stdout
    drawn, *traceback, counted = ours.stderr.splitlines()
    assert drawn == f"{random.Random(5).random()} 1"
    assert start(*COMMAND, *target, code=1).stderr.endswith(
        "no run recorded; no `keras.Model.fit` began\n"
    )
    shown = [
        line
        for line in plain.stderr.splitlines()[1:]
        if not line.startswith('  File "<frozen runpy>')
    ]
    assert traceback == shown
    assert counted.startswith("keras-repro: no run recorded")
    assert TRACEBACK_OF_OURS not in ours.stderr


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("raise SystemExit(7)", 7),
        ("raise SystemExit('a message')", 1),
        ("x = (", 1),
        ("import os; os._exit(9)", 9),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("raise KeyboardInterrupt", 130),
        ("import os; os.chdir('..')", 0),
    ],
)
def test_exit_code(start, tmp_path, text, code):
    """The exit code is the script's, and so is what it says at its end."""
    (tmp_path / "script.py").write_text(text)
    ours = shlex.join([*COMMAND, "--quiet"])
    plain = shlex.quote(sys.executable)
    results = [
        start("sh", "-c", f"{before} script.py; echo $?")
        for before in (ours, plain)
    ]
    assert last_line(results[0].stdout) == str(code)
    assert results[0].stdout == results[1].stdout
    assert results[0].stderr == results[1].stderr


def test_interrupt_reaches_the_script_once(tmp_path):
    """A signal sent to the command is the script's alone."""
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, time\n"
        "count = []\n"
        "signal.signal(signal.SIGINT, lambda *_: count.append(1))\n"
        "print('ready', flush=True)\n"
        "time.sleep(1)\n"
        "raise SystemExit(40 + len(count))\n"
    )
    with subprocess.Popen(
        [*COMMAND, "--quiet", str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 41


def test_missing_module(start):
    """A module that is not there is trouble, told in one line."""
    result = start(*COMMAND, "-m", "no.such.module", code=2)
    assert "'no.such.module'" in result.stderr
    assert "Traceback" not in result.stderr


def test_summary_as_json(start, tmp_path):
    """With `--json` the last line is an object; standard output is free."""
    (tmp_path / "script.py").write_text("print('mine')")
    result = start(*COMMAND, "--json", "script.py", "--json")
    assert result.stdout == "mine\n"
    found = json.loads(last_line(result.stderr))
    assert found == {"log": str(tmp_path / "runs.jsonl"), "run_ids": []}


def test_options_reach_the_script(monkeypatch, tmp_path):
    """What was asked for is what the script's interpreter is told."""
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    monkeypatch.setattr(runs, "start", lambda *one: started.append(one) or 0)
    Path("s.py").touch()
    line = "run --seed 7 --every 5 --name n --snapshots --backend torch s.py -x"
    assert cli.main(line.split()) == 0
    ((command, environment),) = started
    assert command[3:] == ["s.py", "-x"]
    options = Options(**json.loads(command[2]))
    assert options == Options(
        seed=7,
        log=str(tmp_path / "runs.jsonl"),
        every=5,
        name="n",
        on_drift="warn",
        snapshots="epoch",
    )
    assert environment["PYTHONHASHSEED"] == "7"
    assert environment["KERAS_BACKEND"] == "torch"
    assert environment["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


# --- in this process -----------------------------------------------------


def test_everything_is_put_back(tmp_path):
    """After its end neither the imports nor `fit` know of us."""
    import keras

    own, finders = keras.Model.fit, list(sys.meta_path)
    options = Options(seed=1, log=str(tmp_path / "runs.jsonl"), quiet=True)
    session = RunSession(options)
    with isolate_rng():
        session.begin()
    session._recorder.wrap(keras.Model)
    assert keras.Model.fit is not own
    assert sys.meta_path != finders
    session.end()
    session.end()
    assert keras.Model.fit is own
    assert "fit" not in vars(keras.Model)
    assert sys.meta_path == finders


def test_import_hook_leaves_no_trace(tmp_path, monkeypatch):
    """The hook runs once, after the module, and its loader forgets it."""
    (tmp_path / "watched_by_a_test.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []

    def make(name):
        def act(module):
            seen.append((name, module))

        return ImportHook({"watched_by_a_test": act})

    first, second = make("first"), make("second")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    first.install()
    second.install()  # Both are told, the later one last.
    import watched_by_a_test

    module = watched_by_a_test
    assert seen == [("first", module), ("second", module)]
    assert module.value == 1
    assert "exec_module" not in vars(module.__loader__)
    assert first.find_spec("another") is None
    second.remove()
    assert second.find_spec("watched_by_a_test") is None
    monkeypatch.delitem(sys.modules, "watched_by_a_test")


def test_names_of_later_fits(tmp_path):
    """A second fit has a name of its own, or it would have to be equal."""
    options = Options(seed=1, log=str(tmp_path / "runs.jsonl"), name="n")
    recorder = Recorder(options)
    assert [recorder._make_callback().name for _ in range(3)] == [
        "n",
        "n/2",
        "n/3",
    ]
