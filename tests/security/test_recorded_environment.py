"""What a recorded environment may set, when its file is a stranger's."""

import json
import os
import re
import sys

import pytest

from keras_repro.environment.settable import is_settable
from tests.checkout import run_command

BACKEND = os.environ["KERAS_BACKEND"]
SCRIPT = """\
import json, os
import keras
import numpy as np

with open("processes.jsonl", "a") as file:
    cores = getattr(os, "sched_getaffinity", lambda _: ())(0)
    print(json.dumps([dict(os.environ), len(cores)]), file=file)
seed = int(open("seed.txt").read())
keras.utils.set_random_seed(seed)
x = np.linspace(-1, 1, 32).reshape(8, 4).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(x, x[:, :1], shuffle=False, verbose=0)
"""
FOLDER = "/tmp/of-a-stranger"
HOSTILE = {
    "PYTHONPATH": FOLDER,
    "PYTHONSTARTUP": FOLDER,
    "PYTHONHOME": FOLDER,
    "KERAS_REPRO_WATCHED": f'{{"plan": "{FOLDER}/plan.json"}}',
    "LD_PRELOAD": f"{FOLDER}/a.so",
    "LD_LIBRARY_PATH": FOLDER,
    "PATH": FOLDER,
    "HOME": FOLDER,
    "KERAS_HOME": FOLDER,
    "KERAS_BACKEND": "of-a-stranger",
    "TMPDIR": FOLDER,
    "XLA_FLAGS": f"--xla_dump_to={FOLDER}",
    "TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={FOLDER}",
    "LIBTPU_INIT_ARGS": "--anything",
    "JAX_COMPILATION_CACHE_DIR": FOLDER,
    "JAX_PLATFORMS": "of-a-stranger",
    "CUDA_HOME": FOLDER,
    "OMP_TOOL_LIBRARIES": f"{FOLDER}/a.so",
    "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": FOLDER,
    "NUMEXPR_NUM_THREADS": "10000000",
    "MKL_NUM_THREADS": "-1",
}
HARMLESS = {"OMP_NUM_THREADS": "3", "TF_CUDNN_DETERMINISTIC": "1"}


@pytest.mark.no_backend
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_settings(name):
    """No place, no library, no module, and no number without a bound."""
    assert not is_settable(name, HOSTILE[name])


@pytest.mark.no_backend
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *HARMLESS.items(),
        ("PYTHONHASHSEED", "random"),
        ("PYTHONHASHSEED", None),
        ("XLA_FLAGS", ""),
        ("XLA_FLAGS", "--xla_cpu_enable_fast_math=false"),
        (
            "XLA_FLAGS",
            "--xla_force_host_platform_device_count=8  --xla_cpu_max_isa=AVX2",
        ),
        ("TF_XLA_FLAGS", "--tf_xla_auto_jit=2"),
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("CUDA_VISIBLE_DEVICES", ""),
        ("MKL_CBWR", "AVX2,STRICT"),
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("KERAS_BACKEND", "jax"),
    ],
)
def test_harmless_settings(name, value):
    """What only chooses kernels, devices or an order."""
    assert is_settable(name, value)


@pytest.mark.no_backend
@pytest.mark.parametrize(
    "value",
    [
        "flags.txt",  # XLA reads its flags from a file of that name.
        "--xla_gpu_autotune_level=3 --xla_dump_to=x",
        "--xla_gpu_autotune_level=3\t--xla_dump_to=x",
        "--xla_gpu_autotune_level=3\n--xla_dump_to=x",
        "--xla_gpu_autotune_level=3\x0b--xla_dump_to=x",
        "--xla_gpu_autotune_level='3 --xla_dump_to=x'",
        "--xla_gpu_autotune_level=300",
        "--xla_force_host_platform_device_count=100000",
        "--xla_cpu_max_isa=../x",
        "-xla_gpu_ftz",
        7,
        True,
        ["--xla_gpu_ftz"],
    ],
)
def test_flags_are_read_one_by_one(value):
    """One unknown flag, or a value that it cannot have, and none is set."""
    assert not is_settable("XLA_FLAGS", value)
    assert is_settable("XLA_FLAGS", "--xla_gpu_ftz=true --xla_gpu_ftz")


@pytest.mark.no_backend
@pytest.mark.parametrize("name", [*HOSTILE, "", "A=B", 3, None])
def test_unset(name):
    """What is not on the list is not taken away either."""
    known = ["KERAS_BACKEND", "XLA_FLAGS", "JAX_PLATFORMS"]
    known += [one for one in HOSTILE if re.search("NUM_THREADS|TF_XLA", one)]
    assert is_settable(name, None) == (name in known)


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.requires_backend
def test_verify_against_a_strangers_file(tmp_path):
    """Known switches are tried; all else is told, with how to try it."""
    (tmp_path / "script.py").write_text(SCRIPT)
    folder = tmp_path / "of-a-stranger"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("open('ran', 'w')")
    command = (sys.executable, "-m", "keras_repro", "verify")

    def verify(*options, code):
        log = ("--runs", "2", "--json", "verdict.json")
        return run_command(
            *(*command, *log, *options, "script.py"),
            cwd=tmp_path,
            code=code,
            without={"PYTHONHASHSEED", *HOSTILE, *HARMLESS} - {"PATH", "HOME"},
            KERAS_BACKEND=BACKEND,
        )

    (tmp_path / "seed.txt").write_text("1")
    verify("--log", "there.jsonl", code=0)
    (tmp_path / "seed.txt").write_text("2")
    header, *rest = (tmp_path / "there.jsonl").read_text().splitlines()
    header = json.loads(header)
    hostile = {
        key: value.replace(FOLDER, str(folder))
        for key, value in HOSTILE.items()
        if key not in ("PATH", "HOME", "PYTHONHOME")
    }
    hostile["A\x1b[31m"] = hostile["B C"] = "1"
    header["environment"]["environment_variables"] |= hostile | HARMLESS
    header["environment"] |= {"usable_cores": 0, "backend": "of-a-stranger"}
    lines = [json.dumps(header), *rest]
    (tmp_path / "there.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "processes.jsonl").unlink()
    options = ("--budget", "2", "--against", "there.jsonl")
    told = verify(*options, code=1).stdout
    texts = (tmp_path / "processes.jsonl").read_text().splitlines()
    processes = [json.loads(one) for one in texts]
    assert len(processes) > 2  # Two as it is, and experiments.
    for variables, cores in processes:
        assert not any("of-a-stranger" in one for one in variables.values())
        assert variables["KERAS_BACKEND"] == BACKEND
        assert cores == processes[0][1]
    assert not (tmp_path / "ran").exists()
    # The twin: what is on the list was set.
    for name, value in HARMLESS.items():
        assert value in [one.get(name) for one, _ in processes]
    how = f"env PYTHONPATH={folder} keras-repro verify"
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    advice = [one["advice"] for one in verdict["suspects"]]
    assert [one for one in advice if how in one]
    assert not [one for one in advice if "\x1b" in one or "env 'B C" in one]
    assert "\x1b" not in told
