"""The help texts of the command."""

from __future__ import annotations

ABOUT = """\
Make Keras training repeatable: run a script with everything seeded, record
what its models hold epoch by epoch, and find where two runs differ.

  keras-repro verify train.py              is it reproducible? if not, why?
  keras-repro run train.py                 record every fit in runs.jsonl
  keras-repro show runs.jsonl              list what was recorded
  keras-repro compare runs.jsonl           are they bitwise equal? where not?
  keras-repro trials train.py:train        the same training under 30 seeds
  keras-repro env                          what bitwise equal runs still lack
  keras-repro install-kernel --seed 42     a repeatable kernel for notebooks
"""
CODES = """\
exit codes:
  0  {0}
  1  {1}
  2  trouble: {2}
"""
TROUBLE = "wrong arguments, no such file or run, not a run's file"
COMPARE = """\
Compare runs down to the first place at which they differ.

FILE is a run's file. FILE@RUN is one run of it: a whole number that is a
position in the file, such as 0 or -1, counts as one; all else is the start of
an id. A file whose own name holds an @ is taken as that file.

With one FILE, all its finished runs are compared; with two arguments, one run
of each (the last one where none is named). More than two runs are sorted into
groups that agree.
"""
COMPARE_EXAMPLES = """\
examples:
  keras-repro compare runs.jsonl                  all runs of one file
  keras-repro compare runs.jsonl@0 runs.jsonl@-1  its first and its last run
  keras-repro compare monday.jsonl friday.jsonl   the last run of each
  keras-repro compare monday.jsonl friday.jsonl --rtol 1e-5
  keras-repro compare runs.jsonl --html report.html
"""
SHOW = """\
Show the runs of a file in a table; times are in UTC. With FILE@RUN, or where
the file holds one run alone, show all of that run: what it is, its epochs with
their metrics and checksums, its notes, and its environment. RUN is a position
(0, -1) or the start of an id, as for `compare`.
"""
SHOW_EXAMPLES = """\
examples:
  keras-repro show runs.jsonl
  keras-repro show runs.jsonl@-1
  keras-repro show runs.jsonl --json
"""
ENV = """\
Show what bitwise equal runs need set before Python or a backend starts: what
is set, what is missing or advised, and the line that fixes it. `keras-repro
run` sets what is missing for the script that it starts. No backend is loaded.
"""
ENV_EXAMPLES = """\
examples:
  keras-repro env
  KERAS_BACKEND=jax keras-repro env --json
"""
VERIFY = """\
Run a script, unchanged, in fresh processes, and say whether they are bitwise
equal in all that it asks of its Keras models; if not, where they first differ,
and why. What an experiment has shown is a cause; what was only seen is a
suspect.

Options of ours come before the script; all that follows it is the script's
own. The first run's output goes through as it is; the verdict follows it on
standard output, progress is printed on standard error.
"""
VERIFY_EXAMPLES = """\
exit codes:
  0  reproducible
  1  not reproducible
  2  trouble: wrong arguments, the script failed or took too long, or it made
     no call that could be recorded; or what was compared is equal, and a
     process that may have trained was not watched

examples:
  keras-repro verify train.py --epochs 5
  keras-repro verify --runs 5 --budget 0 train.py
  keras-repro verify --seed 42 --hash-seed 0 --deterministic train.py
  keras-repro verify --timeout 600 --json verdict.json -m package.train
"""
KERNEL = """\
Install a Jupyter kernel that starts with PYTHONHASHSEED and the switches for
deterministic kernels set: the one thing that a notebook cannot do for itself,
because Python and the backends read them when they start.
"""
KERNEL_EXAMPLES = """\
examples:
  keras-repro install-kernel --seed 42
  keras-repro install-kernel --seed 42 --backend jax --name repeatable-jax
"""
RUN = """\
Run a script, unchanged, in an interpreter in which hash seed and deterministic
switches are set before anything is imported, and every generator is seeded;
record each `keras.Model.fit` in a file.

Options of ours come before the script; all that follows it is the script's
own. Nothing is written to standard output. One line on standard error says at
the end how many runs were recorded.

With --backup, a script that was killed is started again by the same command:
it runs from its first line, each fit that had ended gives its results at once,
and the one that was killed goes on from its last backup, to the same bits. For
this the models of the script are made reproducible at their first fit, as by
`make_reproducible`: the order of arrays and the random draws are then others
than without --backup. When the script has ended without an error, its backups
are removed.
"""
RUN_EXAMPLES = """\
exit codes:
  those of the script; 128 + n if signal n ended it, as a shell has it
  2  also if the script is not there or the log cannot be written

examples:
  keras-repro run train.py --epochs 5
  keras-repro run --seed 7 --log runs.jsonl train.py
  keras-repro run --backend jax --every batch train.py
  keras-repro run -m package.train --epochs 5
  keras-repro run --backup backups train.py
"""


TRIALS = """\
Run one training under many seeds, and sum the scores up. FUNCTION takes the
model, fits it and returns a score or a dict of scores; the script also holds a
`model`, a compiled ReproducibleModel or a function that builds one.

The script is imported, so what stands under `if __name__ == "__main__":` does
not run. What follows `--` is the script's own. With --path every finished
trial is on disk at once, and the same command goes on where it was.

`keras-repro trials show DIR` shows a study; `keras-repro trials compare DIR1
DIR2` compares studies, paired by seed.
"""
TRIALS_EXAMPLES = """\
examples:
  keras-repro trials train.py:train --seeds 30 --path baseline
  keras-repro trials train.py:train --seeds 30 --workers 2 --path baseline
  keras-repro trials train.py:train --until 0.1 --metric rmse
  keras-repro trials package.train:train --model build -- --epochs 5
"""
TRIALS_SHOW = """\
Show a study that was run with --path, finished or not.
"""
TRIALS_SHOW_EXAMPLES = """\
examples:
  keras-repro trials show baseline
  keras-repro trials show baseline --html baseline.html --csv baseline.csv
"""
TRIALS_COMPARE = """\
Compare studies, paired by seed: the difference of the means with its interval,
paired tests, and whether it is settled. More than two are compared with the
first, corrected for their number. A study that is not what was planned when it
began counts as watched: its interval holds however often one looks.
"""
TRIALS_COMPARE_EXAMPLES = """\
examples:
  keras-repro trials compare baseline smoothed
  keras-repro trials compare baseline smoothed --margin 0.1
  keras-repro trials compare baseline smoothed wider --metric rmse
"""
