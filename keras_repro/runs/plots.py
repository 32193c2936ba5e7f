"""Pictures of runs and comparisons, by Matplotlib (extra `plot`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_repro.reports.figures import make_safe, new_figure, say_instead
from keras_repro.runs.distances import (
    Axis,
    Grid,
    arrange,
    count_epochs,
    find_axis,
)
from keras_repro.runs.run import find_layer
from keras_repro.runs.wording import say_verdict

if TYPE_CHECKING:
    from keras_repro.runs.comparison import Comparison
    from keras_repro.runs.run import Run


_MOST_NAMED = 12
_MOST_AXES = 6
_STYLES = ("-", "--", ":", "-.")


def plot_run(run: Run) -> Any:
    """Draw the metrics of a run and the norms of its layers."""
    families = _group_metrics(run.history())
    norms = _collect_norms(run)
    panels = len(families) + bool(norms)
    figure, every = _make_axes(panels)
    xs = [count_epochs(one.epoch) for one in run.epochs]
    for axes, (name, members) in zip(every, families.items(), strict=False):
        for member in members:
            values = [one.metrics.get(member, math.nan) for one in run.epochs]
            style = "--" if member.startswith("val_") else "-"
            axes.plot(
                xs, values, style, marker=_marker(xs), label=_label_of(member)
            )
        _label(axes, make_safe(name))
        axes.legend(frameon=False)
    if norms:
        _draw_norms(every[-1], norms)
    if not panels:
        say_instead(every[0], "No epoch was recorded.")
    return figure


def plot_comparison(comparison: Comparison) -> Any:
    """Draw how far the parts of two models are apart, over the epochs."""
    figure, (axes,) = _make_axes(1)
    grid = arrange(comparison.agreements).layers()
    cells = [one for part in grid.parts for one in grid.line(part)]
    axis = find_axis(cells)
    if not cells:
        say_instead(axes, "No epoch is in both runs.")
    elif axis is None:
        equal = comparison.equal or grid.find_first() is None
        text = "All layers are equal." if equal else "No norms were recorded."
        say_instead(axes, text)
    else:
        _draw_distances(axes, grid, axis, comparison)
    axes.set_title(
        make_safe(say_verdict(comparison), 90), loc="left", fontsize=11
    )
    return figure


# --- distances -----------------------------------------------------------


def _draw_distances(
    axes: Any, grid: Grid, axis: Axis, comparison: Comparison
) -> None:
    xs = [count_epochs(epoch) for epoch in grid.epochs]
    lines = {
        part: [_height(axis.place(one)) for one in grid.line(part)]
        for part in grid.parts
    }
    farthest = sorted(filter(grid.differs, grid.parts), key=grid.farthest)
    _draw_lines(axes, xs, lines, set(farthest[-_MOST_NAMED:]))
    axes.set_yscale("log")
    for place, _ in axis.levels():
        axes.axhline(_height(place), color="0.6", linewidth=0.8, zorder=0)
    first = comparison.first_beyond or comparison.first_mismatch
    if first is not None and first.epoch in grid.epochs:
        axes.axvline(
            count_epochs(first.epoch), color="0.4", linestyle=":", zorder=0
        )
    ticks = [
        *((float(one), f"$10^{{{one}}}$") for one in axis.ticks()),
        *axis.levels(),
    ]
    axes.set_yticks([_height(place) for place, _ in ticks])
    axes.set_yticklabels([name for _, name in ticks])
    axes.minorticks_off()
    margin = 0.05 * (axis.top - axis.bottom)
    axes.set_ylim(_height(axis.bottom - margin), _height(axis.top + margin))
    _label(axes, "relative difference of norms")


def _height(place: float | None) -> float:
    return math.nan if place is None else 10.0 ** min(max(place, -305), 305)


# --- runs ----------------------------------------------------------------


def _group_metrics(names: Iterable[str]) -> dict[str, list[str]]:
    """Metrics by the name that they share with their `val_` twin."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(name.removeprefix("val_"), []).append(name)
    return dict(list(families.items())[:_MOST_AXES])


def _collect_norms(run: Run) -> dict[str, dict[int, float]]:
    """The L2 norm of each layer's weights, by epochs done."""
    moments = [one for one in run.records if one.batch is None]
    squares: dict[str, dict[int, float]] = {}
    for record in moments:
        done = count_epochs(record.epoch)
        for place, norms in record.norms.get("weights", {}).items():
            line = squares.setdefault(find_layer(place), {})
            line[done] = math.hypot(line.get(done, 0.0), norms.l2)
    return squares


def _draw_norms(axes: Any, norms: Mapping[str, Mapping[int, float]]) -> None:
    xs = sorted({done for line in norms.values() for done in line})
    lines = {
        layer: [line.get(done, math.nan) for done in xs]
        for layer, line in norms.items()
    }
    moved = sorted(lines, key=lambda layer: _spread(lines[layer]))
    _draw_lines(axes, xs, lines, set(moved[-_MOST_NAMED:]))
    values = [value for line in lines.values() for value in line]
    finite = [value for value in values if math.isfinite(value)]
    if finite and max(finite) > 20 * min(finite) > 0:
        axes.set_yscale("log")
    _label(axes, "L2 norm of weights")


def _spread(values: Sequence[float]) -> float:
    """How far a layer moved in all, for its place in the legend."""
    finite = [value for value in values if math.isfinite(value)]
    return max(finite) - min(finite) if finite else 0.0


# --- Matplotlib ----------------------------------------------------------


def _make_axes(number: int) -> tuple[Any, list[Any]]:
    number = max(number, 1)
    figure = new_figure(
        7.5, 4.2 if number == 1 else 2.6 * number, "constrained"
    )
    every = figure.subplots(number, 1, sharex=True, squeeze=False)
    return figure, list(every[:, 0])


def _draw_lines(
    axes: Any,
    xs: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    named: set[str],
) -> None:
    """Named lines in colours and with a legend, the others in grey."""
    number = 0
    for name, values in lines.items():
        if name in named:
            style = _STYLES[number // 10 % len(_STYLES)]
            axes.plot(
                xs,
                values,
                style,
                color=f"C{number % 10}",
                marker=_marker(xs),
                markersize=4,
                label=_label_of(name),
            )
            number += 1
        else:
            axes.plot(xs, values, color="0.75", linewidth=0.8, zorder=1)
    others = len(lines) - number
    if others:
        axes.plot([], [], color="0.75", label=f"{others} others")
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9
    )


def _label(axes: Any, name: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.label_outer()
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)


def _label_of(name: str) -> str:
    """A name in a legend, which hides names that begin with `_`."""
    return " " * name.startswith("_") + make_safe(name)


def _marker(xs: Sequence[int]) -> str | None:
    return "o" if len(xs) <= 30 else None
