"""HTML whose every text is escaped unless this module made it."""

from __future__ import annotations

import html
from collections.abc import Iterable

from keras_repro.phrases import clean

_VOID = ("meta", "br")
_LONGEST = 1000


class Html(str):
    """A string that is HTML already; nobody else's text may become one."""

    __slots__ = ()


NEWLINE = Html("\n")

Child = str | None | Iterable["Child"]


def element(name: str, /, *children: Child, **attributes: object) -> Html:
    """Make an element.

    Args:
        name: The element's name.
        *children: `Html` is taken as it is; any other string is made printable
            and escaped; `None` is left out; of iterables, each item.
        **attributes: Their values, escaped unless they are `Html`; `None` is
            left out. A trailing
            underscore is dropped, others become hyphens: `class_`,
            `aria_label`.

    Example:
        >>> print(element("p", "1 < 2", title='"', class_="note"))
        <p title="&quot;" class="note">1 &lt; 2</p>
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{join(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
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
