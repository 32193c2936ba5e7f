"""All that `reset()` holds for is gone on with from some batch or other.

Each case is tried on one backend, the next one on the next; on all of them:
`python -m pytest tests/resuming/test_everything.py -m ""`.
"""

import keras
import pytest

from tests.conformance.cases import CASES
from tests.resuming.interrupting import differs, interrupt
from tests.workloads.models import WORKLOADS
from tests.workloads.workload import OURS

TOO_SHORT = {"train_on_batch", "steps_per_epoch", "actor and critic"}
# A traced op of TensorFlow keeps its place where nobody can read it.
REFUSED = {"tf.random inside a layer, traced"}
BACKENDS = ("tensorflow", "jax", "torch")
BACKEND = keras.backend.backend()
pytestmark = [
    pytest.mark.requires_backend,
    pytest.mark.filterwarnings("ignore:.*does not have a `build:UserWarning"),
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning"),
]


def in_turns(cases):
    """Have a case run on one of its backends, and else with the gallery."""
    for number, case in enumerate(cases):
        names = getattr(case, "backends", BACKENDS)
        is_here = names[number % len(names)] == BACKEND
        marks = () if is_here else pytest.mark.gallery
        yield pytest.param(case, marks=marks, id=case.name)


@pytest.mark.sampled(100)
@pytest.mark.parametrize("case", [*in_turns(CASES)])
def test_conformance(case, tmp_path):
    """What the table of `reset()` holds, trained in two parts."""
    if BACKEND not in case.backends:
        pytest.skip(f"not on {BACKEND}")
    if case.name in TOO_SHORT:
        pytest.skip("no backup is made before it ends")
    folder = tmp_path / case.name
    if case.name in REFUSED:
        with pytest.warns(RuntimeWarning, match="No backup .* would be exact"):
            interrupt(case.make, case.train, folder, 5)
        assert [path.name for path in folder.iterdir()] == ["backups.lock"]
    else:
        assert differs(case.make, case.train, folder) == []


@pytest.mark.sampled(80)
@pytest.mark.parametrize("workload", [*in_turns(WORKLOADS)])
def test_workloads(workload, tmp_path):
    """Programs as people publish them, trained in two parts."""
    if workload.name in TOO_SHORT:
        pytest.skip("no backup is made before it ends")

    def make():
        return workload.build(OURS)

    assert differs(make, workload.train, tmp_path / workload.name) == []
