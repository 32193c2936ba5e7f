"""What the site needs beside its pages; `mkdocs.yml` names this file.

A page of docs/ links to files outside of it as one reads it in the repository.
On the site these files are pages too, and the links lead to them.
"""

import json
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(
    r"\]\(((?:\.\./)*)\.\./(examples/[\w/]+|CONTRIBUTING|CHANGELOG)"
    r"\.(?:py|ipynb|md)"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each example, and the pages that lie beside docs/."""
    for path in sorted((_ROOT / "examples").rglob("*.py")):
        name = path.relative_to(_ROOT).with_suffix(".md").as_posix()
        code = path.read_text(encoding="utf-8")
        text = f"# {path.name}\n\n~~~~python\n{code}~~~~\n"
        files.append(File.generated(config, name, content=text))
    for path in (_ROOT / "examples").glob("*.ipynb"):
        name = path.relative_to(_ROOT).with_suffix(".md").as_posix()
        text = _write_notebook(json.loads(path.read_text(encoding="utf-8")))
        files.append(File.generated(config, name, content=text))
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = (_ROOT / name).read_text(encoding="utf-8")
        text = text.replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    return files


def _write_notebook(notebook: dict[str, Any]) -> str:
    """A notebook as a page: its text, its code, and what this shows."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text.replace("](../docs/", "](../"))
            continue
        parts.append(f"~~~~python\n{text}\n~~~~")
        for one in cell["outputs"]:
            shown = "".join(one.get("text", ()))
            page = "".join(one.get("data", {}).get("text/html", ()))
            parts.append(page or f"~~~~text\n{shown}~~~~")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead the links that leave docs/ to the pages made for these files."""
    return _OUTSIDE.sub(r"](\1\2.md", markdown)


class Examples(griffe.Extension):
    """Read our section `Example` as Google's `Examples`: with its prompts."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section in the docstring of one object."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub(
                r"^(\s*)Example:$", r"\1Examples:", text, flags=re.MULTILINE
            )
