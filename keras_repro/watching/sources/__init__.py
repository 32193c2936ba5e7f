"""One file for each library that draws, reads or races.

Each `watch_...` replaces some functions by ones that do the same, note it, and
can be kept fixed. It is called right after the program itself has imported the
library, and loads nothing; private attributes are guarded, with the versions.
Begin with `watcher.py`.
"""
