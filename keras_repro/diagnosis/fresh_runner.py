"""What a fresh process runs to call a function of another one.

A module of this package, so that no line of it is taken for the person's.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path


def call(folder: Path) -> None:
    """Call what was sent, on the path and with the arguments of the sender."""
    text = (folder / "process.json").read_text(encoding="utf-8")
    sys.path[:], sys.argv[:] = json.loads(text)
    # Written a moment ago by the process that started this one.
    train, arguments = pickle.loads((folder / "payload.pickle").read_bytes())
    train(*arguments)


if __name__ == "__main__":
    call(Path(sys.argv[1]))
