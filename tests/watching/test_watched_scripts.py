"""A watched script runs as it would alone: to it, we are not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_repro.watching.holds import Plan, make_keys
from keras_repro.watching.observations import (
    CLOCK,
    ENTROPY,
    LISTING,
    NATIVE,
    NETWORK,
    READ,
    WRITE,
    load_notes,
)
from tests.checkout import ROOT

STARTER = ROOT / "keras_repro" / "__main__.py"


@pytest.fixture
def both(tmp_path):
    """Run a script alone and watched; what both gave must be the same."""

    def run(command, code, stdin):
        result = subprocess.run(
            [str(one) for one in command],
            cwd=tmp_path / "project",
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result

    def both(text, *arguments, code=0, stdin="", module=None, plan=None):
        project, folder = tmp_path / "project", tmp_path / "ours"
        for path in (project, folder):
            path.mkdir(exist_ok=True)
        target = ["script.py"] if module is None else ["-m", module]
        if text is not None:
            (project / "script.py").write_text(text)
        alone = run([sys.executable, *target, *arguments], code, stdin)
        plan = Plan(
            folder=str(folder),
            keys=make_keys(),
            module=module is not None,
            **(plan or {}),
        )
        watched = run(
            [sys.executable, STARTER, plan.write(), target[-1], *arguments],
            code,
            stdin,
        )
        assert watched.stdout == alone.stdout
        assert watched.stderr == alone.stderr
        is_readable = (folder / "notes.jsonl").is_file()
        return alone, load_notes(folder) if is_readable else ()

    return both


SCRIPTS = {
    "main": (
        "import os, sys\n"
        "print(sys.argv, __name__, __file__, __spec__, sys.path[0])\n"
        "print(os.getcwd(), os.environ.get('PYTHONHASHSEED'))\n"
        "print(sys.flags.hash_randomization, sorted(vars()))\n"
    ),
    "exit": "import sys\nprint('before', flush=True)\nsys.exit(3)\n",
    "traceback": "def f():\n    raise ValueError('mine')\nf()\n",
    "numpy traceback": "import numpy as np\nnp.random.seed('a')\n",
    "seed traceback": "import random\nrandom.Random([1])\n",
    "no hook": "import sys\nsys.excepthook = None\nraise ValueError('mine')\n",
    "hook gone": "import sys\ndel sys.excepthook\nraise ValueError('mine')\n",
    "broken hook": (
        "import sys\n"
        "def show(*_):\n    raise KeyError('hook')\n"
        "sys.excepthook = show\n"
        "raise ValueError('mine')\n"
    ),
    "interrupt": "raise KeyboardInterrupt\n",
    "input": "print(input('> ')); import sys; print(sys.stdin.read())\n",
    "arguments": (
        "import argparse\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--epochs', type=int)\n"
        "print(parser.parse_args())\n"
    ),
    "children": (
        "import multiprocessing as mp, os\n"
        "def f(i): return i * i\n"
        "if __name__ == '__main__':\n"
        "    for kind in ('spawn', 'fork'):\n"
        "        with mp.get_context(kind).Pool(2) as pool:\n"
        "            print(pool.map(f, range(5)))\n"
    ),
    "fork draws": (
        "import os, random, uuid\n"
        "seen = set()\n"
        "for _ in range(3):\n"
        "    r, w = os.pipe()\n"
        "    if os.fork() == 0:\n"
        "        os.write(w, f'{uuid.uuid4()} {random.random()}'.encode())\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "    seen.add(os.read(r, 100))\n"
        "print(len(seen))\n"
    ),
    "program": (
        "import subprocess, sys\n"
        "code = 'import os; print(os.environ.get(\"PYTHONHASHSEED\"))'\n"
        "print(subprocess.run([sys.executable, '-c', code], "
        "capture_output=True, text=True).stdout)\n"
    ),
    "environments": (
        "import os, subprocess, sys\n"
        "code = 'import os, sys; print(sorted(os.environ.items()), sys.path)'\n"
        "for command in ([sys.executable, '-c', code], ['env']):\n"
        "    subprocess.run(command, check=True)\n"
        "    subprocess.run(command, check=True, env={'PYTHONPATH': 'x'})\n"
        "os.system('env')\n"
    ),
    "sitecustomize": (
        "import os, pathlib, subprocess, sys\n"
        "pathlib.Path('own').mkdir(exist_ok=True)\n"
        "pathlib.Path('own/sitecustomize.py').write_text('print(__file__)')\n"
        "subprocess.run([sys.executable, '-c', 'import sitecustomize'], "
        "env={'PYTHONPATH': 'own'})\n"
    ),
    "becomes another": (
        "import os, sys\n"
        "if os.environ.get('AGAIN') is None:\n"
        "    os.environ['AGAIN'] = '1'\n"
        "    os.execv(sys.executable, [sys.executable, *sys.argv])\n"
        "print(sys.argv[1:], os.environ['AGAIN'])\n"
    ),
    "atexit": (
        "import atexit, random\n"
        "atexit.register(lambda: print('bye', random.Random(3).random()))\n"
    ),
    "seeded": (
        "import random, numpy as np, datetime, pickle\n"
        "random.seed(4); np.random.seed(4)\n"
        "print(random.random(), np.random.rand(), np.random.randint(9))\n"
        "print(random.Random(3).random(), np.random.default_rng(3).random())\n"
        "state = np.random.RandomState(3)\n"
        "print(pickle.loads(pickle.dumps(state)).rand(), state.rand())\n"
        "print(type(datetime.datetime.now()), type(state))\n"
        "print(pickle.loads(pickle.dumps(np.random.RandomState)))\n"
    ),
    "threads": (
        "import threading, random\n"
        "random.seed(1)\n"
        "done = []\n"
        "t = threading.Thread(target=lambda: done.append(random.random()))\n"
        "t.start(); t.join(); print(done)\n"
    ),
    "code": (
        "import inspect, dataclasses, collections\n"
        "@dataclasses.dataclass\n"
        "class A:\n    x: int = 1\n"
        "print(A(), inspect.getsource(A.__init__) if 0 else A.__module__)\n"
        "print(collections.namedtuple('P', 'a b')(1, 2))\n"
    ),
    "warning": "import warnings\nwarnings.warn('mine')\n",
    "tempfile": (
        "import tempfile, os\n"
        "with tempfile.TemporaryDirectory() as f, "
        "tempfile.NamedTemporaryFile(dir=f) as g:\n"
        "    print(os.path.dirname(g.name) == f)\n"
    ),
}
CODES = {
    "exit": 3,
    "traceback": 1,
    "numpy traceback": 1,
    "seed traceback": 1,
    "no hook": 1,
    "hook gone": 1,
    "broken hook": 1,
    "interrupt": -2,
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", SCRIPTS)
def test_as_if_alone(both, name):
    """Output, errors and exit code are those without us, to the letter."""
    arguments = ["--epochs", "3"] if name in ("main", "arguments") else []
    alone, _ = both(
        SCRIPTS[name],
        *arguments,
        code=CODES.get(name, 0),
        stdin="line\nrest",
    )
    assert alone.stdout or alone.stderr
    if name == "fork draws":
        assert alone.stdout == "3\n"


def test_module_with_relative_import(both, tmp_path):
    """`-m package.module` can import what lies beside it."""
    package = tmp_path / "project" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "other.py").write_text("VALUE = 5\n")
    (package / "train.py").write_text(
        "from .other import VALUE\nprint(VALUE, __package__, __spec__.name)\n"
    )
    alone, _ = both(None, module="package.train")
    assert alone.stdout == "5 package package.train\n"


def test_script_in_a_package_fails_alone_too(both, tmp_path):
    """A relative import in a plain script fails, and as it does alone."""
    both("from .other import VALUE\n", code=1)


def test_files_are_noted(both, tmp_path):
    """What a script reads, writes and lists is noted, with its line."""
    _, notes = both(
        "import os, sqlite3\n"
        "os.makedirs('made', exist_ok=True)\n"
        "open('made/a.txt', 'w').close()\n"
        "open('made/a.txt').close()\n"
        "open('made/log', 'a').close()\n"
        "os.listdir('made')\n"
        "os.rename('made/a.txt', 'made/b.txt')\n"
        "sqlite3.connect('made/base').close()\n"
    )
    project = tmp_path / "project"
    seen = {
        (one.kind, str(Path(one.name).relative_to(project)), one.site.line)
        for one in notes
        if Path(one.name).is_relative_to(project)
    }
    assert {
        (WRITE, "made/a.txt", 3),
        (READ, "made/a.txt", 4),
        (READ, "made/log", 5),
        (WRITE, "made/log", 5),
        (LISTING, "made", 6),
        (WRITE, "made/b.txt", 7),
        (READ, "made/base", 8),
        (WRITE, "made/base", 8),
    } <= seen
    # The import of a module looks into folders, and is none of its doing.
    assert not any(kind == LISTING and name == "." for kind, name, _ in seen)


def test_notes_of_a_killed_script(both):
    """What was noted before a script is killed is there."""
    _, notes = both(
        "import os, uuid, time\nuuid.uuid4()\ntime.time()\nos._exit(0)\n"
    )
    kinds = {(one.kind, one.site.line) for one in notes}
    assert {(ENTROPY, 2), (CLOCK, 3)} <= kinds


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_what_cannot_be_seen_is_noted(both):
    """Another machine and compiled code of one's own; not this machine."""
    _, notes = both(
        "import ctypes, socket\n"
        "ctypes.CDLL('libc.so.6')\n"
        "for host in ('192.0.2.1', '127.0.0.1'):\n"
        "    # Of a datagram socket: nothing is sent.\n"
        "    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "    one.connect((host, 9))\n"
        "    one.close()\n"
    )
    seen = {
        (one.kind, one.name, one.site.line)
        for one in notes
        if one.kind in (NATIVE, NETWORK)
    }
    assert seen == {(NATIVE, "libc.so.6", 2), (NETWORK, "192.0.2.1", 6)}


def test_hash_seed_is_given_and_hidden(both, run_python):
    """Two processes with one hash seed order a set alike; nobody sees it."""
    text = (
        "import os\n"
        "print(os.environ.get('PYTHONHASHSEED'))\n"
        "print(hash('a') == {})\n"
    )
    code = "print(hash('a'))"
    expected = run_python("-c", code, PYTHONHASHSEED="7").stdout.strip()
    assert expected
    both(text.format(0))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("trouble", ["full", "gone"])
def test_our_trouble_harms_no_script(both, tmp_path, trouble):
    """Where our disk is full, or our folder goes away, the script goes on."""
    ours = tmp_path / "ours"
    ours.mkdir()
    if trouble == "full":
        for name in ("notes.jsonl", "calls.jsonl", "values.pickle"):
            (ours / name).symlink_to("/dev/full")
    text = (
        "import pathlib, random, shutil, uuid\n"
        "ours = pathlib.Path('../ours')\n"
        "if (ours / 'notes.jsonl').is_file():\n"
        "    shutil.rmtree(ours)\n"
        "uuid.uuid4(); random.random(); open('a.txt', 'w').close()\n"
        "print('done')\n"
    )
    alone, _ = both(text)
    assert alone.stdout == "done\n"
