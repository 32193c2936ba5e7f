"""Which objects are generators of random numbers; no library is loaded."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np


def name_generator(value: object) -> str | None:
    """What kind of generator an object is; `None` if it is none.

    Only its type is looked at, so that no code of the object's own runs.

    Example:
        >>> name_generator(np.random.default_rng(0)), name_generator(0)
        ('numpy', None)
    """
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    keras_random = getattr(keras, "random", None)
    # Looked up at each call: a watch puts other classes in their place.
    known: tuple[tuple[str, Any], ...] = (
        ("python", random.Random),
        ("numpy", np.random.Generator),
        ("numpy_bits", np.random.BitGenerator),
        ("numpy_legacy", np.random.RandomState),
        ("torch", getattr(torch, "Generator", None)),
        ("keras", getattr(keras_random, "SeedGenerator", None)),
    )
    for name, base in known:
        if isinstance(base, type) and issubclass(type(value), base):
            return name
    return None
