"""Distances over the epochs as an SVG picture, without any library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keras_repro.common.text import clean, count_of
from keras_repro.reports.html import NEWLINE, NUM_COLORS, Html, element, join
from keras_repro.runs.distances import Axis, Grid, count_epochs, find_axis
from keras_repro.runs.wording import say_distance

_WIDTH, _HEIGHT = 760, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 92, 16, 14, 44
_MOST_NAMED = 16
_MOST_DOTS = 600
_MOST_EPOCH_TICKS = 10


def draw_chart(grid: Grid, first: int | None) -> Html | None:
    """Draw one line per layer: its distance over the epochs."""
    layers = grid.layers()
    lines = [layers.line(part) for part in layers.parts]
    axis = find_axis([one for line in lines for one in line])
    if axis is None:
        return None
    chart = _Chart(layers, axis, first, _rank(layers))
    return element(
        "figure",
        element("div", chart.draw(), class_="scroll", tabindex=0),
        NEWLINE,
        chart.legend(),
        class_="chart",
    )


def _rank(grid: Grid) -> dict[str, int]:
    """The layers to name: those farthest apart, in the model's order."""
    differing = [part for part in grid.parts if grid.differs(part)]
    farthest = sorted(differing, key=grid.farthest, reverse=True)[:_MOST_NAMED]
    named = [part for part in differing if part in set(farthest)]
    return {part: number for number, part in enumerate(named)}


@dataclass(frozen=True)
class _Chart:
    grid: Grid
    axis: Axis
    first: int | None
    ranks: dict[str, int]

    def draw(self) -> Html:
        bottom = _HEIGHT - _BOTTOM
        label = (
            "Relative difference of the norms of "
            f"{count_of(len(self.grid.parts), 'layer')} over the epochs, on a "
            f"scale of powers of ten from {self.axis.low} to {self.axis.high}. "
            "The table below holds the same numbers."
        )
        middle = (_TOP + bottom) / 2
        return element(
            "svg",
            join(NEWLINE, self._levels(), self._epochs(), NEWLINE),
            element(
                "text",
                "relative difference of norms",
                transform=f"translate(14 {middle:.0f}) rotate(-90)",
                text_anchor="middle",
                class_="title",
            ),
            self._lines(),
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            role="img",
            aria_label=label,
        )

    def legend(self) -> Html:
        """The names of the lines, and what the others are."""
        others = len(self.grid.parts) - len(self.ranks)
        items = [
            element("li", _swatch(rank), part, NEWLINE)
            for part, rank in self.ranks.items()
        ]
        note = None
        if others:
            noun = count_of(others, "layer")
            more = "other " if items else ""
            text = f"{noun.replace(' ', f' {more}', 1)} in grey"
            note = element("li", _swatch(None), text)
        return element("figcaption", element("ul", items, note))

    def _x(self, epoch: int | None) -> float:
        done = [count_epochs(one) for one in self.grid.epochs]
        share = (count_epochs(epoch) - done[0]) / max(done[-1] - done[0], 1)
        if len(done) == 1:
            share = 0.5
        return _LEFT + 10 + share * (_WIDTH - _LEFT - _RIGHT - 20)

    def _y(self, place: float) -> float:
        bottom, top = self.axis.bottom, self.axis.top
        share = (place - bottom) / (top - bottom)
        return _HEIGHT - _BOTTOM - 8 - share * (_HEIGHT - _TOP - _BOTTOM - 16)

    def _levels(self) -> Iterator[Html]:
        """Lines across: powers of ten, and the levels that are none."""
        for power in self.axis.ticks():
            exponent = element("tspan", str(power), dy=-5, font_size=9)
            yield self._level(power, join("10", exponent), "grid")
        for place, name in self.axis.levels():
            yield self._level(place, name, "grid level")

    def _level(self, place: float, name: str, kind: str) -> Html:
        y = f"{self._y(place):.1f}"
        return join(
            element(
                "line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_=kind
            ),
            element("text", name, x=_LEFT - 8, y=y, dy=4, text_anchor="end"),
            NEWLINE,
        )

    def _epochs(self) -> Iterator[Html]:
        """Numbers below, and a line down where the runs part."""
        bottom = _HEIGHT - _BOTTOM
        if self.first in self.grid.epochs:
            x = f"{self._x(self.first):.1f}"
            yield element(
                "line",
                element("title", "first mismatch"),
                x1=x,
                x2=x,
                y1=_TOP,
                y2=bottom,
                class_="first",
            )
        step = -(-len(self.grid.epochs) // _MOST_EPOCH_TICKS)
        for epoch in self.grid.epochs[::step]:
            name = "start" if epoch is None else str(epoch + 1)
            x = f"{self._x(epoch):.1f}"
            yield element(
                "text", name, x=x, y=bottom + 18, text_anchor="middle"
            )
        yield element(
            "text",
            "epoch",
            x=(_LEFT + _WIDTH - _RIGHT) // 2,
            y=_HEIGHT - 6,
            text_anchor="middle",
            class_="title",
        )

    def _lines(self) -> Iterator[Html]:
        """The named lines above the others."""
        with_dots = len(self.grid.parts) * len(self.grid.epochs) <= _MOST_DOTS
        for part in sorted(self.grid.parts, key=lambda one: one in self.ranks):
            kind = _line_class(self.ranks.get(part))
            yield element(
                "g",
                element("title", part),
                self._paths(part),
                self._dots(part) if with_dots else None,
                class_=kind,
            )
            yield NEWLINE

    def _paths(self, part: str) -> Iterator[Html]:
        """A line for each stretch of epochs that were all measured."""
        stretch: list[str] = []
        for epoch, one in [
            *zip(self.grid.epochs, self.grid.line(part), strict=True),
            (None, None),
        ]:
            place = self.axis.place(one)
            if place is not None:
                stretch.append(f"{self._x(epoch):.1f},{self._y(place):.1f}")
                continue
            if stretch:
                if len(stretch) == 1:  # A round end makes it a dot.
                    stretch *= 2
                yield element("polyline", points=Html(" ".join(stretch)))
            stretch = []

    def _dots(self, part: str) -> Iterator[Html]:
        for epoch, one in zip(
            self.grid.epochs, self.grid.line(part), strict=True
        ):
            place = self.axis.place(one)
            if one is None or place is None or one.distance == 0:
                continue
            moment = "start" if epoch is None else f"epoch {epoch + 1}"
            size = say_distance(one.distance)
            yield element(
                "circle",
                element("title", f"{clean(part)}, {moment}: {size}"),
                cx=f"{self._x(epoch):.1f}",
                cy=f"{self._y(place):.1f}",
                r=2.6,
            )


def _swatch(rank: int | None) -> Html:
    line = element("line", x1=1, x2=27, y1=5, y2=5)
    group = element("g", line, class_=_line_class(rank))
    return element("svg", group, class_="swatch", aria_hidden="true")


def _line_class(rank: int | None) -> str:
    """Colour and dashes of a line; grey for those without a name."""
    if rank is None:
        return "other"
    color, dashes = rank % NUM_COLORS, (rank // NUM_COLORS + rank) % 3
    return f"c{color} dash{dashes}"
