"""Print what a script sees of the interpreter; loads no Keras."""

import atexit
import json
import multiprocessing
import pickle
import random
import sys
from pathlib import Path


class Point:
    """Pickled by the name of this module."""

    x = 1


def look(point):
    """What a spawned process sees."""
    return [point.x, sys.argv, "keras_repro" in sys.modules]


if __name__ == "__main__":
    atexit.register(lambda: print(type(pickle.loads(pickle.dumps(Point())))))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(json.dumps(pool.map(look, [Point()])))
    names = sorted(name for name in globals() if name.startswith("__"))
    values = [__name__, __file__, __package__, __spec__ and __spec__.name]
    print(json.dumps([names, values, sys.argv, sys.path[:2], str(Path.cwd())]))
    print(random.random(), sys.flags.hash_randomization, file=sys.stderr)
    exec("raise ValueError('from the script')")
