"""The gallery: the right kind and line in all, no false alarm in the clean.

Each takes ten seconds to a minute, so a share is asked about by default, which
another backend continues: together the three ask about one in sixteen.
All of it: `python -m pytest tests/mysteries -m gallery`.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from .gallery import ask, find_mysteries, judge

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
BACKENDS = ("tensorflow", "jax", "torch")
# One in so many on each backend, another one on each.
SHARE = 48
MYSTERIES = [one for one in find_mysteries() if one.runs_on(BACKEND)]


def _is_in_share(name):
    numbers = {one.name: i for i, one in enumerate(find_mysteries())}
    turn = 8 * BACKENDS.index(BACKEND) if BACKEND in BACKENDS else 0
    return (numbers[name] + turn) % SHARE == 0


@pytest.fixture(scope="session")
def answers(request, tmp_path_factory):
    """Ask about all that were chosen, two at a time."""
    chosen = {
        item.callspec.params["mystery"].name: item.callspec.params["mystery"]
        for item in request.session.items
        if "mystery" in getattr(getattr(item, "callspec", None), "params", {})
    }
    with ThreadPoolExecutor(2) as pool:
        waiting = {
            name: pool.submit(ask, one, BACKEND, tmp_path_factory.mktemp(name))
            for name, one in chosen.items()
        }
        yield waiting
        for one in waiting.values():
            one.cancel()


def _parametrize(mysteries):
    return pytest.mark.parametrize(
        "mystery", mysteries, ids=[one.name for one in mysteries]
    )


@pytest.mark.slow
@pytest.mark.requires_backend
@_parametrize([one for one in MYSTERIES if _is_in_share(one.name)])
def test_share(mystery, answers):
    """What is planted is named with its line, and nothing else is."""
    answer = answers[mystery.name].result()
    assert judge(mystery, BACKEND, answer) == "", answer.text


@pytest.mark.gallery
@pytest.mark.requires_backend
@_parametrize([one for one in MYSTERIES if not _is_in_share(one.name)])
def test_rest(mystery, answers):
    """The same for all the others."""
    answer = answers[mystery.name].result()
    assert judge(mystery, BACKEND, answer) == "", answer.text


def test_gallery_is_large_enough():
    """At least 40 are planted and 15 clean; each kind is planted."""
    from keras_repro.diagnosis.causes import KINDS

    every = find_mysteries()
    planted = [one for one in every if one.group != "clean"]
    assert len(planted) >= 40
    assert len(every) - len(planted) >= 15
    kinds = {
        kind
        for one in planted
        for backend in BACKENDS
        if one.runs_on(backend)
        for kind, _ in one.expected(backend)
    }
    assert set(KINDS) <= kinds
