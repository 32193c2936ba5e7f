"""Pictures of trials, by Matplotlib (extra `plot`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_repro.reports.figures import make_safe, say_instead
from keras_repro.studies.strips import (
    MOST_DOTS,
    Strip,
    choose_scale,
    make_difference_strips,
    make_spread_strips,
    make_study_strips,
    make_summary_strip,
    spread_dots,
    thin_out,
)
from keras_repro.studies.wording import (
    say_level,
    say_name,
    write_interval,
    write_number,
)

if TYPE_CHECKING:
    from keras_repro.studies.comparison import TrialComparison
    from keras_repro.studies.results import TrialSummary
    from keras_repro.studies.spread import TrialSpread


MOST_METRICS = 6
_LARGEST = 1e300  # Matplotlib counts with their tenfold and more.
_GREY = "0.55"
_INK = "0.15"


def draw_summary(figure: Any, summary: TrialSummary) -> None:
    """Draw the scores of a study: a strip of dots for each metric."""
    names = list(summary)[:MOST_METRICS]
    every = figure.subplots(max(len(names), 1), 1, squeeze=False)[:, 0]
    if not names:
        say_instead(every[0], "No trial gave a score.")
    for axes, name in zip(every, names, strict=False):
        strip = make_summary_strip(summary, name)
        if strip is None:
            say_instead(axes, f"No trial gave a finite {make_safe(name)}.")
        else:
            _draw_row(axes, strip, say_level(summary.confidence_level))


def _draw_row(axes: Any, strip: Strip, level: str) -> None:
    """One strip from left to right, the mean above the dots."""
    if not _can_draw(axes, [strip], make_safe(strip.name)):
        return
    scale = choose_scale([strip])
    _draw_dots(axes, strip, 0, lying=True)
    error = (strip.high - strip.low) / 2
    label = f"mean {write_number(strip.center, error)}"
    if math.isfinite(strip.low):
        label += f", {level} {write_interval(strip.low, strip.high)}"
    _draw_mean(axes, strip, 0.62, lying=True, label=label)
    axes.plot(
        [strip.median] * 2,
        [-0.45, 0.45],
        color=_INK,
        linestyle=":",
        label=f"median {write_number(strip.median or 0.0, error)}",
    )
    axes.set_ylim(-0.55, 0.85)
    axes.set_yticks([])
    if scale.is_log:
        axes.set_xscale("log")
    else:
        axes.set_xlim(scale.low, scale.high)
    axes.set_xlabel(make_safe(strip.name) + _say_thinned([strip]))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2,
        frameon=False,
        fontsize=9,
        borderaxespad=0.1,
    )


def draw_comparisons(
    figure: Any, comparisons: Sequence[TrialComparison]
) -> None:
    """Draw studies beside each other, and their differences to the first."""
    number = len(comparisons)
    left, right = figure.subplots(
        1, 2, width_ratios=[max(number + 1, 2), max(number, 1.2)]
    )
    first = comparisons[0]
    studies = make_study_strips(comparisons)
    _draw_columns(left, studies, make_safe(first.metric), with_zero=False)
    if choose_scale(studies).is_log:
        left.set_yscale("log")
    name = make_safe(say_name(first.name_a))
    gaps = make_difference_strips(comparisons)
    _draw_columns(right, gaps, f"difference to {name}", with_zero=True)


def draw_spread(figure: Any, spread: TrialSpread) -> None:
    """Draw the scores of each study, and beside them the shares."""
    left, right = figure.subplots(1, 2)
    strips = make_spread_strips(spread)
    _draw_columns(left, strips, make_safe(spread.metric), with_zero=False)
    for place, part in enumerate(spread.parts):
        if math.isnan(part.share):
            continue
        interval = part.interval
        color = _GREY if part.source == "rest" else f"C{place}"
        right.plot(place, 100 * part.share, "o", color=color)
        # The share of few seeds may lie beyond what is possible.
        right.errorbar(
            place,
            50 * (interval.low + interval.high),
            yerr=100 * interval.half_width,
            fmt="none",
            color=color,
            capsize=4,
        )
    names = [one.source for one in spread.parts]
    right.set_xticks(range(len(names)), names)
    right.set_xlim(-0.6, len(names) - 0.4)
    shares = [100 * one.share for one in spread.parts]
    right.set_ylim(min(0, *shares) - 3, max(100, *shares) + 3)
    level = say_level(spread.confidence_level)
    right.set_ylabel(f"share of the variance in percent, {level}")
    right.spines[["top", "right"]].set_visible(False)


def _draw_columns(
    axes: Any, strips: Sequence[Strip], title: str, *, with_zero: bool
) -> None:
    """Strips from below to above, the mean to the right of the dots."""
    if not _can_draw(axes, strips, title):
        return
    if with_zero:
        axes.axhline(0, color="0.4", linewidth=1, linestyle="--", zorder=0)
    for place, strip in enumerate(strips):
        _draw_dots(axes, strip, place, lying=False, others=strips)
        _draw_mean(axes, strip, place + 0.34, lying=False)
    names = [make_safe(say_name(one.name)) for one in strips]
    is_long = max(map(len, names)) > 9 or len(names) > 8
    axes.set_xticks(range(len(names)), names)
    if is_long:
        for one in axes.get_xticklabels():
            one.set(rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(strips) - 0.3)
    axes.set_ylabel(title + _say_thinned(strips))
    axes.spines[["top", "right"]].set_visible(False)


def _can_draw(axes: Any, strips: Sequence[Strip], title: str) -> bool:
    """Whether scores are no larger than what Matplotlib can count with."""
    largest = max(float(np.abs(one.scores).max()) for one in strips)
    if largest > _LARGEST:
        say_instead(axes, f"{title}: too large to be drawn.")
    return largest <= _LARGEST


def _draw_dots(
    axes: Any,
    strip: Strip,
    place: float,
    *,
    lying: bool,
    others: Sequence[Strip] = (),
) -> None:
    scale = choose_scale(others or [strip])
    order = thin_out(strip.scores)
    along = strip.scores[order]
    steps = spread_dots(scale.place(along), 70 if lying else 45)
    widest = max(float(np.abs(steps).max()), 1.0)
    across = place + steps * min(0.11 if lying else 0.05, 0.27 / widest)
    axes.plot(
        *((along, across) if lying else (across, along)),
        "o",
        color=_color(strip),
        markersize=5 if len(order) <= 200 else 3,
        markeredgewidth=0,
        alpha=0.55 if len(order) <= 200 else 0.4,
        zorder=2,
    )


def _draw_mean(
    axes: Any, strip: Strip, place: float, *, lying: bool, label: str = ""
) -> None:
    error = None
    if math.isfinite(strip.low):
        error = [[strip.center - strip.low], [strip.high - strip.center]]
    axes.errorbar(
        *((strip.center, place) if lying else (place, strip.center)),
        **{"xerr" if lying else "yerr": error},
        fmt="o",
        color=_INK,
        markerfacecolor=_INK if strip.settled else "white",
        markersize=6,
        capsize=4,
        linewidth=1.6,
        label=label or None,
        zorder=3,
    )


def _color(strip: Strip) -> str:
    return _GREY if strip.color is None else f"C{strip.color % 10}"


def _say_thinned(strips: Sequence[Strip]) -> str:
    number = max(len(one.scores) for one in strips)
    if number <= MOST_DOTS:
        return ""
    return f" ({MOST_DOTS} of {number} dots drawn)"
