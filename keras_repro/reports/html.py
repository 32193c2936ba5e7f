"""HTML whose every text is escaped unless this module made it; whole pages."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from keras_repro.common.text import clean, say_more
from keras_repro.reports.page import fill_fragment, fill_page

NUM_COLORS = 8  # Of lines and dots: c0 to c7 of the style sheet.
_LONGEST = 1000


class Html(str):
    """A string that is HTML already; nobody else's text may become one."""

    __slots__ = ()


NEWLINE = Html("\n")

Child = str | None | Iterable["Child"]


def element(name: str, /, *children: Child, **attributes: object) -> Html:
    """Make an element.

    Example:
        >>> print(element("p", "1 < 2", title='"', class_="note"))
        <p title="&quot;" class="note">1 &lt; 2</p>
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{join(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name == "br":
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Join children as `element` does, without an element around them."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(_escape(child))
        elif child is not None:
            parts.append(join(*child))
    return Html("".join(parts))


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)


def _escape(text: str) -> str:
    return html.escape(clean(text, _LONGEST), quote=True)


_FOOTER = (
    "Written by keras-repro. Epochs and batches are counted from 1. What the "
    "runs recorded was compared, and nothing else."
)


# --- around the parts ----------------------------------------------------


def make_page(title: str, *parts: Html | None) -> str:
    """Parts as a page of its own, with the style sheet and a last line."""
    return fill_page(title, _lines(parts), _FOOTER)


def write_fragment(*parts: Html | None) -> str:
    """Parts as one element for a notebook, with the style sheet."""
    return fill_fragment(_lines(parts))


def _lines(parts: Iterable[Html | None]) -> Html:
    """Parts with a line break after each, so that the source can be read."""
    return join(
        NEWLINE, *(join(one, NEWLINE) for one in parts if one is not None)
    )


def make_section(heading: str, *parts: Html | None, quiet: str = "") -> Html:
    """A heading, with more beside it in small, and its parts."""
    more = element("span", f" {quiet}", class_="quiet") if quiet else None
    title = element("h2", heading, more)
    return element("section", title, _lines(parts))


def make_folded(summary: str, *parts: Html | None) -> Html:
    """Parts that show when their summary is clicked on."""
    return element("details", element("summary", summary), _lines(parts))


def make_table(
    head: Sequence[str], rows: Iterable[Iterable[Html]], kind: str
) -> Html:
    """A table that scrolls sideways where it is too wide."""
    titles = [element("th", one, scope="col") for one in head]
    body = [join(element("tr", *row), NEWLINE) for row in rows]
    table = element(
        "table",
        element("thead", element("tr", titles)),
        NEWLINE,
        element("tbody", body),
        class_=kind,
    )
    return element("div", table, class_="scroll", tabindex=0)


def make_list(texts: Iterable[str]) -> Html:
    """A list of sentences."""
    return element("ul", [element("li", one) for one in texts])


def make_verdict(
    kind: str, mark: str, heading: str, text: str, more: Iterable[str] = ()
) -> Html:
    """The box on top: a mark, a sentence, and what it adds."""
    title = element(
        heading, text, class_="headline" if heading == "p" else None
    )
    return element(
        "div",
        element("span", mark, class_="mark", aria_hidden="true"),
        element("div", title, [element("p", one) for one in more]),
        class_=f"verdict {kind}",
    )


def make_more(number: int) -> Html | None:
    """How many were left out, if any were."""
    more = say_more(number)
    return element("p", more, class_="quiet") if more else None
