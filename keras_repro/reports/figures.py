"""What all figures by Matplotlib share (extra `plot`)."""

from __future__ import annotations

from typing import Any

from keras_repro.common.text import clean


def new_figure(width: float, height: float, layout: Any = None) -> Any:
    """A figure, without pyplot: nothing global changes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need Matplotlib, which is not installed. Install it with "
            "`pip install 'keras-repro[plot]'`."
        ) from error
    return Figure(figsize=(width, height), layout=layout)


def make_safe(name: str, longest: int = 40) -> str:
    """A name that Matplotlib does not read as a formula."""
    return clean(name, longest).replace("$", r"\$")


def say_instead(axes: Any, text: str) -> None:
    """A sentence where there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", va="center")
    axes.set_axis_off()
