"""What all results have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keras_repro.common.checks import check_path
from keras_repro.common.files import write_whole
from keras_repro.reports.document import Document, Figure, Part, Section
from keras_repro.reports.text import write_text


class Described:
    """What describes itself once, and is shown everywhere."""

    def describe(self) -> Document:
        """All that the result says of itself, in parts not yet rendered."""
        raise NotImplementedError

    def _list_values(self) -> dict[str, Any]:
        """What `to_json` gives."""
        raise NotImplementedError

    def to_json(self, path: str | Path | None = None) -> dict[str, Any]:
        """The result as plain values that strict JSON can hold.

        Args:
            path: A file to write them to as well, or `None`.

        Raises:
            TypeError: If `path` is not a path.
            OSError: If the file cannot be written.
        """
        if path is not None:
            path = check_path("path", path, 'Pass a name such as "found.json".')
        values = self._list_values()
        if path is not None:
            text = json.dumps(values, indent=1, allow_nan=False)
            write_whole(path, f"{text}\n")
        return values

    def to_html(self, path: str | Path) -> None:
        """Write the result as one page, which loads nothing from elsewhere.

        Args:
            path: The file. Pictures are drawn if Matplotlib is installed
                (extra `plot`); else the page says that they are missing.

        Raises:
            TypeError: If `path` is not a path.
            OSError: If the file cannot be written.
        """
        from keras_repro.reports.page import write_page

        target = check_path("path", path, 'Pass a name such as "found.html".')
        write_whole(target, write_page(self.describe()))

    def __str__(self) -> str:
        """What a terminal shows."""
        return write_text(self.describe())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from keras_repro.reports.page import write_fragment

        return write_fragment(self.describe())


class Result(Described):
    """A result of which there is a picture."""

    def plot(self) -> Any:
        """Draw the result.

        Returns:
            A `matplotlib.figure.Figure`, not shown and not saved.

        Raises:
            ImportError: If Matplotlib is not installed (extra `plot`).
        """
        from keras_repro.reports.figures import plot

        return plot(_find_figure(self.describe().parts))


def _find_figure(parts: tuple[Part, ...]) -> Figure:
    """The first picture of a document."""
    inner = [one.parts if isinstance(one, Section) else (one,) for one in parts]
    return next(
        one for some in inner for one in some if isinstance(one, Figure)
    )
