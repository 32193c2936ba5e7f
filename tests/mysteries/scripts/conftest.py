"""The scripts beside this file are run by tests, never imported."""

collect_ignore_glob = ["*.py"]
