"""`python -m keras_repro`; and the first lines of a script's interpreter.

`keras-repro run` starts this file by its path, so that nothing has to be
installed or on the search path, and nothing stays on it.
"""

import sys


def load_package() -> None:
    """Load this very package, and leave no trace of it on the path."""
    from importlib.util import module_from_spec, spec_from_file_location

    folder = __file__.removesuffix("__main__.py")
    spec = spec_from_file_location(
        "keras_repro",
        f"{folder}__init__.py",
        submodule_search_locations=[folder.rstrip("/\\")],
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"There is no package in '{folder}'.")
    package = module_from_spec(spec)
    sys.modules["keras_repro"] = package
    spec.loader.exec_module(package)


def _run_script() -> None:
    """Run the script in this interpreter."""
    if not sys.flags.safe_path:
        # Python put this folder there; its names would hide other modules.
        del sys.path[0]
    load_package()
    from keras_repro.watching.script import main

    main(sys.argv[1:])


if __name__ == "__main__":
    if __package__:
        from keras_repro.cli.main import main

        sys.exit(main())
    _run_script()
