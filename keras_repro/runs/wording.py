"""What there is to say of a comparison, in words that all reports share.

Names and values come from files and are not trusted: `clean` makes any of
them safe to print. Nothing here knows of terminals or of HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from keras_repro.arrays.norms import Norms, relate, relate_norms
from keras_repro.common.text import (
    clean,
    count_of,
    join_words,
    say_more,
    shorten,
)

if TYPE_CHECKING:
    from keras_repro.environment.differences import EnvironmentDifference
    from keras_repro.runs.comparison import Comparison, RunGroups
    from keras_repro.runs.mismatch import Mismatch, VariableDifference
    from keras_repro.runs.run import Run


WEIGHTS = {3: "almost surely", 2: "likely", 1: "sometimes", 0: "hardly ever"}
ROLES = {
    "random": "random state",
    "identity": "what they are",
    "hidden": "untracked state of layers",
}
_MOST_DETAILS = 8


# --- verdicts ------------------------------------------------------------


def say_verdict(comparison: Comparison) -> str:
    """Whether two runs agree, and if not, from where on."""
    tolerance = say_tolerance(comparison)
    found = find_decisive(comparison)
    if comparison.equal or found is None:
        moments = count_of(comparison.num_compared, "moment")
        return f"Bitwise equal at {moments}."
    if found.role == "records":
        return f"Not comparable: {'; '.join(map(clean, found.details))}."
    when = f"from {'the ' * (found.epoch is None)}{clean(found.moment)} on"
    if comparison.agree:
        first = name_role(found.roles[0])
        bits = f"bits differ {when}, first in {first}"
        return f"Within tolerance ({tolerance}): {bits}."
    beyond = f" beyond tolerance ({tolerance})" if tolerance else ""
    return f"Different{beyond} {when}: {_say_first_difference(found)}."


def say_groups_verdict(groups: RunGroups) -> str:
    """Whether many runs agree, and if not, in how many groups."""
    number = len(groups.runs)
    if groups.agree:
        return f"All {number} runs agree."
    tolerance = say_tolerance(groups.comparisons[0])
    allowed = f" (compared with {tolerance})" if tolerance else ""
    return f"{number} runs in {len(groups.groups)} groups that differ{allowed}."


def say_tolerance(comparison: Comparison) -> str:
    """The tolerances that are not zero; empty if bits were compared."""
    return ", ".join(
        f"{name} {value:g}"
        for name, value in (
            ("rtol", comparison.rtol),
            ("atol", comparison.atol),
        )
        if value
    )


def find_decisive(comparison: Comparison) -> Mismatch | None:
    """The mismatch that decides: beyond the tolerances, if one is."""
    return comparison.first_beyond or comparison.first_mismatch


def list_mismatches(comparison: Comparison) -> list[tuple[str, Mismatch]]:
    """The mismatches to tell of, each with its heading, the decisive first."""
    found, first = find_decisive(comparison), comparison.first_mismatch
    if found is None or found.role == "records":
        return []
    if not say_tolerance(comparison):
        return [("First mismatch", found)]
    if first is None or _moment_of(first) == _moment_of(found):
        label = "bits" if comparison.agree else "beyond tolerance"
        return [(f"First mismatch ({label})", found)]
    return [
        ("First mismatch beyond tolerance", found),
        ("First mismatch of bits", first),
    ]


def name_role(role: str) -> str:
    """A role as people say it."""
    return ROLES.get(role, clean(role))


def say_first(roles: Sequence[str]) -> str:
    """The roles that differ at one moment, the first before the others.

    Example:
        >>> say_first(["random", "weights", "optimizer"])
        'random state; with it weights and optimizer'
    """
    first, *others = map(name_role, roles)
    return f"{first}; with it {join_words(others)}" if others else first


def _moment_of(mismatch: Mismatch) -> tuple[int | None, int | None]:
    return mismatch.epoch, mismatch.batch


def _say_first_difference(mismatch: Mismatch) -> str:
    roles = [name_role(role) for role in mismatch.roles]
    if mismatch.epoch is None:
        is_one = mismatch.roles in (("random",), ("optimizer",))
        verb = "differs" if is_one else "differ"
        return f"{join_words(roles)} {verb}"
    return f"first difference in {roles[0]}"


# --- runs ----------------------------------------------------------------


def describe_run(run: Run) -> list[tuple[str, str]]:
    """What a run is, as labels and values."""
    header, end = run.header, run.end
    ended = "no end: still running, or was killed"
    if end is not None:
        ended = end.status + (f" by {end.exception}" if end.exception else "")
    if run.resumed:
        places = join_words([one.moment for one in run.resumed])
        ended = f"{ended}, resumed at {places}"
    moments = f"{count_of(len(run.records), 'moment')}, every {header.every}"
    return [
        ("Name", clean(header.name or "none")),
        ("Run", clean(run.run_id)),
        ("Seed", clean(header.identity.get("seed"))),
        ("Started", clean(header.started or "none")),
        ("Recorded", clean(moments)),
        ("Ended", clean(ended)),
        ("Last checksum", clean(run.checksum or "none")),
        ("File", clean("none" if run.path is None else run.path.name)),
    ]


def name_run(run: Run) -> str:
    """A run by its name, else by its id."""
    return clean(run.header.name or run.run_id[:8], 40)


def outline_run(run: Run) -> str:
    """A run in one line."""
    facts = dict(describe_run(run))
    name = "" if run.header.name is None else f' "{clean(run.header.name, 40)}"'
    ended = "not ended" if run.end is None else facts["Ended"]
    where = "" if run.path is None else f", {clean(run.path.name, 40)}"
    return (
        f"run {clean(run.run_id)[:8]}{name}, seed {facts['Seed']}, "
        f"{count_of(len(run.records), 'moment')}, {ended}{where}"
    )


def say_identity(comparison: Comparison) -> list[str]:
    """How the runs differ before they begin."""
    if comparison.identity is None:
        return []
    details = comparison.identity.details
    more = say_more(len(details) - _MOST_DETAILS, "such differences")
    return [
        *(f"b has {clean(one)}" for one in details[:_MOST_DETAILS]),
        *([more] if more else []),
    ]


# --- a mismatch ----------------------------------------------------------


def list_facts(
    mismatch: Mismatch, comparison: Comparison
) -> list[tuple[str, str]]:
    """What there is to say of a mismatch beside its variables."""
    if mismatch.epoch is None:
        facts = [("differs", join_words(map(name_role, mismatch.roles)))]
    else:
        facts = [("first difference", say_first(mismatch.roles))]
    if mismatch.previous is not None:
        facts.append(("all equal until", clean(mismatch.previous)))
    agreed = ", ".join(map(_name_agreed, mismatch.agreed))
    facts.append(("still equal then", agreed or "nothing"))
    measured = {one.place for one in mismatch.differences}
    others = [place for place in mismatch.places if place not in measured]
    if others:
        facts.append(("also differs", shorten(map(clean, others), 5)))
    facts += [
        ("in numbers" if name else "note", text)
        for name, text in _tell_details(mismatch, comparison)
    ]
    return facts


def _name_agreed(agreed: str) -> str:
    """Such as `random state (1 of 2)`."""
    role, found, numbers = agreed.partition(" (")
    return name_role(role) + clean(found + numbers)


def _tell_details(
    mismatch: Mismatch, comparison: Comparison
) -> Iterator[tuple[bool, str]]:
    """Details, those of metrics with the names of the runs."""
    moment = _moment_of(mismatch)
    a, b = (
        next(
            (
                one.metrics
                for one in run.records
                if (one.epoch, one.batch) == moment
            ),
            {},
        )
        for run in (comparison.a, comparison.b)
    )
    told = {
        f"{name} is {b[name]!r}, was {a[name]!r}": name
        for name in b
        if name in a
    }
    for detail in mismatch.details[:_MOST_DETAILS]:
        name = told.get(detail)
        if name is None:
            yield False, clean(detail)
        else:
            x, y = write_pair(a[name], b[name])
            yield True, f"{clean(name)} is {x} in a, {y} in b"


def say_size(difference: VariableDifference) -> str:
    """How large the difference of a variable is."""
    exact = difference.exact
    if exact is not None:
        ulp = exact.largest_ulp
        units = "" if ulp is None else f", {ulp} ULP"
        return (
            f"at most {exact.largest_absolute:.3g} absolute, "
            f"{exact.largest_relative:.3g} relative{units}; "
            f"{exact.num_differing} of {exact.num_elements} elements differ "
            f"({say_share(exact.share)})"
        )
    a, b = difference.a, difference.b
    if a is None or b is None:
        known = [name for name, one in (("a", a), ("b", b)) if one is not None]
        return (
            f"size recorded in {known[0]} alone"
            if known
            else "size not recorded"
        )
    name, x, y = pick_norm(a, b)
    if x == y:
        return f"{name} {x} in both: the bits differ, the norms do not"
    return f"{name} {x} in a, {y} in b{_say_ratio(a, b)}"


def pick_norm(a: Norms, b: Norms) -> tuple[str, str, str]:
    """The norm in which two arrays are farthest apart, with enough digits."""
    if all(one.l2 == one.largest == abs(one.mean) for one in (a, b)):
        return ("value", *write_pair(a.mean, b.mean))  # A single number.
    l2, largest, mean = (
        ("L2 norm", a.l2, b.l2),
        ("largest magnitude", a.largest, b.largest),
        ("mean", a.mean, b.mean),
    )
    name, x, y = max(l2, largest, key=lambda one: relate(one[1], one[2]))
    if not relate(x, y) and relate(a.mean, b.mean):
        name, x, y = mean
    return name, *write_pair(x, y)


def write_pair(x: float, y: float) -> tuple[str, str]:
    """Two numbers with as many digits as show that they differ.

    Example:
        >>> write_pair(0.1, 0.2)
        ('0.1', '0.2')
        >>> write_pair(1.0, 1.00000001)
        ('1', '1.00000001')
    """
    for digits in range(6, 18):
        one, other = f"{x:.{digits}g}", f"{y:.{digits}g}"
        if one != other:
            break
    return one, other


def say_share(share: float) -> str:
    """A share of elements in percent; one that is not 0 never shows as 0."""
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def say_distance(distance: float | None) -> str:
    """A relative distance between norms."""
    if distance is None:
        return "not measured"
    if not distance:
        return "0"
    return f"{distance:.1e}" if math.isfinite(distance) else "not finite"


def _say_ratio(a: Norms, b: Norms) -> str:
    ratio = relate_norms(a, b)
    return f" ({ratio:.1g} apart)" if 0 < ratio < 1 else ""


# --- environments --------------------------------------------------------


def split_environment(
    differences: Sequence[EnvironmentDifference],
) -> tuple[list[EnvironmentDifference], list[EnvironmentDifference]]:
    """The differences that may matter, and those that hardly ever do."""
    every = sorted(differences, key=lambda one: -one.weight)
    may = [one for one in every if one.weight > 0]
    return may, every[len(may) :]


def say_environment(comparison: Comparison) -> str:
    """A heading for the differences between the environments."""
    if not comparison.environment:
        known = comparison.a.header.environment, comparison.b.header.environment
        return "no difference" if all(known) else "not recorded"
    number = count_of(len(comparison.environment), "difference")
    if comparison.equal:
        return f"{number}, which changed nothing here"
    return f"{number}, the likeliest to matter first"


_NAMES = {
    "seed": "seed",
    "model": "model configuration",
    "compile": "compile configuration",
    "data": "data",
    "fit": "arguments of `fit`",
    "continues": "training before it",
}
_HINTS = {
    "initial state": (
        "The runs start from different values: look at what sets them (seed, "
        "initialisers, loaded weights)."
    ),
    "data": (
        "The runs were fed different samples, or the same samples in another "
        "order: look at the pipeline, its shuffle and its seed."
    ),
    "random": (
        "The runs drew different random numbers, or one drew more: look for a "
        "random layer or an augmentation that runs in only one of them."
    ),
    "metrics": (
        "The training itself agrees: look at the metrics and at the data "
        "they are computed from."
    ),
}
_HINT_COMPUTED = (
    "The steps were computed differently: train both in deterministic mode, "
    "`seed_everything(seed, deterministic=True)`."
)
_HINT_DETERMINISTIC = (
    "The steps were computed differently, though both runs were in "
    "deterministic mode: look for code that changes weights outside the "
    "training step, such as a callback."
)


def list_steps(comparison: Comparison) -> list[str]:
    """What to do next; nothing where the runs agree."""
    found = find_decisive(comparison)
    if found is None or comparison.agree:
        return []
    if found.role == "records":
        return ["Record both with the same `every`, from the first epoch on."]
    return [_find_cause(comparison, found), *_look_closer(comparison, found)]


def _find_cause(comparison: Comparison, found: Mismatch) -> str:
    if comparison.identity is not None:
        names = [
            _NAMES.get(place, clean(place))
            for place in comparison.identity.places
        ]
        return (
            f"Give both the same {join_words(names)}: they differ before they "
            "begin."
        )
    likely = [one for one in comparison.environment if one.weight >= 2]
    if likely and found.role not in {"data", "metrics"}:
        first = max(likely, key=lambda one: one.weight)
        return (
            "Make the environments alike and train again, beginning with "
            f"{clean(first.key)}."
        )
    hint = _HINTS.get(found.role)
    if hint is not None:
        return hint
    modes = [
        run.header.environment.get("deterministic")
        for run in (comparison.a, comparison.b)
    ]
    return _HINT_DETERMINISTIC if all(modes) else _HINT_COMPUTED


def _look_closer(comparison: Comparison, found: Mismatch) -> Iterator[str]:
    headers = [comparison.a.header, comparison.b.header]
    if found.epoch is not None and any(one.every != "batch" for one in headers):
        yield 'Record with every="batch" to find the batch.'
    weights = [one for one in found.differences if one.role == "weights"]
    if (
        weights
        and not any(one.exact for one in found.differences)
        and any(one.snapshots is None for one in headers)
    ):
        yield (
            'Keep snapshots="epoch" of both to measure it in units in the '
            "last place."
        )
    rtol = _suggest_rtol(comparison, found)
    if rtol is not None:
        yield f"If rounding is all that may differ, compare with rtol={rtol}."


def _suggest_rtol(comparison: Comparison, found: Mismatch) -> str | None:
    """A tolerance, where all there is looks like rounding."""
    if (
        say_tolerance(comparison)
        or comparison.identity is not None
        or found.epoch is None
        or not {"weights", "optimizer", "metrics"}.issuperset(found.roles)
    ):
        return None
    sizes = [_relative_size(one) for one in found.differences]
    largest = max(sizes, default=math.inf)
    if not largest <= 1e-4:
        return None
    return "1e-5" if largest <= 5e-6 else "1e-3"


def _relative_size(difference: VariableDifference) -> float:
    if difference.exact is not None:
        return difference.exact.largest_relative
    if difference.a is None or difference.b is None:
        return math.inf
    return relate_norms(difference.a, difference.b)
