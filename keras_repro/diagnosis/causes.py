"""Why two trainings differ: the kinds of cause, and what fixes each."""

from __future__ import annotations

from dataclasses import dataclass

from keras_repro.watching.traps import (
    COPIED_DRAWS,
    LOADED_RATE,
    NAN_FEATURES,
    SAME_EPOCHS,
    SAME_ORDER,
    SEED_IGNORED,
    SHARED_START,
    VALIDATION_STEERS,
)

UNSEEDED = "unseeded"
ENTROPY = "entropy"
VARYING_SEED = "varying_seed"
HASH_ORDER = "hash_order"
PARALLEL_LOADING = "parallel_loading"
NONDETERMINISTIC_OP = "nondeterministic_op"
THREAD_COUNT = "thread_count"
SEEDED_TOO_LATE = "seeded_too_late"
EXTERNAL_STATE = "external_state"
CLOCK = "clock"
STATE_LEAK = "state_leak"
ENVIRONMENT = "environment"
UNKNOWN = "unknown"

KINDS = (
    *(UNSEEDED, SEEDED_TOO_LATE, ENTROPY, VARYING_SEED, HASH_ORDER),
    *(EXTERNAL_STATE, CLOCK, STATE_LEAK, PARALLEL_LOADING),
    *(NONDETERMINISTIC_OP, THREAD_COUNT, ENVIRONMENT, UNKNOWN),
)
_ADVICE = {
    UNSEEDED: "Seed every generator before anything draws, at the top of the "
    "script: `keras_repro.seed_everything(42)`.",
    SEEDED_TOO_LATE: "Move the seeding above this line: Keras draws the seed "
    "of a layer or an initializer when it is made.",
    ENTROPY: "Give it a seed: it asks the operating system for fresh entropy, "
    "which no global seed reaches.",
    VARYING_SEED: "Pass a constant: this seed differs from run to run.",
    HASH_ORDER: "Sort before the order matters: `sorted(...)`; or start Python "
    "with PYTHONHASHSEED=0 in its environment.",
    PARALLEL_LOADING: "Load with one worker, or draw random numbers by the "
    "sample's number: `keras_repro.sample_rng(index, seed=seed, epoch=epoch)`.",
    NONDETERMINISTIC_OP: "Turn deterministic kernels on: "
    "`keras_repro.seed_everything(42, deterministic=True)`.",
    THREAD_COUNT: "Set a fixed number of threads: the order in which sums are "
    "added depends on it.",
    EXTERNAL_STATE: "Do not read what an earlier run left: remove it first, "
    "give each run a folder of its own, or name it as an input.",
    CLOCK: "Do not let the time decide: count steps or epochs, or pass the "
    "time in as an argument.",
    STATE_LEAK: "Reset it between trainings: swap the model for "
    "`keras_repro.ReproducibleModel` and call `model.reset()`.",
    ENVIRONMENT: "Make the environments alike in this entry, or compare with a "
    "tolerance.",
    SAME_ORDER: "Every epoch has the same order, which changes when early "
    "stopping and schedules act: use "
    "`keras_repro.ReproducibleModel`, which shuffles by seed and epoch.",
    SAME_EPOCHS: "Change the data as described above, so that epochs differ.",
    COPIED_DRAWS: "Draw random numbers by the sample's number: "
    "`keras_repro.sample_rng(index, seed=seed, epoch=epoch)`.",
    VALIDATION_STEERS: "Keep evaluation apart: `keras_repro.ReproducibleModel` "
    "draws for it from a stream of its own.",
    SHARED_START: "Give each layer an initializer of its own, or a seed of its "
    "own.",
    SEED_IGNORED: "Pass it on: to `keras.utils.set_random_seed` before the "
    "layers are made, and to each generator of your own.",
    LOADED_RATE: "Set the learning rate again after loading, or save the "
    "weights before the optimizer is compiled.",
    NAN_FEATURES: "Look at the table before it becomes an array: an index that "
    "does not match fills a column with NaN, without an error.",
    UNKNOWN: "Look at what the script does after the last moment at which "
    "the runs were equal, up to this line.",
}


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why two trainings differ, or may."""

    kind: str  # One of `KINDS`, or of `TRAPS`: repeatable, and wrong.
    # `file:line` in the person's code, or in the library that did it where no
    # line of the person led to it; `None` if unknown.
    location: str | None
    # Whose generator, file or kernel it is, such as `"numpy"`.
    library: str | None
    evidence: str  # How it is known.
    advice: str  # What fixes it.


def advise(kind: str) -> str:
    """What fixes a kind of cause, where nothing more special is known."""
    return _ADVICE[kind]
