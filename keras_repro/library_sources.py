"""NumPy, TensorFlow, PyTorch, JAX, Keras and h5py, watched.

Each function is called right after its library was imported, by the program
and not by us. So nothing here may load Keras, and the private attributes that
are needed stand here and not in `_backends.py`, which does: each with the
versions it was checked with, and guarded, so that without it less is seen and
nothing breaks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from keras_repro.notes import PARALLEL, THREADS
from keras_repro.plans import Plan
from keras_repro.python_sources import FileWatcher, Watcher
from keras_repro.sites import find_maker, find_site

_WORD = 2**32
# What they run in parallel for themselves is no doing of the program.
_FRAMEWORKS = frozenset({"keras", "tensorflow", "torch", "jax"})


class LibraryWatcher:
    """Watches libraries as they come.

    Args:
        watcher: What every source needs.
        plan: What is to be held still.
        files: Notes the files that libraries open by themselves.
    """

    def __init__(
        self, watcher: Watcher, plan: Plan, files: FileWatcher | None
    ) -> None:
        self.watcher, self.plan, self.files = watcher, plan, files
        self.actions: dict[str, Callable[[Any], None]] = {
            "numpy": lambda numpy: watch_numpy(watcher, numpy),
            "torch": lambda torch: watch_torch(watcher, torch, plan),
            "tensorflow": lambda tf: watch_tensorflow(watcher, tf, plan),
            "jax": lambda jax: watch_jax(watcher, jax),
            "keras": lambda keras: watch_keras(watcher, keras, plan),
            "h5py": self._watch_h5py,
            "concurrent.futures.thread": self._watch_threads,
            "concurrent.futures.process": self._watch_processes,
            "multiprocessing.pool": self._watch_pools,
        }

    def _watch_h5py(self, h5py: Any) -> None:
        if self.files is not None:
            watch_h5py(self.watcher, h5py, self.files)

    def _watch_threads(self, module: Any) -> None:
        self._watch_pool(module.ThreadPoolExecutor, "max_workers")

    def _watch_processes(self, module: Any) -> None:
        self._watch_pool(module.ProcessPoolExecutor, "max_workers")

    def _watch_pools(self, module: Any) -> None:
        self._watch_pool(module.Pool, "processes")

    def _watch_pool(self, pool: Any, argument: str) -> None:
        watch_workers(
            self.watcher, pool, argument, self.plan, one=1, name=pool.__name__
        )


# --- NumPy -------------------------------------------------------------------

_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_NOT_DRAWING = frozenset({"get_state", "set_state", "seed"})


def watch_numpy(watcher: Watcher, numpy: Any) -> None:
    """Watch NumPy's global generator, and generators made without a seed.

    Private in NumPy 1.26 to 2.5: `mtrand._rand`, the global generator, and
    `bit_generator.randbits`, its source of entropy.
    """
    module = numpy.random
    _watch_global_numpy(watcher, module)
    patches, audit = watcher.patches, watcher.audit

    def take(name: str, seed: Any) -> Any:
        if seed is None:
            return watcher.draw_number(name)
        if isinstance(seed, (module.Generator, module.BitGenerator)):
            return seed
        if isinstance(seed, module.SeedSequence) or audit.is_muted:
            return seed
        return audit.note_seed("", name, seed)

    make = module.default_rng

    @functools.wraps(make)
    def default_rng(seed: Any = None) -> Any:
        return make(take("numpy.random.default_rng", seed))

    patches.replace(module, "default_rng", default_rng)
    inner = module.bit_generator
    for owner, name in (
        *((module, name) for name in _GENERATORS),
        (module, "SeedSequence"),
    ):
        _watch_maker(watcher, (owner,), name, take)
    _watch_maker(
        watcher, (module, module.mtrand), "RandomState", _as_words(take)
    )
    if hasattr(inner, "randbits"):

        def randbits(count: int) -> int:
            drawn = watcher.draw("numpy.random", (count + 7) // 8)
            return int.from_bytes(drawn, "little") >> (-count % 8)

        patches.replace(inner, "randbits", randbits)


def _as_words(take: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """As an old generator wants a large seed: in words of 32 bits."""

    def take_words(name: str, seed: Any) -> Any:
        taken = take(name, seed)
        return _to_words(taken) if seed is None else taken

    return take_words


def _to_words(number: int) -> list[int]:
    return [(number >> shift) % _WORD for shift in range(0, 256, 32)]


def _watch_maker(
    watcher: Watcher,
    owners: Iterable[Any],
    name: str,
    take: Callable[[str, Any], Any],
) -> None:
    """Watch a class whose first argument is a seed.

    Instances stay those of the class itself, and `isinstance` and subclasses
    work as they did.
    """
    owners = tuple(owners)
    if not hasattr(owners[0], name):
        return
    original: Any = getattr(owners[0], name)
    full_name = f"numpy.random.{name}"

    class Meta(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls is not watched:
                return super().__call__(*args, **kwargs)
            key = "entropy" if name == "SeedSequence" else "seed"
            if args:
                args = (take(full_name, args[0]), *args[1:])
            elif not ({"state", "key", "counter", "pool"} & set(kwargs)):
                kwargs[key] = take(full_name, kwargs.get(key))
            return original(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:
            if cls is watched:
                return isinstance(instance, original)
            return super().__instancecheck__(instance)

        def __subclasscheck__(cls, subclass: Any) -> bool:
            if cls is watched:
                return issubclass(subclass, original)
            return super().__subclasscheck__(subclass)

    watched = Meta(
        name,
        (original,),
        {"__module__": original.__module__, "__doc__": original.__doc__},
    )
    for owner in owners:
        watcher.patches.replace(owner, name, watched)


def _watch_global_numpy(watcher: Watcher, module: Any) -> None:
    generator = getattr(module.mtrand, "_rand", None)
    if generator is None:
        return
    patches = watcher.patches
    module.seed(_to_words(watcher.entropy.start_of("numpy")))
    watched = _make_watched_state(watcher, module, generator)
    patches.replace(module.mtrand, "_rand", watched)
    for name, value in list(vars(module).items()):
        if getattr(value, "__self__", None) is generator:
            patches.replace(module, name, getattr(watched, name))
            patches.replace(module.mtrand, name, getattr(watched, name))


def _make_watched_state(watcher: Watcher, module: Any, generator: Any) -> Any:
    """The global generator once more, over the same bits, watched."""
    audit, base = watcher.audit, type(generator)

    def draw_with(name: str) -> Callable[..., Any]:
        original = getattr(base, name)

        @functools.wraps(original)
        def draw(self: Any, *args: Any, **kwargs: Any) -> Any:
            audit.note_draw("numpy")
            return original(self, *args, **kwargs)

        return draw

    def seed(self: Any, seed: Any = None) -> None:
        if seed is None:
            seed = _to_words(watcher.draw_number("numpy.random.seed"))
        elif not audit.is_muted:
            seed = audit.note_seed("numpy", "numpy.random.seed", seed)
        base.seed(self, seed)

    def get_state(self: Any, legacy: bool = True) -> Any:
        audit.note_state_read("numpy", _key_of(base.get_state(self)))
        return base.get_state(self, legacy)

    def set_state(self: Any, state: Any) -> None:
        base.set_state(self, state)
        audit.note_state_put("numpy", _key_of(base.get_state(self)))

    methods: dict[str, Any] = {
        name: draw_with(name)
        for name, value in vars(module).items()
        if getattr(value, "__self__", None) is generator
        and name not in _NOT_DRAWING
    }
    methods |= {
        "get_state": get_state,
        "set_state": set_state,
        "seed": seed,
        "__module__": base.__module__,
    }
    return type(base.__name__, (base,), methods)(generator._bit_generator)


def _key_of(state: tuple[Any, ...]) -> tuple[Any, ...]:
    return (state[1].tobytes(), *state[2:])


# --- TensorFlow --------------------------------------------------------------


def watch_tensorflow(watcher: Watcher, tensorflow: Any, plan: Plan) -> None:
    """Watch TensorFlow's random ops without a seed, its seeds and threads.

    Private in TensorFlow 2.16 to 2.21: `random_seed.get_seed`, which each
    random op asks for its seeds, `context.set_global_seed`, and
    `stateful_random_ops.non_deterministic_ints`.
    """
    from tensorflow.python.eager import context
    from tensorflow.python.framework import ops, random_seed
    from tensorflow.python.ops import stateful_random_ops

    patches, audit = watcher.patches, watcher.audit
    get_seed = random_seed.get_seed
    set_global_seed = context.set_global_seed
    fixed = _FixedSeeds(watcher)

    def get_watched_seed(op_seed: Any) -> Any:
        eager = context.executing_eagerly()
        graph_seed = None if eager else ops.get_default_graph().seed
        known = context.global_seed() if eager else graph_seed
        if op_seed is None and known is None:
            audit.note_draw("tensorflow")
            if plan.seed_kernels:
                return fixed.take(eager=eager)
        return get_seed(op_seed)

    def set_watched_seed(seed: Any) -> None:
        if seed is not None and not audit.is_muted:
            name = "tensorflow.random.set_seed"
            seed = audit.note_seed("tensorflow", name, seed)
        set_global_seed(seed)

    def draw_integers(shape: Any, dtype: Any = tensorflow.int64) -> Any:
        count = int(tensorflow.TensorShape(shape).num_elements() or 1)
        name = "tensorflow.random.Generator.from_non_deterministic_state"
        drawn = watcher.draw(name, count * dtype.size)
        flat = tensorflow.io.decode_raw(drawn, dtype)
        return tensorflow.reshape(flat, shape)

    patches.replace(random_seed, "get_seed", get_watched_seed)
    patches.replace(context, "set_global_seed", set_watched_seed)
    if hasattr(stateful_random_ops, "non_deterministic_ints"):
        patches.replace(
            stateful_random_ops, "non_deterministic_ints", draw_integers
        )
    _watch_tensorflow_threads(watcher, tensorflow, plan)
    _watch_pipelines(watcher, tensorflow, plan)
    if plan.deterministic:
        tensorflow.config.experimental.enable_op_determinism()


class _FixedSeeds:
    """Seeds for random ops that have none, by the place of the op."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._eager: dict[str, tuple[int, int]] = {}

    def take(self, *, eager: bool) -> tuple[int, int]:
        """Two seeds; outside a graph the same ones again at each place.

        TensorFlow keeps a kernel for each pair of seeds, and a kernel goes on
        drawing. In a graph each op has a kernel of its own.
        """
        site = find_site()
        place = "" if site is None else f"{site.place}|{site.at}"
        if not eager:
            return self._draw(place)
        if place not in self._eager:
            self._eager[place] = self._draw(place)
        return self._eager[place]

    def _draw(self, place: str) -> tuple[int, int]:
        drawn = self._watcher.entropy.draw("tensorflow", place, 8)
        number = int.from_bytes(drawn, "little")
        return (number % _WORD) // 2 + 1, (number // _WORD) // 2 + 1


def _watch_tensorflow_threads(
    watcher: Watcher, tensorflow: Any, plan: Plan
) -> None:
    threading = tensorflow.config.threading
    for name in (
        "set_intra_op_parallelism_threads",
        "set_inter_op_parallelism_threads",
    ):
        setter = getattr(threading, name)
        if plan.num_threads is not None:
            setter(plan.num_threads)
        label = f"tensorflow.config.threading.{name}"
        watched = _watch_count(watcher, label, setter, plan)
        watcher.patches.replace(threading, name, watched)


def _watch_count(
    watcher: Watcher, name: str, setter: Callable[[int], Any], plan: Plan
) -> Callable[[int], Any]:
    """Watch a function that sets a number of threads."""

    @functools.wraps(setter)
    def set_count(number: int) -> Any:
        site = find_site()
        if site is not None and not watcher.audit.is_muted:
            place = f"{site.place} {name}"
            number = watcher.audit.give("thread_counts", place, number)
            watcher.audit.note(THREADS, name, site=site, value=number)
        return setter(plan.num_threads or number)

    return set_count


def _watch_pipelines(watcher: Watcher, tensorflow: Any, plan: Plan) -> None:
    """Watch what of `tf.data` runs in parallel and may change the order."""
    dataset = tensorflow.data.Dataset
    for name in ("map", "interleave", "batch", "padded_batch", "ragged_batch"):
        if hasattr(dataset, name):
            patched = _watch_parallel(watcher, getattr(dataset, name), plan)
            watcher.patches.replace(dataset, name, patched)
    with_options = dataset.with_options

    @functools.wraps(with_options)
    def watched_options(self: Any, options: Any, name: Any = None) -> Any:
        if _allows_disorder(options):
            watcher.audit.note(PARALLEL, "tf.data.Options.deterministic=False")
            if plan.num_workers is not None:
                options.deterministic = True
        return with_options(self, options, name)

    watcher.patches.replace(dataset, "with_options", watched_options)


def _allows_disorder(options: Any) -> bool:
    return getattr(options, "deterministic", None) is False


def _watch_parallel(
    watcher: Watcher, method: Callable[..., Any], plan: Plan
) -> Callable[..., Any]:
    import inspect

    signature = inspect.signature(method)

    @functools.wraps(method)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            return method(self, *args, **kwargs)
        disorder = given.get("deterministic") is False
        site = find_site()
        if (
            site is None
            or site.library in _FRAMEWORKS
            or not (disorder or given.get("num_parallel_calls"))
        ):
            return method(self, *args, **kwargs)
        watcher.audit.note(
            PARALLEL,
            f"tf.data.Dataset.{method.__name__}",
            site=site,
            detail="in any order" if disorder else "in order",
        )
        if plan.num_workers is not None:
            given |= {"num_parallel_calls": None, "deterministic": None}
            known = {k: v for k, v in given.items() if k != "self"}
            extra = known.pop("kwargs", {})
            rest = known.pop("args", ())
            return method(given["self"], *rest, **known, **extra)
        return method(self, *args, **kwargs)

    return watched


# --- PyTorch -----------------------------------------------------------------

_TORCH_FUNCTIONS = (
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli"),
    *("multinomial", "poisson", "rand_like", "randn_like", "randint_like"),
)
_TORCH_METHODS = (
    *("normal_", "uniform_", "random_", "bernoulli_", "exponential_"),
    *("geometric_", "cauchy_", "log_normal_", "multinomial", "bernoulli"),
)
_TORCH_DROPOUTS = (
    *("dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d"),
    *("dropout2d", "dropout3d", "rrelu", "gumbel_softmax"),
)


def watch_torch(watcher: Watcher, torch: Any, plan: Plan) -> None:
    """Watch PyTorch's global generator, its seeds, loaders and threads.

    Its functions are written in C++ and cannot be watched from inside. So
    those that draw are replaced, until the generator has been seeded.
    Private in PyTorch 2.5 to 2.13: `torch.jit._builtins._register_builtin`,
    without which a scripted function could not call what was replaced.
    """
    patches, audit = watcher.patches, watcher.audit
    manual_seed = torch.manual_seed
    manual_seed(watcher.entropy.start_of("torch") % 2**63)

    @functools.wraps(manual_seed)
    def watched_seed(seed: Any) -> Any:
        if not audit.is_muted:
            seed = audit.note_seed("torch", "torch.manual_seed", seed)
        return manual_seed(seed)

    def fresh_seed() -> int:
        number = watcher.draw_number("torch.seed") % 2**63
        manual_seed(number)
        return number

    for owner in (torch, torch.random):
        patches.replace(owner, "manual_seed", watched_seed)
        patches.replace(owner, "seed", fresh_seed)
    _watch_torch_states(watcher, torch)
    _watch_torch_draws(watcher, torch)
    set_threads = _watch_count(
        watcher, "torch.set_num_threads", torch.set_num_threads, plan
    )
    if plan.num_threads is not None:
        torch.set_num_threads(plan.num_threads)
    patches.replace(torch, "set_num_threads", set_threads)
    watch_workers(
        watcher,
        torch.utils.data.DataLoader,
        "num_workers",
        plan,
        one=0,
        name="DataLoader",
        dropped=("prefetch_factor", "persistent_workers", "worker_init_fn"),
    )
    if plan.deterministic:
        torch.use_deterministic_algorithms(mode=True, warn_only=True)


def _watch_torch_states(watcher: Watcher, torch: Any) -> None:
    audit = watcher.audit
    get_state, set_state = torch.get_rng_state, torch.set_rng_state

    def get_watched_state() -> Any:
        state = get_state()
        audit.note_state_read("torch", state.numpy().tobytes())
        return state

    def set_watched_state(new_state: Any) -> None:
        audit.note_state_put("torch", new_state.numpy().tobytes())
        set_state(new_state)

    for owner in (torch, torch.random):
        watcher.patches.replace(owner, "get_rng_state", get_watched_state)
        watcher.patches.replace(owner, "set_rng_state", set_watched_state)


def _watch_torch_draws(watcher: Watcher, torch: Any) -> None:
    audit = watcher.audit
    builtins = getattr(torch.jit, "_builtins", None)
    register = getattr(builtins, "_register_builtin", None)

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name, None)
        if original is None:
            return

        @functools.wraps(original)
        def draw(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("generator") is None and not audit.is_seeded("torch"):
                audit.note_draw("torch")
            return original(*args, **kwargs)

        if register is not None and owner is torch:
            register(draw, f"aten::{name}")
        watcher.patches.replace(owner, name, draw)

    for name in _TORCH_FUNCTIONS:
        watch(torch, name)
    for name in _TORCH_METHODS:
        watch(torch.Tensor, name)
    for name in _TORCH_DROPOUTS:
        watch(torch.nn.functional, name)


# --- JAX ---------------------------------------------------------------------


def watch_jax(watcher: Watcher, jax: Any) -> None:
    """Watch the seeds of JAX' keys."""
    audit = watcher.audit

    def watch(name: str) -> None:
        original = getattr(jax.random, name)

        @functools.wraps(original)
        def make(seed: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(seed, int) and not audit.is_muted:
                seed = audit.note_seed("", f"jax.random.{name}", seed)
            return original(seed, *args, **kwargs)

        watcher.patches.replace(jax.random, name, make)

    for name in ("PRNGKey", "key"):
        watch(name)


# --- Keras -------------------------------------------------------------------


def watch_keras(watcher: Watcher, keras: Any, plan: Plan) -> None:
    """Watch seeds given to layers, and how many workers load data.

    What Keras draws for itself it draws from Python's `random`. Private in
    Keras 3.12 to 3.15: `RandomInitializer`.
    """
    from keras.src.initializers import random_initializers

    audit = watcher.audit

    def watch(owner: Any, name: str) -> None:
        make = owner.__init__

        @functools.wraps(make)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            seed = args[0] if args else kwargs.get("seed")
            if isinstance(seed, int) and not audit.is_muted:
                seed = audit.note_seed("", name, seed)
                args, kwargs = _with_seed(args, kwargs, seed)
            make(self, *args, **kwargs)

        watcher.patches.replace(owner, "__init__", init)

    watch(keras.random.SeedGenerator, "keras.random.SeedGenerator")
    initializer = getattr(random_initializers, "RandomInitializer", None)
    if initializer is not None:
        watch(initializer, "keras.initializers")
    _watch_py_dataset(watcher, keras, plan)


def _with_seed(
    args: tuple[Any, ...], kwargs: dict[str, Any], seed: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (seed, *args[1:]), kwargs
    return args, {**kwargs, "seed": seed}


def _watch_py_dataset(watcher: Watcher, keras: Any, plan: Plan) -> None:
    dataset = keras.utils.PyDataset
    make = dataset.__init__

    @functools.wraps(make)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        if self.workers > 1 or self.use_multiprocessing:
            watcher.audit.note(
                PARALLEL, "keras.utils.PyDataset", site=find_maker(self)
            )
            if plan.num_workers is not None:
                self.workers = plan.num_workers
                self.use_multiprocessing = False

    watcher.patches.replace(dataset, "__init__", init)


# --- files and workers -------------------------------------------------------


def watch_h5py(watcher: Watcher, h5py: Any, files: FileWatcher) -> None:
    """Watch the files that HDF5 opens, of which Python hears nothing."""
    make = h5py.File.__init__

    @functools.wraps(make)
    def init(self: Any, name: Any, mode: str = "r", **kwargs: Any) -> None:
        if isinstance(name, (str, bytes)) or hasattr(name, "__fspath__"):
            if mode in ("r", "r+", "a"):
                files.note(name, writes=False)
            if mode != "r":
                files.note(name, writes=True)
        make(self, name, mode, **kwargs)

    watcher.patches.replace(h5py.File, "__init__", init)


def watch_workers(
    watcher: Watcher,
    owner: Any,
    argument: str,
    plan: Plan,
    *,
    one: int,
    name: str,
    dropped: tuple[str, ...] = (),
) -> None:
    """Watch a class of workers, as many as an argument says.

    Args:
        watcher: What every source needs.
        owner: The class.
        argument: The name of the argument.
        plan: What is to be held still.
        one: The number that means: one after the other.
        name: How to call it.
        dropped: Arguments that say nothing then.
    """
    import inspect

    make = owner.__init__
    signature = inspect.signature(make)

    @functools.wraps(make)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            make(self, *args, **kwargs)
            return
        number = bound.arguments.get(argument)
        default = signature.parameters[argument].default
        number = default if number is None else number
        if number is None or number > 1 or (one == 0 and number > 0):
            _note_workers(watcher, self, name)
            if plan.num_workers is not None:
                bound.arguments[argument] = one
                for each in dropped:
                    bound.arguments.pop(each, None)
        make(*bound.args, **bound.kwargs)

    watcher.patches.replace(owner, "__init__", init)


def _note_workers(watcher: Watcher, made: Any, name: str) -> None:
    site = find_maker(made)
    if site is not None and site.library not in _FRAMEWORKS:
        watcher.audit.note(PARALLEL, name, site=site)
