"""What a folder of backups may hold: whole files, damaged ones, others."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_repro as kr
from keras_repro.resuming import files, keeper
from tests.builders import make_model
from tests.checkout import ROOT
from tests.resuming.interrupting import StopAt, go_on, interrupt, run

pytestmark = pytest.mark.requires_backend
X = np.linspace(0, 1, 72, dtype="float32").reshape(18, 4)
Y = X[:, :1]


def make(units=3):
    """A model that draws."""
    layers = keras.layers.Dense(units), keras.layers.Dropout(0.3)
    return make_model(*layers, seed=2, optimizer="adam")


def train(model):
    """Three epochs of five batches."""
    fitted = model.fit(X, Y, batch_size=4, epochs=3, verbose=0)
    return fitted.history


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A folder of backups, of a training that was interrupted."""
    folder = tmp_path_factory.mktemp("interrupted") / "backups"
    interrupt(make, train, folder, 9)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same of another model."""
    folder = tmp_path_factory.mktemp("other") / "backups"
    interrupt(lambda: make(4), train, folder, 9)
    return folder


@pytest.fixture
def copied(interrupted, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(interrupted, tmp_path / "backups")
    return tmp_path / "backups"


def newest(folder):
    """The newest backup of the first training of a folder."""
    return files.list_backups(folder / "000")[0]


def mutated(whole, foreign, draw):
    """Bytes that are no longer those of a backup."""
    data = bytearray(whole)
    kind = draw.randrange(5)
    if kind == 0:
        for _ in range(draw.choice((1, 1, 3, 40))):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[draw.randrange(len(data)) :]
    elif kind == 2:
        at, size = draw.randrange(len(data)), draw.randrange(1, 5000)
        data[at : at + size] = foreign[at : at + size]
    elif kind == 3:
        at, size = draw.randrange(len(data)), draw.randrange(1, 2000)
        data[at : at + size] = bytes(len(data[at : at + size]))
    else:
        data += draw.randbytes(draw.randrange(1, 100))
    return bytes(data)


def as_plain(backup):
    """A backup as what can be compared."""
    return (
        repr(backup.about),
        kr.compute_checksum([array for *_, array in backup.state["variables"]]),
        repr(backup.state),
    )


def test_no_damaged_backup_is_taken_for_a_whole_one(copied, interrupted, other):
    """Each is refused with a reason, or holds what was written."""
    path, expected = (
        newest(copied),
        as_plain(files.read_backup(newest(interrupted))),
    )
    whole, foreign = path.read_bytes(), newest(other).read_bytes()
    reasons = []
    for number in range(200):
        path.write_bytes(mutated(whole, foreign, random.Random(number)))
        try:
            found = files.read_backup(path)
        except ValueError as error:
            reasons.append(str(error))
        else:  # Where a byte means nothing.
            assert as_plain(found) == expected, number
    assert len(reasons) > 100
    assert all("Received: " in reason for reason in reasons)


def damage(path):
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def change_version(path):
    """Another version of the format, all else as it was."""
    import h5py

    with h5py.File(path, "r+") as file:
        name = files.FORMAT.replace("/1", "/9")
        holder = file.attrs if "format" in file.attrs else file
        del holder["format"]
        holder["format"] = name


DAMAGES = [damage, empty, change_version, Path.unlink]


@pytest.mark.sampled(10)
@pytest.mark.parametrize("change", DAMAGES)
def test_the_one_before_is_used(change, copied):
    """With a warning that says why; the training ends as it would."""
    change(newest(copied))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        place, result = go_on(make, train, copied)
    assert place == "epoch 2, batch 2"
    texts = [str(one.message) for one in told]
    if change is not Path.unlink:
        assert any("passed over" in text for text in texts)
    assert result == run(make, train)


def test_without_a_whole_one_it_begins_anew(copied):
    """With a warning, and not with what is left of one."""
    for path in files.list_backups(copied / "000"):
        damage(path)
    with pytest.warns(RuntimeWarning, match="passed over"):
        place, result = go_on(make, train, copied)
    assert place is None
    assert result == run(make, train)


def test_a_backup_of_another_start_is_not_used(copied, other):
    """The start that lies beside belongs to it."""
    shutil.copy(other / "000" / files.START, copied / "000" / files.START)
    with pytest.warns(RuntimeWarning, match="start of a training"):
        place, result = go_on(make, train, copied)
    assert place is None
    assert result == run(make, train)


def test_a_backup_of_another_model_is_refused(copied, other):
    """What differs is named, and nothing of it is loaded."""
    for path in files.list_backups(copied / "000"):
        shutil.copy(newest(other), path)
    with pytest.raises(ValueError, match="configuration of the model"):
        go_on(make, train, copied)


def test_two_are_kept(copied):
    """The newest, and the one before."""
    assert len(files.list_backups(copied / "000")) == 2


def test_files_of_others_stay(tmp_path):
    """Whatever lies in the folder is somebody's."""
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "000").mkdir()
    (folder / "000" / "data.h5").write_text("mine too")
    run(make, train, kr.BackupAndRestore(folder, save_freq=2))
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "000" / "data.h5").read_text() == "mine too"
    assert files.list_backups(folder / "000") == []


def fail_to_write(*_):
    """A disk that is full."""
    raise OSError(28, os.strerror(28))


def test_a_full_disk_is_told_once(tmp_path, monkeypatch):
    """The training goes on, and ends as without backups."""
    whole = run(make, train)
    monkeypatch.setattr(files, "replace_whole", fail_to_write)
    with pytest.warns(RuntimeWarning, match="No space left") as told:
        result = run(make, train, kr.BackupAndRestore(tmp_path, save_freq=1))
    assert sum("No space" in str(one.message) for one in told) == 1
    assert result == whole


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    """Before the training, not at its first backup."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run(make, train, kr.BackupAndRestore(tmp_path / "file" / "backups"))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seconds", [1e-9, 1e6])
def test_after_so_many_seconds(seconds, tmp_path, monkeypatch):
    """Backed up when they have passed, though the clock is put back."""
    clock = itertools.count(2e9, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    timed = {"save_freq": False, "every_seconds": seconds, "keep": 3}
    interrupt(make, train, tmp_path, 9, **timed)
    made = len(files.list_backups(tmp_path / "000"))
    assert made == (3 if seconds < 1 else 0)
    place, result = go_on(make, train, tmp_path, **timed)
    assert place == ("epoch 2, batch 4" if made else None)
    assert result == run(make, train)


class Waiting(StopAt):
    """Tells while it waits for what is written."""

    def __init__(self):
        super().__init__()
        self.waits = threading.Event()

    def on_train_batch_end(self, batch, logs=None):
        """Wait, behind where Keras would drop an interrupt."""
        self.waits.set()
        super().on_train_batch_end(batch, logs)
        self.waits.clear()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["read_state", "write_backup"])
def test_interrupted_while_it_backs_up(name, tmp_path, monkeypatch):
    """By Ctrl-C, while values are read or written: the last one is whole."""
    module = keeper if name == "read_state" else files
    function, waiting = getattr(module, name), Waiting()
    count = itertools.count(1)

    def call(*args):
        if next(count) == 4:
            if name == "write_backup":
                waiting.waits.wait(60)
            signal.raise_signal(signal.SIGINT)  # The main thread gets it.
        return function(*args)

    monkeypatch.setattr(module, name, call)
    backup = kr.BackupAndRestore(tmp_path, save_freq=2)
    with pytest.raises(KeyboardInterrupt):
        run(make, train, backup, waiting)
    monkeypatch.undo()
    place, result = go_on(make, train, tmp_path)
    assert place is not None
    assert result == run(make, train)


# --- other processes ---------------------------------------------------------

SCRIPT = """\
import sys
import time
from pathlib import Path

import keras
import numpy as np

import keras_repro as kr

folder = Path(sys.argv[1])


class Slow(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        (folder / "begun").touch()
        time.sleep(float(sys.argv[2]))


model = kr.ReproducibleModel([keras.Input((4,)), keras.layers.Dense(1)], seed=1)
model.compile("adam", "mse")
x = np.ones((20, 4), "float32")
backup = kr.BackupAndRestore(
    folder / "backups", False, save_before_preemption=True
)
callbacks = [backup, Slow()]
model.fit(x, x[:, :1], epochs=3, batch_size=4, verbose=0, callbacks=callbacks)
print(backup.resumed_from)
"""


@pytest.fixture
def start(tmp_path):
    """Start the script; it is killed where a test forgets to."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = []

    def start_one(seconds):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", script, tmp_path, str(seconds)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for(path):
    """Wait until a process has come so far."""
    deadline = time.monotonic() + 240
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_ended_by_sigterm_it_has_a_last_backup(start, tmp_path):
    """The process ends as it would; the next one goes on where it was."""
    process = start(0.3)
    wait_for(tmp_path / "begun")
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    assert files.list_backups(tmp_path / "backups" / "000")
    again = start(0)
    assert again.communicate()[0].startswith("epoch")


@pytest.mark.alike
@pytest.mark.slow
def test_a_second_sigterm_ends_at_once(start, tmp_path):
    """Who sends it twice does not wait for a batch."""
    process = start(60)
    wait_for(tmp_path / "begun")
    for _ in range(2):
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM


@pytest.mark.alike
@pytest.mark.slow
def test_two_processes_on_one_folder_are_refused(start, tmp_path):
    """The second says so, and leaves the first one's backups."""
    process = start(60)
    wait_for(tmp_path / "begun")
    with pytest.raises(BlockingIOError, match="another one is running"):
        run(make, train, kr.BackupAndRestore(tmp_path / "backups"))
    assert process.poll() is None
