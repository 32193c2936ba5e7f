"""Kernels and the cell magic."""

import json
import sys
import warnings

import pytest

from keras_repro.cli import main as cli
from keras_repro.cli.kernel import (
    KernelRequest,
    install_kernel,
    make_kernel,
)

pytestmark = pytest.mark.no_backend

pytest.importorskip("IPython")

MODEL = (
    "import keras, numpy as np, keras_repro as kr\n"
    "x = np.linspace(-1, 1, 64).reshape(16, 4).astype('float32')\n"
    "def build():\n"
    "    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])\n"
    "    model.compile('sgd', 'mse')\n"
    "    return model\n"
)
FIT = "{}.fit(x, x[:, :1], verbose=0)\n"


@pytest.fixture
def shell(monkeypatch):
    """IPython's shell with the extension loaded; both are gone afterwards."""
    # It warns where another environment is active than that of this Python.
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.run_cell("%load_ext keras_repro")
    try:
        yield shell
    finally:
        shell.run_cell("%unload_ext keras_repro")
        InteractiveShell.clear_instance()


@pytest.fixture
def run(shell, capsys):
    """Run a cell; what it printed, and its warnings as text."""

    def run(cell):
        capsys.readouterr()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = shell.run_cell(cell)
        assert result.success, result.error_in_exec
        told = [f"{one.category.__name__}: {one.message}" for one in caught]
        return "\n".join([capsys.readouterr().out, *told])

    return run


@pytest.mark.requires_backend
def test_cell_that_goes_on(run):
    """A cell that is run again and trains on is told; the first is not."""
    run(MODEL + "model = build()")
    cell = "%%repro\n" + FIT.format("model")
    assert "RerunWarning" not in run(cell)
    output = run(cell)
    assert "RerunWarning" in output
    assert "trained already for 1 step:" in output
    assert "other models as the last time" in output
    # Another cell may go on with it on purpose.
    other = "%%repro\n# go on\n" + FIT.format("model")
    assert "RerunWarning" not in run(other)
    # What it made is not undone when the first is run again.
    assert "trained already for 3 steps:" in run(cell)


@pytest.mark.requires_backend
@pytest.mark.parametrize(
    ("before", "cell"),
    [
        # Built anew in the cell.
        ("", "keras.utils.set_random_seed(1)\nmodel = build()\n"),
        # Reset in the cell.
        (
            "model = kr.ReproducibleModel([keras.Input((4,)), "
            "keras.layers.Dense(1)])\nmodel.compile('sgd', 'mse')\n",
            "model.reset()\n",
        ),
    ],
)
def test_cell_that_begins_anew(run, before, cell):
    """A cell that builds or resets its model is told to be equal."""
    run(MODEL + before)
    cell = "%%repro\n" + cell + FIT.format("model")
    assert "keras-repro" not in run(cell)
    output = run(cell)
    assert "RerunWarning" not in output
    assert "the same models as the last time, bit for bit" in output


@pytest.mark.requires_backend
def test_weights_that_were_put_back(run):
    """Weights that were put back leave the optimizer where it was."""
    run(MODEL + "model = build()\nstart = model.get_weights()")
    cell = "%%repro\n" + FIT.format("model")
    run(cell)
    run("model.set_weights(start)")
    assert "has other weights since, and the optimizer of 1 step" in run(cell)
    # Nothing of the first training is left of a new optimizer and its start.
    run("model.set_weights(start)\nmodel.compile('sgd', 'mse')")
    assert "RerunWarning" not in run(cell)
    # A new optimizer alone trains on what is there.
    run("model.compile('sgd', 'mse')")
    assert "is trained already. Call" in run(cell)


@pytest.mark.requires_backend
def test_everything_is_put_back(run, shell):
    """After a cell, also one that fails, `fit` is Keras' own again."""
    import keras

    run(MODEL + "model = build()")
    own = keras.Model.fit
    run("%%repro\n" + FIT.format("model"))
    assert keras.Model.fit is own
    shell.run_cell("%%repro\n1 / 0")
    assert keras.Model.fit is own
    assert "fit" not in vars(keras.Model)
    shell.run_cell("%unload_ext keras_repro")
    assert "repro" not in shell.magics_manager.magics["cell"]
    shell.run_cell("%load_ext keras_repro")


def test_arguments_are_refused(shell, capsys):
    """The magic takes none, and says so."""
    result = shell.run_cell("%%repro 3\n1")
    assert "takes no arguments. Received: '3'" in str(result.error_in_exec)


# --- kernels -----------------------------------------------------------------


def test_kernel_sets_what_must_be_set_early():
    """Its environment has the hash seed and the switches, of one backend."""
    kernel = make_kernel(KernelRequest(seed=42))
    assert kernel["env"]["PYTHONHASHSEED"] == "42"
    assert kernel["env"]["TF_DETERMINISTIC_OPS"] == "1"
    assert kernel["env"]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "KERAS_BACKEND" not in kernel["env"]
    assert kernel["argv"][0] == sys.executable
    kernel = make_kernel(
        KernelRequest(seed=7, backend="jax", display_name="Mine")
    )
    assert kernel["env"]["KERAS_BACKEND"] == "jax"
    assert "xla_gpu_deterministic_ops" in kernel["env"]["XLA_FLAGS"]
    assert kernel["display_name"] == "Mine"


@pytest.fixture
def installed(tmp_path, capsys, monkeypatch):
    """Install a kernel by the command, where only this test looks."""
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    line = ["install-kernel", "--seed", "42", "--prefix", str(tmp_path)]
    assert cli.main(line) == 0
    path = capsys.readouterr().out.strip()
    return json.loads((tmp_path / path / "kernel.json").read_text())


def test_kernel_that_jupyter_finds(installed):
    """It is installed where Jupyter looks, and a second time as well."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("keras-repro")
    assert spec.env == installed["env"]
    assert spec.display_name == "Python 3 (repeatable, hash seed 42)"


@pytest.mark.slow
def test_kernel_that_runs(installed):
    """A real kernel starts with the hash seed: two order a set alike."""
    from jupyter_client.manager import start_new_kernel

    def ask():
        manager, client = start_new_kernel(kernel_name="keras-repro")
        try:
            outputs = []
            client.execute_interactive(
                "import os; print(os.environ['PYTHONHASHSEED'], hash('a'))",
                timeout=60,
                output_hook=outputs.append,
            )
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        return "".join(
            one["content"]["text"]
            for one in outputs
            if one["msg_type"] == "stream"
        )

    first = ask()
    assert first.startswith("42 ")
    assert first == ask()
    assert first.split()[1] != str(hash("a"))


@pytest.mark.parametrize("name", ["a b", "../up", ""])
def test_odd_names(name, capsys):
    """A name that cannot be that of a folder is refused."""
    assert cli.main(["install-kernel", "--name", name]) == 2
    assert f"Received: {name!r}" in capsys.readouterr().err


def test_without_jupyter(monkeypatch):
    """Without Jupyter the extra is named."""
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    with pytest.raises(ValueError, match=r"keras-repro\[jupyter\]"):
        install_kernel(KernelRequest(seed=1))
