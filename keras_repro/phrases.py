"""What there is to say of a comparison, in words that all reports share.

Names and values come from files and are not trusted: `clean` makes any of
them safe to print. Nothing here knows of terminals or of HTML.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_repro.comparison import Comparison, RunGroups
    from keras_repro.environment_differences import EnvironmentDifference
    from keras_repro.mismatches import Mismatch, VariableDifference
    from keras_repro.norms import Norms
    from keras_repro.runs import Run

WEIGHTS = {3: "almost surely", 2: "likely", 1: "sometimes", 0: "hardly ever"}
ROLES = {
    "random": "random state",
    "identity": "what they are",
    "hidden": "untracked state of layers",
}

_LONGEST = 120
_MOST_DETAILS = 8
_CHECKSUM = re.compile(r"\b(kr\d+:[0-9a-f]{8})[0-9a-f]{24}\b")


def clean(value: object, longest: int = _LONGEST) -> str:
    r"""Any value as one line of printable text.

    Args:
        value: A string, or anything that JSON can hold.
        longest: How many characters to keep; the end is cut.

    Returns:
        Text without control characters, so that it can neither move a
        terminal's cursor nor turn the direction of writing.

    Example:
        >>> print(clean("a\x1b[2Jb"), clean(None), clean([1, "two"]))
        a\x1b[2Jb none [1, "two"]
    """
    text = value if isinstance(value, str) else _show(value)
    text = _CHECKSUM.sub(r"\1…", text[: 8 * longest])
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else _escape_character(one) for one in text
    )


def join_words(words: Iterable[str]) -> str:
    """Join words as in a sentence.

    Example:
        >>> join_words(["data", "weights", "metrics"])
        'data, weights and metrics'
    """
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def count_of(number: int, noun: str) -> str:
    """A number and its noun.

    Example:
        >>> count_of(1, "moment"), count_of(2, "moment")
        ('1 moment', '2 moments')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


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
        bits = f"bits differ {when}, {first} first"
        return f"Within tolerance ({tolerance}): {bits}."
    beyond = f" beyond tolerance ({tolerance})" if tolerance else ""
    return f"Different{beyond} {when}: {_say_parting(found)}."


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


def _moment_of(mismatch: Mismatch) -> tuple[int | None, int | None]:
    return mismatch.epoch, mismatch.batch


def _say_parting(mismatch: Mismatch) -> str:
    roles = [name_role(role) for role in mismatch.roles]
    if mismatch.epoch is None:
        is_one = mismatch.roles in (("random",), ("optimizer",))
        verb = "differs" if is_one else "differ"
        return f"{join_words(roles)} {verb}"
    return f"{roles[0]} parted first"


# --- runs ----------------------------------------------------------------


def describe_run(run: Run) -> list[tuple[str, str]]:
    """What a run is, as labels and values."""
    header, end = run.header, run.end
    ended = "no end: runs still, or was killed"
    if end is not None:
        ended = end.status + (f" by {end.exception}" if end.exception else "")
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
    more = len(details) - _MOST_DETAILS
    return [
        *(f"b has {clean(one)}" for one in details[:_MOST_DETAILS]),
        *([f"and {more} more such differences"] if more > 0 else []),
    ]


# --- a mismatch ----------------------------------------------------------


def list_facts(
    mismatch: Mismatch, comparison: Comparison
) -> list[tuple[str, str]]:
    """What there is to say of a mismatch beside its variables."""
    roles = [name_role(role) for role in mismatch.roles]
    if mismatch.epoch is None:
        facts = [("Differs", join_words(roles))]
    else:
        then = f"; with it {join_words(roles[1:])}" if roles[1:] else ""
        facts = [("Parted first", roles[0] + then)]
    if mismatch.previous is not None:
        facts.append(("All equal until", clean(mismatch.previous)))
    agreed = ", ".join(map(_name_agreed, mismatch.agreed))
    facts.append(("Still equal then", agreed or "nothing"))
    measured = {one.place for one in mismatch.differences}
    others = [place for place in mismatch.places if place not in measured]
    if others:
        facts.append(("Also differs", shorten(others, 5)))
    facts += [
        ("In numbers" if name else "Note", text)
        for name, text in _tell_details(mismatch, comparison)
    ]
    return facts


def _name_agreed(agreed: str) -> str:
    """Such as `random state (1 of 2)`."""
    role, found, numbers = agreed.partition(" (")
    return name_role(role) + clean(found + numbers)


def shorten(places: Sequence[str], shown: int) -> str:
    """The first few of many names."""
    more = len(places) - shown
    text = ", ".join(clean(place) for place in places[:shown])
    return f"{text} and {more} more" if more > 0 else text


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
    """The first norm in which two arrays differ, with enough digits."""
    names = ("L2 norm", "largest magnitude", "mean")
    if all(one.l2 == one.largest == abs(one.mean) for one in (a, b)):
        return ("value", *write_pair(a.mean, b.mean))  # A single number.
    pairs = zip(
        names,
        (a.l2, a.largest, a.mean),
        (b.l2, b.largest, b.mean),
        strict=True,
    )
    for name, x, y in pairs:
        if not _is_same(x, y):
            return name, *write_pair(x, y)
    return names[0], *write_pair(a.l2, b.l2)


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


def relate_norms(a: Norms, b: Norms) -> float:
    """The relative distance of two L2 norms."""
    scale = max(abs(a.l2), abs(b.l2))
    return abs(a.l2 - b.l2) / scale if scale else 0.0


def _is_same(x: float, y: float) -> bool:
    return x == y or (math.isnan(x) and math.isnan(y))


# --- environments --------------------------------------------------------


def split_environment(
    comparison: Comparison,
) -> tuple[list[EnvironmentDifference], list[EnvironmentDifference]]:
    """The differences that may matter, and those that hardly ever do."""
    every = sorted(comparison.environment, key=lambda one: -one.weight)
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


# --- untrusted values ----------------------------------------------------


def _show(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _escape_character(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
