"""What a verification and a diagnosis look like, made by hand."""

import json
from dataclasses import replace

import pytest

from keras_repro.diagnosis.causes import UNKNOWN, Cause
from keras_repro.diagnosis.first_mismatch import FirstMismatch
from keras_repro.diagnosis.result import Diagnosis, Rung, Verification
from keras_repro.reports.page import write_fragment, write_page
from tests.browsing import read_html
from tests.reports.test_document import HOSTILE


def make_cause(text="a", **fields):
    """A cause all of whose texts are this one."""
    names = ("kind", "location", "library", "evidence", "advice")
    return Cause(**{**dict.fromkeys(names, text), **fields})


def make_mismatch(text="a"):
    """Ten places at the second call of another process."""
    return FirstMismatch(
        call=2,
        method="fit",
        place=f"{text}:7",
        moment=text,
        roles=("data", "weights"),
        places=tuple(f"{text}{number}" for number in range(10)),
        details=(text,),
        process=1,
    )


def make_diagnosis(text="a", **fields):
    """One that found something at its second rung."""
    rungs = (
        Rung(name="initial state", status="equal", told=text),
        Rung(name="data", status="different"),
        Rung(name="one step"),
        Rung(name="fresh process", status="-", told="not asked for"),
    )
    found = {
        "reproducible": False,
        "rungs": rungs,
        "first_mismatch": make_mismatch(text),
        "causes": (make_cause(text), make_cause(text, kind=UNKNOWN)),
        "suspects": (make_cause(text),) * 10,
        "traps": (make_cause(text, location=None, library=None),),
        "unwatched": (text,),
    }
    return Diagnosis(**{**found, **fields})


def make_verification(text="a", **fields):
    """One with all that it can say."""
    found = make_diagnosis(text)
    told = {
        "first_mismatch": found.first_mismatch,
        "causes": found.causes,
        "suspects": found.suspects,
        "traps": found.traps,
        "unwatched": found.unwatched,
        "harmless": tuple(f"{text}{number}" for number in range(10)),
        "unseen": (text,),
        "left": (text,),
        "fixes": ("--seed 4",),
    }
    return Verification(reproducible=False, **{**told, **fields})


MISMATCH = """
First mismatch: call 2, fit at a:7, in process 1 of those that the script
starts, a
  first difference: data; with it weights
  places: a0, a1, a2, a3, a4, a5, a6, a7 and 2 more
  a

Shown by experiment:
  1. a at a (a)
     a
     Fix: a

Not explained by any experiment:
  1. unknown at a (a)
     a
     Fix: a

Seen, but not confirmed by experiment:
"""


def test_text_of_a_diagnosis():
    """The verdict, the rungs, and what was found in its order."""
    text = str(make_diagnosis())
    rungs = """
  = initial state  a
  ≠ data
    one step
  · fresh process  not asked for
"""
    assert text.startswith(
        f"Not reproducible: data differs, by a, unknown (0.0 s).\n{rungs}"
    )
    assert MISMATCH in text
    assert "  8. a at a (a)\n     a\n     Fix: a\n  and 2 more\n" in text
    assert text.endswith(
        "\nRepeatable, and wrong:\n  1. a\n     a\n     Fix: a\n\n"
        "Not watched:\n  a"
    )


def test_text_of_a_verification():
    """The same below its verdict, and what is no cause."""
    text = str(make_verification())
    assert text.startswith(
        "Not reproducible with --seed 4; 2 causes: a and unknown (2 runs, 0 s)."
    )
    assert MISMATCH in text
    assert text.endswith(
        "\nWithout effect: a0, a1, a2, a3, a4, a5, a6, a7 and 2 more\n\n"
        "Not watched:\n  a\n\nUsed, but not watched:\n  a\n\n"
        "Left running by the script, and ended:\n  a"
    )
    equal = Verification(reproducible=True, num_calls=1)
    assert "mismatch" not in str(equal)
    assert len(str(equal).split("\n")) == 1


def test_long_paths_stay_whole():
    """A path can be clicked on, however long it is; other lines are narrow."""
    place = f"{'folder/' * 14}train.py:9"
    text = str(make_verification(causes=(make_cause(location=place),)))
    assert place in text
    assert "Shown by experiment:\n" in text


@pytest.mark.parametrize("make", [make_diagnosis, make_verification])
def test_pages(make, tmp_path):
    """A page and a notebook show all of it, a long list folded."""
    found = make()
    found.to_html(tmp_path / "found.html")
    page = (tmp_path / "found.html").read_text("utf-8")
    for html in (page, found._repr_html_()):
        texts = "".join(read_html(html).texts)
        for told in (
            "call 2, fit at a:7",
            "places: a0",
            "Fix: a",
            "Not watched",
        ):
            assert told in texts
        shown, folded = html.split("<summary>and 2 more</summary>")
        assert shown.count("Fix: a") == 10
        assert folded.startswith('\n<ol start="9">')
        assert folded.count("Fix: a") == 3
    assert '<div class="verdict different">' in page
    written = found.to_json(tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text("utf-8")) == written
    assert written["causes"][0]["kind"] == "a"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "different"),
        ({"first_mismatch": None}, "within"),
        ({"first_mismatch": None, "unwatched": ()}, "different"),
        ({"reproducible": True, "first_mismatch": None}, "within"),
        (
            {"reproducible": True, "first_mismatch": None, "unwatched": ()},
            "equal",
        ),
    ],
)
def test_colour_of_the_verdict(fields, kind):
    """Only what was watched as a whole is equal."""
    for found in (make_diagnosis(), make_verification()):
        html = replace(found, **fields)._repr_html_()
        assert f'<div class="verdict {kind}">' in html


@pytest.mark.parametrize("make", [make_diagnosis, make_verification])
def test_hostile_texts(make):
    """No element, attribute or control code comes of what a script holds."""
    found = make(HOSTILE)
    assert all(map(str.isprintable, str(found).split("\n")))
    assert r"\x1b[2J" in str(found)
    for write in (write_page, write_fragment):
        html = write(found.describe())
        assert all(map(str.isprintable, html.split("\n")))
        hostile, plain = (
            read_html(html),
            read_html(write(make("a\nb").describe())),
        )
        assert hostile.tags == plain.tags
        assert hostile.names == plain.names
        html.encode("utf-8")


def test_picture():
    """Each rung with its state, whatever its texts hold."""
    pytest.importorskip("matplotlib")
    for text in ("a", HOSTILE):
        figure = make_diagnosis(text).plot()
        texts = {one.get_text() for one in figure.axes[0].texts}
        assert {"initial state", "data", "equal =", "not reached"} <= texts
        assert figure.get_suptitle().startswith("Not reproducible: data")
        figure.canvas.draw()
