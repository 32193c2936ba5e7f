"""Run in a process of its own: what a seed gives each workload there."""

import json
import sys

from .models import WORKLOADS
from .workload import OURS, observe_under


def main(seed: int, names: list[str]) -> None:
    """Print the results by the name of the workload, on one line."""
    results = {}
    for one in WORKLOADS:
        if one.name in names:
            try:
                result = observe_under(one, one.build(OURS), seed)
            except Exception as error:  # noqa: BLE001 - shown by its test
                result = {"error": repr(error)}
            results[one.name] = result
    print(json.dumps(results))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
