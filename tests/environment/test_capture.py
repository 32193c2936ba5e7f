"""The environment names what changes results, and no person or place."""

import getpass
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import timeit
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_repro.environment import capture
from keras_repro.environment.capture import capture_environment
from keras_repro.environment.differences import find_differences
from tests.checkout import ROOT

PAGE = ROOT / "docs" / "environment.md"
CACHED = [
    function
    for function in vars(capture).values()
    if hasattr(function, "cache_clear")
]


@pytest.fixture
def no_caches():
    """Nothing is remembered from before, and nothing afterwards."""
    for function in CACHED:
        function.cache_clear()
    yield
    for function in CACHED:
        function.cache_clear()


def test_it_names_what_is_in_use():
    """Versions, backend, processor and dtype policy are those in use."""
    found = capture_environment()
    backend = keras.backend.backend()
    assert found["backend"] == backend
    assert found["versions"]["keras"] == keras.__version__
    assert found["versions"][backend] == sys.modules[backend].__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["dtype_policy"] == keras.config.dtype_policy().name
    assert found["processor"]
    assert found["cores"] >= found["usable_cores"] >= 1
    assert found["deterministic"] in (True, False, None)
    assert found["instructions"] == sorted(set(found["instructions"]))
    assert found["blas"]["numpy"]
    assert (found["jax"] is not None) == (backend == "jax")
    assert (found["onednn"]["enabled"] is None) == (backend == "jax")
    assert (found["threads"].get("intra_op") is None) == (backend == "jax")


def test_json_can_hold_it():
    """It reads back from JSON as it was."""
    found = capture_environment(private=True)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_each_key_is_on_its_page():
    """The page has every key, every named variable and every prefix."""
    text = PAGE.read_text(encoding="utf-8")
    names = [
        *capture._VARIABLES,
        *capture.THREAD_VARIABLES,
        *capture._PREFIXES,
    ]
    for key, value in capture_environment(private=True).items():
        names.append(key)
        if isinstance(value, dict) and key != "environment_variables":
            names += value
    assert [name for name in names if f"`{name}`" not in text] == []
    assert "`no_such_key`" not in text


def test_a_repeated_call_is_quick():
    """It is called at each fit, so what cannot change is asked once."""
    capture_environment()
    times = timeit.repeat(capture_environment, number=1, repeat=50)
    assert min(times) < 0.001


def test_settings_of_keras_are_read_anew():
    """A dtype policy that is set later is seen, and so is another floatx."""
    before = keras.config.dtype_policy()
    first = capture_environment()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        second = capture_environment()
    finally:
        keras.config.set_dtype_policy(before)
    (difference,) = find_differences(first, second)
    assert difference.key == "dtype_policy"
    assert find_differences(first, capture_environment()) == ()


def test_a_thread_count_is_named_first(monkeypatch):
    """Among what differs it comes before what matters less."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first = capture_environment()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(os, "cpu_count", lambda: 77)
    monkeypatch.setenv("TF_SOMETHING", "1")
    found = find_differences(first, capture_environment())
    assert [one.key for one in found] == [
        "threads.OMP_NUM_THREADS",
        "environment_variables.TF_SOMETHING",
        "cores",
    ]


# --- environment variables, persons and places ---------------------------


def test_environment_variables(monkeypatch):
    """Variables that change results are there; others, and paths, are not."""
    flags = "--xla_gpu_deterministic_ops=true --xla_dump_to=/secret/x /secret/y"
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SOME_TOKEN", "hidden")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    found = capture_environment()
    expected = "--xla_gpu_deterministic_ops=true --xla_dump_to=... ..."
    assert found["environment_variables"]["XLA_FLAGS"] == expected
    assert "PYTHONHASHSEED" not in found["environment_variables"]
    assert found["threads"]["OMP_NUM_THREADS"] == "3"
    assert "hidden" not in json.dumps(found)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert capture_environment() != found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("JAX_PLATFORMS", "cuda,cpu"),
        ("KMP_AFFINITY", "granularity=fine,compact,1,0"),
        ("OMP_PROC_BIND", "close"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("TF_ENABLE_ONEDNN_OPTS", "0"),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1"),
        ("XLA_FLAGS", "--xla_cpu_max_isa=AVX2 --xla_gpu_autotune_level=0"),
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", ".75"[1:]),
        ("MKL_CBWR", "AVX2,STRICT"),
    ],
)
def test_switches_are_kept_whole(monkeypatch, name, value):
    """A switch that says nothing of a person is recorded as it is."""
    monkeypatch.setenv(name, value)
    found = capture_environment()["environment_variables"]
    assert found[name] == value
    monkeypatch.delenv(name)
    assert name not in capture_environment()["environment_variables"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TF_TOKEN_APP_TERRAFORM_IO", "123456"),
        ("TF_VAR_ALICE", "1"),
        ("TF_alice", "1"),
        ("TF_CONFIG", '{"cluster": {"worker": ["host1.example:2222"]}}'),
        ("JAX_COORDINATOR_ADDRESS", "10.0.0.5:8476"),
        ("JAX_COMPILATION_CACHE_DIR", "cache"),
        ("KERAS_HOME", "/home/alice/.keras"),
        ("NVIDIA_API_KEY", "1234"),
        ("TORCH_PASSWORD", "1234"),
        ("TF_CPP_MIN_LOG_LEVEL", "3"),
        ("SOME_SWITCH", "1"),
    ],
)
def test_variables_that_are_left_out(monkeypatch, name, value):
    """What may hold a name, an address or a secret is not there at all."""
    monkeypatch.setenv(name, value)
    found = capture_environment()["environment_variables"]
    assert name not in found
    assert value not in found.values()


def test_a_gpu_is_not_identified(monkeypatch):
    """The number by which NVIDIA knows one GPU among all is cut."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c,MIG-1a2b")
    found = capture_environment()["environment_variables"]
    assert found["CUDA_VISIBLE_DEVICES"] == "...,..."


def test_it_names_no_person_and_no_place():
    """No user, host, home or working directory is recorded."""
    values = list(_strings(capture_environment()))
    for secret in (getpass.getuser(), socket.gethostname()):
        assert secret not in values
    for secret in (str(Path.home()), str(Path.cwd()), str(ROOT)):
        if secret != "/":
            assert not [value for value in values if secret in value]


def test_private_entries():
    """They are there when asked for, and only then."""
    found = capture_environment(private=True)
    names = ("user", "host", "cwd", "executable")
    assert found["host"] == platform.node()
    assert found["cwd"] == str(Path.cwd())
    assert found["executable"] == sys.executable
    public = capture_environment()
    assert not set(names) & set(public)
    assert {key for key in found if key not in public} == set(names)


SECRETS = st.from_regex(r"s3cr3t[A-Za-z0-9+_.@-]{4,30}", fullmatch=True)
NAMES = st.sampled_from(
    [
        *capture._VARIABLES,
        *capture.THREAD_VARIABLES,
        *("AWS_SECRET_ACCESS_KEY", "TF_CONFIG", "WANDB_API_KEY"),
    ]
) | st.builds(
    str.__add__,
    st.sampled_from(capture._PREFIXES),
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=12),
)
SHAPES = st.sampled_from(
    [
        "{}",
        "/home/{}/x",
        "C:\\Users\\{}",
        "--xla_dump_to={}",
        "--xla_{}",
        "--flag=true --xla_dump_to=/tmp/{} 1",
        "true,{}",
        "1:{}:2",
        '{{"token": "{}"}}',
        "{}=1",
        "https://{}:x@example.org",
    ]
)


@settings(max_examples=300)
@given(
    st.dictionaries(NAMES, st.tuples(SHAPES, SECRETS), min_size=1, max_size=5),
    SECRETS,
    SECRETS,
)
def test_planted_secrets(variables, user, host):
    """No secret shows, wherever it stands; asked for, user and host do."""
    with pytest.MonkeyPatch.context() as patch:
        for name, (shape, secret) in variables.items():
            patch.setenv(name, shape.format(secret))
        for name in ("USER", "LOGNAME", "USERNAME", "HOSTNAME"):
            patch.setenv(name, user)
        patch.setenv("HOME", f"/home/{user}")
        patch.setattr(platform, "node", lambda: host)
        shown = json.dumps(capture_environment())
        private = json.dumps(capture_environment(private=True))
    for secret in (user, host, *(secret for _, secret in variables.values())):
        assert secret not in shown
    assert "s3cr3t" not in shown
    assert user in private
    assert host in private


def test_directories_do_not_show(run_python, tmp_path):
    """Neither the script's folder and name nor the current one is there."""
    folder = tmp_path / "s3cr3t-folder"
    folder.mkdir()
    script = folder / "s3cr3t-script.py"
    script.write_text(
        "import json, sys\n"
        "from keras_repro.environment.capture import capture_environment\n"
        "private = len(sys.argv) > 1\n"
        "print(json.dumps(capture_environment(private=private)))\n"
    )
    assert "s3cr3t" not in run_python(script, cwd=folder).stdout
    assert "s3cr3t" in run_python(script, "private", cwd=folder).stdout


def _strings(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    else:
        yield str(value)


# --- what it leaves alone ------------------------------------------------


def test_it_imports_no_framework(run_python):
    """In a process without Keras it loads none, and says so."""
    code = (
        "import sys\n"
        "from keras_repro.environment.capture import capture_environment\n"
        "found = capture_environment()\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "print(found['backend'], found['versions']['torch'],\n"
        "      found['devices'], found['deterministic'],\n"
        "      found['versions']['keras'])\n"
    )
    result = run_python("-c", code, cwd=ROOT)
    assert result.stdout.split() == ["None"] * 4 + [keras.__version__]


def test_without_keras(run_python):
    """Where it is not installed, the rest is recorded."""
    code = (
        "import importlib.metadata as metadata, json, sys\n"
        "known = metadata.version\n"
        "def version(name):\n"
        "    if name in {'keras', 'tensorflow', 'jax', 'torch'}:\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return known(name)\n"
        "metadata.version = version\n"
        "for name in ('keras', 'tensorflow', 'jax', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "from keras_repro.environment.capture import capture_environment\n"
        "print(json.dumps(capture_environment()))\n"
    )
    found = json.loads(run_python("-c", code, PYTHONHASHSEED="12").stdout)
    assert list(found) == list(capture_environment())
    assert found["versions"]["keras"] is None
    assert found["versions"]["numpy"]
    assert found["backend"] is None
    assert found["hash_seed"] == "12"
    assert found["blas"]["numpy"] == capture_environment()["blas"]["numpy"]


LEFT_ALONE = {
    "tensorflow": (
        "import tensorflow as tf\n"
        "tf.config.threading.set_intra_op_parallelism_threads(3)\n"
        "assert capture_environment()['threads']['intra_op'] == 3\n"
    ),
    "jax": (
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "assert found['devices'] is found['deterministic'] is None\n"
        "keras.ops.zeros(1)\n"
        "found = capture_environment()\n"
        "assert found['devices'] is not None\n"
        "assert found['deterministic'] is not None\n"
    ),
    "torch": (
        "import torch\n"
        "assert not torch.cuda.is_initialized()\n"
        "torch.set_num_interop_threads(3)\n"
        "assert capture_environment()['threads']['inter_op'] == 3\n"
    ),
}


@pytest.mark.slow
def test_it_starts_no_backend(run_python):
    """After it the backend can still be configured."""
    code = (
        "import keras\n"
        "from keras_repro.environment.capture import capture_environment\n"
        "found = capture_environment()\n"
        f"{LEFT_ALONE[keras.backend.backend()]}"
        "print(found['hash_seed'], found['hash_randomization'])\n"
        "import os\n"
        "os.environ['PYTHONHASHSEED'] = '99'\n"
        "print(capture_environment()['hash_seed'])\n"
    )
    result = run_python("-c", code, PYTHONHASHSEED="0")
    assert result.stdout.split() == ["0", "False", "0"]


@pytest.mark.requires_backend("jax")
def test_jax_that_has_not_started(monkeypatch):
    """JAX is not started to list its devices; once started they are listed."""
    keras.ops.zeros(1)
    assert capture_environment()["devices"] is not None
    bridge = sys.modules["jax._src.xla_bridge"]
    monkeypatch.setattr(bridge, "backends_are_initialized", lambda: False)
    assert capture_environment()["devices"] is None


# --- the settings of each backend ----------------------------------------


@pytest.mark.requires_backend("jax")
def test_settings_of_jax():
    """Precision and generator are those of JAX."""
    import jax

    first = capture_environment()
    with (
        jax.default_matmul_precision("highest"),
        jax.default_prng_impl("rbg"),
    ):
        second = capture_environment()
    found = find_differences(first, second)
    keys = [(one.weight, one.key) for one in found]
    assert keys == [(3, "jax.default_prng_impl"), (2, "matmul_precision")]
    assert first["jit"]
    with jax.disable_jit():
        assert not capture_environment()["jit"]


@pytest.mark.requires_backend("tensorflow")
def test_settings_of_tensorflow():
    """TF32 is that of TensorFlow, and so is clustering for XLA."""
    import tensorflow as tf

    first = capture_environment()
    try:
        tf.config.experimental.enable_tensor_float_32_execution(False)
        assert capture_environment()["tf32"]["matmul"] is False
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)
    assert first["tf32"] == {"matmul": True, "convolution": True}
    assert first["jit"] is False


@pytest.mark.slow
@pytest.mark.requires_backend("tensorflow")
@pytest.mark.parametrize("value", ["", "0", "TRUE"])
def test_onednn_of_tensorflow(run_python, value):
    """It is on where TensorFlow itself says that it is."""
    code = (
        "import os\n"
        f"value = {value!r}\n"
        "os.environ.pop('TF_ENABLE_ONEDNN_OPTS', None)\n"
        "if value: os.environ['TF_ENABLE_ONEDNN_OPTS'] = value\n"
        "from keras_repro.environment.capture import _tensorflow_onednn\n"
        "from tensorflow.python.util import _pywrap_util_port\n"
        "print(_tensorflow_onednn(), _pywrap_util_port.IsMklEnabled())\n"
    )
    ours, theirs = run_python("-c", code).stdout.split()[-2:]
    assert ours in (theirs, "None")
    if value:
        assert ours == str(value == "TRUE")


@pytest.mark.requires_backend("torch")
def test_settings_of_torch(run_python):
    """TF32 and threads are PyTorch's, by its older names and its newer."""
    code = (
        "import keras, torch\n"
        "from keras_repro.environment.capture import capture_environment\n"
        "def show():\n"
        "    found = capture_environment()\n"
        "    print(found['tf32']['matmul'], found['matmul_precision'],\n"
        "          found['threads']['intra_op'])\n"
        "show()\n"
        "torch.backends.cuda.matmul.allow_tf32 = True\n"
        "torch.set_num_threads(3)\n"
        "show()\n"
        "torch.backends.cuda.matmul.allow_tf32 = False\n"
        "if hasattr(torch.backends.cuda.matmul, 'fp32_precision'):\n"
        "    torch.backends.cuda.matmul.fp32_precision = 'tf32'\n"
        "    show()\n"
    )
    lines = run_python("-c", code, OMP_NUM_THREADS="2").stdout.splitlines()
    assert lines[0].split() == ["False", "highest", "2"]
    assert lines[1].split() == ["True", "high", "3"]
    if len(lines) > 2:
        assert lines[2].split() == ["True", "None", "3"]


# --- other machines ------------------------------------------------------


def test_other_systems(monkeypatch, no_caches):
    """Where a system does not tell, what Python and NumPy know is taken."""
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    found = capture_environment()
    assert found["processor"]
    assert found["instructions"]
    assert found["usable_cores"] == os.cpu_count()
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    assert capture._tensorflow_onednn() is None


def test_processors(monkeypatch, no_caches, tmp_path):
    """Linux describes x86 and Arm in other words."""
    listing = tmp_path / "cpuinfo"
    monkeypatch.setattr(capture, "Path", lambda _: listing)
    listing.write_text("model name\t: A: B\nflags\t\t: fpu avx2 avx512f avx\n")
    assert capture._processor() == "A: B"
    assert capture._instructions() == ("avx", "avx2", "avx512f")
    for function in CACHED:
        function.cache_clear()
    listing.write_text("processor : 0\nFeatures : fp sve2 asimd crc32\n")
    assert capture._instructions() == ("asimd", "sve2")
    assert capture._processor()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat "
            "Aug 19\nGCC version:  gcc version 12.3.0",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  "
            "550.54.15  Release Build  (someone@somewhere)",
            "550.54.15",
        ),
        ("550.54.15\n550.54.15\n", "550.54.15"),
        ("NVIDIA-SMI has failed", None),
    ],
)
def test_drivers(monkeypatch, no_caches, tmp_path, text, version):
    """The driver's version is found, in its file or by its command."""
    source = tmp_path / "version"
    monkeypatch.setattr(capture, "Path", lambda _: source)
    monkeypatch.setattr(capture, "_run", lambda *_: text)
    assert capture._driver() == version
    capture._driver.cache_clear()
    monkeypatch.setattr(capture, "_run", lambda *_: None)
    assert capture._driver() is None
    capture._driver.cache_clear()
    source.write_text(text)
    assert capture._driver() == version


def _torch_with_gpu(*, started):
    cuda = SimpleNamespace(
        device_count=lambda: 1,
        is_initialized=lambda: started,
        get_device_name=lambda _: "NVIDIA H200",
    )
    mps = SimpleNamespace(is_available=lambda: False)
    cudnn = SimpleNamespace(version=lambda: 91002)
    return SimpleNamespace(
        cuda=cuda,
        backends=SimpleNamespace(mps=mps, cudnn=cudnn),
        version=SimpleNamespace(cuda="12.8"),
    )


def test_a_gpu_of_torch(monkeypatch):
    """Once CUDA has started the GPU is named; it is never started for it."""
    monkeypatch.setattr(capture, "_driver", lambda: "550.1")
    monkeypatch.setitem(sys.modules, "torch", _torch_with_gpu(started=True))
    devices = capture._devices("torch")
    assert devices == ["NVIDIA H200"]
    assert capture._gpu("torch", devices) == {
        "driver": "550.1",
        "cuda": "12.8",
        "cudnn": "91002",
    }
    monkeypatch.setitem(sys.modules, "torch", _torch_with_gpu(started=False))
    assert capture._devices("torch") is None
    nothing = {"driver": None, "cuda": None, "cudnn": None}
    assert capture._gpu("torch", None) == nothing


def test_a_gpu_of_tensorflow_and_jax(monkeypatch):
    """CUDA is what TensorFlow was built with, or what JAX's client says."""
    build = {"cuda_version": "12.5.1", "cudnn_version": "9"}
    tensorflow = SimpleNamespace(
        sysconfig=SimpleNamespace(get_build_info=lambda: build)
    )
    client = SimpleNamespace(platform_version="PJRT C API\ncuda 12090")
    device = SimpleNamespace(client=client)
    jax = SimpleNamespace(devices=lambda: [device])
    monkeypatch.setattr(capture, "_driver", lambda: None)
    monkeypatch.setattr(
        capture,
        "_installed_version",
        {"nvidia-cudnn-cu13": None, "nvidia-cudnn-cu12": "9.10"}.get,
    )
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    monkeypatch.setitem(sys.modules, "jax", jax)
    found = capture._gpu("tensorflow", ["GPU"])
    assert (found["cuda"], found["cudnn"]) == ("12.5.1", "9")
    found = capture._gpu("jax", ["NVIDIA H200"])
    assert (found["cuda"], found["cudnn"]) == ("12090", "9.10")


def test_a_package_that_is_not_installed():
    """A missing package has no version."""
    assert capture._version("no_such_package_here") is None


# --- git -----------------------------------------------------------------

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit, of a script that prints what it sees."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "script.py").write_text(
        "import json\n"
        "from keras_repro.environment.capture import capture_environment\n"
        "print(json.dumps(capture_environment()['git']))\n"
    )
    person = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for command in (
        ("init", "--quiet"),
        ("add", "script.py"),
        (*person, "commit", "--quiet", "--no-gpg-sign", "-m", "One"),
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@needs_git
def test_commit_of_the_script(run_python, repository, tmp_path):
    """It is that of the script's folder; a changed file makes it dirty."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    script = repository / "script.py"

    def run():
        return json.loads(run_python(script, cwd=tmp_path).stdout)

    assert run() == {"commit": commit, "dirty": False}
    (repository / "runs.jsonl").write_text("{}")
    assert run() == {"commit": commit, "dirty": False}
    script.write_text(script.read_text() + "# changed\n")
    assert run() == {"commit": commit, "dirty": True}
    assert json.loads(run_python(script, PATH="").stdout) is None


@needs_git
def test_commit_without_a_script(run_python, repository, tmp_path):
    """Where no script runs, or a tool does, it is the current folder's."""
    code = (repository / "script.py").read_text()
    assert json.loads(run_python("-c", code, cwd=repository).stdout)
    ceiling = str(tmp_path)
    result = run_python(
        "-c", code, cwd=tmp_path, GIT_CEILING_DIRECTORIES=ceiling
    )
    assert json.loads(result.stdout) is None
    assert capture._is_installed(pytest.__file__)
    assert not capture._is_installed(str(repository / "script.py"))


def test_git_is_asked_once(monkeypatch, no_caches):
    """Once for a folder: a fit does not wait for it each time."""
    asked = []
    answer = f"# branch.oid {'a' * 40}\n# branch.head main\n1 .M x\n"
    monkeypatch.setattr(
        capture, "_run", lambda *command: asked.append(command) or answer
    )
    expected = {"commit": "a" * 40, "dirty": True}
    assert capture._git() == capture._git() == expected
    assert len(asked) == 1
    capture._ask_git.cache_clear()
    monkeypatch.setattr(capture, "_run", lambda *_: "# branch.oid (initial)")
    assert capture._git() is None


@pytest.mark.slow
def test_a_command_that_hangs_or_fails():
    """It gives nothing, and no error; one that works gives what it prints."""
    python = sys.executable
    assert capture._run(python, "-c", "print(3)").strip() == "3"
    assert capture._run(python, "-c", "raise SystemExit(1)") is None
    assert capture._run("no-such-command-here") is None
    assert capture._run(python, "-c", "import time; time.sleep(60)") is None


def test_a_directory_that_was_removed(monkeypatch):
    """Then there is no current one, and no error."""

    def fail():
        raise FileNotFoundError

    monkeypatch.setattr(Path, "cwd", fail)
    assert capture._working_directory() is None
    assert re.fullmatch(r".+", capture_environment(private=True)["host"])
