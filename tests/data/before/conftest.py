"""The scripts beside this file are run by hand or by tests, not collected."""

collect_ignore_glob = ["*.py"]
