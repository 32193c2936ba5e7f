"""Pictures and pages of trials, also in a real browser."""

import io
import math
import re
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_repro.reports.page import write_page
from keras_repro.studies.comparison import compare_trials
from keras_repro.studies.results import TrialFailure, TrialResults
from keras_repro.studies.strips import (
    Strip,
    choose_scale,
    spread_dots,
    thin_out,
)
from tests.browsing import read_html
from tests.builders import make_results

NUM = 30
BASE = np.random.default_rng(0).normal(19, 0.5, NUM)
NOISE = np.random.default_rng(1).normal(0, 0.3, (60, NUM))
HAS_PICTURES = find_spec("matplotlib") is not None
HOSTILE = "</title><script>document.title='owned'</script>\x1b[2J" + "x" * 300


def make_family(number, name="{}"):
    return {
        name.format(place): make_results(BASE - 0.3 * place + NOISE[place])
        for place in range(number)
    }


def make_hostile():
    return make_results(
        BASE,
        HOSTILE,
        scores={HOSTILE: BASE, "$x^": BASE},
        failures=[TrialFailure(seed=99, error=HOSTILE, traceback=HOSTILE)],
        notes=[HOSTILE],
        workers=[HOSTILE] * NUM,
        checksums=[HOSTILE] * NUM,
        vary=HOSTILE,
    )


# --- where dots lie ------------------------------------------------------


def strip_of(scores, low=math.nan, high=math.nan):
    scores = np.array(scores, float)
    return Strip(
        name="x",
        seeds=range(len(scores)),
        scores=scores,
        center=float(scores.mean()),
        low=low,
        high=high,
    )


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS, min_size=1, max_size=30))
def test_every_score_has_a_place_on_the_scale(scores):
    """Between 0 and 1, in their order."""
    with np.errstate(over="ignore"):
        strip = strip_of(scores)
    places = choose_scale([strip]).place(np.sort(strip.scores))
    assert ((places >= 0) & (places <= 1)).all()
    assert (np.diff(places) >= 0).all()


@pytest.mark.parametrize(
    ("scores", "is_log"),
    [
        ([1.0, 101.0], True),
        ([1.0, 99.0], False),
        ([0.0, 101.0], False),
        ([-1.0, 101.0], False),
    ],
)
def test_orders_of_magnitude_get_a_log_scale(scores, is_log):
    """Positive scores alone."""
    assert choose_scale([strip_of(scores)]).is_log == is_log


def test_dots_of_one_lane_lie_beside_each_other():
    """On both sides of the middle, none upon another."""
    steps = spread_dots(np.full(5, 0.5))
    assert sorted(steps) == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert sorted(spread_dots(np.full(2, 0.5))) == [-0.5, 0.5]
    assert spread_dots(np.linspace(0, 1, 5)).tolist() == [0.0] * 5
    mixed = np.array([0.1, 0.5, 0.501, 0.502])
    assert spread_dots(mixed).tolist() == [0.0, -1.0, 1.0, 0.0]


def test_thinned_dots_keep_the_ends_and_the_middle():
    """Evenly by rank; few scores are all kept, in rising order."""
    scores = np.random.default_rng(0).normal(size=10_001)
    kept = scores[thin_out(scores)]
    assert len(kept) == 2000
    assert (kept[0], kept[-1]) == (scores.min(), scores.max())
    assert abs(np.median(kept) - np.median(scores)) < 1e-2
    assert (np.diff(kept) >= 0).all()
    few = np.array([3.0, 1.0, 2.0])
    assert thin_out(few).tolist() == [1, 2, 0]
    assert thin_out(few, 2).tolist() == [1, 0]


# --- pages ---------------------------------------------------------------


def page_of(result):
    """The page of a result, which is well formed."""
    page = write_page(result.describe())
    read_html(page)
    return page


def test_results_page_shows_all_there_is():
    """Headline, table, picture, failures, notes, each trial."""
    page = page_of(
        make_results(
            BASE,
            "none",
            seconds=np.full(NUM, 0.5),
            checksums=[f"kr1:{n:032x}" for n in range(NUM)],
            failures=[
                TrialFailure(
                    seed=77, error="ValueError: <b>", traceback="a\nb"
                ),
                TrialFailure(seed=78, error="KeyError: 1"),
            ],
            notes=["A worker died."],
        )
    )
    reader = read_html(page)
    text = "".join(reader.texts)
    assert "<h1>30 trials, seeds 0 to 29 (none)</h1>" in page
    assert reader.tags.count("figure") == HAS_PICTURES
    assert "ValueError: <b>" in text
    assert "<pre>\na\nb\n</pre>" in page
    assert "No traceback is known." in text
    assert "A worker died." in text
    assert f"<td>{BASE[29]:.6g}</td><td>0.5</td>" in page
    assert "Trials are runs that differ only in their seed." in text
    assert "Epochs and batches are counted" not in text
    assert "worker</th>" not in page


def test_page_without_a_finished_trial():
    """It says so, and has no row."""
    failed = [TrialFailure(seed=0, error="ValueError: no")]
    page = page_of(TrialResults(seeds=(), scores={}, failures=failed))
    assert "<h1>No trial finished.</h1>" in page
    assert 'class="verdict within"' in page
    assert "<table" not in page
    page = page_of(make_results([math.nan]))
    assert "1 of 1 trial gave no finite `rmse` and is left out." in page


def test_long_results_are_cut_and_say_so():
    """Trials, metrics, failures and notes beyond what anybody reads."""
    values = np.arange(510.0)
    results = make_results(
        values,
        scores={f"m{n}": values for n in range(8)},
        failures=[TrialFailure(seed=n, error="E") for n in range(54)],
        notes=[f"note {n}" for n in range(26)],
    )
    text = "".join(read_html(page_of(results)).texts)
    assert "and 10 more\n" in text
    assert "and 7 more\n" in text
    assert "50 of 54 trials\n" in text
    assert ("and 2 more scores, not drawn" in text) == HAS_PICTURES
    assert str(results).endswith("\nnote 18\nand 7 more")
    fragment = results._repr_html_()
    assert "510 trials</summary>" not in fragment
    assert "seed 0: E</summary>" in fragment
    assert ">m7</th>" in fragment
    assert ">m7</th>" not in results.summary("m1")._repr_html_()


@pytest.mark.parametrize(
    ("by", "kind"), [(-0.5, "equal"), (0.0, "within"), (None, "neutral")]
)
def test_comparison_page_shows_the_verdict(by, kind):
    """In words and in colour: settled, open, equal."""
    b = BASE if by is None else BASE + by + NOISE[0] - NOISE[0].mean()
    found = compare_trials(make_results(BASE, "none"), make_results(b, "0.4"))
    page = page_of(found)
    assert f"<h1>{found.verdict}</h1>" in page
    assert f'class="verdict {kind}"' in page
    assert page.count('<figure class="drawn">') == HAS_PICTURES
    assert f"<td>{found.scores_b[29]:.6g}</td>" in page
    assert f'<p class="headline">{found.verdict}</p>' in found._repr_html_()


def test_family_page_has_a_row_for_each_condition():
    """And a verdict, numbers and pairs for each."""
    found = compare_trials(make_family(4, "d{}"))
    page = page_of(found)
    for one in found:
        assert f"✓</span>{one.verdict}</li>" in page
        assert f'<th scope="row">{one.name_b}</th>' in page
        assert f"{one.name_b} in numbers" in page
        assert f"{one.name_b}, seed by seed" in page
    assert "differences to d0 settled (rmse).</h1>" in page
    assert "seed by seed" not in found._repr_html_()


def test_family_of_one_verdict_has_its_colour():
    """Where all are alike, the box on top says which."""
    same = {name: make_results(BASE) for name in "abc"}
    page = page_of(compare_trials(same))
    box = '<div class="verdict neutral"><span class="mark" aria-hidden="true">'
    assert f"{box}=</span>" in page
    assert f"{box}∑</span>" in page_of(
        compare_trials(same | {"d": make_results(BASE - 1)})
    )


def test_large_families_are_cut_and_say_so():
    """Pictures and details of the first few, a row and a verdict for all."""
    found = compare_trials(make_family(27))
    page = page_of(found)
    assert ("and 2 more studies, not drawn" in page) == HAS_PICTURES
    assert " more\n" not in f"{found}\n"
    assert page.count("seed by seed</summary>") == 24
    assert all(one.verdict in page for one in found)


def make_hostile_results():
    """What files may hold, as each of the results that come of them."""
    hostile = make_hostile()
    two = {HOSTILE: hostile, "<b>": hostile}
    return {
        "results": hostile,
        "summary": hostile.summary(),
        "comparison": compare_trials(two)["<b>"],
        "comparisons": compare_trials(two | {"<i>": hostile}),
    }


@pytest.mark.parametrize("name", [*make_hostile_results()])
def test_hostile_results_are_harmless(name):
    """Whatever things are called, no element and no code comes of it."""
    result = make_hostile_results()[name]
    for document in (page_of(result), result._repr_html_()):
        reader = read_html(document)
        assert not {"script", "b", "i"} & set(reader.tags)
        assert all(map(str.isprintable, document.split("\n")))
    assert all(map(str.isprintable, str(result).split("\n")))


# --- in a browser --------------------------------------------------------


def test_pages_fit_a_phone(measure):
    """Nothing but tables and pictures scrolls sideways; dots have a colour."""
    pytest.importorskip("matplotlib")
    found = measure(page_of(compare_trials(make_family(4))))
    assert int(found["width"]) <= 360
    assert int(found["svg"]) > 100
    assert int(found["marks"]) == (4 + 3) * NUM
    assert found["text"] == "rgb(0, 0, 0)"


def test_hostile_page_runs_nothing(measure):
    """The title stays the page's own, and long names do not widen it."""
    found = measure(page_of(make_hostile()))
    assert found["title"].startswith("30 trials, seeds 0 to 29")
    assert int(found["width"]) <= 360


def test_too_wide_a_page_would_be_found(measure):
    """The twin: the probe sees a page that is wider than the phone."""
    page = page_of(make_results(BASE))
    wide = page.replace("<main>", '<main><div style="width:900px">x</div>')
    assert int(measure(wide)["width"]) > 360


# --- by Matplotlib -------------------------------------------------------


@pytest.fixture
def save():
    """Draw all of a figure; a wrong name or number would fail here."""
    pytest.importorskip("matplotlib")

    def run(figure):
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=40)
        return file.getvalue()

    return run


def dots_of(axes):
    """How many dots each strip has."""
    return [
        len(line.get_xdata())
        for line in axes.lines
        if line.get_marker() == "o" and line.get_alpha()
    ]


def test_results_are_drawn(save):
    """A strip of dots for each metric, mean and median named."""
    figure = make_results(BASE, "none").plot()
    (axes,) = figure.axes
    assert dots_of(axes) == [NUM]
    mean, median = [one.get_text() for one in reversed(axes.get_legend().texts)]
    assert re.fullmatch(r"mean 18\.94, 95% interval \[18.\d\d, 19.\d\d]", mean)
    assert median == f"median {np.median(BASE):.2f}"
    assert figure.get_suptitle() == "30 trials, seeds 0 to 29 (none)"
    assert axes.get_xscale() == "linear"
    assert save(figure) == save(make_results(BASE, "none").plot())
    assert save(figure) != save(make_results(BASE * 2, "none").plot())


def test_results_over_orders_of_magnitude_are_drawn_on_a_log_scale(save):
    """Each metric has a scale of its own."""
    results = make_results(BASE, scores={"a": BASE, "b": 10.0 ** (2 * BASE)})
    figure = results.plot()
    assert [one.get_xscale() for one in figure.axes] == ["linear", "log"]
    assert save(figure)
    assert len(results.plot("b").axes) == 1


def test_what_cannot_be_drawn_is_said(save):
    """No finite score, no score at all, one score."""
    figure = make_results([math.nan]).plot()
    assert figure.axes[0].texts[0].get_text() == "No trial gave a finite rmse."
    assert save(figure)
    figure = TrialResults(seeds=(), scores={}).plot()
    assert figure.axes[0].texts[0].get_text() == "No trial gave a score."
    assert save(figure)
    figure = make_results([-1.7e308, 1.7e308]).plot()
    words = "rmse: too large to be drawn."
    assert figure.axes[0].texts[0].get_text() == words
    assert save(figure)
    assert save(make_results([2.0]).plot())
    assert save(make_results([2.0, 2.0]).plot())


def test_comparison_is_drawn_with_its_differences(save):
    """A column for each study, and beside it one with a line at 0."""
    found = compare_trials(make_family(2, "d{}"))["d1"]
    figure = found.plot()
    left, right = figure.axes
    assert (dots_of(left), dots_of(right)) == ([NUM] * 2, [NUM])
    labels = [one.get_text() for one in left.get_xticklabels()]
    assert labels == ["d0", "d1"]
    assert right.get_ylabel() == "difference to d0"
    assert right.lines[0].get_ydata() == [0, 0]
    assert figure.get_suptitle().replace("\n", " ") == found.verdict
    assert save(figure)


def test_family_is_drawn(save):
    """A column for each condition; settled means are filled."""
    family = {**make_family(2), "same": make_family(1)["0"]}
    figure = compare_trials(family).plot()
    left, right = figure.axes
    assert (dots_of(left), dots_of(right)) == ([NUM] * 3, [NUM] * 2)
    fills = [one.lines[0].get_markerfacecolor() for one in right.containers]
    assert fills == ["0.15", "white"]
    assert figure.get_suptitle() == "1 of 2 differences settled (filled)"
    assert save(figure)


def test_large_family_with_hostile_names_is_drawn(save):
    """The first 24 of them, on a log scale where scores ask for it."""
    family = {
        f"{place}$x^\x1b{'y' * 99}": make_results(10.0 ** (BASE - place))
        for place in range(27)
    }
    figure = compare_trials(family).plot()
    assert figure.axes[0].get_yscale() == "log"
    assert dots_of(figure.axes[1]) == [NUM] * 24
    assert figure.get_suptitle().endswith("(filled)")
    assert figure.get_supxlabel().endswith("and 2 more studies, not drawn")
    assert save(figure)
    hostile = make_hostile()
    assert save(hostile.plot())
    assert save(compare_trials(hostile, hostile).plot())


def test_ten_thousand_trials_are_quick(save):
    """Summed up, compared, drawn and saved within seconds."""
    rng = np.random.default_rng(0)
    a, b = (make_results(rng.normal(19, 0.5, 10_000)) for _ in range(2))
    save(make_results(BASE).plot())  # SciPy and Matplotlib are loaded now.
    start = time.perf_counter()
    a.summary()
    figure = compare_trials(a, b).plot()
    save(figure)
    save(a.plot())
    assert time.perf_counter() - start < 6  # 1 s on an idle machine.
    assert dots_of(figure.axes[0]) == [2000, 2000]
    assert "(2000 of 10000 dots drawn)" in figure.axes[0].get_ylabel()


def test_plots_without_matplotlib(monkeypatch):
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"keras-repro\[plot\]"):
        make_results(BASE).plot()
