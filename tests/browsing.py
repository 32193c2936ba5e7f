"""Reads pages: as text, and in a real browser without a display."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_BROWSER = next(filter(None, map(shutil.which, _NAMES)), None)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
)
# Shows a page in a frame as narrow as a phone and reads what was laid out.
_PROBE = """<!DOCTYPE html><meta charset="utf-8"><title>probe</title>
<iframe id="frame" src="page.html" style="width:360px;height:700px;border:0">
</iframe><pre id="found"></pre><script>
document.getElementById("frame").addEventListener("load", (event) => {
  const page = event.target.contentDocument;
  const style = (what) => {
    const one = page.querySelector(what);
    return one ? getComputedStyle(one) : {};
  };
  const height = (what) => {
    const one = page.querySelector(what);
    return one ? Math.round(one.getBoundingClientRect().height) : 0;
  };
  document.getElementById("found").textContent = [
    `width=${page.documentElement.scrollWidth}`, `title=${page.title}`,
    `svg=${height("figure svg")}`,
    `equal=${style("td.e").backgroundColor}`,
    `different=${style("td.d1").backgroundColor}`,
    `marks=${page.querySelectorAll("svg use[style*=fill-opacity]").length}`,
    `text=${style("svg text").fill}`,
  ].join("|");
});
</script>"""


class _Reader(HTMLParser):
    """Collects what it reads; fails where tags do not match or act."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.texts, self.names = [], [], [], set()
        self.classes = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.names.update(name for name, _ in attrs)
        self.classes += (dict(attrs).get("class") or "").split()
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read_html(document):
    """The tags, texts, attributes and classes of a page that is well formed."""
    reader = _Reader()
    reader.feed(document)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def browse(tmp_path):
    """Open a document and give what the browser made of it."""
    if _BROWSER is None:
        pytest.skip(f"none of {', '.join(_NAMES)} is installed")

    def run(document, *flags, address=None):
        page = tmp_path / "page.html"
        page.write_text(document, "utf-8")
        result = subprocess.run(
            [
                _BROWSER,
                *_FLAGS,
                f"--user-data-dir={tmp_path / 'profile'}",
                *(flags or ("--dump-dom",)),
                address or page.as_uri(),
            ],
            capture_output=True,
            timeout=60,
            check=True,
            cwd=tmp_path,
        )
        return result.stdout.decode("utf-8")

    return run


@pytest.fixture
def measure(browse, tmp_path):
    """What a page looks like on a phone, by name."""

    def run(document):
        probe = tmp_path / "probe.html"
        probe.write_text(_PROBE, "utf-8")
        dom = browse(document, address=probe.as_uri())
        found = re.search(r'<pre id="found">(.+?)</pre>', dom, re.DOTALL)
        return dict(one.split("=", 1) for one in found[1].split("|"))

    return run
