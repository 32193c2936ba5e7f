"""A script in a process of its own: its input, its end, its children."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_repro.diagnosis.processes import (
    ERRORS,
    OUTPUT,
    Launcher,
    RecordingError,
    ScriptInput,
    adopting_orphans,
    kill_tree,
)
from keras_repro.watching.holds import KEYED, Plan
from tests.checkout import is_running

pytestmark = pytest.mark.no_backend

KEYS = dict.fromkeys(KEYED, "11" * 32)


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Launch a script once or more, and give what it printed each time."""
    monkeypatch.chdir(tmp_path)

    def launch(text, *, times=1, arguments=(), **options):
        script = tmp_path / "script.py"
        script.write_text(text)
        launcher = Launcher([str(script), *arguments], **options)
        outcomes = []
        for number in range(times):
            folder = tmp_path / str(number)
            folder.mkdir(exist_ok=True)
            plan = Plan(folder=str(folder), keys=KEYS)
            outcomes.append(launcher.run(plan, os.environ, shown=False))
        return outcomes

    return launch


def read(outcome, name=OUTPUT):
    """What a process printed."""
    return (outcome.folder / name).read_text()


def test_exit_codes(launch):
    """A process ends as its script does, also by a signal."""
    (good,) = launch("print('good')")
    assert (good.succeeded, good.code, read(good)) == (True, 0, "good\n")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("raise SystemExit(3)", 3),
        ("raise ValueError('mine')", 1),
        ("import os; os._exit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
    ],
)
def test_failures(launch, text, code):
    """What a script ends with is seen, and its own traceback alone."""
    (outcome,) = launch(text)
    assert (outcome.code, outcome.succeeded) == (code, False)
    if "ValueError" in text:
        lines = read(outcome, ERRORS).splitlines()
        assert lines[-1] == "ValueError: mine"
        assert not any("keras_repro" in line for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_timeout_ends_children_too(launch, tmp_path):
    """What takes too long is ended, with all that it has started."""
    started = time.monotonic()
    (outcome,) = launch(
        "import subprocess, sys, pathlib, time\n"
        "child = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(60)'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "time.sleep(60)\n",
        timeout=3,
    )
    assert outcome.timed_out
    assert not outcome.succeeded
    assert time.monotonic() - started < 30
    pid = int((tmp_path / "child").read_text())
    time.sleep(0.2)
    assert not is_running(pid)


LEAVES = (
    "import os, time, pathlib\n"
    "def daemon():\n"
    "    if os.fork():\n"
    "        os._exit(0)\n"
    "    pathlib.Path('child').write_text(str(os.getpid()))\n"
    "    time.sleep(60)\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    daemon()\n"
    "os.wait()\n"
    "while not pathlib.Path('child').exists():\n"
    "    time.sleep(0.01)\n"
)


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs Linux")
@pytest.mark.parametrize("ends", [True, False])
def test_what_is_left_running(launch, tmp_path, ends):
    """Even a daemon is told and ended; a process of ours is left alone."""
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as ours,
        adopting_orphans(),
    ):
        (outcome,) = launch(LEAVES, ends_left_over=ends)
        pid = int((tmp_path / "child").read_text())
        assert len(outcome.left) == ends
        assert all("script.py" in one for one in outcome.left)
        assert is_running(pid) != ends
        assert is_running(ours.pid)
        ours.communicate(b"\n")
    if not ends:
        os.kill(pid, 9)


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_number_of_an_ended_process(monkeypatch):
    """It may be another's by now, of whose processes none is ended."""
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as ours,
        subprocess.Popen([sys.executable, "-c", ""]) as ended,
    ):
        ended.wait()
        monkeypatch.setattr(ended, "pid", os.getpid())
        kill_tree(ended)
        time.sleep(0.2)
        assert is_running(ours.pid)
        ours.communicate(b"\n")


def test_output_is_bounded(launch):
    """Of what is printed where nobody looks, the end is kept."""
    (short,) = launch("print('x' * 1000)")
    assert read(short) == "x" * 1000 + "\n"
    (long,) = launch("print('x' * 3_000_000)\nprint('end')")
    text = read(long)
    assert "bytes before are left out]\n" in text[:60]
    assert text.endswith("x\nend\n")
    assert len(text) < 1_000_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("trouble", "told"),
    [("", ""), ("full", "No space left"), ("gone", "it was removed")],
)
def test_our_troubles_are_ours(launch, tmp_path, trouble, told):
    """What could not be recorded is told; the twin has nothing to tell."""
    folder = tmp_path / "0"
    folder.mkdir()
    text = "import uuid\nuuid.uuid4()\nprint('done')\n"
    if trouble == "full":
        (folder / "notes.jsonl").symlink_to("/dev/full")
    if trouble == "gone":
        text += f"import shutil; shutil.rmtree({str(folder)!r})\n"
    if not trouble:
        assert read(*launch(text)) == "done\n"
        return
    with pytest.raises(RecordingError, match=f"Received: .*{told}"):
        launch(text)


READS = (
    "import sys\nprint(sys.stdin.readline().strip(), len(sys.stdin.read()))\n"
)


def run_with_input(tmp_path, stdin, *, times, text=READS):
    """Launch a script several times in a process that has an input."""
    script = tmp_path / "reads.py"
    script.write_text(text)
    program = (
        "import os, sys, tempfile\n"
        "from keras_repro.watching.holds import Plan\n"
        "from keras_repro.diagnosis.processes import Launcher, OUTPUT\n"
        f"launcher = Launcher([{str(script)!r}])\n"
        f"for _ in range({times}):\n"
        "    folder = tempfile.mkdtemp()\n"
        f"    plan = Plan(folder=folder, keys={KEYS!r})\n"
        "    outcome = launcher.run(plan, os.environ, shown=False)\n"
        "    print(open(os.path.join(folder, OUTPUT)).read(), end='')\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_piped_input_is_given_again(tmp_path):
    """Each process reads what came through the pipe, from its start."""
    with run_with_input(tmp_path, subprocess.PIPE, times=3) as process:
        output, _ = process.communicate("first\n" + "x" * 300_000)
    assert output == "first 300000\n" * 3


def test_input_is_read_as_it_comes(tmp_path):
    """A script that asks for a line gets it before the pipe is closed."""
    text = "print(input())\n"
    with run_with_input(
        tmp_path, subprocess.PIPE, times=2, text=text
    ) as process:
        process.stdin.write("hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == "hello\n"
        assert process.stdout.readline() == "hello\n"
        process.stdin.close()
        assert process.wait(30) == 0


def test_input_that_nobody_reads(tmp_path):
    """A script that reads nothing ends, though the pipe stays open."""
    with run_with_input(
        tmp_path, subprocess.PIPE, times=2, text="print('done')\n"
    ) as process:
        assert process.stdout.readline() == "done\n"
        assert process.stdout.readline() == "done\n"
        assert process.wait(30) == 0


def test_input_from_a_file(tmp_path):
    """A file is read from the same place by each process."""
    path = tmp_path / "input.txt"
    path.write_text("skipped\nfirst\nrest")
    with path.open() as file:
        os.lseek(file.fileno(), len("skipped\n"), os.SEEK_SET)
        with run_with_input(tmp_path, file, times=2) as process:
            output, _ = process.communicate()
    assert output == "first 4\n" * 2


def test_no_input(tmp_path):
    """Without any input a script reads nothing."""
    with run_with_input(tmp_path, subprocess.DEVNULL, times=2) as process:
        output, _ = process.communicate()
    assert output == " 0\n" * 2


def test_closed_input(monkeypatch):
    """A closed standard input is none."""
    monkeypatch.setattr(sys, "stdin", None)
    with ScriptInput().open() as descriptor:
        assert descriptor == subprocess.DEVNULL
