"""Pictures by Matplotlib, drawn without a display."""

import io
import math
import sys

import pytest

from keras_repro.runs.mismatch import DIFFERENT, EQUAL, WITHIN
from tests.data.reports import examples


@pytest.fixture
def matplotlib():
    """Where Matplotlib is installed."""
    return pytest.importorskip("matplotlib")


def _save(figure):
    """Draw all of it; a wrong name or number would fail here."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    return file.getvalue()


def _labels(axes):
    legend = axes.get_legend()
    return [] if legend is None else [one.get_text() for one in legend.texts]


def _texts(axes):
    return [one.get_text() for one in axes.texts]


def test_comparison_is_drawn_on_a_log_scale(matplotlib):
    """A line for each layer, and a level for what is equal."""
    agreements = tuple(examples.make_agreements(4, 10))
    comparison = examples.make_comparison(agreements=agreements)
    figure = comparison.plot()
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert _labels(axes) == [f"layers.{n}" for n in range(4)]
    ticks = [one.get_text() for one in axes.get_yticklabels()]
    assert ticks[-1] == "equal"
    line = next(one for one in axes.lines if one.get_label() == "layers.0")
    assert len(set(line.get_ydata()[:3])) == 1
    assert line.get_ydata()[3] > line.get_ydata()[2]
    assert "epoch 3, batch 10" in figure.get_suptitle()
    assert _save(figure)


def test_equal_runs_have_nothing_to_draw(matplotlib):
    """The twin: equal runs are said to be equal."""
    agreements = tuple(examples.make_agreements(4, 10, part_at=99))
    comparison = examples.make_comparison(EQUAL, agreements=agreements)
    (axes,) = comparison.plot().axes
    assert _texts(axes) == ["All layers are equal."]
    assert not axes.lines


@pytest.mark.parametrize("status", [WITHIN, DIFFERENT])
def test_runs_without_norms_are_said_to_have_none(matplotlib, status):
    """Unmeasured distances are not drawn as if they were zero."""
    one = examples.Agreement(
        epoch=0, part="layers.0", status=status, distance=None
    )
    comparison = examples.make_comparison(status, agreements=(one,))
    (axes,) = comparison.plot().axes
    assert _texts(axes) == ["No norms were recorded."]


def test_runs_without_a_common_epoch_are_drawn_as_words(matplotlib):
    """No agreements, no axes."""
    (axes,) = examples.make_comparison().plot().axes
    assert _texts(axes) == ["No epoch is in both runs."]


def test_differences_before_the_first_shared_epoch(matplotlib):
    """A mismatch at no epoch that is drawn is not marked."""
    agreements = tuple(examples.make_agreements(2, 4))
    counts = []
    for epoch in (2, 99):
        found = examples.make_mismatch(epoch)
        comparison = examples.make_comparison(
            first_mismatch=found, first_beyond=found, agreements=agreements
        )
        counts.append(len(comparison.plot().axes[0].lines))
    assert counts[0] == counts[1] + 1


def test_legends_stay_short(matplotlib):
    """Of many layers the farthest are named, the others counted."""
    agreements = tuple(examples.make_agreements(100, 10))
    comparison = examples.make_comparison(agreements=agreements)
    figure = comparison.plot()
    assert len(_labels(figure.axes[0])) == 13
    assert _labels(figure.axes[0])[-1] == "88 others"
    assert _save(figure)


def test_hostile_runs_are_drawn(matplotlib):
    """Names are no formulas; NaN and infinities have a level of their own."""
    comparison = examples.make_hostile()
    figure = comparison.plot()
    ticks = [one.get_text() for one in figure.axes[0].get_yticklabels()]
    assert "not finite" in ticks
    assert _save(figure)


def test_run_shows_metrics_and_norms(matplotlib):
    """A metric and its validation twin share axes; norms have their own."""
    figure = examples.make_run(num_epochs=5, num_layers=3).plot()
    assert [one.get_ylabel() for one in figure.axes] == [
        "loss",
        "accuracy",
        "L2 norm of weights",
    ]
    assert _labels(figure.axes[0]) == ["loss", "val_loss"]
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == [1, 2, 3, 4, 5]
    assert line.get_ydata()[0] == 1.0
    assert figure.axes[2].get_yscale() == "linear"
    norms = figure.axes[2].lines[0]
    assert list(norms.get_xdata()) == [0, 1, 2, 3, 4, 5]
    assert _save(figure)


def test_run_joins_the_variables_of_a_layer(matplotlib):
    """The norm of a layer is that of all its weights together."""
    run = examples.make_run(num_epochs=1)
    norms = {
        "layers.0.kernel": examples.Norms(3.0, 0.0, 0.0),
        "layers.0.bias": examples.Norms(4.0, 0.0, 0.0),
        "scale": examples.Norms(math.inf, 0.0, 0.0),
    }
    for record in run.records:
        record.norms["weights"].clear()
        record.norms["weights"].update(norms)
    figure = run.plot()
    lines = {one.get_label(): one for one in figure.axes[-1].lines}
    assert list(lines["layers.0"].get_ydata()) == [5.0, 5.0]
    assert list(lines["model"].get_ydata()) == [math.inf, math.inf]


def test_norms_of_other_sizes_are_drawn_on_a_log_scale(matplotlib):
    """Layers that are a hundred times as large do not flatten the others."""
    run = examples.make_run()
    for record in run.records:
        large = examples.Norms(500.0, 0.0, 0.0)
        record.norms["weights"]["layers.9.kernel"] = large
    assert run.plot().axes[-1].get_yscale() == "log"


def test_run_without_epochs_is_drawn_as_words(matplotlib):
    """A run that recorded nothing says so."""
    run = examples.make_run()
    empty = type(run)(run.header)
    (axes,) = empty.plot().axes
    assert _texts(axes) == ["No epoch was recorded."]


def test_odd_names_of_metrics(matplotlib):
    """Names that Matplotlib would hide or read as formulas are shown."""
    run = examples.make_run(num_epochs=2)
    for record in run.records[1:]:
        record.metrics.update({"_hidden": 1.0, "$x^": 2.0, "nan": math.nan})
    figure = run.plot()
    assert " _hidden" in [
        name for axes in figure.axes for name in _labels(axes)
    ]
    assert _save(figure)


def test_no_global_state_changes(matplotlib, run_python):
    """Drawing does not load pyplot, so no backend is chosen."""
    result = run_python(
        "-c",
        "import sys\n"
        "from tests.data.reports import examples\n"
        "examples.make_run().plot()\nexamples.make_comparison().plot()\n"
        "print('matplotlib.pyplot' in sys.modules)",
    )
    assert result.stdout.strip() == "False"


def test_missing_matplotlib_names_the_extra(monkeypatch):
    """Without Matplotlib the error says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-repro\[plot\]'"):
        examples.make_run().plot()
    with pytest.raises(ImportError, match=r"keras-repro\[plot\]"):
        examples.make_comparison().plot()
