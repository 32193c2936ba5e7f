"""Where a generator may stand, as a file tells it."""

import random

import numpy as np
import pytest

from keras_repro.common.generators import require_generator_state

WORDS = np.random.RandomState(1).get_state()


def test_what_generators_give_is_taken():
    """Each kind's own state."""
    version, words, gauss = random.Random(1).getstate()
    require_generator_state("python", (version, words, gauss))
    require_generator_state("numpy_legacy", WORDS)
    for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox):
        require_generator_state("numpy_bits", kind(1).state)
        require_generator_state(
            "numpy", np.random.Generator(kind(1)).bit_generator.state
        )


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("numpy_legacy", (*WORDS[:2], 9999, *WORDS[3:])),
        ("numpy_legacy", (WORDS[0], WORDS[1][:3], *WORDS[2:])),
        ("numpy_legacy", (WORDS[0], 0 * WORDS[1], *WORDS[2:])),
        ("numpy", {**np.random.Philox(1).state, "buffer_pos": 99}),
        ("numpy", {}),
        ("python", (3, (1, 2), None)),
        ("python", None),
        ("unheard of", WORDS),
        ([], WORDS),
    ],
)
def test_what_none_can_stand_at_is_refused(kind, state):
    """NumPy itself takes the first, and reads behind its own words."""
    with pytest.raises(ValueError, match="cannot stand at"):
        require_generator_state(kind, state)
