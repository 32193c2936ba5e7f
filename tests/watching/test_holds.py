"""Fresh bytes that can be drawn again."""

import os

import pytest

from keras_repro.watching.holds import Entropy

pytestmark = pytest.mark.no_backend

KEYS = {"python": "11" * 32, "entropy": "22" * 32, "tensorflow": "33" * 32}


def test_same_key_same_bytes():
    """A process that has the key draws the same, place by place."""
    one, other = Entropy(KEYS), Entropy(KEYS)
    first = [one.draw("uuid.uuid4", "a.py:1", 16) for _ in range(3)]
    one.draw("uuid.uuid4", "a.py:2", 16)
    other.draw("os.urandom", "a.py:1", 5)
    assert first == [other.draw("uuid.uuid4", "a.py:1", 16) for _ in range(3)]
    assert len(set(first)) == 3


@pytest.mark.parametrize(
    ("name", "place"), [("uuid.uuid1", "a.py:1"), ("uuid.uuid4", "a.py:2")]
)
def test_other_places_draw_other_bytes(name, place):
    """Another function, or another line, draws from a stream of its own."""
    entropy = Entropy(KEYS)
    expected = entropy.draw("uuid.uuid4", "a.py:1", 16)
    assert Entropy(KEYS).draw(name, place, 16) != expected


def test_another_key_other_bytes():
    """The twin: without the key nothing repeats."""
    other = {**KEYS, "entropy": "44" * 32}
    drawn = Entropy(KEYS).draw("os.urandom", "a.py:1", 8)
    assert Entropy(other).draw("os.urandom", "a.py:1", 8) != drawn
    python = {**KEYS, "python": "44" * 32}
    assert Entropy(KEYS).start_of("python") != Entropy(python).start_of(
        "python"
    )


def test_key_of_one_place_alone():
    """A key of a place holds it alone, also with more behind the line."""
    fresh = {**KEYS, "entropy": "55" * 32}
    held = {**fresh, "entropy os.urandom a.py:1": KEYS["entropy"]}
    expected = Entropy(KEYS).draw("os.urandom", "a.py:1|lib.py:3", 8)
    assert Entropy(held).draw("os.urandom", "a.py:1|lib.py:3", 8) == expected
    other = Entropy(KEYS).draw("os.urandom", "a.py:2", 8)
    assert Entropy(held).draw("os.urandom", "a.py:2", 8) != other


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_children_draw_other_bytes(run_python):
    """Two forked children draw neither like their parent nor like another."""
    result = run_python(
        "-c",
        "import os\n"
        "from keras_repro.watching.holds import Entropy\n"
        f"entropy = Entropy({KEYS!r})\n"
        "entropy.follow_forks()\n"
        "def draw(): return entropy.draw('os.urandom', 'a.py:1', 8).hex()\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        print(draw(), flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "print(draw())\n",
    )
    assert len(set(result.stdout.split())) == 3
