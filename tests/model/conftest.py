"""What the tests of models share."""

import pytest


@pytest.fixture
def no_global_seed():
    """A test begins without a global seed, as a process does."""
    import keras_repro as kr
    from keras_repro.backends.keras_internals import _global_state

    state = _global_state()
    before = state.get_global_attribute("global_random_seed")
    state.set_global_attribute("global_random_seed", None)
    with kr.isolate_rng():
        yield
    state.set_global_attribute("global_random_seed", before)
