"""Read files with changed bytes, in a process that may die of it.

    python mutations.py KIND PATH START COUNT

The kind is `snapshot` or `initial_state`. Prints how many were read and how
many refused, the largest time of one in seconds, and how many bytes of memory
the process grew by; before each, its number to the errors.
"""

import random
import resource
import sys
import time
from itertools import starmap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def read_snapshot(path):
    """All arrays of a snapshot, one after the other."""
    from keras_repro.runs.snapshots import open_snapshot

    with open_snapshot(path) as snapshot:
        return list(starmap(snapshot.read, snapshot.keys()))


def read_initial_state(path):
    """An initial state, without a model that it would be compared with."""
    from keras_repro.model.initial_state import InitialState

    return InitialState.read(Path(path))


READERS = {"snapshot": read_snapshot, "initial_state": read_initial_state}


def mutate(whole, number):
    """Flip bits, set bytes and copy pieces; the same for each number."""
    draw = random.Random(number)
    data = bytearray(whole)
    for _ in range(draw.choice([1, 1, 2, 8, 40])):
        where = draw.randrange(len(data))
        kind = draw.randrange(3)
        if kind == 0:
            data[where] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[where] = draw.choice([0, 1, 127, 128, 255])
        else:
            size = draw.randrange(1, 64)
            other = draw.randrange(len(data))
            data[where : where + size] = data[other : other + size]
    return data


def main(kind, path, start, count):
    read, whole = READERS[kind], Path(path).read_bytes()
    changed = Path(path).with_name("changed.h5")
    read(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    num_read = num_refused = longest = 0
    for number in range(int(start), int(start) + int(count)):
        print(number, file=sys.stderr, flush=True)
        changed.write_bytes(mutate(whole, number))
        began = time.process_time()
        try:
            read(changed)
        except ValueError:
            num_refused += 1
        else:
            num_read += 1
        longest = max(longest, time.process_time() - began)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(num_read, num_refused, round(longest, 3), grown * 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
