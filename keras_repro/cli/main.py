"""The command `keras-repro`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from keras_repro.cli.env import env
from keras_repro.cli.kernel import kernel
from keras_repro.cli.runs import compare, run, show
from keras_repro.cli.shared import TROUBLE, is_script, say
from keras_repro.cli.trials import trials
from keras_repro.cli.verify import verify
from keras_repro.common.text import escape

_NAME = "keras-repro"
_COMPLETE = "_KERAS_REPRO_COMPLETE"  # Set by what click gives a shell.
_BROKEN_PIPE = 141  # As a shell reports a program that SIGPIPE ended.


def _show_version(context: click.Context, _: Any, wanted: bool) -> None:
    if wanted:
        from keras_repro import __version__

        print(f"{_NAME} {__version__}")
        context.exit()


@click.group(
    commands=[compare, env, kernel, run, show, trials, verify],
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
    },
    subcommand_metavar="COMMAND ...",
    epilog="""\b
examples:
  keras-repro verify train.py              is it reproducible? if not, why?
  keras-repro run train.py                 record every fit in runs.jsonl
  keras-repro show runs.jsonl              list what was recorded
  keras-repro compare runs.jsonl           are they bitwise equal? where not?
  keras-repro trials train.py:train        the same training under 30 seeds
  keras-repro env                          what bitwise equal runs still lack
  keras-repro install-kernel --seed 42     a repeatable kernel for notebooks

`keras-repro COMMAND --help` shows more of each command.
""",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="print the version and exit",
)
def command() -> None:
    """Make Keras training repeatable.

    Run a script with everything seeded, record what its models hold epoch by
    epoch, and find where two runs differ.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _never_fail_to_encode()
    if _COMPLETE in os.environ:
        from click.shell_completion import shell_complete

        asked = os.environ[_COMPLETE]
        return shell_complete(command, {}, _NAME, _COMPLETE, asked)
    try:
        code = _try(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has read enough. Python would flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return 130
    return code


def _try(arguments: list[str]) -> int:
    """Run the command; what a person can fix is printed, not raised."""
    # Not by click's own `main`, which ends a broken pipe and Ctrl-C its way.
    try:
        with command.make_context(
            _NAME, [*arguments], obj=arguments
        ) as context:
            code: int = command.invoke(context)
            return code
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        raise
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return TROUBLE
    except (click.ClickException, ValueError, OSError) as error:
        message = _explain(error)
    if _wants_json(arguments):
        print(json.dumps({"error": message}))
    say(message)
    return TROUBLE


def _explain(error: Exception) -> str:
    """What is wrong, as our own errors are written."""
    if isinstance(error, click.UsageError):
        told = escape(error.format_message())
        end = "" if told.endswith((".", "?")) else "."
        name = _NAME if error.ctx is None else error.ctx.command_path
        return f"{told}{end} See `{name} --help`."
    if isinstance(error, OSError) and error.filename is not None:
        return (
            "The file must be one that can be opened. Received: "
            f"'{error.filename}' ({error.strerror}). Check its name and its "
            "permissions."
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    return str(error)


def _never_fail_to_encode() -> None:
    """Have names that a terminal cannot show written as escapes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` was typed for us, also where parsing failed."""
    if arguments[:1] == ["verify"]:
        return False  # There it names a file.
    if arguments[:1] != ["run"]:
        return "--json" in arguments
    ours = arguments[1:]
    for position, one in enumerate(ours):
        if one == "-m" or is_script(one):
            ours = ours[:position]
            break
    return "--json" in ours
