"""Seed, capture, restore and isolate the global random generators."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import sys
import warnings
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_repro.arrays.checksums import checksum_array
from keras_repro.backends import owners
from keras_repro.backends.active import (
    GENERATORS,
    active_generators,
    get_backend,
)
from keras_repro.backends.keras_internals import (
    get_global_generator,
    get_global_seed,
    set_global_generator,
    set_global_seed,
)
from keras_repro.backends.tensorflow import (
    find_stateful_random_ops,
    rewind_kernels,
    traced_functions,
)
from keras_repro.common.checks import check_flag, check_seed
from keras_repro.common.generators import (
    is_list_of_whole,
    is_numpy_state,
    is_python_state,
)
from keras_repro.common.json import check_fields
from keras_repro.environment.capture import hash_seed_at_start

_already_said: set[str] = set()


def derive_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose; neighbouring seeds give unrelated ones."""
    # Hashed and never added: on PyTorch the streams of two neighbouring Keras
    # seeds are one stream, shifted by one.
    digest = hashlib.sha256(f"keras_repro/1/{purpose}/{seed}".encode())
    return int.from_bytes(digest.digest()[:4], "little")


class _Key(np.random.bit_generator.ISeedSequence):
    """Words for a bit generator, which else draws from the system first."""

    def __init__(self, *words: int) -> None:
        self.words = words

    def generate_state(
        self, n_words: int, dtype: npt.DTypeLike = np.uint32
    ) -> npt.NDArray[Any]:
        return np.array(self.words[:n_words], dtype)


def make_generator(
    seed: int, purpose: str, epoch: int, index: int = 0
) -> np.random.Generator:
    """A counter-based generator, a function of these alone."""
    # `epoch` and `index` are below 2**64; each index, one of the epoch's
    # generators, has 2**192 draws before the next one's begin.
    key = _Key(derive_seed(seed, purpose), epoch)
    counter = np.array([0, 0, 0, index], np.uint64)
    bits = np.random.Philox(key, counter=counter)  # type: ignore[arg-type]
    return np.random.Generator(bits)


def seed_from_program() -> int:
    """A seed that follows from the program's own random state."""
    # Read, never drawn: a program that seeded Python's `random` gets the same
    # one each time, an unseeded program another one each time, and neither
    # loses a number.
    digest = hashlib.sha256(repr(random.getstate()).encode())
    return int.from_bytes(digest.digest()[:4], "little")


@dataclasses.dataclass(frozen=True)
class RngState:
    """The positions of the global generators at one moment."""

    python: Any
    numpy: Any
    keras: npt.NDArray[Any] | None
    backends: dict[str, Any]


def _read_generator(generator: Any) -> npt.NDArray[Any]:
    return np.array(get_backend().view(generator.state))


def capture_rng() -> RngState:
    """Read the positions of every global generator, changing none."""
    generator = get_global_generator()
    own = None if generator is None else _read_generator(generator)
    return dataclasses.replace(capture_python(), keras=own)


def capture_python() -> RngState:
    """The positions without that of Keras, which a trace cannot read."""
    return RngState(
        python=random.getstate(),
        numpy=np.random.get_state(),
        keras=None,
        backends={
            source.name: source.capture() for source in active_generators()
        },
    )


def restore_rng(state: RngState) -> None:
    """Put every global generator back to a captured position."""
    random.setstate(state.python)
    np.random.set_state(state.numpy)
    if state.keras is not None:
        generator = get_global_generator()
        if generator is None:
            generator = keras.random.SeedGenerator(0)
            set_global_generator(generator)
        value = state.keras.astype(generator.state.dtype)
        get_backend().assign(generator.state, value)
    for source in active_generators():
        if source.name in state.backends:
            source.restore(state.backends[source.name])


@contextmanager
def kept_python(at: RngState | None = None) -> Iterator[None]:
    """Draw in a block, from `at` if given, and leave the streams as found."""
    outside = capture_python()
    try:
        if at is not None:
            restore_rng(at)
        yield
    finally:
        restore_rng(outside)


def seed_rng(seed: int) -> None:
    """Seed Python, NumPy and the loaded backends, and nothing else."""
    random.seed(seed)
    np.random.seed(seed)
    for source in active_generators():
        source.seed(seed)


@contextmanager
def isolate_rng(seed: int | None = None) -> Iterator[None]:
    """Run a block without any effect on the program's random generators.

    Python's `random`, NumPy's global generator, Keras' global seed generator
    and those of TensorFlow and PyTorch stand after the block where they
    stood before it, also after an exception; so does Keras' global seed.

    Args:
        seed: Seed the generators for the block, as `seed_everything` does.
            `None` lets the block go on from where they stand.

    Raises:
        RuntimeError: If a training or another such block runs in another
            thread, or another task of `asyncio`.
        TypeError: If `seed` is not an integer.
        ValueError: If `seed` is not between 0 and `2**32 - 1`.

    Scope:
        The global generators of this process (Keras' own is one per thread).
        What other threads draw meanwhile they draw from the block's.
        Generator objects that the program keeps, and TensorFlow functions
        that were traced with stateful random ops, keep their own positions.

    Example:
        >>> import random
        >>> random.seed(1)
        >>> with isolate_rng(seed=7):
        ...     inside = random.random()
        >>> after = random.random()
        >>> random.seed(1)
        >>> after == random.random()
        True
    """
    if seed is not None:
        seed = check_seed(seed)
    with owners.held("isolate_rng()", owners.BLOCK) as owner:
        if seed is not None and _op_seeds(capture_rng()) is not None:
            rewind_kernels()
        positions: list[Any] = []
        owner.ends.callback(_rewind_if_moved, positions)
        keep(owner, seed)
        positions.append(_op_seeds(capture_rng()))
        owner.ends.callback(lambda: positions.append(_op_seeds(capture_rng())))
        yield


def _rewind_if_moved(positions: list[Any]) -> None:
    """Rewind what a block moved, which goes on under its op seeds."""
    if positions[:1] != positions[-1:]:
        rewind_kernels()


@contextmanager
def keep_rng(seed: int | None = None) -> Iterator[None]:
    """`isolate_rng` where no stateful op of TensorFlow runs: much cheaper."""
    with owners.held("a draw of seeded values", owners.DRAW) as owner:
        keep(owner, seed)
        yield


def keep(owner: owners.Owner, seed: int | None = None) -> None:
    """Have all generators put back at an owner's end; seed them till then."""
    outer = capture_rng()
    generator, program_seed = get_global_generator(), get_global_seed()

    def put_back() -> None:
        set_global_seed(program_seed)
        set_global_generator(generator)
        restore_rng(outer)

    owner.ends.callback(put_back)
    if seed is not None:
        seed_rng(seed)
        set_global_generator(None)
        # A model within a layer asks for it, whatever the program set.
        set_global_seed(seed)


def seed_everything(seed: int, *, deterministic: bool = True) -> int:
    """Seed every generator that a Keras program draws from.

    Seeds Python's `random`, NumPy, Keras' global seed generator, TensorFlow
    if it is installed, and PyTorch with its CUDA generators if that is the
    backend. Call it first, before layers are made: Keras draws the seed of
    an unseeded layer when the layer is made.

    Args:
        seed: From 0 to `2**32 - 1`.
        deterministic: Also turn on the deterministic kernels of the backend
            in use. They can be slower, and an op that has none raises.

    Returns:
        The seed, so that it can be logged.

    Raises:
        RuntimeError: If a training runs, which would put back what it found.
        TypeError: If `seed` is not an integer, or `deterministic` no bool.
        ValueError: If `seed` is not between 0 and `2**32 - 1`.

    Scope:
        This process. What can only be set before Python or the backend
        starts (`PYTHONHASHSEED`, XLA flags) is said in a warning, once.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     seed_everything(42, deterministic=False)
        42
    """
    seed = check_seed(seed)
    deterministic = check_flag("deterministic", deterministic)
    running = owners.find_running()
    if running is not None:
        msg = (
            "`seed_everything()` must be called between trainings and "
            f"evaluations. Received: a call within {running}, which puts the "
            "generators back when it ends. Call it before, or seed a block "
            "within by `with isolate_rng(seed):`."
        )
        raise RuntimeError(msg)
    with owners.held("seed_everything()", owners.BLOCK):
        keras.utils.set_random_seed(seed)
        # Keras 3.12 leaves what an earlier seed made, which goes on drawing.
        set_global_generator(None)
    if deterministic:
        late = get_backend().enable_determinism()
        if late is not None:
            _say_once(late)
    if not sys.flags.hash_randomization:
        return seed
    if hash_seed_at_start() in {None, "random"}:
        _say_once(
            "Python salts the hashes of strings in each process, and "
            "PYTHONHASHSEED is read only when the interpreter starts: the "
            "order of sets of strings may change from run to run. Start the "
            "program with PYTHONHASHSEED=0 in its environment."
        )
    return seed


def _say_once(message: str) -> None:
    if message not in _already_said:
        _already_said.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)


class Streams:
    """The random streams of one trial, apart from the program's."""

    # Swapped in for the length of a training call and out again; each kind of
    # evaluation has a stream of its own, and so has each kind of trace. Each
    # owns its Keras global seed generator, because a traced function keeps the
    # object that it was traced with.

    def __init__(self, start: RngState, seed: int) -> None:
        self.start = start
        self.seed = seed
        self.generator = keras.random.SeedGenerator(0)
        self.is_stateful = False
        self._position = start
        self._evaluations: dict[str, RngState] = {}
        self._active: RngState | None = None
        self._depth_of_traces = 0
        self._outside_traces = start

    def rewind(self) -> None:
        """Go back to the start of the trial."""
        self._position = self.start
        self._evaluations.clear()

    @property
    def evaluations(self) -> dict[str, RngState]:
        """Where the stream of each kind of evaluation stands."""
        return dict(self._evaluations)

    @evaluations.setter
    def evaluations(self, positions: dict[str, RngState]) -> None:
        self._evaluations = dict(positions)

    def begin_at(self, start: RngState, seed: int) -> bool:
        """Begin a trial at another start if nothing has drawn; tells if so."""
        is_untouched = self._active is None or is_same(
            capture_rng(), self._active
        )
        self.seed = seed
        if is_untouched:
            self.start = self._position = start
            if self._active is not None:
                self._active = start
                restore_rng(start)
        return is_untouched

    @property
    def position(self) -> RngState:
        """Where the training stream stands now."""
        return capture_rng() if self._active is not None else self._position

    @position.setter
    def position(self, state: RngState) -> None:
        self._position = state
        if self._active is not None:
            restore_rng(state)

    def enter(self, owner: owners.Owner) -> None:
        """Swap the training stream in, until the end of an owner."""
        if self._active is not None:  # Within another of the same trial.
            return
        if self._position is self.start and self._needs_rewinding():
            rewind_kernels()
        before = _with_late_backends(self._position, self.seed)
        traced = traced_functions()
        owner.ends.callback(self._free_kernels, before)
        self._swap(owner, before)
        self._active = before
        owner.ends.callback(self._stop, before, traced)

    def _stop(self, before: RngState, traced: frozenset[str]) -> None:
        """Note where the training stream stands when it is swapped out."""
        self._active = None
        self._position = capture_rng()
        self._note_stateful(before, self._position, traced)

    def _free_kernels(self, before: RngState) -> None:
        """Leave the program no kernels that a training has moved."""
        program = _op_seeds(capture_rng())
        moved = _op_seeds(before) != _op_seeds(self._position)
        if moved and program is not None and program[0] == self.start_seed:
            # It would find them by its own op seeds.
            rewind_kernels()

    def _note_stateful(
        self, before: RngState, after: RngState, traced: frozenset[str]
    ) -> None:
        """Notice random ops whose position only TensorFlow's kernels know."""
        if not self.is_stateful:
            self.is_stateful = _op_seeds(before) != _op_seeds(after) or bool(
                find_stateful_random_ops(traced_functions() - traced)
            )

    @property
    def start_seed(self) -> int | None:
        """TensorFlow's global seed inside the trial."""
        seeds = _op_seeds(self.start)
        return None if seeds is None else seeds[0]

    def _needs_rewinding(self) -> bool:
        """Whether kernels hold positions that a trial may not start from."""
        # TensorFlow keeps the position of a stateful random op in its kernel,
        # found by the op's seeds: after a trial that made such ops, and where
        # the program has made some under the same seed.
        program, start = _op_seeds(capture_rng()), _op_seeds(self.start)
        if program is None or start is None:
            return False
        return self.is_stateful or (program[0] == start[0] and program != start)

    @contextmanager
    def evaluation(self, kind: str) -> Iterator[None]:
        """Swap in the stream of a kind of evaluation, also inside training."""
        with owners.held("an evaluation", owners.DRAW) as owner:
            seed = derive_seed(self.seed, f"evaluation/{kind}")
            found = self._evaluations.get(kind) or start_position(seed)
            before = _with_late_backends(found, seed)
            is_first = self._position is self.start and not self._evaluations
            if is_first and self._active is None and self._needs_rewinding():
                rewind_kernels()
            traced = traced_functions()
            self._swap(owner, before)
            owner.ends.callback(self._stop_evaluation, kind, before, traced)
            yield

    def _stop_evaluation(
        self, kind: str, before: RngState, traced: frozenset[str]
    ) -> None:
        after = self._evaluations[kind] = capture_rng()
        self._note_stateful(before, after, traced)

    @contextmanager
    def tracing(self, kind: str, drew: Callable[[], None]) -> Iterator[None]:
        """Let a trace draw from a stream of its own, begun anew each time."""
        # Keras' global generator is left: a trace writes its draws into the
        # graph, where they are made at each step.
        # The replicas of a strategy are traced in turns, as one.
        if not self._depth_of_traces:
            self._outside_traces = capture_python()
            seed_rng(derive_seed(self.seed, f"trace/{kind}"))
        self._depth_of_traces += 1
        begun = capture_python()
        try:
            yield
        finally:
            if not is_same(begun, capture_python()):
                # Something was drawn that is now a constant.
                drew()
            self._depth_of_traces -= 1
            if not self._depth_of_traces:
                restore_rng(self._outside_traces)

    def _swap(self, owner: owners.Owner, state: RngState) -> None:
        """Swap a stream in, until the end of an owner."""
        outer, generator = capture_rng(), get_global_generator()
        _programs.append(dataclasses.replace(outer, keras=None))
        owner.ends.callback(_swap_out, outer, generator)
        set_global_generator(self.generator)
        restore_rng(state)


# Where the generators of the program stand while streams are swapped in; the
# outermost first.
_programs: list[RngState | None] = []


def _swap_out(outer: RngState, generator: Any) -> None:
    _programs.pop()
    set_global_generator(generator)
    restore_rng(outer)


@contextmanager
def in_the_program() -> Iterator[None]:
    """Draw from the program's generators though a trial's are swapped in."""
    with owners.held("a build", owners.DRAW) as owner:
        if _programs and _programs[0] is not None:
            inner, program, _programs[0] = capture_python(), _programs[0], None
            owner.ends.callback(_leave_the_program, inner)
            restore_rng(program)
        # Else there are no others, or they are in place already.
        yield


def _leave_the_program(inner: RngState) -> None:
    # What is built next goes on from here.
    _programs[0] = capture_python()
    restore_rng(inner)


def _with_late_backends(state: RngState, seed: int) -> RngState:
    """A position that also has what was imported since it was captured."""
    late = [
        one for one in active_generators() if one.name not in state.backends
    ]
    if not late:
        return state
    with keep_rng(seed):
        found = {one.name: one.capture() for one in late}
    return dataclasses.replace(state, backends={**state.backends, **found})


def is_same(a: RngState, b: RngState) -> bool:
    """Whether two positions are one, bit for bit."""
    return all(
        _to_bytes(x) == _to_bytes(y)
        for x, y in zip(_parts(a), _parts(b), strict=True)
    )


def _parts(state: RngState) -> tuple[Any, ...]:
    backends = [state.backends[name] for name in sorted(state.backends)]
    # Of its dtype nothing is said: a start is kept wider than a variable.
    own = None if state.keras is None else state.keras.tolist()
    return state.python, state.numpy, own, backends


def _op_seeds(state: RngState) -> Any:
    """Where TensorFlow's stream of op seeds stands; `None` without it."""
    return state.backends.get("tensorflow")


def start_position(seed: int) -> RngState:
    """Where the streams of a trial begin, as a function of its seed."""
    with keep_rng(seed):
        return finish_start()


def finish_start() -> RngState:
    """Capture, with the value that a fresh global generator would have."""
    value = draw_default_seed()
    state = capture_rng()
    return dataclasses.replace(state, keras=np.array([value, 0], np.int64))


def draw_default_seed() -> int:
    """Draw as Keras (3.12 to 3.15) does where no seed was given."""
    return random.randint(1, int(1e9))


def rng_to_json(state: RngState) -> dict[str, Any]:
    """A form of the state that JSON can hold."""
    return {
        "python": _plain(state.python),
        "numpy": [
            state.numpy[0],
            state.numpy[1].tolist(),
            *state.numpy[2:],
        ],
        "keras": None if state.keras is None else state.keras.tolist(),
        "backends": {
            name: _plain(value) for name, value in state.backends.items()
        },
    }


def rng_from_json(data: Any) -> RngState:
    """The state that `rng_to_json` wrote, to be restored and drawn from."""
    checks: dict[str, Callable[[Any], bool]] = {
        "python": is_python_state,
        "numpy": is_numpy_state,
        "keras": _is_keras_state,
        "backends": _are_backend_states,
    }
    check_fields(data, checks)
    version, internal, gauss = data["python"]
    name, words, *rest = data["numpy"]
    keras_state = data["keras"]
    return RngState(
        python=(version, tuple(internal), gauss),
        numpy=(name, np.array(words, np.uint32), *rest),
        keras=None if keras_state is None else np.array(keras_state, np.int64),
        backends=dict(data["backends"]),
    )


def _is_keras_state(state: object) -> bool:
    """Of 32 bits, which some backends hold as a number with a sign."""
    return state is None or is_list_of_whole(state, 2, -(2**31), 2**32 - 1)


def _are_backend_states(states: object) -> bool:
    """Also of a backend that this process may load later."""
    return isinstance(states, dict) and all(
        name in GENERATORS and GENERATORS[name].is_state(state)
        for name, state in states.items()
    )


def checksum_rng(state: RngState) -> str:
    """Checksum of where the generators stand."""
    # Of the backends' generators only that of Keras' backend counts: which
    # other libraries a process has loaded says nothing of a run.
    backend = get_backend().name
    parts = (
        state.python,
        state.numpy,
        state.keras,
        state.backends.get(backend),
    )
    content = b"".join(_to_bytes(part) for part in parts)
    return checksum_array(np.frombuffer(content, np.uint8))


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return bytes(value.tobytes())
    if isinstance(value, (list, tuple)):
        if len(value) > 8:  # The words of a Mersenne twister.
            return array("Q", value).tobytes()
        return b"(" + b",".join(map(_to_bytes, value)) + b")"
    return repr(value).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
