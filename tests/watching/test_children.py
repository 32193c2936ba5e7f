"""What a watched script starts: watched too, or told as not watched."""

import subprocess
import sys

import pytest

from keras_repro.common.files import TroubleFile
from keras_repro.watching.children import find_unwatched, list_children
from keras_repro.watching.holds import Plan, make_keys
from keras_repro.watching.observations import DRAW, ENTROPY, load_notes
from keras_repro.watching.programs import (
    OTHER,
    PYTHON,
    UNKNOWN,
    classify_program,
    leads_to_python,
    reads_environment,
)
from tests.checkout import ROOT

pytestmark = [
    pytest.mark.no_backend,
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX"),
]

TASK = """\
import os, random, subprocess, sys, uuid

def task(number):
    return random.random(), uuid.uuid4()

if __name__ == "__main__":
"""
WAYS = {
    "subprocess": (
        "subprocess.run([sys.executable, '-c', "
        "'import script; script.task(0)'], check=True)"
    ),
    "spawn": (
        "import multiprocessing as mp\n"
        "with mp.get_context('spawn').Pool(1) as pool:\n"
        "    pool.map(task, [0])"
    ),
    "executor": (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "with ProcessPoolExecutor(1, get_context('forkserver')) as pool:\n"
        "    list(pool.map(task, [0]))"
    ),
    "loky": (
        "import loky\n"
        "with loky.ProcessPoolExecutor(1) as pool:\n"
        "    list(pool.map(task, [0]))"
    ),
    "shell": (
        "os.system(f'{sys.executable} -c \"import script; script.task(0)\"')"
    ),
    "launcher": (
        "subprocess.run(['nice', sys.executable, '-c', "
        "'import script; script.task(0)'], check=True)"
    ),
    "becomes": (
        "os.execv(sys.executable, [sys.executable, '-c', "
        "'import script; script.task(0)'])"
    ),
}


@pytest.fixture
def watch(tmp_path):
    """Watch a script; the folder of what was seen of it."""

    def watch(text, **plan):
        (tmp_path / "script.py").write_text(text)
        folder = tmp_path / "ours"
        folder.mkdir(exist_ok=True)
        plan = Plan(folder=str(folder), keys=make_keys(), **plan)
        subprocess.run(
            [
                *(sys.executable, ROOT / "keras_repro" / "__main__.py"),
                *(plan.write(), "script.py"),
            ],
            cwd=tmp_path,
            check=True,
            timeout=60,
        )
        return folder

    return watch


def indent(text):
    """Lines of the block that only the script's own process runs."""
    return "".join(f"    {line}\n" for line in text.splitlines())


def find_drawn(folder):
    """The notes of what was drawn in the processes below."""
    return [
        one
        for _, path in list_children(folder)
        for one in load_notes(path)
        if one.kind in (DRAW, ENTROPY) and not one.site.is_importing
    ]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("way", WAYS)
def test_python_is_watched(watch, way):
    """However a Python is started, what it draws is noted in its own folder."""
    if way == "loky":
        pytest.importorskip("loky")
    folder = watch(TASK + indent(WAYS[way]))
    assert find_unwatched(folder) == []
    assert list_children(folder)
    if way != "executor":  # Forked; it writes once it calls a model.
        assert find_drawn(folder)


@pytest.mark.parametrize(
    "command",
    [
        "[sys.executable, '-S', '-c', '1']",
        "[sys.executable, '-I', '-c', '1']",
        "['sh', '-c', '$0 -S -c 1', sys.executable]",
        "['env', 'true']",
    ],
)
def test_what_may_train_unseen_is_told(watch, command):
    """A Python that does not heed its environment, or may be started."""
    folder = watch(TASK + indent(f"subprocess.run({command}, check=True)"))
    (found,) = find_unwatched(folder)
    assert found.place.endswith("script.py:7")


def test_what_cannot_train_is_no_matter(watch):
    """Programs that start no Python leave nothing to tell."""
    folder = watch(
        TASK
        + indent(
            "subprocess.run(['uname'], check=True)\n"
            "os.system('cd / && ls | wc -l > /dev/null')"
        )
    )
    assert find_unwatched(folder) == []


def test_one_that_never_ran_is_no_matter(watch):
    """A worker that is ended before its first line has trained nothing."""
    folder = watch(
        TASK
        + indent(
            "process = subprocess.Popen([sys.executable, '-c', '1'])\n"
            "process.kill()\n"
            "process.wait()"
        )
    )
    assert list_children(folder) == []
    assert find_unwatched(folder) == []


def test_one_that_cannot_load_us_is_told(watch, tmp_path):
    """An interpreter that lacks what our package needs is not watched."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "uuid.py").write_text("raise RuntimeError('broken')")
    text = (
        "import os, subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', '1'], check=True,\n"
        "    env={'PYTHONPATH': os.path.abspath('broken')})\n"
    )
    assert len(find_unwatched(watch(text))) == 1


@pytest.mark.parametrize("is_whole", [True, False])
def test_child_that_cannot_write_is_our_trouble(watch, tmp_path, is_whole):
    """A process below goes on where we cannot record it, and that is told."""
    ours = tmp_path / "ours"
    ours.mkdir()
    if not is_whole:
        (ours / "children").touch()  # Where there should be a folder.
    with TroubleFile(ours) as trouble:
        watch(
            "import subprocess, sys\n"
            "subprocess.run([sys.executable, '-c', '1'], check=True)\n"
        )
        assert bool(trouble.read()) != is_whole


@pytest.mark.parametrize("children", [False, True])
def test_streams_are_apart_unless_held(watch, tmp_path, children):
    """Each process draws other numbers; held, they all draw the same."""
    code = "import random; print(random.random(), file=open('drawn', 'a'))"
    text = (
        "import subprocess, sys\n"
        "for _ in range(2):\n"
        f"    subprocess.run([sys.executable, '-c', {code!r}], check=True)\n"
    )
    watch(text, children=children)
    drawn = (tmp_path / "drawn").read_text().splitlines()
    assert (drawn[0] == drawn[1]) == children


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ([sys.executable, "train.py"], PYTHON),
        (["/usr/bin/python3.12"], PYTHON),
        (["/usr/bin/git", "status"], OTHER),
        (["/bin/sh", "-c", "cd x && ls | wc -l"], OTHER),
        (["sh", "-c", "ls; ./train.sh"], UNKNOWN),
        (["sh", "-c", "A=1 git log 2>/dev/null | head -n 1; uname"], OTHER),
        (["sh", "-c", "git log && train"], UNKNOWN),
        (["sh", "-c", "echo $(train)"], UNKNOWN),
        (["sh", "-c", "echo 'unclosed"], UNKNOWN),
        (["sh", "train.sh"], UNKNOWN),
        (["mpirun", "-n", "2", "python", "train.py"], UNKNOWN),
    ],
)
def test_programs(command, kind):
    """What a program is follows from its name, a shell's from its command."""
    assert classify_program(command[0], command) == kind


def test_a_script_that_names_python(tmp_path):
    """A file whose first line names Python is Python; without it, unknown."""
    script = tmp_path / "train"
    for first, kind in (("#!/usr/bin/env python3", PYTHON), ("", UNKNOWN)):
        script.write_text(f"{first}\nprint(1)\n")
        assert classify_program(str(script), [str(script)]) == kind


@pytest.mark.parametrize(
    ("command", "leads"),
    [
        (["mpirun", "python3", "a"], True),
        (["sh", "-c", "cd x;/usr/bin/python3 a"], True),
        (["mpirun", "-n", "2", "python3", "train.py"], True),
        (["nohup", "./train.py"], True),
        (["sh", "-c", "make data"], False),
        (["make", "pythonic"], False),
    ],
)
def test_only_who_may_start_python_is_told(command, leads):
    """The environment of other programs is left as it is."""
    assert leads_to_python(command) == leads


@pytest.mark.parametrize(
    ("program", "option", "reads"),
    [
        (sys.executable, "-B", True),
        (sys.executable, "-BI", False),
        ("/bin/sh", "-B", False),
    ],
)
def test_who_reads_the_environment(program, option, reads):
    """This Python does, unless an option says that it is not to."""
    command = ["python", option, "train.py", "-I"]
    assert reads_environment(program, command) == reads
