"""The page in a real browser, without a display."""

import http.server
import re
import threading
from types import SimpleNamespace

import pytest

from keras_repro.reports import page as pages
from keras_repro.runs.mismatch import DIFFERENT, EQUAL, WITHIN
from tests.data.reports import examples


def write_page(result):
    """What `to_html` writes."""
    return pages.write_page(result.describe())


@pytest.fixture
def server(tmp_path):
    """A server of the test's folder that remembers what was asked of it."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield SimpleNamespace(
            address=f"http://127.0.0.1:{one.server_port}", asked=asked
        )
        one.shutdown()


def _text_of(dom, tag):
    found = re.search(rf"<{tag}[^>]*>(.*?)</{tag}>", dom, re.DOTALL)
    return re.sub(r"<[^>]+>", "", found[1])


def test_page_of_different_runs(browse):
    """The browser shows the verdict, the table, the chart and its lines."""
    agreements = tuple(examples.make_agreements(6, 20))
    dom = browse(write_page(examples.make_comparison(agreements=agreements)))
    place = "Different from epoch 3, batch 10 on"
    expected = f"{place}: first difference in random state."
    assert _text_of(dom, "h1") == expected
    grid = dom.split('<table class="grid">')[1].split("</table>")[0]
    assert grid.count("<tr") == 22
    for kind in ("e", "d1", "d2", "d3"):
        assert f'<td class="{kind}">' in grid
    assert len(re.findall(r"<text[^>]*>layers\.\d</text>", dom)) == 6
    assert dom.count('<tr class="first">') == 1


def test_page_of_equal_runs(browse):
    """The twin: no mismatch, no chart, and every cell equal."""
    agreements = tuple(examples.make_agreements(6, 20, part_at=99))
    comparison = examples.make_comparison(EQUAL, agreements=agreements)
    dom = browse(write_page(comparison))
    assert _text_of(dom, "h1") == "Bitwise equal at 21 moments."
    assert dom.count('<td class="e">') == 21 * 9
    assert "First mismatch" not in dom
    assert "<svg" not in dom


def test_page_of_runs_within_tolerance(browse):
    """Cells within the tolerance have a sign and a class of their own."""
    agreements = tuple(examples.make_agreements(3, 5, status=WITHIN))
    comparison = examples.make_comparison(WITHIN, agreements=agreements)
    dom = browse(write_page(comparison))
    assert _text_of(dom, "h1").startswith("Within tolerance (rtol 1e-05)")
    assert '<td class="w">≈' in dom
    assert not re.search(r'<td class="d\d">', dom)


@pytest.mark.parametrize("num_layers", [3, 200])
def test_page_fits_a_phone(measure, num_layers):
    """Nothing but tables and the chart scrolls sideways; colours are on."""
    agreements = tuple(examples.make_agreements(num_layers, 30))
    page = write_page(examples.make_comparison(agreements=agreements))
    found = measure(page)
    assert int(found["width"]) <= 360
    assert int(found["svg"]) > 100
    assert found["equal"] != found["different"]
    assert "rgba(0, 0, 0, 0)" not in (found["equal"], found["different"])


def test_too_wide_a_page_would_be_found(measure):
    """The twin: the probe sees a page that is wider than the phone."""
    page = write_page(examples.make_comparison())
    wide = page.replace("<main>", '<main><div style="width:900px">x</div>')
    assert int(measure(wide)["width"]) > 360


@pytest.mark.parametrize("written", ["page", "groups"])
def test_hostile_names_run_nothing(measure, written):
    """The title stays the page's own, and long names do not widen it."""
    comparison = examples.make_hostile()
    document = write_page(comparison)
    if written == "groups":
        runs = (comparison.a, comparison.b)
        document = write_page(
            examples.RunGroups(
                runs=runs, groups=((0,), (1,)), comparisons=(comparison,)
            )
        )
    found = measure(document)
    assert found["title"] != "owned"
    assert int(found["width"]) <= 360


@pytest.mark.parametrize("with_policy", [True, False])
def test_policy_forbids_scripts_and_network(browse, server, with_policy):
    """Even if escaping failed, nothing would run and nothing be asked for."""
    page = write_page(examples.make_comparison())
    leak = f"{server.address}/leak"
    page = page.replace(
        "</main>",
        f'<script>document.title = "owned"</script><img src="{leak}-image">'
        f'<link rel="stylesheet" href="{leak}-style"></main>',
    )
    if not with_policy:
        page = re.sub(r"<meta [^>]*Content-Security-Policy[^>]*>", "", page)
    dom = browse(page, address=f"{server.address}/page.html")
    asked = [path for path in server.asked if "page.html" not in path]
    assert "/page.html" in server.asked
    assert (_text_of(dom, "title") == "owned") != with_policy
    assert any("leak" in path for path in asked) != with_policy
    assert (asked == []) == with_policy


@pytest.mark.slow
def test_fragment_leaves_the_rest_alone(browse):
    """A notebook's own elements come out as without the fragment."""
    around = (
        "<!DOCTYPE html><meta charset='utf-8'><title>t</title>{}<table><tr>"
        "<td class=e id=own>x</td></tr></table><script>document.title = "
        "JSON.stringify(Object.fromEntries([...getComputedStyle("
        "document.getElementById('own'))].map((name) => [name, "
        "getComputedStyle(document.getElementById('own'))[name]])))</script>"
    )
    agreements = tuple(examples.make_agreements(3, 4))
    fragment = examples.make_comparison(agreements=agreements)._repr_html_()
    leaky = "<style>td.e { background: red }</style>"
    plain, with_fragment, with_leak = (
        _text_of(browse(around.format(one)), "title")
        for one in ("", fragment, leaky)
    )
    assert with_fragment == plain
    assert with_leak != plain


def test_page_is_painted(browse, tmp_path):
    """A screenshot of a different page is an image of its size."""
    target = tmp_path / "page.png"
    agreements = tuple(examples.make_agreements(3, 4, status=DIFFERENT))
    page = write_page(examples.make_comparison(agreements=agreements))
    browse(page, "--window-size=500,700", f"--screenshot={target}")
    content = target.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 500
    assert len(content) > 10_000
