"""A document of every part, in each of the ways to show it."""

import re
import sys

import pytest

from keras_repro.reports import document as parts
from keras_repro.reports.figures import make_safe, plot, write_svg
from keras_repro.reports.page import write_fragment, write_page
from keras_repro.reports.result import Result
from keras_repro.reports.text import write_text
from tests.browsing import read_html
from tests.checkout import run_command

# An element, an attribute's end, codes for a terminal, a formula, markup of
# rich, another direction of writing, a surrogate, a lookup of jinja2.
HOSTILE = (
    "</title></svg><script>document.title='owned'</script>\" onload='x' "
    "\x1b[2J\x9b31m\r\n $x^{ [red]a[/red] \u202e \ud800 {{ parts }} "
    "]]> --> &lt;"
)
LETTERS = "字 שלום é"


def make_document(name="a"):
    """One of each part, all of one text."""

    def draw(figure):
        axes = figure.subplots()
        axes.set_xlabel(make_safe(name, 200))

    def choose(most_rows, most_columns):
        cells = (parts.Cell(f"sign {name}", "e", name), None)
        row = parts.Row(f"row {name}", cells[:most_columns], is_marked=True)
        rows = (row, *[parts.Row("", ())] * 99)[:most_rows]
        return parts.Cells(("", name), rows, f"left out {name}")

    figure = parts.Figure(draw, name, f"caption {name}", (4.0, 3.0))
    return parts.Document(
        title=name,
        parts=(
            parts.Verdict(f"verdict {name}", "within", "!"),
            parts.Section(
                f"heading {name}",
                (
                    parts.Facts(((f"label {name}", name), ("other", "1"))),
                    parts.Table(("", name), ((f"row {name}", name),)),
                    figure,
                ),
                f"quiet {name}",
            ),
            parts.Verdicts((parts.Verdict(f"listed {name}", "equal", "✓"),)),
            parts.Sentences((f"sentence {name}", "second")),
            parts.Note(f"note {name}"),
            parts.Folded(f"summary {name}", (parts.Lines((name, "two")),)),
            parts.Section(
                f"named {name}",
                (
                    parts.Items((parts.Item(f"item {name}", (name, "2")),)),
                    parts.Items((parts.Item(name, (name,), 3, name),)),
                    parts.Sentences((f"dashed {name}",)),
                    parts.Facts(((f"fact {name}", "1"), ("two", "2"))),
                    parts.Folded(f"all {name}", (), f"brief {name}"),
                ),
                f"beside {name}",
                is_named=True,
            ),
            parts.Matrix(f"cells {name}", (("e", name),), choose),
        ),
        appendix=(parts.Note(f"appendix {name}"),),
        footer=f"footer {name}",
    )


# --- what is shown -----------------------------------------------------------


def test_text():
    """Headings and folded parts with words for a terminal, and no picture."""
    assert write_text(make_document()).split("\n") == [
        "verdict a",
        "",
        "  label a:  a",
        "  other:    1",
        "       a",
        "row a  a",
        "",
        "- listed a",
        "",
        "sentence a",
        "second",
        "",
        "note a",
        "",
        "named a: beside a",
        "  item a",
        "      a",
        "      2",
        "  3. a",
        "     a",
        "     Fix: a",
        "  - dashed a",
        "  fact a: 1",
        "  two:    2",
        "  brief a",
    ]


def test_page_and_fragment():
    """A notebook has all parts, and a page the appendix too."""
    pytest.importorskip("matplotlib")
    page, fragment = (
        write_page(make_document()),
        write_fragment(make_document()),
    )
    for html in (page, fragment):
        reader = read_html(html)
        words = ("verdict", "heading", "quiet", "label", "row", "caption")
        words += ("listed", "sentence", "note", "summary", "named", "beside")
        words += ("item", "dashed", "fact", "all", "cells", "sign", "left out")
        for word in words:
            assert f"{word} a" in "".join(reader.texts)
        assert '<div class="verdict within">' in html
        assert '<li class="equal">' in html
        assert "<pre>\na\ntwo\n</pre>" in html
        assert {"svg", "details", "table"} <= {*reader.tags}
    assert "<title>a</title>" in page
    assert "<h1>verdict a</h1>" in page
    assert "appendix a" in page
    assert "footer a</footer>" in page
    assert "Content-Security-Policy" in page
    assert fragment.startswith('<div class="keras-repro fragment">')
    assert '<p class="headline">verdict a</p>' in fragment
    assert "appendix a" not in fragment
    # As many cells as each has room for.
    assert page.count('<th scope="row"></th></tr>') == 99
    assert fragment.count('<th scope="row"></th></tr>') == 29
    assert '<tr class="first">' in page
    for html in (page, fragment):
        assert "<td class=e>sign a a</td><td></td>" in html
        assert "brief a" not in html


def test_a_page_without_matplotlib_says_so(monkeypatch):
    """A sentence in place of the picture; all else is there."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = write_page(make_document())
    read_html(page)
    assert "<svg" not in page
    assert "The picture needs Matplotlib, which is not installed" in page
    assert "note a" in page
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"keras-repro\[plot\]"):
        plot(make_document().parts[1].parts[2])


def test_many_entries_are_cut():
    """The first ones, the next ones folded, and how many there are besides."""
    shown = parts.cut(parts.Sentences, "abcdefg", 2, 5)
    assert [*shown] == [
        parts.Sentences(("a", "b")),
        parts.Folded(
            "and 5 more",
            (parts.Sentences(("c", "d", "e")), parts.Note("and 2 more")),
            "and 5 more",
        ),
    ]
    assert [*parts.cut(parts.Sentences, "ab", 2, 5)] == [
        parts.Sentences(("a", "b"))
    ]


# --- pictures ----------------------------------------------------------------


def figure_of(name="a"):
    """The picture of the document."""
    return make_document(name).parts[1].parts[2]


def test_pictures_are_alike_wherever_they_are_drawn(run_python):
    """Here again, in a style of the person's own, and in a fresh process."""
    matplotlib = pytest.importorskip("matplotlib")
    first = write_svg(figure_of())
    assert first == write_svg(figure_of())
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30}):
        before = dict(matplotlib.rcParams)
        assert first == write_svg(figure_of())
        assert dict(matplotlib.rcParams) == before
    code = (
        "import sys\nfrom tests.reports.test_document import *\n"
        "sys.stdout.write(write_svg(figure_of()))"
    )
    assert run_python("-c", code).stdout == first
    assert write_svg(figure_of("b")) != first


def test_pictures_refer_to_nothing_outside():
    """No address, no date, no rule for the page around, no second title."""
    pytest.importorskip("matplotlib")
    svg = write_svg(figure_of())
    assert svg.startswith("<svg ")
    assert {*re.findall(r"https?://[^\"]*", svg)} == {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    assert {*re.findall(r'href="(.)', svg)} == {"#"}
    assert "metadata" not in svg
    assert re.search(r"<style[^>]*>[^<]", svg) is None
    assert "caption" not in svg


def test_a_plot_has_the_title_and_the_caption():
    """In lines that the picture holds."""
    pytest.importorskip("matplotlib")
    figure = plot(figure_of("word " * 30))
    assert max(map(len, figure.get_suptitle().split("\n"))) <= 38
    assert figure.get_supxlabel().startswith("caption word")


# --- hostile texts -----------------------------------------------------------


def test_hostile_text_in_a_terminal():
    """Visible text alone, in which the name can be told."""
    text = write_text(make_document(HOSTILE))
    assert all(map(str.isprintable, text.split("\n")))
    assert "[red]a[/red]" in text
    assert r"\x1b[2J" in text
    assert "\u202e" not in text


@pytest.mark.parametrize("write", [write_page, write_fragment])
def test_hostile_text_in_html(write):
    """No element, attribute or control code comes of it."""
    html, plain = write(make_document(HOSTILE)), write(make_document())
    assert all(map(str.isprintable, html.split("\n")))
    hostile, harmless = read_html(html), read_html(plain)
    assert hostile.tags == harmless.tags
    assert hostile.names == harmless.names
    assert "{{ parts }}" in "".join(hostile.texts)
    # The twin: what is not escaped would be seen.
    assert (
        "script" in read_html(plain.replace("note a", "<script></script>")).tags
    )


def test_letters_of_all_languages_are_kept():
    """Printable text comes through whole, in pictures too."""
    document = make_document(LETTERS)
    assert LETTERS in write_text(document)
    assert f"<title>{LETTERS}</title>" in write_page(document)
    pytest.importorskip("matplotlib")
    assert LETTERS in write_svg(figure_of(LETTERS))


def test_hostile_page_in_a_browser(browse):
    """Its title stays its own."""
    dom = browse(write_page(make_document(HOSTILE)))
    title = re.search("<title>(.*?)</title>", dom)[1]
    assert title.startswith("&lt;/title&gt;")
    assert "<script" not in dom


# --- results -----------------------------------------------------------------


class Shown(Result):
    """A result that describes itself, and nothing more."""

    def describe(self):
        return make_document()

    def _list_values(self):
        return {"a": 1}


def test_a_result_is_shown_everywhere(tmp_path):
    """All of it comes from the document."""
    shown = Shown()
    assert str(shown) == write_text(make_document())
    assert shown._repr_html_() == write_fragment(make_document())
    shown.to_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    assert page == write_page(make_document())
    pytest.importorskip("matplotlib")
    assert shown.plot().get_suptitle() == "a"


def test_a_result_as_json(tmp_path):
    """With a path it is written too; a wrong path is refused."""
    assert Shown().to_json() == {"a": 1}
    assert Shown().to_json(tmp_path / "a.json") == {"a": 1}
    assert (tmp_path / "a.json").read_text() == '{\n "a": 1\n}\n'
    with pytest.raises(TypeError, match="path"):
        Shown().to_json(3)
    with pytest.raises(TypeError, match="path"):
        Shown().to_html(3)


def test_nothing_is_loaded_before_it_is_needed():
    """The package and text load no library of pages or pictures."""
    code = (
        "import sys, keras_repro as kr\n"
        "print(kr.TrialResults(seeds=[1], scores={'a': [1.0]}))\n"
        "print({'jinja2', 'matplotlib', 'rich'} & {*sys.modules})\n"
        "kr.TrialResults(seeds=[1], scores={'a': [1.0]})._repr_html_()\n"
        "print('jinja2' in sys.modules)"
    )
    lines = run_command(sys.executable, "-c", code).stdout.splitlines()
    assert lines[-2:] == ["set()", "True"]
