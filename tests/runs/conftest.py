"""Where the runs of a test are."""

import pytest


@pytest.fixture
def path(tmp_path):
    """A file of runs that is not there yet."""
    return tmp_path / "runs.jsonl"
