"""The table of workloads: small models in the shape of published examples."""

from . import (
    feeding,
    generative,
    guided,
    playing,
    sequences,
    structured,
    vision,
)
from .workload import BACKEND

MODULES = (
    structured,
    vision,
    sequences,
    generative,
    feeding,
    guided,
    playing,
)
ALL_WORKLOADS = [
    workload for module in MODULES for workload in module.WORKLOADS
]
WORKLOADS = [one for one in ALL_WORKLOADS if BACKEND in one.backends]
