"""How often the statistics of studies are wrong, in simulated studies.

    python -m benchmarks.statistics            # three minutes
    python -m benchmarks.statistics --check    # fail if a promise is broken

Each table says in how many of 100 studies something is wrong that may be wrong
in 5 (or 1, or 0.5). Figures in brackets are of scores for which nothing is
promised. To be quick all studies of a figure are computed at once; that this
gives what the package gives is asserted on some of them.
"""

import argparse
import math

import numpy as np
from scipy import stats

from keras_repro.studies.comparison import compare_trials
from keras_repro.studies.results import TrialResults
from keras_repro.studies.scores import (
    compare_paired,
    count_needed_pairs,
    find_bound,
    find_p,
    t_interval,
)
from keras_repro.studies.spread import SOURCES, find_spread
from keras_repro.studies.stopping import HalfWidth

LEVEL = 0.95
SIZES = (3, 5, 10, 30)
FAMILIES = (1, 2, 5, 10, 20)
LEVELS = (0.95, 0.99, 0.995)
NUM_STUDIES = 20_000
NUM_SINGLE = 200_000  # Of one study, which is quick.
NUM_WATCHED = 4_000
LOOKS = 60
CHECKED = 5
NEEDED = (15, 30, 60)
LEAST, MOST = 10, 200


def draw_normal(rng, shape):
    return rng.normal(size=shape)


def draw_skewed(rng, shape):
    return rng.lognormal(size=shape)


def draw_clusters(rng, shape):
    """One seed in five ends elsewhere, ten standard deviations away."""
    return rng.normal(size=shape) + 10 * (rng.random(shape) < 0.2)


def draw_rounded(spread):
    """Accuracies over 200 examples that spread by so many steps of 1/200."""

    def draw(rng, shape):
        # Where they lie between two steps is a matter of chance too.
        center = 180 + rng.random((shape[0], *(1 for _ in shape[1:])))
        return np.rint(center + spread * rng.normal(size=shape)) / 200

    return draw


def draw_skewed_differences(rng, shape):
    return rng.lognormal(size=shape) - rng.lognormal(size=shape)


# How scores are drawn, their mean and their standard deviation.
SKEWED_STD = math.sqrt((math.e - 1) * math.e)
KINDS = {
    "normal": (draw_normal, 0.0, 1.0),
    "log-normal": (draw_skewed, math.exp(0.5), SKEWED_STD),
    "two clusters, 4 to 1": (draw_clusters, 2.0, math.sqrt(17)),
    "differences of log-normals": (
        draw_skewed_differences,
        0.0,
        math.sqrt(2) * SKEWED_STD,
    ),
}
# Families draw the baseline and each condition alike, so that none differs.
PAIRED = {
    "normal": draw_normal,
    "log-normal": draw_skewed,
    "two clusters, 4 to 1": draw_clusters,
    "accuracies, 0.3 steps": draw_rounded(0.3),
    "accuracies, 0.8 steps": draw_rounded(0.8),
    "accuracies, 3 steps": draw_rounded(3.0),
}


class Promises:
    """Prints shares in percent, and counts those that break a promise."""

    def __init__(self):
        self.num_broken = 0

    def write(self, wrong, allowed, *, promised=True):
        """A share of wrong studies that may be as large as is allowed."""
        error = math.sqrt(allowed * (1 - allowed) / np.size(wrong))
        share = float(np.mean(wrong))
        broken = promised and share > allowed + 2 * error
        self.num_broken += broken
        text = f"{100 * share:.1f}{'!' if broken else ''}"
        return f"{text if promised else f'({text})':>10}"


def make_rng(*numbers):
    return np.random.default_rng(numbers)


# --- a fixed number of seeds ---------------------------------------------


def measure(scores):
    """The mean of each study and its standard error."""
    size = scores.shape[1]
    return scores.mean(1), scores.std(1, ddof=1) / math.sqrt(size)


def report_coverage(promises):
    """How often the interval of one study misses the mean."""
    titles = "".join(f"{100 * level:>9g}%" for level in LEVELS)
    print(f"{'interval misses the mean, %':<28}{'seeds':>6}{titles}")
    for name, (draw, mean, _) in KINDS.items():
        for size in SIZES:
            scores = draw(make_rng(1, size), (NUM_SINGLE, size))
            center, error = measure(scores)
            for one, middle in zip(scores[:CHECKED], center, strict=False):
                half = (
                    find_bound(size, LEVEL, watched=False)
                    * measure(one[None])[1][0]
                )
                assert math.isclose(t_interval(one).high, middle + half)
            cells = (
                promises.write(
                    np.abs(center - mean)
                    > find_bound(size, level, watched=False) * error,
                    1 - level,
                    promised=name == "normal",
                )
                for level in LEVELS
            )
            print(f"{name:<28}{size:>6}{''.join(cells)}")


def find_steps(scores):
    """By how much rounded scores of each pair of studies move, else 0."""
    counts = np.rint(200 * scores).astype(int)
    if np.abs(counts - 200 * scores).max() > 1e-6:
        return 0.0
    lowest = np.minimum(counts.min(1)[:, 1:], counts.min(1)[:, :1])
    first = counts[..., :1] - lowest[:, None]
    other = counts[..., 1:] - lowest[:, None]
    both = np.concatenate([first, other], axis=1)
    return np.gcd.reduce(both, axis=1) / 200


def find_errors(draw, size, number, *, differ=False):
    """Which differences of each family are missed by their intervals.

    Where all are to differ, each has a mean and a spread of its own.
    """
    rng = make_rng(2, size, number, differ)
    scores = draw(rng, (NUM_STUDIES, size, number + 1))
    shifts = np.arange(1.0, number + 1) if differ else 0.0
    scores[..., 1:] = scores[..., 1:] * (1 + shifts / 4) + shifts
    gaps = scores[..., 1:] - scores[..., :1]
    center, error = measure(gaps)
    error = np.hypot(error, find_steps(scores) / math.sqrt(6 * size))
    bound = find_bound(size, 1 - (1 - LEVEL) / number, watched=False)
    for study in range(CHECKED):
        results = [
            TrialResults(seeds=range(size), scores={"score": one})
            for one in scores[study].T
        ]
        named = {f"{place}": one for place, one in enumerate(results)}
        for place, one in enumerate(compare_trials(named)):
            middle, reach = center[study, place], bound * error[study, place]
            found = one.statistics.interval
            expected = middle - reach, middle + reach
            if gaps[study, :, place].any():
                ends = found.low, found.high
                assert np.allclose(ends, expected, atol=1e-4 * reach), one
            assert one.settled == bool(abs(middle) > reach + 1e-12), one
    return np.abs(center - shifts) > bound * error + 1e-12


def report_families(promises):
    """How often a family without any difference has one that is settled."""

    def write(name, draw, size, *, differ=False, promised=True):
        cells = (
            promises.write(
                find_errors(draw, size, number, differ=differ).any(axis=1),
                1 - LEVEL,
                promised=promised,
            )
            for number in FAMILIES
        )
        print(f"{name:<28}{size:>6}{''.join(cells)}")

    titles = "".join(f"{f'of {number}':>10}" for number in FAMILIES)
    print(f"\n{'a family is mistaken, %':<28}{'seeds':>6}{titles}")
    for name, draw in PAIRED.items():
        for size in SIZES:
            write(name, draw, size)
    print("one of its intervals misses, where all differ, %")
    for size in SIZES:
        write("normal", draw_normal, size, differ=True)
    print("the same, where a condition alone is skewed, %")
    for size in SIZES:
        write(
            "log-normal, never the first", draw_one_sided, size, promised=False
        )


def draw_one_sided(rng, shape):
    """A baseline that no seed moves; the others skewed, of the same mean."""
    scores = rng.lognormal(size=shape)
    scores[..., 0] = math.exp(0.5)
    return scores


# --- studies that stop ---------------------------------------------------


def stop_studies(scores, target):
    """How many trials each study has when `HalfWidth` stops it."""
    stopped = np.full(len(scores), MOST)
    for size in range(MOST - 1, LEAST - 1, -1):
        _, error = measure(scores[:, :size])
        bound = find_bound(size, LEVEL, watched=False)
        stopped[bound * error <= target] = size
    rule = HalfWidth(target, min_trials=LEAST)
    for study, size in zip(scores[:CHECKED], stopped, strict=False):
        met = (
            count
            for count in range(LEAST, MOST)
            if rule.is_met({"score": study[:count]})
        )
        assert next(met, MOST) == size
    return stopped


def report_stopped(promises):
    """How often the interval misses, of studies that `HalfWidth` stops."""
    print(
        "\nStopped by HalfWidth; the target is half the interval of as many "
        "trials,\nwere the standard deviation known.\n"
        f"{'interval misses the mean, %':<28}{'target':>6}{'median':>10}"
        f"{'stopped':>10}{'fixed':>10}"
    )
    for name, (draw, mean, std) in KINDS.items():
        for needed in NEEDED:
            target = stats.norm.isf((1 - LEVEL) / 2) * std / needed**0.5
            scores = draw(make_rng(3, needed), (NUM_STUDIES, MOST))
            stopped = stop_studies(scores, target)
            missed = np.empty(NUM_STUDIES)
            for size in np.unique(stopped):
                center, error = measure(scores[stopped == size, :size])
                reach = find_bound(size, LEVEL, watched=False) * error
                missed[stopped == size] = np.abs(center - mean) > reach
            center, error = measure(scores[:, :needed])
            bound = find_bound(needed, LEVEL, watched=False)
            fixed = np.abs(center - mean) > bound * error
            cells = (
                promises.write(one, 1 - LEVEL, promised=False)
                for one in (missed, fixed)
            )
            print(
                f"{name:<28}{needed:>6}{np.median(stopped):>10.0f}"
                f"{''.join(cells)}"
            )


# --- studies that are watched --------------------------------------------


def watch(gaps, number=1):
    """Which families have a difference that is settled at some look.

    Looked at after each pair from the third on, all that were run so far.
    """
    size = gaps.shape[1]
    bounds = {
        watched: [
            find_bound(count, 1 - (1 - LEVEL) / number, watched=watched)
            for count in range(3, size + 1)
        ]
        for watched in (True, False)
    }
    counts = np.arange(1, size + 1)[:, None]
    means = np.cumsum(gaps, axis=1) / counts
    squares = np.cumsum(gaps**2, axis=1) - counts * means**2
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(means) / np.sqrt(squares / (counts - 1) / counts)
    # Rounded scores only spread more, as the package counts them.
    t = np.where(np.abs(means) > 1e-12, t, 0.0)[:, 2:]
    for study in range(CHECKED):
        one = compare_paired(np.zeros(size), gaps[study, :, 0], watched=True)
        t_p = find_p(size, t[study, -1, 0], watched=True)
        if not one.resolution:
            assert math.isclose(one.t_p, t_p, rel_tol=1e-6), (one.t_p, t_p)
    return {
        watched: (t > np.array(bound)[:, None]).any(axis=2)
        for watched, bound in bounds.items()
    }


def report_watched(promises):
    """How often a family is mistaken at some look, and how long it takes."""
    titles = "".join(f"{f'of {number}':>10}" for number in FAMILIES)
    print(
        f"\n{NUM_WATCHED:,} families looked at after each pair from 3 to "
        f"{LOOKS}.\n{'mistaken at some look, %':<34}{titles}"
    )
    for name, draw in PAIRED.items():
        cells = {True: "", False: ""}
        for number in FAMILIES:
            rng = make_rng(4, number)
            scores = draw(rng, (NUM_WATCHED, LOOKS, number + 1))
            found = watch(scores[..., 1:] - scores[..., :1], number)
            for watched, wrong in found.items():
                cells[watched] += promises.write(
                    wrong.any(axis=1), 1 - LEVEL, promised=watched
                )
        print(f"{name:<34}{cells[True]}")
        print(f"{'  by intervals of a fixed number':<34}{cells[False]}")
    print(
        f"\n{'seeds until it is settled':<34}{'fixed':>10}{'median':>10}"
        f"{'ratio':>10}{'80%':>10}{'twice':>10}{'ratio':>10}"
    )
    for effect in (0.2, 0.3, 0.5, 0.8, 1.0):
        fixed = count_needed_pairs(effect)
        first = [find_first(effect * times, 4 * fixed) for times in (1, 2)]
        halves = [float(np.median(one)) for one in first]
        print(
            f"{f'{effect:g} deviations between the means':<34}{fixed:>10}"
            f"{halves[0]:>10.0f}{halves[0] / fixed:>10.2f}"
            f"{np.quantile(first[0], 0.8):>10.0f}"
            f"{halves[1]:>10.0f}{halves[1] / fixed:>10.2f}"
        )


def find_first(effect, most):
    """After how many pairs each watched study is settled."""
    gaps = make_rng(5, most).normal(effect, size=(NUM_WATCHED, most, 1))
    settled = watch(gaps)[True]
    return np.where(settled.any(axis=1), settled.argmax(axis=1) + 3, math.inf)


# --- shares of a spread --------------------------------------------------

SHARES = {"initial": 0.5, "order": 0.3, "random": 0.1, "rest": 0.1}


def measure_shares(whole, part):
    """The share of each study's part, and half of its interval."""
    size = whole.shape[1]
    x, y = (one - one.mean(1, keepdims=True) for one in (whole, part))
    squares = np.sum(x * x, axis=1, keepdims=True)
    share = np.sum(x * y, axis=1, keepdims=True) / squares
    off = y - share * x
    plain = np.sum(off**2, axis=1) / (size - 2) / squares[:, 0]
    weighed = x * off / (1 - 1 / size - x * x / squares)
    robust = np.sum(weighed**2, axis=1) / squares[:, 0] ** 2
    error = np.sqrt(np.maximum(plain, robust))
    return share[:, 0], find_bound(size - 1, LEVEL, watched=False) * error


def report_spread(promises):
    """How often the interval of a share of the variance misses it."""
    titles = "".join(f"{name:>10}" for name in SHARES)
    print(f"\n{'interval misses the share, %':<28}{'seeds':>6}{titles}")
    for name, (draw, mean, std) in KINDS.items():
        for size in SIZES[1:]:
            rng = make_rng(6, size)
            part = {
                source: share**0.5
                * (draw(rng, (NUM_STUDIES, size)) - mean)
                / std
                for source, share in SHARES.items()
            }
            whole = sum(part.values())
            cells = ""
            for source, share in SHARES.items():
                found, half = measure_shares(whole, part[source])
                missed = np.abs(found - share) > half
                promised = name == "normal"
                cells += promises.write(missed, 1 - LEVEL, promised=promised)
                check_share(whole, part, source, found, half)
            print(f"{name:<28}{size:>6}{cells}")


def check_share(whole, part, source, shares, halves):
    """What is simulated must be what the package computes."""
    for study in range(CHECKED):
        scores = {"all": whole[study]}
        scores |= {one: part[one][study] for one in SOURCES}
        studies = {
            vary: TrialResults(
                seeds=range(len(one)), scores={"score": one}, vary=vary
            )
            for vary, one in scores.items()
        }
        found = find_spread(studies)[source]
        share, half = shares[study], halves[study]
        ends = np.clip([share - half, share, share + half], 0, 1)
        given = found.interval.low, found.share, found.interval.high
        assert np.allclose(given, ends, atol=1e-4), (given, ends)


# --- seeds crossed with test examples ------------------------------------

NUM_EXAMPLES, NUM_CROSSED = 100, 3_000
# Standard deviations by the seed, by the example, and by both of them.
CROSSED = {
    "seeds and examples alike": (1, 1, 1),
    "hardly by seeds": (0.1, 1, 1),
    "by examples alone": (0, 1, 1),
    "by seeds alone": (1, 0, 1),
}


def cross(gaps, tail, watched):
    """The mean of each study, half of its interval, and that of seeds alone."""
    size, number = gaps.shape[1:]
    rows, columns, center = gaps.mean(2), gaps.mean(1), gaps.mean((1, 2))
    off = gaps - rows[..., None] - columns[:, None] + center[:, None, None]
    both = np.sum(off**2, axis=(1, 2)) / (size - 1) / (number - 1)
    examples = (columns.var(1, ddof=1) - both / size) / number
    each = tail / 2 if watched else tail
    theirs = find_bound(number, 1 - each, watched=False)
    theirs *= np.sqrt(np.maximum(examples, 0))
    alone = find_bound(size, 1 - each, watched)
    alone *= rows.std(1, ddof=1) / math.sqrt(size)
    half = alone + theirs if watched else np.hypot(alone, theirs)
    return center, half, alone


def draw_crossed(rng, spreads, size):
    shapes = (size, 1), (1, NUM_EXAMPLES), (size, NUM_EXAMPLES)
    return sum(
        spread * rng.normal(size=(NUM_CROSSED, *shape))
        for spread, shape in zip(spreads, shapes, strict=True)
    )


def check_crossed(gaps, halves):
    """What is simulated must be what the package computes."""
    for one, half in zip(gaps[:CHECKED], halves, strict=False):
        none, some = (
            TrialResults(
                seeds=range(len(losses)),
                scores={"test": losses.mean(1)},
                examples={"test": losses},
            )
            for losses in (np.zeros_like(one), one)
        )
        found = compare_trials(none, some).statistics.interval.half_width
        assert math.isclose(found, half, rel_tol=1e-3), (found, half)


def report_crossed(promises):
    """How often an interval of seeds and examples misses the difference."""
    titles = "".join(f"{name:>10}" for name in ("95%", "99.5%", "seeds"))
    print(
        f"\n{NUM_CROSSED:,} studies on {NUM_EXAMPLES} test examples.\n"
        f"{'interval misses, %':<28}{'seeds':>6}{titles}{'looks':>10}"
    )
    for name, spreads in CROSSED.items():
        for size in SIZES:
            gaps = draw_crossed(make_rng(7, size), spreads, size)
            cells = ""
            for tail in (0.05, 0.005):
                center, half, alone = cross(gaps, tail, watched=False)
                cells += promises.write(np.abs(center) > half, tail)
                if tail == 0.05:
                    check_crossed(gaps, half)
                    missed = np.abs(center) > alone
            cells += promises.write(missed, 0.05, promised=False)
            settled = np.zeros(NUM_CROSSED, bool)
            for seen in range(6, size + 1):
                center, half, _ = cross(gaps[:, :seen], 0.05, watched=True)
                settled |= np.abs(center) > half
            cells += promises.write(settled, 0.05)
            print(f"{name:<28}{size:>6}{cells}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail on a miss")
    args = parser.parse_args()
    promises = Promises()
    print(f"{NUM_STUDIES:,} studies a figure, {NUM_SINGLE:,} above.\n")
    report_coverage(promises)
    report_families(promises)
    report_stopped(promises)
    report_watched(promises)
    report_spread(promises)
    report_crossed(promises)
    if args.check and promises.num_broken:
        raise SystemExit(f"{promises.num_broken} promises are broken.")


if __name__ == "__main__":
    main()
