"""What people read of a comparison, as text and as HTML."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_repro.arrays.norms import Norms
from keras_repro.reports import page
from keras_repro.runs.distances import thin_out
from keras_repro.runs.mismatch import (
    DIFFERENT,
    EQUAL,
    WITHIN,
    Mismatch,
    VariableDifference,
)
from tests.browsing import read_html
from tests.data.reports import examples


def write_page(result):
    """What `to_html` writes."""
    return page.write_page(result.describe())


def write_fragment(result):
    """What a notebook shows."""
    return result._repr_html_()


def _first_line(comparison):
    return " ".join(str(comparison).split("\n\n")[0].split("\n"))


def _weights_only(**changes):
    """Weights alone differ, by rounding, and nothing else explains it."""
    found = examples.make_mismatch(
        batch=None, roles=("weights",), places=("layers.1.kernel",)
    )
    found = Mismatch(
        **{**vars(found), "differences": found.differences[1:2]},
    )
    fields = {
        "a": examples.make_run(),
        "b": examples.make_run("b" * 32),
        "first_mismatch": found,
        "first_beyond": found,
        "environment": (),
    }
    return examples.make_comparison(**{**fields, **changes})


# --- verdicts ------------------------------------------------------------


def test_equal_is_said_with_the_number_of_moments():
    """The first line says equal, and no section of a mismatch follows."""
    text = str(examples.make_comparison(EQUAL))
    assert text.startswith("Bitwise equal at 21 moments.\n")
    assert "mismatch" not in text
    assert "Next" not in text


def test_different_is_said_with_the_place_and_the_first_difference():
    """The twin: the first line says where, and the sections follow."""
    text = str(examples.make_comparison())
    place = "Different from epoch 3, batch 10 on"
    verdict = f"{place}: first difference in random state."
    assert text.startswith(verdict + "\n")
    assert "First mismatch: epoch 3, batch 10" in text
    assert "all equal until:  epoch 3, batch 9" in text
    assert "Next:" in text


def test_within_tolerance_is_said_with_the_tolerance():
    """A tolerance that held is named, and what it covered."""
    comparison = examples.make_comparison(WITHIN, atol=1e-8)
    assert _first_line(comparison).startswith(
        "Within tolerance (rtol 1e-05, atol 1e-08): bits differ from epoch 3"
    )
    assert "Next:" not in str(comparison)


def test_beyond_tolerance_both_mismatches_are_told():
    """Where bits differ before the tolerance is exceeded, both are told."""
    comparison = examples.make_comparison(
        rtol=1e-5, first_beyond=examples.make_mismatch(4, None)
    )
    text = str(comparison)
    assert _first_line(comparison).startswith(
        "Different beyond tolerance (rtol 1e-05) from epoch 5 on:"
    )
    assert "First mismatch beyond tolerance: epoch 5" in text
    assert "First mismatch of bits: epoch 3, batch 10" in text


def test_one_mismatch_is_told_once():
    """The same moment in bits and beyond the tolerance is one section."""
    text = str(examples.make_comparison(rtol=1e-5))
    assert text.count("First mismatch") == 1


def test_runs_without_a_common_moment_are_not_comparable():
    """No common record is said as that, with what to do."""
    nothing = Mismatch(
        moment="start",
        epoch=None,
        batch=None,
        roles=("records",),
        places=("records",),
        details=("they hold no record of the same moment",),
    )
    comparison = examples.make_comparison(
        first_mismatch=nothing, first_beyond=nothing, num_compared=0
    )
    expected = "Not comparable: they hold no record of the same moment."
    assert _first_line(comparison) == expected
    assert "First mismatch" not in str(comparison)
    assert "Record both with the same `every`" in str(comparison)
    assert expected in write_page(comparison)


def test_initial_state_is_named():
    """Runs that begin apart differ from the initial state on."""
    start = examples.make_mismatch(None, None)
    comparison = examples.make_comparison(
        first_mismatch=start, first_beyond=start
    )
    assert _first_line(comparison) == (
        "Different from the initial state on: random state, weights and "
        "optimizer differ."
    )


def test_one_moment_is_singular():
    """Counts agree with their nouns."""
    comparison = examples.make_comparison(EQUAL, num_compared=1)
    assert _first_line(comparison) == "Bitwise equal at 1 moment."


# --- what the text holds -------------------------------------------------


def test_exact_sizes_are_told_where_they_are_known():
    """Snapshots give absolute, relative, ULP and the share."""
    text = " ".join(str(examples.make_comparison()).split())
    assert "at most 1.2e-07 absolute, 3.4e-06 relative, 4 ULP" in text
    assert "3 of 64 elements differ (4.7%)" in text


def test_norms_are_told_with_enough_digits():
    """Two norms that differ never look the same."""
    text = str(examples.make_comparison())
    assert "L2 norm 1 in a, 1.0000001 in b" in text


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((2, 0, 1), (2, 0, 3), "largest magnitude 1 in a, 3 in b"),
        ((2, 0, 1), (2, 0.5, 1), "mean 0 in a, 0.5 in b"),
        ((2, 0, 1), (2, 0, 1), "the bits differ, the norms do not"),
        ((math.nan, 0, 1), (1, 0, 1), "L2 norm nan in a, 1 in b"),
        ((math.inf, 0, 1), (1, 0, 1), "L2 norm inf in a, 1 in b"),
    ],
)
def test_the_norm_that_differs_is_told(a, b, expected):
    """If the L2 norms are the same, another norm may tell."""
    one = SimpleNamespace(l2=a[0], mean=a[1], largest=a[2])
    two = SimpleNamespace(l2=b[0], mean=b[1], largest=b[2])
    difference = examples.VariableDifference(
        role="weights", place="p", a=one, b=two
    )
    found = examples.make_mismatch(differences=(difference,))
    text = str(
        examples.make_comparison(first_mismatch=found, first_beyond=found)
    )
    assert expected in " ".join(text.split())


def test_metrics_are_told_of_both_runs():
    """A detail about a metric says which run has which value."""
    a = examples.make_run(num_epochs=1)
    b = examples.make_run("b" * 32, num_epochs=1)
    b.records[1].metrics["loss"] = 1.25
    found = examples.make_mismatch(
        0, None, details=("loss is 1.25, was 1.0", "exact sizes were measured")
    )
    text = str(
        examples.make_comparison(
            a=a, b=b, first_mismatch=found, first_beyond=found
        )
    )
    assert "loss is 1 in a, 1.25 in b" in text
    assert "exact sizes were measured" in text


def test_another_seed_is_said_at_once():
    """What differs before the start stands above the mismatch."""
    identity = Mismatch(
        moment="start",
        epoch=None,
        batch=None,
        roles=("identity",),
        places=("seed",),
        details=("another seed: 2, not 1",),
    )
    text = str(examples.make_comparison(identity=identity))
    assert "b has another seed: 2, not 1" in text
    assert text.index("b has another seed") < text.index("First mismatch")
    assert "Give both the same seed" in text
    assert "another seed" not in str(examples.make_comparison())


@pytest.mark.parametrize(("number", "is_cut"), [(8, False), (50, True)])
def test_many_differences_before_the_start_are_cut(number, is_cut):
    """A model with another optimizer differs in many settings."""
    identity = Mismatch(
        moment="start",
        epoch=None,
        batch=None,
        roles=("identity",),
        places=("compile",),
        details=tuple(f"compile.{n}: 1, not 2" for n in range(number)),
    )
    text = str(examples.make_comparison(identity=identity))
    assert text.count("b has compile.") == 8
    assert ("and 42 more such differences" in text) == is_cut


def test_environments_are_told_by_how_likely_they_matter():
    """Six at most are told, what hardly matters by name alone."""
    entries = tuple(
        examples.EnvironmentDifference(
            key=f"key.{n}", a=n, b=None, weight=weight, sentence="Because."
        )
        for n, weight in enumerate([0, 1, 3, 2, 1, 1, 1, 1, 0])
    )
    text = str(examples.make_comparison(environment=entries))
    assert text.index("key.2") < text.index("key.3") < text.index("key.1")
    assert "key.2: 2 in a, none in b (almost surely matters)" in text
    assert text.count("Because.") == 6
    assert "and 1 more" in text
    assert "hardly ever matters: key.0, key.8" in text


def test_equal_runs_are_not_told_why_they_might_differ():
    """Of equal runs the environments are named without advice."""
    comparison = examples.make_comparison(
        EQUAL, environment=examples.ENVIRONMENT
    )
    text = str(comparison)
    assert "which changed nothing here" in text
    assert "install the same version" not in text


def test_notes_are_told():
    """What is no mismatch is said as what it is."""
    note = "renamed: layers.1.kernel of a is layers.1.w of b"
    comparison = examples.make_comparison(notes=(note,))
    for written in (str, write_fragment, write_page):
        assert note in written(comparison)


# --- what to do next -----------------------------------------------------


def test_a_coarse_record_is_to_be_made_finer():
    """Records of epochs are to be made of batches; the twin is so already."""
    assert 'every="batch"' in str(_weights_only())
    finer = {name: examples.make_run(name * 32, every="batch") for name in "ab"}
    assert 'every="batch"' not in str(_weights_only(**finer))


def test_snapshots_are_advised_where_there_are_none():
    """Runs with snapshots are not told to keep them."""
    assert 'snapshots="epoch"' in str(_weights_only())
    kept = {name: examples.make_run(name * 32, snapshots="s") for name in "ab"}
    assert 'snapshots="epoch"' not in str(_weights_only(**kept))


@pytest.mark.parametrize(
    ("relative", "expected"), [(1e-7, "rtol=1e-5"), (0.5, None)]
)
def test_exact_sizes_advise_a_tolerance_too(relative, expected):
    """Without norms the exact relative difference decides."""
    exact = examples.ArrayDifference(
        largest_absolute=relative,
        largest_relative=relative,
        largest_ulp=None,
        num_differing=1,
        num_elements=10_000,
    )
    difference = examples.VariableDifference(
        role="weights", place="p", exact=exact
    )
    found = examples.make_mismatch(
        batch=None, roles=("weights",), differences=(difference,)
    )
    text = str(_weights_only(first_mismatch=found, first_beyond=found))
    assert ("rtol=" in text) == (expected is not None)
    assert expected is None or expected in text
    assert "ULP" not in text
    assert "1 of 10000 elements differ (<0.1%)" in " ".join(text.split())


@pytest.mark.parametrize(
    ("b", "expected"), [(1 + 1e-8, "1e-5"), (1 + 2e-5, "1e-3"), (2.0, None)]
)
def test_a_tolerance_is_advised_for_rounding_alone(b, expected):
    """Weights that are nearly alike may be compared with a tolerance."""
    difference = examples.VariableDifference(
        role="weights",
        place="p",
        a=examples.Norms(1.0, 0.0, 1.0),
        b=examples.Norms(b, 0.0, 1.0),
    )
    found = examples.make_mismatch(
        batch=None, roles=("weights",), differences=(difference,)
    )
    text = str(_weights_only(first_mismatch=found, first_beyond=found))
    assert (f"rtol={expected}" in text) == (expected is not None)
    assert ("rtol=" in text) == (expected is not None)


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ((False, True), "train both in deterministic mode"),
        ((True, True), "though both runs were in deterministic mode"),
    ],
)
def test_deterministic_mode_is_advised_where_it_was_off(modes, expected):
    """Where it was on already, something else is advised."""
    a, b = (
        examples.make_run(environment={"deterministic": mode}) for mode in modes
    )
    text = " ".join(str(_weights_only(a=a, b=b)).split())
    assert expected in text


def test_no_tolerance_is_advised_where_nothing_was_measured():
    """A difference of unknown size is no rounding."""
    difference = examples.VariableDifference(role="weights", place="p")
    found = examples.make_mismatch(
        batch=None, roles=("weights",), differences=(difference,)
    )
    text = str(_weights_only(first_mismatch=found, first_beyond=found))
    assert "rtol=" not in text


def test_no_tolerance_is_advised_where_random_state_differs():
    """Other random numbers are no rounding."""
    text = str(examples.make_comparison(environment=()))
    assert "rtol=" not in text
    assert "drew different random numbers" in text


# --- HTML ----------------------------------------------------------------


def test_many_variables_are_folded():
    """A terminal shows five, a page the next ones when they are clicked on."""
    differences = tuple(
        VariableDifference(role="weights", place=f"layers.{n}.kernel")
        for n in range(70)
    )
    found = examples.make_mismatch(differences=differences)
    comparison = examples.make_comparison(
        first_mismatch=found, first_beyond=found, environment=()
    )
    assert str(comparison).count(".kernel, weights") == 5
    assert "\n  and 65 more\n" in str(comparison)
    shown, folded = write_fragment(comparison).split("<details>")
    assert shown.count(".kernel, weights") == 5
    assert folded.startswith("<summary>and 65 more</summary>")
    assert folded.count(".kernel, weights") == 55
    assert "and 10 more" in folded


@pytest.mark.parametrize("status", [EQUAL, WITHIN, DIFFERENT])
def test_pages_are_whole(status):
    """Each page is well-formed, with one verdict of its class on top."""
    comparison = examples.make_comparison(
        status, agreements=tuple(examples.make_agreements(3, 4))
    )
    page = read_html(write_page(comparison))
    assert page.tags.count("h1") == 1
    kind = {EQUAL: "equal", WITHIN: "within", DIFFERENT: "different"}[status]
    assert page.classes.count("verdict") == 1
    assert kind in page.classes
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href"} & page.names


def test_equal_pages_show_no_mismatch():
    """A page of equal runs has no mismatch and no chart; its twin has."""
    agreements = tuple(examples.make_agreements(3, 4, part_at=99))
    equal = write_page(examples.make_comparison(EQUAL, agreements=agreements))
    assert "mismatch" not in equal
    assert "<svg" not in equal
    agreements = tuple(examples.make_agreements(3, 4))
    different = write_page(examples.make_comparison(agreements=agreements))
    assert "First mismatch" in different
    assert "<svg" in different


def test_hostile_names_stay_text():
    """No name of a run becomes an element, an attribute or a script."""
    comparison = examples.make_hostile()
    groups = examples.RunGroups(
        runs=(comparison.a, comparison.b),
        groups=((0,), (1,)),
        comparisons=(comparison,),
    )
    for document in (
        write_page(comparison),
        write_fragment(comparison),
        write_page(groups),
        write_fragment(groups),
    ):
        page = read_html(document)
        assert not {"script", "img"} & set(page.tags)
        assert "onerror" not in page.names
        assert page.tags.count("title") >= 1 or "<html" not in document
        assert "\x1b" not in document
        assert any("<script>" in text for text in page.texts)
        document.encode("utf-8")


def test_hostile_names_do_not_reach_the_terminal():
    """Control characters, directions and broken Unicode are written out."""
    comparison = examples.make_hostile()
    groups = examples.RunGroups(
        runs=(comparison.a, comparison.b),
        groups=((0,), (1,)),
        comparisons=(comparison,),
    )
    for text in (str(comparison), str(groups)):
        assert all(one.isprintable() for one in text.split("\n"))
        assert "\\x1b[2J" in text


@given(st.text(max_size=300))
def test_text_is_narrow_and_printable(name):
    """Whatever a run is called, lines stay narrow and can be encoded."""
    run = examples.make_run(name=name, identity={"seed": name})
    found = examples.make_mismatch(places=(name,), details=(name,))
    comparison = examples.make_comparison(
        a=run, b=run, first_mismatch=found, first_beyond=found, notes=(name,)
    )
    for line in str(comparison).split("\n"):
        assert len(line) <= 79
        assert line.isprintable()
    page = write_page(comparison)
    page.encode("utf-8")
    read_html(page)


@pytest.mark.slow
def test_long_runs_of_large_models_stay_usable():
    """The first mismatch and its neighbours are kept, and the rest said."""
    found = examples.make_mismatch(1233, None)
    comparison = examples.make_comparison(
        first_mismatch=found,
        first_beyond=found,
        agreements=tuple(examples.make_agreements(300, 1500, part_at=1234)),
    )
    page = write_page(comparison)
    assert len(page.encode()) < 2_000_000
    table = page.split('<table class="grid')[1].split("</table>")[0]
    rows = table.count("<tr")
    assert 50 < rows <= 101
    assert "of 1501 moments" in page
    assert "of 303 parts" in page
    for epoch in (1233, 1235, 1500):
        assert f'scope="row">{epoch}</th>' in page
    assert 'scope="row">1234 ◂ first mismatch</th>' in page
    assert len(write_fragment(comparison).encode()) < 150_000


def test_positions_are_thinned_evenly():
    """The ends and what must stay with its neighbours, within the limit."""
    chosen = thin_out(1000, [500], 16)
    assert chosen[:3] == [0, 99, 199]
    assert {499, 500, 501, 999} <= {*chosen}
    assert len(chosen) <= 16
    assert thin_out(3, [1], 3) == [0, 1, 2]


def test_short_runs_are_shown_whole():
    """The twin: nothing is left out, and nothing is said of it."""
    agreements = tuple(examples.make_agreements(3, 20))
    page = write_page(examples.make_comparison(agreements=agreements))
    table = page.split('<table class="grid')[1].split("</table>")[0]
    assert table.count("<tr") == 22
    assert "Shown are" not in page


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (None, "<td class=d3>≠</td>"),
        (math.nan, "<td class=d3>≠ not finite</td>"),
        (math.inf, "<td class=d3>≠ not finite</td>"),
        (1e-7, "<td class=d1>≠ 1.0e-07</td>"),
        (1e-4, "<td class=d2>≠ 1.0e-04</td>"),
        (0.0, "<td class=d1>≠ 0</td>"),
    ],
)
def test_cells_say_how_far_apart(distance, expected):
    """A cell holds a sign and the distance, never a colour alone."""
    one = examples.Agreement(
        epoch=0, part="layers.0", status=DIFFERENT, distance=distance
    )
    page = write_page(examples.make_comparison(agreements=(one,)))
    assert expected in page
    assert ("<svg" in page) == (distance is not None)


def test_parts_that_are_in_some_epochs_alone_leave_holes():
    """A layer built later has no cell before."""
    cells = [
        examples.Agreement(epoch=e, part=part, status=EQUAL, distance=0.0)
        for e, part in ((0, "layers.0"), (1, "layers.0"), (1, "layers.1"))
    ]
    page = write_page(examples.make_comparison(EQUAL, agreements=tuple(cells)))
    assert page.count("<td></td>") == 1
    assert page.count("<td class=e>") == 3


def test_only_metrics_differ():
    """A mismatch without variables has no list of them."""
    found = examples.make_mismatch(
        batch=None,
        roles=("metrics",),
        places=("metric 'loss'",),
        differences=(),
        previous=None,
    )
    comparison = examples.make_comparison(
        first_mismatch=found, first_beyond=found
    )
    told = "layers.1.kernel, weights"
    assert told not in write_page(comparison)
    assert told in write_page(examples.make_comparison())
    text = str(comparison)
    assert "also differs:     metric 'loss'" in text
    assert "all equal until" not in text
    assert "The training itself agrees" in text


@pytest.mark.parametrize("end", [None, "ValueError"])
def test_runs_that_did_not_finish_are_said_to(end):
    """A run that was killed or failed is outlined as that."""
    run = examples.make_run()
    ended = (
        None
        if end is None
        else replace(run.end, status="failed", exception=end)
    )
    comparison = examples.make_comparison(EQUAL, a=replace(run, end=ended))
    expected = "not ended" if end is None else "failed by ValueError"
    assert expected in str(comparison)
    assert ("was killed" in write_page(comparison)) == (end is None)
    assert "not ended" not in str(examples.make_comparison(EQUAL))


def test_entries_that_hardly_matter_are_folded():
    """A page and a notebook show them when they are clicked on."""
    comparison = examples.make_comparison(
        EQUAL, environment=examples.ENVIRONMENT[3:]
    )
    for written in (write_page(comparison), write_fragment(comparison)):
        shown, folded = written.split("<details>")
        assert "os_release" not in shown
        assert "os_release" in folded.split("</details>")[0]
    assert "hardly ever matters: os_release" in str(comparison)


def test_environments_that_were_not_recorded_are_said_so():
    """No difference and no record are two things."""
    bare = examples.make_run(environment={})
    page = write_page(examples.make_comparison(EQUAL, a=bare, b=bare))
    assert "not recorded" in page
    page = write_page(examples.make_comparison(EQUAL))
    assert "no difference" in page


def test_fragments_style_nothing_else():
    """Every rule of the fragment's style sheet is scoped."""
    document = write_fragment(examples.make_comparison())
    style = document.split("<style>")[1].split("</style>")[0]
    for block in re.findall(r"([^{};]+)\{", style):
        for selector in map(str.strip, block.split(",")):
            assert selector.startswith((".keras-repro", "@media", "body.keras"))
    assert "<html" not in document
    assert "<h1" not in document


# --- groups --------------------------------------------------------------


def test_groups_that_agree_are_one():
    """One group is said as agreement; no comparison follows."""
    groups = examples.make_groups((3,))
    assert str(groups).startswith("All 3 runs agree.")
    assert "against" not in write_page(groups)
    assert "verdict equal" in write_fragment(groups)


def test_groups_that_differ_are_told_apart():
    """Each run stands in its group, each group against the first."""
    groups = examples.make_groups((3, 2, 1))
    text = str(groups)
    assert text.startswith("6 runs in 3 groups that differ.")
    assert "Group 1 (3 runs):" in text
    assert "Group 3 (b) against group 1 (a):" in text
    for written in (write_page(groups), write_fragment(groups)):
        assert read_html(written).classes.count("verdict") == 3
        second = written.split("Group 2 (2 runs)")[1].split("</section>")[0]
        assert second.count("<li>") == 2
        assert "#4 run" in second
        assert "#5 run" in second
    assert read_html(write_page(groups)).texts.count("group 2") == 2


def test_many_groups_are_cut():
    """Hundreds of runs that all differ stay readable."""
    groups = examples.make_groups((1,) * 600)
    assert len(str(groups).split("\n")) < 2_000
    page = write_page(groups)
    assert "and 100 more" in page
    assert len(page.encode()) < 2_000_000


@pytest.mark.parametrize(
    ("role", "said"),
    [
        ("optimizer", "optimizer differs."),
        ("random", "random state differs."),
        ("weights", "weights differ."),
    ],
)
def test_a_single_role_at_the_start(role, said):
    """One thing differs, many differ."""
    mismatch = examples.make_mismatch(
        roles=(role,), epoch=None, batch=None, moment="initial state"
    )
    found = examples.make_comparison(
        status=DIFFERENT, first_mismatch=mismatch, first_beyond=mismatch
    )
    assert str(found).splitlines()[0].endswith(said)


def test_a_single_number_is_told_as_it_is():
    """Of a learning rate the value is told, not a norm."""
    rate = VariableDifference(
        role="optimizer",
        place="optimizer.learning_rate",
        a=Norms(0.001, 0.001, 0.001),
        b=Norms(0.002, 0.002, 0.002),
    )
    mismatch = examples.make_mismatch(differences=(rate,))
    found = examples.make_comparison(
        status=DIFFERENT, first_mismatch=mismatch, first_beyond=mismatch
    )
    assert "value 0.001 in a, 0.002 in b" in str(found)
