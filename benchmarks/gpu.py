"""What holds on the accelerator of this machine, and what recording costs.

    python -m benchmarks.gpu                      # JAX, PyTorch, TensorFlow
    python -m benchmarks.gpu --json gpu.json      # the same, for a program
    python -m benchmarks.gpu --backends torch --minutes 4

For each installed backend, in processes of their own: the conformance table
of the tests, the recipes, and the cost of `ChecksumCallback`. On a machine
without an accelerator it runs on the processor, and says so.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

BACKENDS = ("jax", "torch", "tensorflow")
# Kernels that give the same bits each time, where a library has such.
DETERMINISTIC = {
    "XLA_FLAGS": "--xla_gpu_deterministic_ops=true",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TF_DETERMINISTIC_OPS": "1",
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
LOOK = """
import json, keras
from keras_repro.environment.capture import capture_environment
keras.ops.zeros(1)
found = capture_environment()
print(json.dumps([found["devices"], found["versions"]]))
"""
CALLBACK = """
from benchmarks.checksums import report_callback
report_callback({!r})
"""


class Budget:
    """The time that is left for all that is run.

    Args:
        minutes: How long it may take together.
    """

    def __init__(self, minutes):
        self._end = time.monotonic() + 60 * minutes

    def run(self, backend, *command):
        """Run Python for a backend; its output, or why there is none."""
        left = self._end - time.monotonic()
        environment = {**os.environ, **DETERMINISTIC, "KERAS_BACKEND": backend}
        try:
            result = subprocess.run(
                [sys.executable, *command],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=max(left, 1),
            )
        except subprocess.TimeoutExpired:
            return None, "no time was left"
        if result.returncode not in (0, 1):
            return None, (result.stderr or result.stdout)[-400:]
        return result.stdout, None


def try_conformance(budget, backend, folder):
    """Which rows of the table hold on a backend, and which do not."""
    path = Path(folder) / f"{backend}.xml"
    options = ("-q", "-p", "no:cacheprovider", "-m", "not gallery")
    _, problem = budget.run(
        backend,
        *("-m", "pytest", *options, f"--junitxml={path}", "tests/conformance"),
    )
    if problem or not path.exists():
        return {"problem": problem or "pytest wrote no results"}
    cases = list(ET.parse(path).getroot().iter("testcase"))
    skipped = [one for one in cases if one.find("skipped") is not None]
    failed = {}
    for one in cases:
        found = one.find("failure")
        found = one.find("error") if found is None else found
        if found is not None:
            failed[one.get("name")] = found.get("message", "")[:200]
    held = len(cases) - len(skipped) - len(failed)
    return {"held": held, "of": len(cases) - len(skipped), "failed": failed}


def try_recipes(budget, backend):
    """In how many cases each way of starting again gave an equal fit."""
    output, problem = budget.run(backend, "-m", "benchmarks.recipes", "--json")
    if problem or not output:
        return {"problem": problem or "nothing was printed"}
    equal = json.loads(output.splitlines()[-1])
    return {way: len(cases) for way, cases in equal.items()}


def try_callback(budget, backend):
    """The lines that tell what recording costs."""
    output, problem = budget.run(backend, "-c", CALLBACK.format(backend))
    if problem or not output:
        return {"problem": problem or "nothing was printed"}
    return {"lines": [line.strip() for line in output.splitlines()[1:]]}


def try_backend(budget, backend, folder):
    """All of it on one backend."""
    output, problem = budget.run(backend, "-c", LOOK)
    if problem or not output:
        return {"problem": problem or "nothing was printed"}
    devices, versions = json.loads(output.splitlines()[-1])
    return {
        "devices": devices,
        "version": versions.get(backend),
        "keras": versions.get("keras"),
        "conformance": try_conformance(budget, backend, folder),
        "recipes": try_recipes(budget, backend),
        "callback": try_callback(budget, backend),
    }


def describe(backend, found):
    """What was found on one backend, as lines of Markdown."""
    if "problem" in found:
        yield f"## {backend}: not run ({found['problem']})"
        return
    where = ", ".join(found["devices"] or ()) or "the processor"
    yield f"## {backend} {found['version']}, Keras {found['keras']}, {where}"
    rows = found["conformance"]
    if "problem" in rows:
        yield f"- conformance: not run ({rows['problem']})"
    else:
        yield f"- conformance: {rows['held']} of {rows['of']} rows hold"
        for name, message in rows["failed"].items():
            yield f"  - not: {name}: {message}"
    for way, count in found["recipes"].items():
        yield f"- second fit equal, {way}: {count}"
    lines = found["callback"].get("lines", list(found["callback"].values()))
    yield from (f"- recording: {line}" for line in lines)


def main():
    """Try each backend, print what came out, and perhaps write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--json", type=Path, help="where to write the results")
    args = parser.parse_args()
    budget, results = Budget(args.minutes), {}
    with tempfile.TemporaryDirectory() as folder:
        for backend in args.backends:
            if importlib.util.find_spec(backend) is None:
                continue
            results[backend] = try_backend(budget, backend, folder)
            print(*describe(backend, results[backend]), sep="\n", flush=True)
    if args.json is not None:
        text = json.dumps(results, indent=2)
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
