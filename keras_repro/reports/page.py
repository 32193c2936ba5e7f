"""Any document as HTML: a page that needs nothing else, a notebook's output.

The templates beside it hold all HTML, and jinja2 escapes every text in it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from keras_repro.common.text import clean
from keras_repro.reports.document import Document, Figure, Part
from keras_repro.reports.figures import write_svg

if TYPE_CHECKING:
    from jinja2 import Environment

_LONGEST = 1000
_NO_PICTURE = (
    "The picture needs Matplotlib, which is not installed: "
    "`pip install 'keras-repro[plot]'`."
)


def write_page(document: Document) -> str:
    """A document as a page of its own."""
    parts = (*document.parts, *document.appendix)
    return _fill("page.html", document=document, parts=parts, is_page=True)


def write_fragment(document: Document) -> str:
    """A document for a notebook: HTML without a page around it."""
    return _fill("fragment.html", parts=document.parts, is_page=False)


def _fill(template: str, **values: Any) -> str:
    return _load_templates().get_template(template).render(values)


@functools.cache
def _load_templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("keras_repro.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_make_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.globals.update(kind_of=_name_kind, draw=_draw)
    return templates


def _make_printable(value: Any) -> Any:
    """Nothing that a file says moves a cursor or turns the writing."""
    return value if hasattr(value, "__html__") else clean(value, _LONGEST)


def _name_kind(part: Part) -> str:
    return type(part).__name__


def _draw(figure: Figure) -> str:
    """A figure as SVG; without Matplotlib a sentence."""
    try:
        return _trust(write_svg(figure))
    except ImportError:
        return _NO_PICTURE


def _trust(written: str) -> str:
    from markupsafe import Markup

    return Markup(written)
