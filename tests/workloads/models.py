"""The table of workloads: small models in the shape of published examples."""

from . import feeding, generative, sequences, structured, vision
from .workload import BACKEND

ALL_WORKLOADS = [
    workload
    for module in (structured, vision, sequences, generative, feeding)
    for workload in module.WORKLOADS
]
WORKLOADS = [one for one in ALL_WORKLOADS if BACKEND in one.backends]
