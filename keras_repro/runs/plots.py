"""Pictures of runs and comparisons, by Matplotlib (extra `plot`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from keras_repro.reports.document import Figure
from keras_repro.reports.figures import make_safe, new_figure, say_instead
from keras_repro.runs.distances import (
    OTHER_PARTS,
    Axis,
    Grid,
    arrange,
    count_epochs,
    find_axis,
    thin_epochs,
    thin_out,
)
from keras_repro.runs.mismatch import EQUAL
from keras_repro.runs.run import find_layer
from keras_repro.runs.wording import find_decisive, say_verdict

if TYPE_CHECKING:
    from keras_repro.runs.comparison import Comparison
    from keras_repro.runs.run import Run


_MOST_NAMED, _MOST_OTHERS = 12, 28
_MOST_EPOCHS = 60
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


# --- distances -----------------------------------------------------------


def picture_comparison(comparison: Comparison) -> Figure:
    """How far the layers of two models are apart, over the epochs."""
    return Figure(
        partial(_draw_comparison, comparison=comparison),
        title=say_verdict(comparison),
        caption=_say_drawn(comparison),
        size=(7.5, 4.6),
    )


def can_draw(comparison: Comparison) -> bool:
    """Whether norms of layers were recorded that differ."""
    return any(
        one.distance is not None and (one.distance or one.status != EQUAL)
        for one in comparison.agreements
        if one.part not in OTHER_PARTS
    )


def _say_drawn(comparison: Comparison) -> str:
    """What the lines are, and what was left out."""
    # Without a grid, which takes seconds for long runs and is only drawn.
    every = comparison.agreements
    epochs = {one.epoch for one in every}
    layers = {one.part for one in every}.difference(OTHER_PARTS)
    differing = layers & {one.part for one in every if one.status != EQUAL}
    texts = ["dotted: first mismatch"]
    others = len(layers) - min(len(differing), _MOST_NAMED)
    if others:
        few = f"{_MOST_OTHERS} of the " if others > _MOST_OTHERS else ""
        texts.append(f"grey: {few}other layers")
    if len(epochs) > _MOST_EPOCHS:
        texts.append(f"{_MOST_EPOCHS} of {len(epochs)} moments drawn")
    return "; ".join(texts)


def _find_farthest(grid: Grid) -> set[str]:
    """The layers to name."""
    differing = sorted(filter(grid.differs, grid.parts), key=grid.farthest)
    return {*differing[-_MOST_NAMED:]}


def _draw_comparison(figure: Any, comparison: Comparison) -> None:
    axes = figure.subplots()
    whole = arrange(comparison.agreements)
    grid = thin_epochs(whole, comparison, _MOST_EPOCHS).layers()
    axis = find_axis([one for part in grid.parts for one in grid.line(part)])
    if not (grid.epochs and grid.parts):
        say_instead(axes, "No epoch is in both runs.")
    elif axis is None:
        equal = comparison.equal or grid.find_first() is None
        text = "All layers are equal." if equal else "No norms were recorded."
        say_instead(axes, text)
    else:
        _draw_distances(axes, grid, axis, comparison)


def _draw_distances(
    axes: Any, grid: Grid, axis: Axis, comparison: Comparison
) -> None:
    xs = [count_epochs(epoch) for epoch in grid.epochs]
    lines = {
        part: [_height(axis.place(one)) for one in grid.line(part)]
        for part in grid.parts
    }
    _draw_lines(axes, xs, lines, _find_farthest(grid))
    axes.set_yscale("log")
    for place, _ in axis.levels():
        axes.axhline(_height(place), color="0.6", linewidth=0.8, zorder=0)
    first = find_decisive(comparison)
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
    figure = new_figure(7.5, 4.2 if number == 1 else 2.6 * number)
    every = figure.subplots(number, 1, sharex=True, squeeze=False)
    return figure, list(every[:, 0])


def _draw_lines(
    axes: Any,
    xs: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    named: set[str],
) -> None:
    """Named lines in colours and with a legend, some of the others in grey."""
    for number, name in enumerate(one for one in lines if one in named):
        axes.plot(
            xs,
            lines[name],
            _STYLES[number // 10 % len(_STYLES)],
            color=f"C{number % 10}",
            marker=_marker(xs),
            markersize=4,
            label=_label_of(name),
        )
    others = [one for one in lines if one not in named]
    for place in thin_out(len(others), (), _MOST_OTHERS):
        values = lines[others[place]]
        axes.plot(xs, values, color="0.75", linewidth=0.8, zorder=1)
    if others:
        axes.plot([], [], color="0.75", label=f"{len(others)} others")
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
