"""Where in a program something was done."""

import json
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_repro.common import whose_code
from keras_repro.common.whose_code import (
    Site,
    find_maker,
    find_site,
    find_waiting_site,
    show_place,
)


@pytest.fixture
def make_module(tmp_path, monkeypatch):
    """Write a module of the person's, or one that is installed."""

    def make(name, text, *, installed=False):
        folder = tmp_path / ("site-packages" if installed else "project")
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.py"
        path.write_text(text)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return path

    return make


CALLS_BACK = "def call(function):\n    return function()\n"


def test_own_line(make_module):
    """A call from the person's code is at its line, through nothing."""
    path = make_module("own_code", CALLS_BACK)
    import own_code

    assert own_code.call(lambda: find_site(sys._getframe(1))) == Site(
        str(path), 2
    )


def test_line_behind_a_library(make_module):
    """Behind a library it is the person's line, with the library's beside."""
    library = make_module("some_library", CALLS_BACK, installed=True)
    own = make_module(
        "own_caller",
        "import some_library\n\ndef go(f):\n    return some_library.call(f)\n",
    )
    import own_caller

    # This file is the person's too, so the frame of the library is given.
    site = own_caller.go(lambda: find_site(sys._getframe(1)))
    assert (site.file, site.line) == (str(own), 4)
    assert site.library == "some_library"
    assert site.through == "some_library.call"
    assert site.at == f"{library}:2"
    assert not site.is_importing


def test_library_at_its_import(make_module):
    """What a library does while it is imported is at its own line."""
    path = make_module(
        "at_import",
        "import sys\n"
        "from keras_repro.common.whose_code import find_site\n"
        "SITE = find_site(sys._getframe())\n",
        installed=True,
    )
    import at_import

    assert at_import.SITE.place == f"{path}:3"
    assert at_import.SITE.is_importing


def test_own_module_at_its_import(make_module):
    """A module of the person's is the person's at its import as well."""
    path = make_module(
        "own_at_import",
        "import sys\n"
        "from keras_repro.common.whose_code import find_site\n"
        "SITE = find_site(sys._getframe())\n",
    )
    import own_at_import

    assert Site(str(path), 3) == own_at_import.SITE


def test_package_inside_the_project(tmp_path, monkeypatch):
    """A project's own environment lies in it, and is no code of its own."""
    monkeypatch.setattr(whose_code, "_user_folders", set())
    whose_code.add_user_folder(str(tmp_path))
    try:
        inside = tmp_path / "env" / "site-packages" / "numpy.py"
        assert whose_code.is_installed(str(inside))
        assert whose_code.is_user_code(str(tmp_path / "train.py"))
    finally:
        whose_code.classify.cache_clear()


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("<stdin>", True),
        ("<ipython-input-3-ab>", True),
        ("<string>", False),
        ("<frozen importlib._bootstrap>", False),
        ("<frozen abc>", False),
        ("/tmp/__autograph_generated_file_ab.py", False),
        (random_file := __import__("random").__file__, False),
        (str(Path(whose_code.__file__)), False),
        (__file__, True),
    ],
)
def test_whose_code_a_file_is(filename, expected):
    """Only what a person writes or types is the person's."""
    assert whose_code.is_user_code(filename) is expected


def test_thread_of_a_library(make_module):
    """What a library draws in its own thread is for the line that waits."""
    library = make_module(
        "threaded_library",
        "import threading\n\ndef run(find, found):\n"
        "    thread = threading.Thread(target=lambda: found.append(find()))\n"
        "    thread.start()\n"
        "    thread.join()\n",
        installed=True,
    )
    own = make_module(
        "own_waiter",
        "import threaded_library\n\ndef go(*args):\n"
        "    threaded_library.run(*args)\n",
    )
    import own_waiter

    found = []
    own_waiter.go(find_waiting_site, found)
    own_waiter.go(find_site, found)
    waiting, alone = found
    assert waiting.place == f"{own}:4"
    assert (waiting.library, waiting.at) == ("threaded_library", f"{library}:4")
    assert alone.place == f"{library}:4"


def test_maker_of_an_object(make_module):
    """Who makes an object is behind the constructors of its classes."""
    path = make_module(
        "makes_objects",
        "class Base:\n"
        "    def __init__(self, find):\n"
        "        self.found = find(self)\n"
        "class Own(Base):\n"
        "    def __init__(self, find):\n"
        "        super().__init__(find)\n"
        "def make(find):\n"
        "    return Own(find).found\n",
    )
    import makes_objects

    assert makes_objects.make(find_maker).place == f"{path}:8"


def test_places_as_people_type_them(tmp_path):
    """A place below the folder is relative, any other is not."""
    inside = tmp_path / "a" / "b.py"
    assert show_place(f"{inside}:3", tmp_path) == str(Path("a/b.py:3"))
    assert show_place("/elsewhere/b.py:3", tmp_path) == "/elsewhere/b.py:3"
    cell = show_place("/tmp/ipykernel_77/1234.py:3", tmp_path)
    assert cell == "<cell of a notebook>:3"
    installed = "/usr/lib/site-packages/keras/src/layers.py:12"
    assert whose_code.show_installed(installed) == "keras/src/layers.py:12"


# --- functions, classes and modules ------------------------------------------


class Own:
    """A class of the person's."""


def test_what_is_the_persons_own():
    """What the person wrote is; what Python and libraries bring is not."""
    assert whose_code.is_own_module("__main__")
    assert not whose_code.is_own_module("json")
    assert whose_code.is_own_function(lambda: 0)
    assert not whose_code.is_own_function(json.dumps)
    assert whose_code.is_own_class(Own)
    assert not whose_code.is_own_class(np.ndarray)
    assert not whose_code.is_own_class(int)


def test_where_classes_come_from():
    """By the package that they name, and by what they are made of."""
    assert whose_code.package_of_class(np.random.Generator) == "numpy"
    assert whose_code.is_keras_class(keras.layers.Dense)
    assert not whose_code.is_keras_class(dict)
    assert whose_code.is_python_class(types.DynamicClassAttribute)
    assert not whose_code.is_python_class(dict)


def test_names_of_what_a_library_offers():
    """What can be imported has a name, an object made from it has none."""
    assert whose_code.name_library_object(np.mean) == "numpy.mean"
    assert whose_code.name_library_object(np.add) == "numpy.add"
    assert whose_code.name_library_object(np.random.default_rng(0)) is None
