"""Files as they were before a process first wrote them."""

import pytest

from keras_repro.watching import files_before
from keras_repro.watching.files_before import KeptFiles, as_before

pytestmark = pytest.mark.no_backend


@pytest.fixture
def place(tmp_path):
    """A folder of the program's, one of the process, one to wait in."""
    for name in ("program", "process", "stash"):
        (tmp_path / name).mkdir()
    return tmp_path


def list_written(folder):
    """The paths that a process wrote, in the order of their first writing."""
    return [path for _, path in files_before._read_index(folder)]


def write(keeper, path, text):
    """Write as a watched process does."""
    keeper.keep(str(path))
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_as_before_and_back_again(place):
    """What was made is gone, what was changed is as it was, and back."""
    program = place / "program"
    changed, made = program / "changed.txt", program / "made.txt"
    changed.write_text("before")
    keeper = KeptFiles(str(place / "process"))
    write(keeper, changed, "after")
    write(keeper, made, "new")
    write(keeper, made, "newer")
    assert list_written(place / "process") == [str(changed), str(made)]
    with as_before([place / "process"], place / "stash"):
        assert changed.read_text() == "before"
        assert not made.exists()
        made.write_text("by the experiment")
        changed.unlink()
    assert (changed.read_text(), made.read_text()) == ("after", "newer")


def test_back_again_after_an_error(place):
    """Whatever happens in between, the files are as they were."""
    made = place / "program" / "made.txt"
    write(KeptFiles(str(place / "process")), made, "new")
    with (
        pytest.raises(KeyboardInterrupt),
        as_before([place / "process"], place / "stash"),
    ):
        raise KeyboardInterrupt
    assert made.read_text() == "new"


def test_earliest_of_several_processes(place):
    """Two processes wrote a file: it is as it was before the first."""
    path = place / "program" / "file.txt"
    path.write_text("0")
    folders = []
    for number in (1, 2):
        folder = place / f"process-{number}"
        folder.mkdir()
        write(KeptFiles(str(folder)), path, str(number))
        folders.append(folder)
    with as_before(folders, place / "stash"):
        assert path.read_text() == "0"
    assert path.read_text() == "2"


def test_folders_that_were_made(place):
    """A folder that the process made is gone meanwhile, if it is empty."""
    keeper = KeptFiles(str(place / "process"))
    folder = place / "program" / "made"
    keeper.keep(str(folder))
    folder.mkdir()
    write(keeper, folder / "file.txt", "new")
    with as_before([place / "process"], place / "stash"):
        assert not folder.exists()
    assert (folder / "file.txt").read_text() == "new"
    (folder / "theirs.txt").write_text("of somebody else")
    with as_before([place / "process"], place / "stash"):
        assert (folder / "theirs.txt").read_text() == "of somebody else"
        assert not (folder / "file.txt").exists()
    assert (folder / "file.txt").exists()


def test_odd_names_and_large_files(place, monkeypatch):
    """A name may hold anything; what is too large to keep stays as it is."""
    program = place / "program"
    odd = program / "two\nlines and spaces.txt"
    large = program / "large.bin"
    large.write_text("x" * 100)
    monkeypatch.setattr("keras_repro.watching.files_before._MOST_BYTES", 10)
    keeper = KeptFiles(str(place / "process"))
    write(keeper, odd, "new")
    write(keeper, large, "changed")
    with as_before([place / "process"], place / "stash"):
        assert not odd.exists()
        assert large.read_text() == "changed"
    assert odd.read_text() == "new"


def test_nothing_was_written(place):
    """A process that wrote nothing changes nothing."""
    with as_before([place / "process"], place / "stash"):
        pass
    assert list_written(place / "process") == []
