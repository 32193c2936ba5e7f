"""What a program may draw from, read or depend on, watched.

Each `watch_...` replaces some functions by ones that do the same, note it, and
can be held still; `Patches` puts them back. A library's is called right after
the program itself has imported it, and loads nothing: so the private
attributes that are needed stand in these modules and not in `_backends.py`,
which loads Keras. Each is named with the versions it was checked with, and
guarded: without it less is seen, and nothing breaks.
"""

from collections.abc import Callable
from typing import Any

from keras_repro.sources.clocks import watch_clock, watch_process
from keras_repro.sources.files import watch_h5py
from keras_repro.sources.jax import watch_jax
from keras_repro.sources.keras import watch_keras
from keras_repro.sources.numpy import watch_numpy
from keras_repro.sources.standard import watch_random, watch_system
from keras_repro.sources.tensorflow import watch_tensorflow
from keras_repro.sources.torch import watch_torch
from keras_repro.sources.watcher import Watcher
from keras_repro.sources.workers import (
    watch_completion,
    watch_pools,
    watch_processes,
    watch_threads,
)

# At once.
STANDARD: tuple[Callable[[Watcher], None], ...] = (
    *(watch_random, watch_system),
    *(watch_clock, watch_process),
)
# After the import of the module that is named.
BY_MODULE: dict[str, Callable[[Watcher, Any], None]] = {
    "concurrent.futures": watch_completion,
    "concurrent.futures.process": watch_processes,
    "concurrent.futures.thread": watch_threads,
    "h5py": watch_h5py,
    "jax": watch_jax,
    "keras": watch_keras,
    "multiprocessing.pool": watch_pools,
    "numpy": watch_numpy,
    "tensorflow": watch_tensorflow,
    "torch": watch_torch,
}
