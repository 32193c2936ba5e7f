"""Pictures and pages of trials, also in a real browser."""

import io
import math
import re
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_repro.studies.chart import draw_strips
from keras_repro.studies.comparison import compare_trials
from keras_repro.studies.page import (
    write_comparisons_fragment,
    write_comparisons_page,
    write_results_fragment,
    write_results_page,
)
from keras_repro.studies.results import TrialFailure, TrialResults
from keras_repro.studies.strips import (
    Scale,
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


@given(st.lists(FLOATS, min_size=1, max_size=30), st.booleans())
def test_every_score_has_a_place_on_the_scale(scores, with_zero):
    """Between 0 and 1, in their order, ticks too."""
    with np.errstate(over="ignore"):
        strip = strip_of(scores)
    scale = choose_scale([strip], with_zero=with_zero)
    places = scale.place(np.sort(strip.scores))
    assert ((places >= 0) & (places <= 1)).all()
    assert (np.diff(places) >= 0).all()
    ticks = scale.ticks()
    assert len(ticks) <= 9
    if with_zero:
        assert 0 <= float(scale.place(0.0)) <= 1


@pytest.mark.parametrize(
    ("scores", "with_zero", "is_log"),
    [
        ([1.0, 101.0], False, True),
        ([1.0, 99.0], False, False),
        ([0.0, 101.0], False, False),
        ([-1.0, 101.0], False, False),
        ([1.0, 101.0], True, False),
    ],
)
def test_orders_of_magnitude_get_a_log_scale(scores, with_zero, is_log):
    """Positive scores alone, and no differences."""
    scale = choose_scale([strip_of(scores)], with_zero=with_zero)
    assert scale.is_log == is_log


@pytest.mark.parametrize(
    ("scale", "names"),
    [
        (Scale(17.8, 19.7), ["18.0", "18.5", "19.0", "19.5"]),
        (Scale(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (Scale(-6.3, -2.9, is_log=True), ["1e-6", "1e-5", "1e-4", "1e-3"]),
        (Scale(-1e-7, 1e-7), ["-1e-07", "-5e-08", "0", "5e-08", "1e-07"]),
        (Scale(-1e308, 1e308), ["-1.0e+308", "1.0e+308"]),
    ],
)
def test_ticks_are_round(scale, names):
    """Steps of 1, 2 or 5, or powers of ten."""
    assert [name for _, name in scale.ticks()] == names


def test_dots_of_one_lane_lie_beside_each_other():
    """On both sides of the middle, none upon another."""
    steps = spread_dots(np.full(5, 0.5))
    assert sorted(steps) == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert sorted(spread_dots(np.full(2, 0.5))) == [-0.5, 0.5]
    assert spread_dots(np.linspace(0, 1, 5)).tolist() == [0.0] * 5


def test_thinned_dots_keep_the_ends_and_the_middle():
    """Evenly by rank; few scores are all kept, in rising order."""
    scores = np.random.default_rng(0).normal(size=10_001)
    kept = scores[thin_out(scores)]
    assert len(kept) == 2000
    assert (kept[0], kept[-1]) == (scores.min(), scores.max())
    assert abs(np.median(kept) - np.median(scores)) < 1e-2
    assert (np.diff(kept) >= 0).all()
    assert thin_out(np.array([3.0, 1.0, 2.0])).tolist() == [1, 2, 0]


# --- SVG -----------------------------------------------------------------


def test_chart_has_a_dot_for_each_score():
    """Each says its seed; the mean has its interval and the median a line."""
    drawn = draw_strips([strip_of([1.0, 2.0, 4.0], 1.5, 3.0)], "rmse")
    assert drawn.count("<title>seed") == 3
    assert "<title>seed 2: 4</title>" in drawn
    assert 'class="mean"' in drawn
    assert 'class="median"' not in drawn
    assert 'aria-label="rmse: x, 3 dots, mean 2.33 [1.50, 3.00]."' in drawn
    read_html(drawn)


def test_chart_of_many_dots_says_how_many_it_draws():
    """Fewer for each strip where there are many strips."""
    strip = strip_of(np.arange(5000.0))
    drawn = draw_strips([strip], "rmse")
    assert "Of 5000 dots 600 are drawn." in drawn
    assert drawn.count("<title>seed") == 600
    drawn = draw_strips([strip] * 40, "rmse")
    assert drawn.count("<title>seed") == 40 * 150


def test_charts_of_equal_scores_are_equal():
    """Nothing is drawn by chance; another score is drawn elsewhere."""
    strips = [strip_of(BASE), strip_of(BASE + 1)]
    assert draw_strips(strips, "x") == draw_strips(strips, "x")
    other = [strip_of(BASE), strip_of(BASE + 1.1)]
    assert draw_strips(other, "x") != draw_strips(strips, "x")


# --- pages ---------------------------------------------------------------


def test_results_page_shows_all_there_is():
    """Headline, table, chart, failures, notes, each trial."""
    page = write_results_page(
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
    assert reader.tags.count("svg") == 1
    assert page.count("<title>seed") == NUM
    assert "ValueError: <b>" in text
    assert "<pre>a\nb\n</pre>" in page
    assert "No traceback is known." in text
    assert "A worker died." in text
    assert f"{BASE[29]:.6g}" in text
    assert "Trials are runs that differ only in their seed." in text
    assert "Epochs and batches are counted" not in text
    assert "worker</th>" not in page


def test_page_without_a_finished_trial():
    """It says so, and draws nothing."""
    failed = [TrialFailure(seed=0, error="ValueError: no")]
    page = write_results_page(
        TrialResults(seeds=(), scores={}, failures=failed)
    )
    assert "<h1>No trial finished.</h1>" in page
    assert "svg" not in read_html(page).tags
    page = write_results_page(make_results([math.nan]))
    assert "svg" not in read_html(page).tags
    assert "1 of 1 trial gave no finite `rmse` and is left out." in page


@pytest.mark.slow
def test_long_results_are_cut_and_say_so():
    """Trials, metrics and failures beyond what anybody reads."""
    values = np.arange(510.0)
    results = make_results(
        values,
        scores={f"m{n}": values for n in range(22)},
        failures=[TrialFailure(seed=n, error="E") for n in range(54)],
    )
    text = "".join(read_html(write_results_page(results)).texts)
    assert "and 10 more" in text
    assert "and 2 more" in text
    assert "and 4 more" in text
    fragment = results._repr_html_()
    assert fragment.count('class="chart"') == 3
    assert results.summary("m1")._repr_html_().count('class="chart"') == 1


@pytest.mark.parametrize(
    ("by", "kind"), [(-0.5, "equal"), (0.0, "within"), (None, "neutral")]
)
def test_comparison_page_shows_the_verdict(by, kind):
    """In words and in colour: settled, open, equal."""
    b = BASE if by is None else BASE + by + NOISE[0] - NOISE[0].mean()
    found = compare_trials(make_results(BASE, "none"), make_results(b, "0.4"))
    page = write_comparisons_page(found)
    read_html(page)
    assert f"<h1>{found.verdict}</h1>" in page
    assert f'class="verdict {kind}"' in page
    assert page.count('class="chart"') == 2
    assert page.count('class="zero"') == 1
    assert f"{found.scores_b[29]:.6g}</td>" in page
    fragment = found._repr_html_()
    assert fragment == write_comparisons_fragment(found)
    assert f'<p class="headline">{found.verdict}</p>' in fragment


def test_family_page_has_a_row_for_each_condition():
    """And a verdict, numbers and pairs for each."""
    found = compare_trials(make_family(4, "d{}"))
    page = write_comparisons_page(found)
    read_html(page)
    for one in found:
        assert f"{one.verdict}</td>" in page
        assert f"{one.name_b} in numbers" in page
        assert f"{one.name_b}, seed by seed" in page
    assert "differences to d0 settled (rmse).</h1>" in page
    assert found._repr_html_() == write_comparisons_fragment(found)
    one = write_comparisons_page(compare_trials(make_family(2)))
    assert "<h1>1 is lower by" in one


def test_family_of_one_verdict_has_its_colour():
    """Where all are alike, the box on top says which."""
    same = {name: make_results(BASE) for name in "abc"}
    page = write_comparisons_page(compare_trials(same))
    assert '<span class="mark" aria-hidden="true">=</span>' in page


def test_large_families_are_cut_and_say_so():
    """A notebook shows the first few."""
    fragment = write_comparisons_fragment(compare_trials(make_family(20)))
    assert "and 7 more" in fragment


@pytest.mark.parametrize("write", [write_results_page, write_results_fragment])
def test_hostile_results_are_escaped(write):
    """Whatever things are called, no element comes of it."""
    document = write(make_hostile())
    reader = read_html(document)
    assert "script" not in reader.tags
    assert "\x1b" not in document


@pytest.mark.parametrize(
    "write", [write_comparisons_page, write_comparisons_fragment]
)
def test_hostile_comparisons_are_escaped(write):
    """Names of studies and of scores."""
    hostile = make_hostile()
    document = write(compare_trials({HOSTILE: hostile, "<b>": hostile}))
    assert not {"script", "b"} & set(read_html(document).tags)
    document = write(
        compare_trials({HOSTILE: hostile, "<b>": hostile, "<i>": hostile})
    )
    assert not {"script", "b", "i"} & set(read_html(document).tags)


# --- in a browser --------------------------------------------------------


def test_pages_fit_a_phone(measure):
    """Nothing but tables and charts scrolls sideways; dots have a colour."""
    found = measure(write_comparisons_page(compare_trials(make_family(4))))
    assert int(found["width"]) <= 360
    assert int(found["dots"]) == (4 + 3) * (NUM + 1)
    assert found["fill"].startswith("rgb(")
    assert found["fill"] != "rgb(0, 0, 0)"


def test_hostile_page_runs_nothing(measure):
    """The title stays the page's own, and long names do not widen it."""
    found = measure(write_results_page(make_hostile()))
    assert found["title"].startswith("30 trials, seeds 0 to 29")
    assert int(found["width"]) <= 360


def test_too_wide_a_page_would_be_found(measure):
    """The twin: the probe sees a page that is wider than the phone."""
    page = write_results_page(make_results(BASE))
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
    assert figure.get_suptitle().endswith("(filled); 2 not drawn")
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
