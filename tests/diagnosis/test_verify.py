"""`keras-repro verify`: a script as it is, and what is said of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

import keras_repro as kr
from keras_repro.diagnosis.result import Verification
from tests.checkout import ROOT, run_command

COMMAND = (sys.executable, "-m", "keras_repro", "verify")
TRAIN = """\
import sys
import keras
import numpy as np

x = np.linspace(-1, 1, 256).reshape(64, 4).astype("float32")
print("arguments", sys.argv[1:])
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(x, x[:, :1], epochs=2, shuffle=False, verbose=0)
model.evaluate(x, x[:, :1], verbose=0)
"""
LOOP = """\
import keras
import numpy as np

rng = np.random.default_rng({seed})
model = keras.Sequential(
    [keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")]
)
for _ in range(3):
    kernel, bias = model.get_weights()
    model.set_weights([kernel + rng.normal(), bias])
print("done")
"""


@pytest.fixture
def verify(tmp_path):
    """Verify a text as a script; what came of it."""

    def verify(text, *arguments, options=(), code=0, stdin="", **environment):
        (tmp_path / "script.py").write_text(text)
        return run_command(
            *(*COMMAND, *options, "script.py", *arguments),
            cwd=tmp_path,
            code=code,
            stdin=stdin,
            without={"PYTHONHASHSEED"},
            **environment,
        )

    return verify


@pytest.mark.requires_backend
def test_unseeded_runs_differ(verify):
    """What two runs of a script give is compared; the fix is below."""
    unseeded = verify(TRAIN, options=("--budget", "0", "--quiet"), code=1)
    assert "First mismatch: call 1, fit at script.py:9" in unseeded.stdout


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_not_reproducible_and_fixed(verify, tmp_path):
    """An unseeded script is told why; with `--seed` it is repeatable."""
    options = ("--json", "verdict.json", "--log", "runs.jsonl")
    result = verify(TRAIN, "-x", "3", options=options, code=1)
    first, *told = result.stdout.splitlines()
    assert first == "arguments ['-x', '3']"
    assert told[0].startswith("Not reproducible; the cause is unseeded")
    assert "1. unseeded at script.py:7 (keras)" in result.stdout
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert {
        "reproducible",
        "first_mismatch",
        "causes",
        "suspects",
        "traps",
    } <= set(verdict)
    assert set(verdict["causes"][0]) == {
        "kind",
        "location",
        "library",
        "evidence",
        "advice",
    }
    assert verdict["first_mismatch"]["place"] == f"{tmp_path}/script.py:9"
    assert verdict["num_runs"] <= 6
    progress = [line for line in result.stderr.splitlines() if "run " in line]
    assert progress[0] == "keras-repro: run 1 of 2"
    # The fix, tried without editing. It is quiet, if it is told to be.
    fixed = verify(TRAIN, options=("--seed", "4", "--quiet", *options))
    assert "Reproducible with --seed 4: 2 runs" in fixed.stdout
    assert "keras-repro: run" not in fixed.stderr
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert (verdict["reproducible"], verdict["causes"]) == (True, [])
    from keras_repro.runs.file import load_runs

    assert len(load_runs(tmp_path / "runs.jsonl")) == 2


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_as_a_function(tmp_path, monkeypatch, capfd):
    """`kr.verify` finds what the command finds, with and without a fix."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    script, told = tmp_path / "script.py", []
    script.write_text(TRAIN)
    options = {"log": "runs.jsonl", "tell": told.append}
    found = kr.verify("script.py", ["-x", "3"], budget=0, **options)
    assert type(found) is kr.Verification
    assert (found.reproducible, found.num_runs) == (False, 2)
    assert found.first_mismatch.place == f"{script}:9"
    assert capfd.readouterr() == ("arguments ['-x', '3']\n", "")
    assert told[:2] == ["run 1 of 2", "run 2 of 2"]
    shown = re.sub("<[^>]*>", "", found._repr_html_())
    assert "First mismatch call 1, fit at " in shown
    # The twin: with a seed that both runs are given.
    mended = kr.verify(script, budget=0, seed=4, **options)
    assert (mended.reproducible, mended.fixes) == (True, ("--seed 4",))
    assert mended.first_mismatch is None
    assert "Reproducible with --seed 4: 2 runs" in mended._repr_html_()
    assert [len(one.records) for one in kr.load_runs("runs.jsonl")] == [3, 3]


def test_a_function_that_fails(tmp_path, capfd):
    """A script that fails is an error, also where there is no terminal."""
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(sys.argv[1])")
    with pytest.raises(RuntimeError, match="run 1 ended with exit code 1"):
        kr.verify(script, ["no data"])
    assert capfd.readouterr() == ("", "no data\n")
    with pytest.raises(FileNotFoundError, match="`script` must be a script"):
        kr.verify(tmp_path / "no.py")
    with pytest.raises(ValueError, match=r"`budget` must .*Received: '3m'"):
        kr.verify(script, budget="3m")


@pytest.mark.slow
@pytest.mark.requires_backend
@pytest.mark.alike
def test_loops_of_ones_own(verify):
    """A script that calls nothing recorded is judged by what it leaves.

    Each run reads the same input, so that nothing differs by it.
    """
    text = "print('hello', input())\n" + LOOP.format(seed=3)
    result = verify(text, stdin="you\n")
    assert result.stdout.startswith("hello you\ndone\nReproducible: 2 runs")
    result = verify(LOOP.format(seed=""), options=("--budget", "0"), code=1)
    assert "First mismatch: the final models of the script" in result.stdout
    # Without experiments nothing is shown, and suspects are said.
    assert "Shown by experiment" not in result.stdout
    assert "entropy at script.py:4 (numpy)" in result.stdout


def test_script_that_fails(verify, tmp_path):
    """Its own traceback, then one line of ours, and exit code 2."""
    text = "print('out')\ndef f():\n    raise ValueError('mine')\nf()\n"
    alone = run_command(sys.executable, "script.py", cwd=tmp_path, code=2)
    assert "script.py" in alone.stderr
    result = verify(text, code=2)
    alone = run_command(sys.executable, "script.py", cwd=tmp_path, code=1)
    assert result.stdout == alone.stdout == "out\n"
    begun, *rest = result.stderr.splitlines()
    assert begun == "keras-repro: run 1 of 2"
    assert rest[:-1] == alone.stderr.splitlines()
    assert "run 1 ended with exit code 1" in rest[-1]


def test_second_run_fails(verify, tmp_path):
    """What only a later run says is shown as well."""
    text = "import os\nfrom pathlib import Path\nPath('made').mkdir()\n"
    # The first run alone finds no model, which is trouble of its own.
    result = verify(text, code=2)
    assert "made no call that could be recorded" in result.stderr
    result = verify(text, code=2)
    assert "FileExistsError" in result.stderr


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import os; os._exit(4)", "exit code 4"),
        ("import os, signal; os.kill(os.getpid(), 9)", "signal 9"),
        ("print('nothing')", "made no call that could be recorded"),
        ("def f(:", "exit code 1"),
    ],
)
def test_trouble(verify, text, told):
    """Each trouble is told in a line, with exit code 2."""
    result = verify(text, code=2, options=("--json", "verdict.json"))
    assert told in result.stderr.splitlines()[-1]


def test_what_a_verdict_says():
    """How much was compared stands beside it; what was not, below."""
    found = Verification(
        reproducible=True, num_calls=3, num_epochs=1, num_processes=2
    )
    assert str(found).startswith(
        "Reproducible: 2 runs are bitwise equal in 3 calls and 1 epoch of 2 "
    )
    told = str(replace(found, num_calls=0, num_epochs=0, num_processes=1))
    assert "equal in the final models of 1 process" in told
    changed = replace(
        found, reproducible=False, unwatched=("a", "b"), unseen=("c",)
    )
    told = " ".join(str(changed).split())
    assert told.startswith("Equal as far as was watched: 2 runs")
    assert (
        "2 processes were not watched: what they trained was not compared. "
        "Not watched: a b Used, but not watched: c"
    ) in told


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_folder_that_goes_away(verify, tmp_path):
    """Trouble of ours is told as ours, without a frame of ours."""
    text = (
        "import pathlib, shutil, tempfile\n"
        "temporary = pathlib.Path(tempfile.gettempdir())\n"
        "for one in temporary.glob('keras-repro-*'):\n"
        "    shutil.rmtree(one)\n"
    )
    result = verify(text, code=2, TMPDIR=str(tmp_path))
    assert "the script itself is not at fault" in result.stderr
    assert "Traceback" not in result.stderr


def test_nothing_that_was_watched(verify, tmp_path):
    """What trains where nobody can look is no plain "reproducible"."""
    text = (
        "import subprocess, sys\n"
        "for _ in range(2):\n"
        "    subprocess.run([sys.executable, '-I', '-c', '1'], check=True)\n"
    )
    result = verify(text, code=2, options=("--json", "verdict.json"))
    assert result.stdout.startswith("Nothing could be compared: 2 processes")
    told = " ".join(result.stdout.split())
    assert "were not watched: what they trained was not compared" in told
    assert "`python -I -c 1` at script.py:3" in told
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert not verdict["reproducible"]
    assert verdict["first_mismatch"] is None
    assert len(verdict["unwatched"]) == 2


IN_CHILDREN = """\
import subprocess, sys, uuid

import numpy as np

def train(task):
    import keras

    keras.utils.set_random_seed({seed})
    x = np.full((4, 2), task, "float32")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], epochs=2, verbose=0)

if __name__ == "__main__":
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(train, range(2)))
    {after}
"""


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_trained_in_other_processes(verify, tmp_path):
    """What workers train is compared, and how much that was is said.

    Beside them is a process that nobody can watch; the twin are workers that
    seed otherwise in each run.
    """
    after = "subprocess.run([sys.executable, '-I', '-c', '1'], check=True)"
    result = verify(IN_CHILDREN.format(seed=3, after=after), code=2)
    told = " ".join(result.stdout.split())
    assert told.startswith("Equal as far as was watched: 2 runs are bitwise")
    assert "equal in 2 calls and 4 epochs of 2 processes" in told
    assert "1 process was not watched: what it trained was not" in told
    text = IN_CHILDREN.format(seed="uuid.uuid4().int % 2**32", after="")
    result = verify(text, options=("--budget", "0"), code=1)
    told = " ".join(result.stdout.split())
    assert "fit at script.py:12, in process " in told
    assert "entropy at script.py:8 (uuid)" in told


@pytest.mark.slow
def test_script_that_hangs(verify):
    """`--timeout` ends a script that hangs, with what it has started."""
    text = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(50)'])\n"
        "time.sleep(50)\n"
    )
    started = time.monotonic()
    result = verify(text, code=2, options=("--timeout", "2"))
    assert "must end within 2 s, its timeout" in result.stderr
    assert time.monotonic() - started < 25


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--runs", "1"), "integer from 2 on"),
        (("--budget", "x"), "integer from 0 on"),
        (("--budget", "0s"), "seconds above 0"),
        (("--timeout", "-1"), "seconds above 0"),
        (("--seed", "-1"), "integer from 0"),
        (("--workers", "0"), "integer from 1 to 1024"),
        (("--log", "no/such/folder/runs.jsonl"), "Create"),
        (("--json", "no/such/folder/v.json"), "Create 'no/such/folder' first"),
        (("--json", "."), "must name a file. Received: '.', a directory"),
        (("--against", "nothing.jsonl"), "must exist"),
        (("--against", "script.py"), "run's file"),
        (("--nothing",), "No such option '--nothing'"),
    ],
)
def test_misuse(verify, options, told):
    """Wrong options are refused before anything runs."""
    result = verify("print('ran')", code=2, options=options)
    assert told in result.stderr
    assert "ran" not in result.stdout


def test_no_script():
    """Without a script, or with one that is not there, nothing runs."""
    for line in ([], ["no_such.py"]):
        result = run_command(*COMMAND, *line, code=2)
        assert "`verify` must be given a script" in result.stderr


@pytest.mark.parametrize(
    ("number", "everybody", "told", "code"),
    [
        # Ctrl-C reaches the script and us; a scheduler ends us alone.
        (signal.SIGINT, True, "KeyboardInterrupt", 130),
        (signal.SIGTERM, False, "SystemExit", 143),
        (signal.SIGHUP, False, "SystemExit", 129),
    ],
)
def test_signals(tmp_path, number, everybody, told, code):
    """What ends us ends the script, in its own way, and leaves no folder."""
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(50)\n"
        "except BaseException as error:\n"
        "    print(type(error).__name__, flush=True)\n"
        "    raise\n"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    # Ignored signals are inherited: Ctrl-C by what a shell starts in the
    # background, SIGHUP by what `nohup` starts.
    heed = (
        "import os, signal, sys\n"
        "for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
        "    signal.signal(one, signal.SIG_DFL)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", heed, *COMMAND, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        (os.killpg if everybody else os.kill)(process.pid, number)
        output, _ = process.communicate(timeout=30)
    assert output == f"{told}\n"
    assert process.returncode == code
    assert list(temporary.iterdir()) == []


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_files_are_put_back(verify, tmp_path):
    """An experiment with earlier files leaves them as the runs left them."""
    text = TRAIN.replace(
        "model =",
        "keras.utils.set_random_seed(1)\n"
        "from pathlib import Path\n"
        "count = Path('count')\n"
        "number = int(count.read_text()) if count.exists() else 0\n"
        "x = x + number\n"
        "count.write_text(str(number + 1))\n"
        "model =",
        1,
    )
    result = verify(text, code=1)
    assert "external_state at script.py:10" in result.stdout
    # Two runs, and two experiments in which the count was gone.
    assert (tmp_path / "count").read_text() == "2"
