"""Which part of a model agrees when: a table of epoch by layer."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from keras_repro.reports.document import Cell, Cells, Matrix, Row
from keras_repro.runs.distances import Grid, arrange, thin_epochs
from keras_repro.runs.mismatch import EQUAL, WITHIN
from keras_repro.runs.wording import find_decisive, name_role, say_distance

if TYPE_CHECKING:
    from keras_repro.runs.agreement import Agreement
    from keras_repro.runs.comparison import Comparison


_KEY = (
    ("e", "= equal"),
    ("w", "≈ within tolerance"),
    ("d1", "≠ different, below 1e-6"),
    ("d2", "≠ below 1e-3"),
    ("d3", "≠ farther, or not measured"),
)


def make_matrix(comparison: Comparison) -> Matrix:
    """The agreements of two runs."""
    return Matrix("Epoch by layer", _KEY, partial(_choose, comparison))


def _choose(comparison: Comparison, most_epochs: int, most_parts: int) -> Cells:
    """The first mismatch always; parts that differ before those that do not."""
    whole = arrange(comparison.agreements)
    grid = thin_epochs(whole, comparison, most_epochs)
    ordered = sorted(grid.parts, key=lambda part: not grid.differs(part))
    kept = set(ordered[:most_parts])
    grid = grid.keep(part for part in grid.parts if part in kept)
    found = find_decisive(comparison)
    rows = []
    for epoch in grid.epochs:
        is_first = found is not None and epoch == found.epoch
        name = "start" if epoch is None else str(epoch + 1)
        cells = (grid.cells.get((epoch, part)) for part in grid.parts)
        rows.append(
            Row(
                name + " ◂ first mismatch" * is_first,
                tuple(map(_make_cell, cells)),
                is_first,
            )
        )
    head = ("Epoch", *map(name_role, grid.parts))
    return Cells(head, tuple(rows), _say_left_out(whole, grid))


def _say_left_out(whole: Grid, grid: Grid) -> str:
    texts = []
    if len(grid.epochs) < len(whole.epochs):
        texts.append(
            f"Shown are {len(grid.epochs)} of {len(whole.epochs)} moments, "
            "evenly chosen, with the first mismatch and its neighbours."
        )
    if len(grid.parts) < len(whole.parts):
        texts.append(
            f"Shown are {len(grid.parts)} of {len(whole.parts)} parts, those "
            "that differ before those that are equal."
        )
    return " ".join(texts)


def _make_cell(one: Agreement | None) -> Cell | None:
    """A sign and a distance; of different, farther is darker."""
    if one is None:
        return None
    if one.status == EQUAL:
        return Cell("=", "e")
    known = "" if one.distance is None else say_distance(one.distance)
    if one.status == WITHIN:
        return Cell("≈", "w", known)
    far = math.inf if one.distance is None else one.distance
    shade = "d3" if not far < 1e-3 else "d2" if far >= 1e-6 else "d1"
    return Cell("≠", shade, known)
