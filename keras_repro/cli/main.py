"""The command `keras-repro`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_repro.cli.arguments import MisuseError, make_parser
from keras_repro.common.files import check_writable, write_whole
from keras_repro.common.text import escape

if TYPE_CHECKING:
    from argparse import Namespace


EQUAL, DIFFERENT, TROUBLE = 0, 1, 2
_ACTIONS = ("run", "show", "compare", "-h", "--help")
_BROKEN_PIPE = 141  # As a shell reports a program that SIGPIPE ended.


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _never_fail_to_encode()
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


def split_trials(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Tell the arguments of a study from those of its script, behind `--`."""
    if arguments[:1] != ["trials"]:
        return arguments, []
    place = arguments.index("--") if "--" in arguments else len(arguments)
    ours, script = arguments[:place], arguments[place + 1 :]
    if len(ours) > 1 and ours[1] not in _ACTIONS:
        ours.insert(1, "run")
    return ours, script


# --- the commands ------------------------------------------------------------


def _try(arguments: list[str]) -> int:
    """Run the command; what a person can mend is told, not raised."""
    try:
        ours, script = split_trials(arguments)
        options = make_parser().parse_args(ours)
        options.argv, options.arguments = arguments, script
        if options.version:
            from keras_repro import __version__

            print(f"keras-repro {__version__}")
            return EQUAL
        if options.command is None:
            make_parser().print_help(sys.stderr)
            return TROUBLE
        return _COMMANDS[options.command](options)
    except BrokenPipeError:
        raise
    except (MisuseError, ValueError) as error:
        message = str(error)
    except OSError as error:
        message = _explain(error)
    if _wants_json(arguments):
        print(json.dumps({"error": message}))
    _say(message)
    return TROUBLE


def _compare(options: Namespace) -> int:
    from keras_repro.cli.runs import RunFile, compare_files

    files = [RunFile(argument) for argument in options.files]
    _say(*dict.fromkeys(one for file in files for one in file.warnings))
    result = compare_files(files, rtol=options.rtol, atol=options.atol)
    if options.html is not None:
        _write_page(result, Path(options.html))
    if options.json:
        _print_json(result.to_json())
    else:
        print(result)
    return EQUAL if result.agree else DIFFERENT


def _show(options: Namespace) -> int:
    from keras_repro.cli.runs import RunFile, file_to_json, show_file

    file = RunFile(options.file)
    _say(*file.warnings)
    if options.json:
        _print_json(file_to_json(file))
    else:
        print(show_file(file))
    return EQUAL


def _env(options: Namespace) -> int:
    from keras_repro.cli.env import check, describe, to_json

    found = check()
    if options.json:
        _print_json(to_json(found))
    else:
        print(describe(found))
    return EQUAL if found.complete else DIFFERENT


def _run(options: Namespace) -> int:
    from keras_repro.environment.switches import find_backend, switches_for
    from keras_repro.runs.file import RunWriter
    from keras_repro.watching.model_calls import Options

    target, module = _find_target(options)
    log = Path(options.log).absolute()
    RunWriter(log)  # Says now if nothing can be recorded there.
    backup = _find_backup(options)
    environment = _make_environment(options)
    backend = find_backend(environment)
    environment.update(switches_for(options.seed, backend, environment))
    named = options.name is not None
    wanted = Options(
        seed=options.seed,
        log=str(log),
        every=options.every,
        name=options.name,
        on_drift=options.on_drift or ("warn" if named else "ignore"),
        snapshots="epoch" if options.snapshots else None,
        module=module,
        quiet=options.quiet,
        json=options.json,
        backup=backup,
        save_freq=options.save_freq or "epoch",
    )
    starter = str(Path(__file__).parents[1] / "__main__.py")
    command = [sys.executable, starter, wanted.to_text(), *target]
    return start(command, environment)


def _verify(options: Namespace) -> int:
    from keras_repro.diagnosis.processes import ended_by_signals
    from keras_repro.diagnosis.script_reruns import Fixes
    from keras_repro.diagnosis.verify import (
        Request,
        ScriptError,
        verify_in_folder,
    )
    from keras_repro.runs.file import RunWriter, load_runs

    target, module = _find_target(options)
    if options.log is not None:
        RunWriter(options.log)  # Says now if nothing can be recorded there.
    if options.against is not None:
        load_runs(options.against)  # And here if it is no run's file.
    if options.json is not None:
        _check_place(options.json)
    fixes = Fixes(
        seed=options.seed,
        hash_seed=options.hash_seed,
        deterministic=options.deterministic,
        num_workers=options.workers,
        num_threads=options.threads,
        shuffle=False if options.no_shuffle else None,
    )
    request = Request(
        target=target,
        module=module,
        num_runs=options.runs,
        budget=options.budget,
        fixes=fixes,
        timeout=options.timeout,
        against=_to_path(options.against),
        log=_to_path(options.log),
        environment=_make_environment(options),
    )
    try:
        with ended_by_signals():
            verdict = verify_in_folder(
                request, _say_nothing if options.quiet else _say
            )
    except ScriptError as error:
        sys.stdout.flush()
        raise MisuseError(str(error)) from error
    print(verdict, flush=True)  # Minutes of work: before a disk may be full.
    if options.json is not None:
        write_whole(Path(options.json), _to_json(verdict.to_json()))
    if verdict.first_mismatch is not None:
        return DIFFERENT
    return EQUAL if verdict.reproducible else TROUBLE


def _install_kernel(options: Namespace) -> int:
    from keras_repro.cli.kernel import KernelRequest, install_kernel

    request = KernelRequest(
        seed=options.seed,
        name=options.name,
        display_name=options.display_name,
        backend=options.backend,
        prefix=sys.prefix if options.sys_prefix else options.prefix,
    )
    print(install_kernel(request))
    return EQUAL


def _trials(options: Namespace) -> int:
    from keras_repro.cli.trials import (
        DONE,
        NOT_SETTLED,
        SETTLED,
        SOME_FAILED,
        compare_studies,
        find_switches,
        run_study,
    )

    if options.html is not None:
        _check_place(options.html)
    if options.action == "compare":
        compared = compare_studies(options)
        _show_trials(options, compared)
        found = {one.outcome for one in compared.comparisons}
        return SETTLED if found & {"lower", "higher"} else NOT_SETTLED
    if options.csv is not None:
        _check_place(options.csv)
    if options.action == "show":
        from keras_repro.studies.files import load_trials

        results = load_trials(options.path)
    else:
        missing = find_switches(options)
        if missing:
            # Read when Python and the backend start: so start once more.
            command = [sys.executable, "-m", "keras_repro", *options.argv]
            return start(command, {**os.environ, **missing})
        results = run_study(options)
    if options.metric is not None:
        results.summary(options.metric)  # Says now if there is none.
    if options.csv is not None:
        results.to_csv(options.csv)
    _show_trials(options, results)
    return SOME_FAILED if results.failures else DONE


def _show_trials(options: Namespace, shown: Any) -> None:
    if options.html is not None:
        shown.to_html(options.html)
    if options.json:
        _print_json(shown.to_json())
        return
    if options.action != "compare" and options.metric is not None:
        shown = shown.summary(options.metric)
    print(shown)


def _check_place(text: str) -> None:
    check_writable(Path(text), replaced=True)


_COMMANDS = {
    "trials": _trials,
    "compare": _compare,
    "show": _show,
    "env": _env,
    "verify": _verify,
    "run": _run,
    "install-kernel": _install_kernel,
}


def _to_path(text: str | None) -> Path | None:
    return None if text is None else Path(text).absolute()


def _find_backup(options: Namespace) -> str | None:
    """The folder of the backups, made; says now if none can be written."""
    if options.backup is None:
        if options.save_freq is not None:
            raise MisuseError(
                "`--save-freq` must come with `--backup DIR`. Received: "
                f"`--save-freq {options.save_freq}` alone. Name a folder for "
                "the backups."
            )
        return None
    path = Path(options.backup).absolute()
    path.mkdir(parents=True, exist_ok=True)
    check_writable(path / "a backup")
    return str(path)


def _find_target(options: Namespace) -> tuple[list[str], bool]:
    """The script or module with its arguments; whether it is a module."""
    module = options.module is not None
    target = options.module if module else options.script
    if target[:1] == ["--"]:
        target = target[1:]
    _check_target(options.command, target, module=module)
    return target, module


def _make_environment(options: Namespace) -> dict[str, str]:
    """The environment variables, with the backend that was asked for."""
    environment = {**os.environ}
    if options.backend is not None:
        environment["KERAS_BACKEND"] = options.backend
    return environment


def start(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program in our place: its exit code is ours."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        # It keeps our process: signals, streams and exit code are its own.
        os.execve(command[0], list(command), dict(environment))
    import subprocess  # Not needed to compare files.

    with subprocess.Popen(list(command), env=dict(environment)) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # The console has told the script as well.


def _check_target(command: str, target: Sequence[str], *, module: bool) -> None:
    if not target:
        raise MisuseError(
            f"`{command}` must be given a script, or `-m` and a module. "
            f"Received: neither. Try `keras-repro {command} train.py`."
        )
    if not module and not Path(target[0]).is_file():
        raise MisuseError(
            f"`{command}` must be given a script that exists. Received: "
            f"'{target[0]}'. Options of ours come before the script; see "
            f"`keras-repro {command} --help`."
        )


# --- output ------------------------------------------------------------------


def _print_json(value: Any) -> None:
    print(_to_json(value))


def _to_json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False)


def _say_nothing(*messages: str) -> None:
    del messages


def _say(*messages: str) -> None:
    """Tell a person; what an argument or a file holds moves no cursor."""
    for message in messages:
        text = "\n".join(map(escape, message.split("\n")))
        print(f"keras-repro: {text}", file=sys.stderr)


def _explain(error: OSError) -> str:
    """What the system refused, as our own errors are written."""
    if error.filename is None:
        return f"{error.strerror}." if error.strerror else str(error)
    return (
        "The file must be one that can be opened. Received: "
        f"'{error.filename}' ({error.strerror}). Check its name and its "
        "permissions."
    )


def _write_page(result: Any, path: Path) -> None:
    from keras_repro.runs.comparison import Comparison
    from keras_repro.runs.page import write_comparison_page, write_groups_page

    if isinstance(result, Comparison):
        write_whole(path, write_comparison_page(result))
    else:
        write_whole(path, write_groups_page(result))


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
        if one == "-m" or Path(one).is_file():
            ours = ours[:position]
            break
    return "--json" in ours
