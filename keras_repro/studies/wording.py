"""What there is to say of trials, in words that text and pages share.

Names, notes and errors come from files and are not trusted: `clean` makes any
of them safe to print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from keras_repro.common.text import clean, count_of, say_more

if TYPE_CHECKING:
    from keras_repro.studies.comparison import TrialComparison
    from keras_repro.studies.examples import ExampleStatistics
    from keras_repro.studies.results import Rank, TrialResults, TrialSummary
    from keras_repro.studies.scores import (
        Interval,
        PairedStatistics,
        Summary,
    )
    from keras_repro.studies.spread import SpreadPart, TrialSpread


COLUMNS = ("mean", "interval", "std", "median", "iqm", "min", "max")

_MOST_SPANS = 8
_MOST_REMARKS = 5
_LONGEST_NAME = 24
_VARIED = {
    "all": "",
    "initial": ", only the initial weights vary",
    "order": ", only the order of the data varies",
    "random": ", only the random layers vary",
}


# --- numbers -------------------------------------------------------------


def write_number(value: float, error: float | None = None) -> str:
    """A number with as many digits as its error allows."""
    if not math.isfinite(value):
        return "none" if math.isnan(value) else str(value)
    if not error or not math.isfinite(error):
        return f"{value:.6g}"
    # Rounded first: 0.0996 shows as 0.10.
    power = int(f"{error:.1e}".partition("e")[2]) - 1
    largest = max(abs(value), error)
    if power < -7 or largest >= 1e7:
        digits = math.floor(math.log10(largest)) - power
        return f"{value:.{min(max(digits, 1), 16)}e}"
    text = f"{value:.{max(-power, 0)}f}"
    if float(text) == 0:
        return f"{value:.1e}" if value else text.lstrip("-")
    return text


def write_interval(low: float, high: float) -> str:
    """An interval in brackets."""
    error = (high - low) / 2
    if math.isinf(error):
        return "[no bounds yet]"
    return f"[{write_number(low, error)}, {write_number(high, error)}]"


def write_p(value: float) -> str:
    """A p value."""
    return "< 1e-16" if value < 1e-16 else f"{value:.2g}"


def say_level(confidence_level: float) -> str:
    """What an interval is called."""
    return f"{100 * confidence_level:.4g}% interval"


def say_seeds(seeds: Iterable[int]) -> str:
    """Seeds in few words."""
    found = sorted(seeds)
    spans: list[list[int]] = []
    for one in found:
        if spans and one == spans[-1][-1] + 1:
            spans[-1][1:] = [one]
        else:
            spans.append([one])
    texts = [
        f"{span[0]}{', ' if span[-1] == span[0] + 1 else ' to '}{span[-1]}"
        if len(span) > 1
        else f"{span[0]}"
        for span in spans[:_MOST_SPANS]
    ]
    if len(spans) > _MOST_SPANS:
        shown = sum(one[-1] - one[0] + 1 for one in spans[:_MOST_SPANS])
        texts[-1] += f" {say_more(len(found) - shown)}"
    noun = "seed" if len(found) == 1 else "seeds"
    return f"{noun} {', '.join(texts)}" if texts else "no seed"


def say_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """The name of a study or a score."""
    return clean(name, longest)


# --- results -------------------------------------------------------------


def say_headline(results: TrialResults) -> str:
    """How many trials there are, and which."""
    name = "" if results.name is None else f" ({say_name(results.name, 40)})"
    if not results.num_trials:
        return f"No trial finished{name}."
    number = count_of(results.num_trials, "trial")
    other = f", `vary` is {clean(results.vary)}"
    varied = _VARIED.get(results.vary, other)
    planned = {None: "", True: ", watched", False: ", fixed beforehand"}
    return (
        f"{number}, {say_seeds(results.seeds)}{planned[results.watched]}"
        f"{name}{varied}"
    )


def list_remarks(summary: TrialSummary) -> list[str]:
    """Scores left out, failures, notes: a sentence for each."""
    results = summary.results
    remarks = [
        f"{one.num_missing} of {count_of(results.num_trials, 'trial')} gave "
        f"no finite `{say_name(name)}` and "
        f"{'is' if one.num_missing == 1 else 'are'} left out."
        for name, one in summary.metrics.items()
        if one.num_missing
    ]
    if results.failures:
        told = "; ".join(
            f"seed {one.seed}, {clean(one.error)}"
            for one in results.failures[:_MOST_REMARKS]
        )
        more = say_more(len(results.failures) - _MOST_REMARKS)
        number = count_of(len(results.failures), "trial")
        rest = f"; {more}" if more else ""
        remarks.append(f"{number} failed: {told}{rest}")
    return [*remarks, *(clean(one, 300) for one in results.notes)]


def list_cells(summary: Summary) -> list[str]:
    """The numbers of a summary, as in `COLUMNS`."""
    interval = summary.interval
    error = None if interval is None else interval.half_width
    return [
        write_number(getattr(summary, name), error)
        if name != "interval"
        else _write_bounds(interval)
        for name in COLUMNS
    ]


def _write_bounds(interval: Interval | None) -> str:
    if interval is None:
        return "none"
    return write_interval(interval.low, interval.high)


def say_rank(rank: Rank) -> str:
    """Where a trial stands, in one sentence."""
    score = f"{say_name(rank.metric)} {rank.score:.4g}"
    if rank.num_scores == 1:
        return f"Seed {rank.seed} is the only one with a score ({score})."
    above = rank.num_scores + 1 - rank.rank
    number, side = min((rank.rank, 0, "lowest"), (above, 1, "highest"))[::2]
    place = f"the {_say_ordinal(number)}{side}"
    if number != int(number):
        place = f"between the {_say_ordinal(int(number)) or '1st '}"
        place += f"and {_say_ordinal(int(number) + 1)}{side}"
    where = "at the mean"
    if math.isfinite(rank.z) and abs(rank.z) >= 0.05:
        side = "below" if rank.z < 0 else "above"
        where = f"{abs(rank.z):.1f} standard deviations {side} the mean"
    return (
        f"Seed {rank.seed} is {place} of {rank.num_scores} ({score}, {where})."
    )


def _say_ordinal(number: float) -> str:
    """Such as `3rd `; nothing for 1."""
    whole = int(number)
    if whole == 1:
        return ""
    endings = {1: "st", 2: "nd", 3: "rd"}
    ending = endings.get(whole % 10, "th") if whole % 100 // 10 != 1 else "th"
    return f"{whole}{ending} "


# --- spread ----------------------------------------------------------------

_SOURCES = {
    "initial": "the initial weights",
    "order": "the order of the data",
    "random": "random draws",
    "rest": "these only together",
}
SPREAD_COLUMNS = ("share", "interval", "std alone")


def say_source(part: SpreadPart) -> str:
    """Where a part of the spread comes from."""
    return _SOURCES[part.source]


def say_spread(spread: TrialSpread) -> str:
    """Which share comes from where, in one sentence."""
    name = say_name(spread.metric)
    seeds = count_of(spread.num_seeds, "seed")
    if not spread.std:
        return f"No seed moves {name}: it is the same under all {seeds}."
    shares = [
        f"{_write_share(one.share)} {_write_shares(one)} from {say_source(one)}"
        for one in spread.parts
    ]
    listed = f"{', '.join(shares[:-1])} and {shares[-1]}"
    std = write_number(spread.std, spread.std / 10)
    return f"Of the variance of {name} (std {std}, {seeds}) {listed}."


def list_spread(spread: TrialSpread) -> list[list[str]]:
    """A row for each part: where from, and `SPREAD_COLUMNS`."""
    return [
        [
            say_source(one),
            _write_share(one.share),
            _write_shares(one),
            ""
            if one.source == "rest"
            else write_number(one.std, spread.std / 10),
        ]
        for one in spread.parts
    ]


def list_spread_remarks(spread: TrialSpread) -> list[str]:
    """For what the intervals hold, and which seeds are left out and why."""
    plan = say_plan(spread.watched, "they hold")
    if spread.watched:
        plan = (
            "they hold for a number of seeds fixed beforehand, and one of "
            "these studies was watched: they may miss the shares more often "
            "than they say"
        )
    remarks = [f"Intervals: {plan}."]
    shares = [round(100 * one.share) for one in spread.parts if spread.std]
    if any(not 0 <= one <= 100 for one in shares):
        remarks.append(
            "The shares add up to 100%, so one of few seeds may come out "
            "below 0% or above 100%."
        )
    if spread.left_out:
        remarks.append(
            f"Left out, without a finite {say_name(spread.metric)} in all "
            f"four studies: {say_seeds(spread.left_out)}."
        )
    failures = [
        f"Seed {one.seed} failed in '{source}': {clean(one.error)}"
        for source, results in spread.studies.items()
        for one in results.failures
    ]
    more = say_more(len(failures) - _MOST_REMARKS)
    return [*remarks, *failures[:_MOST_REMARKS], *([more] if more else [])]


def _write_share(share: float) -> str:
    # Not "-0%".
    return "none" if math.isnan(share) else f"{round(100 * share)}%"


def _write_shares(part: SpreadPart) -> str:
    low, high = part.interval.low, part.interval.high
    if math.isnan(low):
        return "none"
    return f"[{100 * low:.0f}%, {100 * high:.0f}%]"


# --- comparisons ---------------------------------------------------------


def _find_error(found: PairedStatistics) -> float:
    """By how much a difference may be off, for the digits of its numbers."""
    half = found.interval.half_width
    return found.spread if math.isinf(half) else half


def say_trials_verdict(comparison: TrialComparison) -> str:
    """What can be said of two studies, in a sentence or two."""
    found = comparison.statistics
    left_out = ""
    if comparison.num_left_out:
        number = count_of(len(comparison.seeds), "pair")
        left_out = f" ({comparison.num_left_out} of {number} left out)"
    if comparison.equal:
        claim = f"Equal: all {found.num_pairs} pairs have the same score"
        return f"{claim}{left_out}."
    interval = found.interval
    side, sign = ("lower", -1) if found.difference < 0 else ("higher", 1)
    size = write_number(sign * found.difference, _find_error(found))
    bounds = sorted((sign * interval.low, sign * interval.high))
    claim = f"{say_name(comparison.name_b)} is {side} by {size} "
    if not found.difference:
        claim = f"{say_name(comparison.name_b)} has the same mean, "
    claim += f"{write_interval(*bounds)}{left_out}"
    if comparison.outcome == "equal":
        margin = write_number(comparison.margin or 0.0)
        claim = f"Equal within {margin}: {claim}"
    if not comparison.settled:
        claim = f"Not settled: {claim}; {_say_need(comparison)}"
    return f"{claim}.{_say_singles(comparison, side)}"


def _say_singles(comparison: TrialComparison, side: str) -> str:
    """What one pair of runs would have shown, settled or not."""
    # Said of settled differences alone it would be too large: a share that came
    # out large by chance goes with a difference that did.
    found = comparison.statistics
    if not found.difference:
        return ""
    equal = say_share(found.equal_rate).partition(" ")[0]
    ties = f" and {equal} no difference" if found.equal_rate else ""
    return (
        f" By these seeds about {say_share(found.agree_rate)} pairs of single "
        f"runs would show it {side}{ties}."
    )


def _say_need(comparison: TrialComparison) -> str:
    more = comparison.num_more_trials
    if more is None and comparison.examples is not None:
        return "no number of seeds would settle it on so few test examples"
    if more is None:
        return "hardly any number of seeds would settle so small a difference"
    seeds = count_of(_round_up(more), "more seed")
    what = "a difference of this size" if comparison.margin is None else "it"
    claim = f"about {seeds} would settle {what}"
    if comparison.statistics.num_pairs < 3:
        return f"two pairs settle nothing, {claim}"
    return claim


def _round_up(number: int) -> int:
    """A count with two digits that matter."""
    step: int = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // step) * step


def say_share(share: float) -> str:
    """A share as people say it; one between 0 and 1 is neither of these."""
    times = round(100 * share)
    if 0 < share < 1:
        times = min(max(times, 1), 99)
    return f"{times} of 100"


def say_plan(watched: bool | None, they_hold: str) -> str:
    """For which numbers of seeds intervals hold, and why."""
    if watched:
        return f"watched: {they_hold} however often one looks"
    if watched is None:
        return f"no record of it: {they_hold} if the seeds were fixed before"
    return f"seeds fixed beforehand: {they_hold} for these"


def list_statistics(comparison: TrialComparison) -> list[tuple[str, str]]:
    """All numbers of a comparison, as labels and values."""
    found, interval = comparison.statistics, comparison.statistics.interval
    error = _find_error(found)
    a, b = say_name(comparison.name_a), say_name(comparison.name_b)
    times = comparison.family_size
    family = "" if times == 1 else f", {times} times that of one comparison"
    level = say_level(comparison.confidence_level)
    facts = [
        ("Score", say_name(comparison.metric, 60)),
        ("Pairs", f"{found.num_pairs}, {say_seeds(comparison.seeds)}"),
        ("Interval", say_plan(comparison.watched, "it holds")),
        (f"Mean of {a}", write_number(found.mean_a, error)),
        (f"Mean of {b}", write_number(found.mean_b, error)),
        (
            "Difference",
            f"{write_number(found.difference, error)} ({b} - {a}), "
            f"{level} {write_interval(interval.low, interval.high)}",
        ),
        ("Paired t test", f"p {write_p(comparison.t_p)}{family}"),
        *(
            [("Wilcoxon test", f"p {write_p(comparison.wilcoxon_p)}{family}")]
            if not math.isnan(comparison.wilcoxon_p)
            else []
        ),
        (
            "Single runs",
            f"in pairs of unrelated seeds {b} is lower in "
            f"{say_share(found.lower_rate)}, equal in "
            f"{say_share(found.equal_rate)}, higher in "
            f"{say_share(found.higher_rate)}",
        ),
        (
            "Effect sizes",
            f"d_av {found.effect_size:.2f} (in spreads of the runs), "
            f"d_z {found.effect_size_paired:.2f} (in spreads of the pairs)",
        ),
    ]
    return [*facts, *_list_limits(comparison)]


def _list_limits(comparison: TrialComparison) -> list[tuple[str, str]]:
    """What else makes an interval what it is."""
    found, facts = comparison.statistics, []
    if comparison.examples is not None:
        facts.append(("Test set", _say_examples(comparison.examples)))
    # From a tenth of the variance on.
    if found.resolution > math.sqrt(0.6) * found.spread:
        step = write_number(found.resolution)
        text = f"scores move by steps of {step}, so the interval is wider"
        facts.append(("Rounding", text))
    if comparison.num_left_out:
        text = f"{count_of(comparison.num_left_out, 'pair')} without two "
        facts.append(("Left out", f"{text}finite scores"))
    return facts


def _say_examples(examples: ExampleStatistics) -> str:
    """How many there are, and which share of the width is theirs."""
    number = count_of(examples.num_examples, "example")
    if examples.num_groups < examples.num_examples:
        number += f" in {count_of(examples.num_groups, 'group')}"
    share = examples.width_share
    interval = examples.seeds_interval
    alone = write_interval(interval.low, interval.high)
    if math.isnan(share):
        return f"{number}, crossed with the seeds"
    return (
        f"{number}, crossed with the seeds: {100 * share:.0f}% of the "
        f"interval's width is theirs; of seeds alone {alone}"
    )


def name_family_columns(family: Sequence[TrialComparison]) -> list[str]:
    """What the columns of `list_family` are called."""
    level = say_level(family[0].confidence_level)
    return ["", "mean", "difference", level, "p"]


def list_family(family: Sequence[TrialComparison]) -> list[list[str]]:
    """A row for each condition, the baseline first."""
    first = family[0].statistics
    mean = write_number(first.mean_a, _find_error(first))
    rows = [[say_name(family[0].name_a), mean, "", "", ""]]
    for one in family:
        found, interval = one.statistics, one.statistics.interval
        rows.append(
            [
                say_name(one.name_b),
                write_number(found.mean_b, _find_error(found)),
                write_number(found.difference, _find_error(found)),
                write_interval(interval.low, interval.high),
                write_p(one.t_p),
            ]
        )
    return rows


def say_jointly(family: Sequence[TrialComparison]) -> str:
    """What the intervals and p values of a family hold for."""
    level = 100 * family[0].family_level
    every = "both" if len(family) == 2 else f"all {len(family)}"
    return (
        f"Of the family: {every} intervals hold at once at "
        f"{level:.4g}%, and each p is {len(family)} times that of one "
        "comparison (Bonferroni)."
    )


def say_family(family: Sequence[TrialComparison]) -> str:
    """What is compared, and how many differences are settled."""
    first, number = family[0], count_of(len(family), "difference")
    settled = sum(one.settled for one in family)
    return (
        f"{settled} of {number} to {say_name(first.name_a)} settled "
        f"({say_name(first.metric, 40)})."
    )
