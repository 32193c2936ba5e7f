"""The table of epoch by layer, coloured by agreement."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from keras_repro.distances import EQUAL, Grid, arrange, thin_out
from keras_repro.markup import NEWLINE, Html, element, join
from keras_repro.phrases import find_decisive, name_role, say_distance

if TYPE_CHECKING:
    from keras_repro.agreements import Agreement
    from keras_repro.comparison import Comparison

MOST_EPOCHS = 100
MOST_PARTS = 240

_WITHIN = "within tolerance"
_FEW_PARTS = 14  # More than these get a column of one sign.
_KEY = (
    ("e", "= equal"),
    ("w", "≈ within tolerance"),
    ("d1", "≠ different, below 1e-6"),
    ("d2", "≠ below 1e-3"),
    ("d3", "≠ farther, or not measured"),
)


def choose_grid(
    comparison: Comparison, most_epochs: int, most_parts: int
) -> Grid:
    """What to show of the agreements of two runs.

    Args:
        comparison: The comparison.
        most_epochs: How many epochs to show at most, the first mismatch and
            its neighbours always among them.
        most_parts: How many parts to show at most; those that differ in the
            epochs shown go before those that are equal.
    """
    grid = arrange(comparison.agreements)
    epochs = list(grid.epochs)
    marked = [
        one.epoch
        for one in (comparison.first_mismatch, comparison.first_beyond)
        if one is not None
    ]
    keep = [epochs.index(one) for one in marked if one in epochs]
    first = grid.find_first()
    if first is not None:
        keep.append(first)
    grid = grid.select(thin_out(len(epochs), keep, most_epochs))
    ordered = sorted(grid.parts, key=lambda part: not grid.differs(part))
    kept = set(ordered[:most_parts])
    return grid.keep(part for part in grid.parts if part in kept)


def write_grid(comparison: Comparison, grid: Grid) -> Html | None:
    """The table of epoch by layer.

    Args:
        comparison: The comparison.
        grid: What to show of it, as `choose_grid` gives it.

    Returns:
        A section; `None` if no epoch is in both runs.
    """
    if not comparison.agreements:
        return None
    key = [element("span", text, class_=kind) for kind, text in _KEY]
    return element(
        "section",
        element("h2", "Epoch by layer"),
        _say_left_out(comparison, grid),
        element("p", *(join(one, " ") for one in key), class_="key quiet"),
        NEWLINE,
        element(
            "div",
            _table(grid, comparison),
            class_="scroll tall",
            tabindex=0,
            role="region",
            aria_label="Epoch by layer",
        ),
        NEWLINE,
    )


def _say_left_out(comparison: Comparison, grid: Grid) -> Html | None:
    num_epochs = len({one.epoch for one in comparison.agreements})
    num_parts = len({one.part for one in comparison.agreements})
    texts = []
    if len(grid.epochs) < num_epochs:
        texts.append(
            f"Shown are {len(grid.epochs)} of {num_epochs} moments, evenly "
            "chosen, with the first mismatch and its neighbours."
        )
    if len(grid.parts) < num_parts:
        texts.append(
            f"Shown are {len(grid.parts)} of {num_parts} parts, those that "
            "differ before those that are equal."
        )
    return element("p", " ".join(texts), class_="quiet") if texts else None


def _table(grid: Grid, comparison: Comparison) -> Html:
    is_dense = len(grid.parts) > _FEW_PARTS
    found = find_decisive(comparison)
    head = [element("th", name_role(part), scope="col") for part in grid.parts]
    rows = []
    for epoch in grid.epochs:
        is_first = found is not None and epoch == found.epoch
        name = "start" if epoch is None else str(epoch + 1)
        cells = [
            _cell(grid.cells.get((epoch, part)), is_dense=is_dense)
            for part in grid.parts
        ]
        title = element(
            "th", name + " ◂ first mismatch" * is_first, scope="row"
        )
        kind = "first" if is_first else None
        rows.append(join(element("tr", title, cells, class_=kind), NEWLINE))
    return element(
        "table",
        element(
            "thead", element("tr", element("th", "Epoch", scope="col"), head)
        ),
        NEWLINE,
        element("tbody", rows),
        class_="grid dense" if is_dense else "grid",
    )


def _cell(one: Agreement | None, *, is_dense: bool) -> Html:
    """A sign and a distance; in a dense table the distance is a tooltip."""
    if one is None:
        return Html("<td></td>")
    if one.status == EQUAL:
        return Html("<td class=e>=</td>")
    within = one.status == _WITHIN
    mark, kind = ("≈", "w") if within else ("≠", _shade(one.distance))
    size = say_distance(one.distance)
    if is_dense:
        return Html(f'<td class={kind} title="{size}">{mark}</td>')
    text = mark if one.distance is None else f"{mark} {size}"
    return Html(f"<td class={kind}>{text}</td>")


def _shade(distance: float | None) -> str:
    """Three shades of different; farther is darker."""
    if distance is None or not math.isfinite(distance) or distance >= 1e-3:
        return "d3"
    return "d2" if distance >= 1e-6 else "d1"
