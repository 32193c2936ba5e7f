"""Figures by Matplotlib (extra `plot`): to look at, and as SVG in pages."""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import Any

from keras_repro.common.text import clean
from keras_repro.reports.document import Figure

_LONGEST = 1000
# What Matplotlib sets for all of a page; `report.css` has it for its pictures.
_STYLE = "*{stroke-linejoin: round; stroke-linecap: butt}"


def plot(part: Figure) -> Any:
    """A figure with its title and caption."""
    figure = _draw(part)
    title, caption = (
        textwrap.fill(make_safe(one, _LONGEST), int(per_inch * part.size[0]))
        for one, per_inch in ((part.title, 9.5), (part.caption, 12))
    )
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(caption, fontsize=9, color="0.3")
    return figure


def write_svg(part: Figure) -> str:
    """A figure as an SVG element, alike wherever and whenever it is drawn."""
    from matplotlib import style

    salt = clean(part.title, _LONGEST)
    fixed = {"svg.fonttype": "none", "svg.hashsalt": salt}
    written = io.StringIO()
    with style.context(["default", fixed]), warnings.catch_warnings():
        # Of letters that its font lacks; the browser has more fonts.
        warnings.simplefilter("ignore")
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        _draw(part).savefig(written, format="svg", metadata=metadata)
    text = written.getvalue()
    return text[text.index("<svg") :].replace(_STYLE, "")


def _draw(part: Figure) -> Any:
    figure = new_figure(*part.size)
    part.draw(figure)
    return figure


def new_figure(width: float, height: float) -> Any:
    """A figure, without pyplot: nothing global changes."""
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise ImportError(
            "Plots need Matplotlib, which is not installed. Install it with "
            "`pip install 'keras-repro[plot]'`."
        ) from error
    return Canvas(figsize=(width, height), layout="constrained")


def make_safe(name: str, longest: int = 40) -> str:
    """A name that Matplotlib does not read as a formula."""
    return clean(name, longest).replace("$", r"\$")


def say_instead(axes: Any, text: str) -> None:
    """A sentence where there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", va="center")
    axes.set_axis_off()
