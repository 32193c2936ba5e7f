"""The command `keras-repro install-kernel`: hash seed and switches are set."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from keras_repro.cli import shared
from keras_repro.cli.shared import DIR, EQUAL, NAME, SEED
from keras_repro.common.text import describe

_NAME = re.compile(r"[a-z0-9._-]+", re.IGNORECASE)


@click.command(
    "install-kernel",
    epilog="""\b
exit codes:
  0  installed
  1  never
  2  trouble: no Jupyter, or no place for it

\b
examples:
  keras-repro install-kernel --seed 42
  keras-repro install-kernel --seed 42 --backend jax --name repeatable-jax
""",
)
@click.option("--seed", type=SEED, default="0", help="seed of string hashes")
@click.option(
    "--name", type=NAME, default="keras-repro", help="name of its folder"
)
@click.option(
    "--display-name",
    type=NAME,
    metavar="TEXT",
    help="what Jupyter's menus call it",
)
@shared.backend
@click.option(
    "--sys-prefix",
    is_flag=True,
    help="install it into this environment, not for the user",
)
@click.option("--prefix", type=DIR, help="install it below this folder")
def kernel(*, sys_prefix: bool, prefix: str | None, **wanted: Any) -> int:
    """Install a Jupyter kernel with hash seed and switches set.

    It starts with PYTHONHASHSEED and the switches for deterministic kernels
    set: the one thing that a notebook cannot do for itself, because Python and
    the backends read them when they start.
    """
    if sys_prefix and prefix is not None:
        raise click.ClickException(
            "`--sys-prefix` must come without `--prefix`. Received: both. "
            "Leave one of them out."
        )
    chosen = sys.prefix if sys_prefix else prefix
    print(install_kernel(KernelRequest(prefix=chosen, **wanted)))
    return EQUAL


@dataclass(frozen=True, kw_only=True)
class KernelRequest:
    """Which kernel is wanted, and where."""

    seed: int  # What `PYTHONHASHSEED` is set to.
    name: str = "keras-repro"  # The name of its folder.
    display_name: str | None = None  # What Jupyter's menus call it.
    backend: str | None = None  # `None` leaves `KERAS_BACKEND` alone.
    # Such as `sys.prefix`; `None`: the person's own folder.
    prefix: str | None = None


def make_kernel(request: KernelRequest) -> dict[str, Any]:
    """What the kernel's `kernel.json` holds.

    Example:
        >>> kernel = make_kernel(KernelRequest(seed=42, backend="torch"))
        >>> kernel["env"]["PYTHONHASHSEED"], kernel["display_name"]
        ('42', 'Python 3 (repeatable, hash seed 42, torch)')
    """
    from keras_repro.environment.switches import find_backend, switches_for

    # Those of the others do no harm, and a notebook may choose its backend.
    chosen = request.backend or find_backend({})
    environment: dict[str, str] = {}
    for backend in dict.fromkeys((chosen, "tensorflow", "torch")):
        # None of the person's own: the kernel starts in another shell.
        environment |= switches_for(request.seed, backend, {})
    if request.backend is not None:
        environment["KERAS_BACKEND"] = request.backend
    title = f"repeatable, hash seed {request.seed}"
    title += f", {request.backend}" if request.backend else ""
    return {
        "argv": [
            sys.executable,
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
        ],
        "display_name": request.display_name or f"Python 3 ({title})",
        "language": "python",
        "env": environment,
        "metadata": {"debugger": True},
    }


def install_kernel(request: KernelRequest) -> Path:
    """Install the kernel where Jupyter finds it."""
    if not _NAME.fullmatch(request.name):
        raise ValueError(
            "The kernel's name must hold letters, digits, '.', '_' and '-' "
            f"alone. Received: {describe(request.name)}. Leave it out for "
            "keras-repro."
        )
    try:
        import ipykernel  # noqa: F401 - the kernel will need it
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError as error:
        raise ValueError(
            "A kernel needs Jupyter in the environment that it runs in. "
            f"Received: {sys.prefix}, without it ({error}). Install it with "
            "`pip install 'keras-repro[jupyter]'`."
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.json"
        path.write_text(
            json.dumps(make_kernel(request), indent=1), encoding="utf-8"
        )
        installed: str = KernelSpecManager().install_kernel_spec(
            folder,
            request.name,
            user=request.prefix is None,
            prefix=request.prefix,
        )
    return Path(installed)
