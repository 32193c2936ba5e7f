"""Runs and comparisons made by hand, for the tests of reports and plots."""

from pathlib import Path

from keras_repro.arrays.norms import ArrayDifference, Norms
from keras_repro.environment.differences import EnvironmentDifference
from keras_repro.runs.agreement import Agreement
from keras_repro.runs.comparison import Comparison, RunGroups
from keras_repro.runs.mismatch import (
    DIFFERENT,
    EQUAL,
    WITHIN,
    Mismatch,
    VariableDifference,
)
from tests import builders


def make_run(run_id="a" * 32, *, num_epochs=3, num_layers=2, **header):
    """A run whose loss falls, with norms of each layer."""
    header.setdefault("identity", {"seed": 1})
    header.setdefault("environment", {"backend": "jax"})
    fields = {"run_id": run_id, "started": "2026-02-01T08:00:00+00:00"}
    records = []
    for index in range(num_epochs + 1):
        metrics = {}
        if index:
            metrics = {
                "loss": 1.0 / index,
                "val_loss": 1.2 / index,
                "accuracy": 1 - 0.5 / index,
            }
        norms = {
            f"layers.{n}.kernel": Norms(1.0 + n + index / 10, 0.1, 0.5)
            for n in range(num_layers)
        }
        records.append(
            builders.make_record(
                run_id,
                index,
                index - 1 if index else None,
                model="kr1:" + f"{index:032x}",
                roles={},
                variables={},
                norms={"weights": norms},
                metrics=metrics,
            )
        )
    return builders.make_run(
        *records, path=Path("/runs/friday.jsonl"), **fields, **header
    )


def make_mismatch(epoch=2, batch=9, **changes):
    """Random state differs first; a kernel and the optimizer go with it."""
    moment = "initial state" if epoch is None else f"epoch {epoch + 1}"
    if batch is not None:
        moment += f", batch {batch + 1}"
    fields = {
        "moment": moment,
        "epoch": epoch,
        "batch": batch,
        "roles": ("random", "weights", "optimizer"),
        "places": ("layers.2.seed", "layers.1.kernel", "optimizer.momentum"),
        "agreed": ("data (1 of 1)", "weights (3 of 4)"),
        "previous": "epoch 3, batch 9",
        "differences": (
            VariableDifference(role="random", place="layers.2.seed"),
            VariableDifference(
                role="weights",
                place="layers.1.kernel",
                a=Norms(1.0, 0.0, 0.5),
                b=Norms(1.0000001, 0.0, 0.5),
            ),
            VariableDifference(
                role="optimizer",
                place="optimizer.momentum",
                exact=ArrayDifference(
                    largest_absolute=1.2e-7,
                    largest_relative=3.4e-6,
                    largest_ulp=4,
                    num_differing=3,
                    num_elements=64,
                ),
            ),
        ),
    }
    return Mismatch(**{**fields, **changes})


def make_agreements(num_layers, num_epochs, *, part_at=3, status=DIFFERENT):
    """Layers that drift apart from an epoch on, each faster than the last."""
    parts = [f"layers.{n}" for n in range(num_layers)]
    for epoch in (None, *range(num_epochs)):
        done = 0 if epoch is None else epoch + 1
        for n, part in enumerate([*parts, "random", "optimizer", "metrics"]):
            apart = done >= part_at + n % 3
            size = (
                1e-8 * (1.6 + 0.2 * (n % 7)) ** min(done - part_at, 30)
                if apart
                else 0.0
            )
            distance = size
            if apart and n % 5 == 4 and done < part_at + 5:
                distance = 0.0
            yield Agreement(
                epoch=epoch,
                part=part,
                status=status if apart else EQUAL,
                distance=min(distance, 2.0),
            )


ENVIRONMENT = (
    EnvironmentDifference(
        key="versions.keras",
        a="3.15.1",
        b="3.14.0",
        weight=3,
        sentence="Another version of Keras may initialise, shuffle or train "
        "otherwise; install the same version.",
    ),
    EnvironmentDifference(
        key="threads.intra_op",
        a=8,
        b=2,
        weight=2,
        sentence="With another number of threads sums are added in another "
        "order; pin the same number of threads.",
    ),
    EnvironmentDifference(
        key="versions.numpy",
        a="2.4.6",
        b="2.3.0",
        weight=1,
        sentence="Data that NumPy prepares may differ in the last places.",
    ),
    EnvironmentDifference(
        key="os_release",
        a="6.1",
        b="6.5",
        weight=0,
        sentence="Results hardly ever depend on the release of the system.",
    ),
)


def make_comparison(status=DIFFERENT, **changes):
    """Two runs that are equal, close, or different from epoch 3 on."""
    fields = {
        "a": make_run("a" * 32, name="baseline", every="batch"),
        "b": make_run("b" * 32, name="again", every="batch"),
        "status": status,
        "num_compared": 21,
        "first_mismatch": None,
    }
    if status != EQUAL:
        fields["first_mismatch"] = make_mismatch()
        fields["environment"] = ENVIRONMENT
    if status == DIFFERENT:
        fields["first_beyond"] = fields["first_mismatch"]
    if status == WITHIN:
        fields["rtol"] = 1e-5
    return Comparison(**{**fields, **changes})


def make_groups(sizes=(3, 1)):
    """Runs in groups of these sizes."""
    ids = [f"{n:032x}" for n in range(sum(sizes))]
    runs = tuple(make_run(one, name=f"run {one[-2:]}") for one in ids)
    numbers = iter(range(sum(sizes)))
    groups = tuple(tuple(next(numbers) for _ in range(n)) for n in sizes)
    others = tuple(
        make_comparison(a=runs[0], b=runs[one[0]]) for one in groups[1:]
    )
    return RunGroups(runs=runs, groups=groups, comparisons=others)


HOSTILE = (
    "</title><script>document.title='owned'</script>\"'><img src=x "
    "onerror=x>\x1b[2J"
)


def make_hostile():
    """Every text that a run can bring along is hostile."""
    bad = HOSTILE
    runs = [
        make_run(
            bad,
            name=bad,
            identity={"seed": {bad: [bad]}, bad: bad},
            environment={bad: bad},
            every=bad,
        )
        for _ in range(2)
    ]
    found = Mismatch(
        moment=bad,
        epoch=0,
        batch=None,
        roles=(bad, "weights"),
        places=(bad, "metric " + bad),
        agreed=(bad,),
        details=(bad,),
        previous=bad,
        differences=(
            VariableDifference(
                role=bad,
                place=bad,
                a=Norms(float("nan"), 1.0, 1.0),
                b=Norms(float("inf"), 2.0, 1.0),
            ),
        ),
    )
    entry = EnvironmentDifference(
        key=bad, a=[bad], b=None, weight=9, sentence=bad
    )
    distances = (float("nan"), float("inf"), None, 1e-320)
    return make_comparison(
        a=runs[0],
        b=runs[1],
        first_mismatch=found,
        first_beyond=found,
        identity=found,
        environment=(entry,),
        notes=(bad,),
        agreements=tuple(
            Agreement(
                epoch=epoch,
                part=f"layers.{n}{bad}",
                status=DIFFERENT,
                distance=distance,
            )
            for epoch in (0, 1)
            for n, distance in enumerate(distances)
        ),
    )
