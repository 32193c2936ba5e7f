"""Strips of scores as SVG pictures, without any library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keras_repro.common.text import count_of
from keras_repro.reports.html import NEWLINE, NUM_COLORS, Html, element, join
from keras_repro.studies.strips import (
    Scale,
    Strip,
    choose_scale,
    spread_dots,
    thin_out,
)
from keras_repro.studies.wording import say_name, write_interval, write_number

_MOST_DOTS, _MOST_DOTS_IN_ALL = 600, 6000
_WIDTH, _RIGHT = 760, 20
_ROW, _AXIS = 74, 44
_LONGEST_NAME = 22


def draw_strips(
    strips: Sequence[Strip], title: str, *, with_zero: bool = False
) -> Html:
    """Draw strips below each other, on one scale."""
    chart = _Chart(
        strips=strips,
        title=title,
        scale=choose_scale(strips, with_zero=with_zero),
        with_zero=with_zero,
    )
    note = "Each dot is a trial; the bar is the mean with its interval"
    if any(one.median is not None for one in strips):
        note += ", the short line the median"
    number = max(len(one.scores) for one in strips)
    if number > chart.most_dots:
        note += f". Of {number} dots {chart.most_dots} are drawn"
    return element(
        "figure",
        element("div", chart.draw(), class_="scroll", tabindex=0),
        NEWLINE,
        element("figcaption", f"{note}.", class_="quiet"),
        class_="chart",
    )


@dataclass(frozen=True)
class _Chart:
    strips: Sequence[Strip]
    title: str
    scale: Scale
    with_zero: bool

    @property
    def most_dots(self) -> int:
        return min(_MOST_DOTS, max(_MOST_DOTS_IN_ALL // len(self.strips), 100))

    @property
    def left(self) -> int:
        """Room for the names, where there are several."""
        return 170 if len(self.strips) > 1 else 30

    @property
    def bottom(self) -> int:
        return _ROW * len(self.strips) + 4

    def draw(self) -> Html:
        described = "; ".join(map(_describe, self.strips[:20]))
        return element(
            "svg",
            NEWLINE,
            self._axis(),
            self._zero() if self.with_zero else None,
            map(self._strip, range(len(self.strips))),
            viewBox=f"0 0 {_WIDTH} {self.bottom + _AXIS}",
            role="img",
            aria_label=f"{say_name(self.title, 60)}: {described}.",
        )

    def _x(self, score: float) -> float:
        share = float(self.scale.place(score))
        return round(self.left + share * (_WIDTH - self.left - _RIGHT), 1)

    def _axis(self) -> Iterator[Html]:
        for value, name in self.scale.ticks():
            x = self._x(value)
            line = element("line", x1=x, x2=x, y1=4, y2=self.bottom)
            yield element("g", line, class_="rule")
            yield element(
                "text", name, x=x, y=self.bottom + 16, text_anchor="middle"
            )
            yield NEWLINE
        yield element(
            "text",
            say_name(self.title, 60),
            x=(self.left + _WIDTH - _RIGHT) // 2,
            y=self.bottom + _AXIS - 8,
            text_anchor="middle",
            class_="title",
        )
        yield NEWLINE

    def _zero(self) -> Html:
        x = self._x(0.0)
        line = element("line", x1=x, x2=x, y1=4, y2=self.bottom, class_="zero")
        return join(line, NEWLINE)

    def _strip(self, row: int) -> Html:
        """The name, the dots, and above them the mean with its interval."""
        strip, middle = self.strips[row], _ROW * row + 44
        kind = (
            "other" if strip.color is None else f"c{strip.color % NUM_COLORS}"
        )
        name = element(
            "text",
            say_name(strip.name, _LONGEST_NAME),
            x=self.left - 12,
            y=middle,
            dy=4,
            text_anchor="end",
        )
        return join(
            name if len(self.strips) > 1 else None,
            NEWLINE,
            element("g", self._dots(strip, middle), class_=f"dots {kind}"),
            NEWLINE,
            element("g", self._mean(strip, middle), class_="bar"),
            NEWLINE,
        )

    def _dots(self, strip: Strip, middle: int) -> Iterator[Html]:
        order = thin_out(strip.scores, self.most_dots)
        steps = spread_dots(self.scale.place(strip.scores[order]))
        size = min(7.0, 22 / max(float(np.abs(steps).max()), 1.0))
        for index, step in zip(order.tolist(), steps.tolist(), strict=True):
            score = float(strip.scores[index])
            yield element(
                "circle",
                element("title", f"seed {strip.seeds[index]}: {score:.6g}"),
                cx=self._x(score),
                cy=f"{middle - size * step:.1f}",
                r=3 if size > 4 else 2,
            )

    def _mean(self, strip: Strip, middle: int) -> Iterator[Html]:
        x, y = self._x(strip.center), middle - 29
        for bound in (strip.low, strip.high):
            if math.isfinite(bound):
                end = self._x(bound)
                # An open mean is empty: no line runs through it.
                start = x + math.copysign(4, end - x)
                if abs(end - x) > 4:
                    yield element("line", x1=start, x2=end, y1=y, y2=y)
                yield element("line", x1=end, x2=end, y1=y - 4, y2=y + 4)
        kind = "mean" if strip.settled else "mean open"
        yield element("circle", cx=x, cy=y, r=4, class_=kind)
        if strip.median is not None:
            x = self._x(strip.median)
            yield element(
                "line",
                x1=x,
                x2=x,
                y1=middle - 24,
                y2=middle + 24,
                class_="median",
            )


def _describe(strip: Strip) -> str:
    """A strip in words, for those who hear the page."""
    number = count_of(len(strip.scores), "dot")
    bounds = ""
    if math.isfinite(strip.low):
        bounds = f" {write_interval(strip.low, strip.high)}"
    center = write_number(strip.center, (strip.high - strip.low) / 2)
    return f"{say_name(strip.name)}, {number}, mean {center}{bounds}"
