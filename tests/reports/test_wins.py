"""Wins, ties and losses against scipy, data set by data set."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from reports.statistics.wins import Values, mean_difference, wins

SETS = ("a", "b", "c", "d", "e")


def values() -> Values:
    """On a clearly better, b clearly worse, c in doubt, d equal, e without shared seeds."""
    random = np.random.default_rng(1)
    base = {name: random.normal(0.7, 0.05, 6) for name in SETS}
    moved = {"a": 0.1, "b": -0.1, "c": 0.001, "d": 0.0, "e": 0.2}
    found = {("old", name): dict(enumerate(scores)) for name, scores in base.items()}
    for name, by in moved.items():
        noise = random.normal(0, 0.01, 6) if by else np.zeros(6)
        start = 10 if name == "e" else 0
        found["new", name] = dict(enumerate(base[name] + by + noise, start))
    return found


def test_what_is_shown_on_each_data_set_counts() -> None:
    found = values()
    one = wins(found, "new", "old", SETS)
    p = [stats.ttest_rel([*found["new", s].values()], [*found["old", s].values()]).pvalue
         for s in "abc"]  # fmt: skip
    shown = multipletests(p, 0.05, "holm")[0]
    assert shown.tolist() == [True, True, False]
    assert (one.wins, one.ties, one.losses) == (1, 2, 1), "equal values are a tie"
    assert one.lacking == ("e",)
    assert one.ahead + one.behind == 3
    assert one.sign_p == pytest.approx(stats.binomtest(one.ahead, 3).pvalue)
    back = wins(found, "old", "new", SETS)
    assert (back.wins, back.ties, back.losses) == (1, 2, 1)
    assert (back.ahead, back.behind) == (one.behind, one.ahead)
    assert wins(found, "new", "old", SETS, -1).ahead == one.behind


def test_one_seed_shows_nothing() -> None:
    one = wins({("x", "a"): {0: 0.9}, ("y", "a"): {0: 0.1}}, "x", "y", ["a", "b"])
    assert (one.wins, one.ties, one.losses, one.ahead) == (0, 1, 0, 1)
    assert one.lacking == ("b",)
    assert wins({}, "x", "y", ["a"]).sign_p is None


def test_the_mean_difference_has_welch_s_interval() -> None:
    """Of two data sets it is half of Welch's for the sum of two means of unequal spread."""
    random = np.random.default_rng(4)
    a, b = random.normal(0.02, 0.01, 4), random.normal(0.05, 0.03, 6)
    found: Values = {
        ("new", "a"): dict(enumerate(a)), ("old", "a"): dict.fromkeys(range(4), 0.0),
        ("new", "b"): dict(enumerate(b)), ("old", "b"): dict.fromkeys(range(6), 0.0),
    }  # fmt: skip
    mean, low, high = mean_difference(found, "new", "old", ["a", "b"]) or (0, 0, 0)
    welch = stats.ttest_ind(a, -b, equal_var=False).confidence_interval()
    assert mean == pytest.approx((a.mean() + b.mean()) / 2)
    assert (low, high) == pytest.approx((welch.low / 2, welch.high / 2))
    assert mean_difference(found, "new", "old", ["a", "c"]) is None
