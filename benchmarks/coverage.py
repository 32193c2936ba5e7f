"""How often a 95% interval holds the true mean, in simulated studies.

    python -m benchmarks.coverage            # a minute or two
    python -m benchmarks.coverage --check    # fail if a target is missed

Studies of a fixed number of trials: the interval of `bootstrap_interval`
against SciPy's plain percentiles, Hesterberg's expanded ones, and Student's.
Then studies that stop by `HalfWidth`, as soon as half of the interval is
narrow enough. To be quick all studies of a table row are resampled at once;
that this gives what `bootstrap_interval` gives is asserted on some of them.
"""

import argparse
import math

import numpy as np
from scipy import stats

from keras_repro.studies.scores import bootstrap_interval, t_interval
from keras_repro.studies.stopping import HalfWidth

LEVEL = 0.95
SIZES = (3, 5, 10, 30)
NUM_STUDIES = 10_000
NUM_STOPPED = 2_000
NUM_RESAMPLES = 2_000
NEEDED = (15, 30, 60)
CHECKED = 30
LEAST, MOST = 10, 200
NORMAL_RANGE = (0.93, 0.97)


def draw_normal(rng, shape):
    return rng.normal(size=shape)


def draw_skewed(rng, shape):
    return rng.lognormal(size=shape)


def draw_clusters(rng, shape):
    """One seed in five ends elsewhere, ten standard deviations away."""
    return rng.normal(size=shape) + 10 * (rng.random(shape) < 0.2)


def draw_skewed_differences(rng, shape):
    return rng.lognormal(size=shape) - rng.lognormal(size=shape)


# How scores are drawn, their mean and their standard deviation.
SKEWED_STD = math.sqrt((math.e - 1) * math.e)
KINDS = {
    "normal": (draw_normal, 0.0, 1.0),
    "skewed (log-normal)": (draw_skewed, math.exp(0.5), SKEWED_STD),
    "two clusters, 4 to 1": (draw_clusters, 2.0, math.sqrt(17)),
    "differences of skewed": (
        draw_skewed_differences,
        0.0,
        math.sqrt(2) * SKEWED_STD,
    ),
}


def find_quantiles(scores, tails, rng):
    """Quantiles of the resampled means, a row per study, lows then highs."""
    size = scores.shape[1]
    ends = [*tails, *(1 - tail for tail in tails)]
    found = []
    for part in np.array_split(scores, math.ceil(len(scores) / 500)):
        # The same draws for a part of the studies; each study is a fair one.
        counts = rng.multinomial(size, [1 / size] * size, size=NUM_RESAMPLES)
        means = part @ (counts.T / size)
        found.append(np.quantile(means, ends, axis=1))
    return np.concatenate(found, axis=1).reshape(2, len(tails), -1)


def stretch(scores, plain):
    """The bounds of `bootstrap_interval` from those of plain percentiles."""
    size, tail = scores.shape[1], (1 - LEVEL) / 2
    factor = stats.t.isf(tail, size - 1) / stats.norm.isf(tail)
    factor *= math.sqrt(size / (size - 1))
    mean = scores.mean(axis=1)
    return mean + factor * (plain - mean)


def make_intervals(scores, rng):
    """The bounds of each kind of interval, shape `(2, num_studies)`."""
    size, tail = scores.shape[1], (1 - LEVEL) / 2
    t = stats.t.isf(tail, size - 1)
    expanded_tail = stats.norm.cdf(-math.sqrt(size / (size - 1)) * t)
    bounds = find_quantiles(scores, [tail, expanded_tail], rng)
    mean = scores.mean(axis=1)
    half = t * scores.std(axis=1, ddof=1) / math.sqrt(size)
    return {
        "plain": bounds[:, 0],
        "expanded": bounds[:, 1],
        "ours": stretch(scores, bounds[:, 0]),
        "Student": np.stack([mean - half, mean + half]),
    }


def make_ours(scores, rng):
    """The bounds of `bootstrap_interval` alone."""
    plain = find_quantiles(scores, [(1 - LEVEL) / 2], rng)[:, 0]
    return stretch(scores, plain)


def check_against_package(scores, intervals):
    """What is simulated must be what the package computes."""
    for place in range(5):
        ours = bootstrap_interval(scores[place])
        student = t_interval(scores[place])
        for name, found, allowed in (
            ("ours", ours, 0.25 * ours.half_width),
            ("Student", student, 1e-9),
        ):
            gaps = intervals[name][:, place] - (found.low, found.high)
            assert np.abs(gaps).max() <= allowed, (name, gaps)


def share_covered(bounds, mean):
    return float(np.mean((bounds[0] <= mean) & (mean <= bounds[1])))


def report_fixed():
    """Print the coverage of each interval; returns ours for normal scores."""
    print(
        f"How many of {NUM_STUDIES:,} 95% intervals hold the true mean, %:\n"
        f"{'scores':<24}{'trials':>6}{'plain':>10}{'expanded':>10}"
        f"{'ours':>10}{'Student':>10}"
    )
    shares = []
    for name, (draw, mean, _) in KINDS.items():
        for size in SIZES:
            rng = np.random.default_rng(size)
            scores = draw(rng, (NUM_STUDIES, size))
            intervals = make_intervals(scores, rng)
            check_against_package(scores, intervals)
            covered = [share_covered(one, mean) for one in intervals.values()]
            print(
                f"{name:<24}{size:>6}"
                + "".join(f"{100 * share:>10.1f}" for share in covered)
            )
            if name == "normal":
                shares.append(covered[list(intervals).index("ours")])
    return shares


def stop_studies(scores, target, rng):
    """How many trials each study has when it stops, and its interval then."""
    stopped = np.full(len(scores), MOST)
    bounds = np.full((2, len(scores)), np.nan)
    running = np.arange(len(scores))
    for size in range(LEAST, MOST + 1):
        begun = scores[running, :size]
        t = stats.t.isf((1 - LEVEL) / 2, size - 1)
        cheap = t * begun.std(axis=1, ddof=1) / math.sqrt(size)
        # As `HalfWidth` does it: the bootstrap where Student's comes near.
        near = cheap <= (math.inf if size == MOST else 1.25 * target)
        if not near.any():
            continue
        low, high = make_ours(begun[near], rng)
        done = (high - low) / 2 <= target
        if size == MOST:
            done[:] = True
        places = running[near][done]
        stopped[places], bounds[:, places] = size, (low[done], high[done])
        running = np.setdiff1d(running, places)
    return stopped, bounds


def check_rule(scores, target, stopped):
    """Studies must stop about where `HalfWidth` stops them."""
    rule = HalfWidth(target, min_trials=LEAST)
    ratios = []
    for study, size in zip(scores[:7], stopped, strict=False):
        met = (
            count
            for count in range(LEAST, MOST)
            if rule.is_met({"score": study[:count]})
        )
        ratios.append(next(met, MOST) / size)
    assert 0.9 <= np.median(ratios) <= 1.1, ratios


def report_stopped():
    """Print the coverage of studies that stop when they may."""
    print(
        f"\n{NUM_STOPPED:,} studies that stop when half of the interval is "
        f"narrow enough, {LEAST} to {MOST} trials.\nThe target is that half "
        "for as many trials, were the standard deviation known.\n"
        f"{'scores':<24}{'target':>8}{'median':>8}{'all ' + str(MOST):>9}"
        f"{'covered, %':>12}{'not stopped, %':>16}"
    )
    for name, (draw, mean, std) in KINDS.items():
        for needed in NEEDED:
            rng = np.random.default_rng(needed)
            target = stats.norm.isf((1 - LEVEL) / 2) * std / needed**0.5
            scores = draw(rng, (NUM_STOPPED, MOST))
            stopped, bounds = stop_studies(scores, target, rng)
            if needed == CHECKED:
                check_rule(scores, target, stopped)
            # The same studies, had they been asked for that many trials.
            fixed = make_ours(scores[:, :needed], rng)
            print(
                f"{name:<24}{needed:>8}{np.median(stopped):>8.0f}"
                f"{100 * np.mean(stopped == MOST):>8.1f}%"
                f"{100 * share_covered(bounds, mean):>12.1f}"
                f"{100 * share_covered(fixed, mean):>16.1f}"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail on a miss")
    args = parser.parse_args()
    shares = report_fixed()
    report_stopped()
    low, high = NORMAL_RANGE
    if args.check and not low <= min(shares) <= max(shares) <= high:
        raise SystemExit("A target was missed.")


if __name__ == "__main__":
    main()
