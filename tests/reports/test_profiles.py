"""Profiles, aggregates and improvement against rliable's definitions, written out literally."""

import numpy as np
import pytest
from scipy import stats

from reports.statistics.profiles import Runs, aggregates, improvement, profile


def runs(seed: int, seeds: int = 5, datasets: int = 4) -> Runs:
    """Scores of one method in two decimals, so that some are equal."""
    random = np.random.default_rng(seed)
    return [np.round(random.beta(4, 2, seeds), 2) for _ in range(datasets)]


def resampled(found: Runs, random: np.random.Generator) -> Runs:
    """Seeds drawn again within each data set."""
    return [random.choice(scores, len(scores)) for scores in found]


def literal_band(statistic, *found: Runs) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(11)
    draws = [statistic(*(resampled(one, random) for one in found)) for _ in range(1500)]
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def test_a_profile_is_the_share_of_runs_above_a_threshold() -> None:
    mine, taus = runs(0), np.linspace(0, 1, 21)
    found = profile(mine, taus)
    pooled = np.concatenate(mine)
    assert found[:, 0] == pytest.approx([float((pooled > tau).mean()) for tau in taus])
    for at in (10, 14):
        band = literal_band(lambda one, at=at: np.mean(np.concatenate(one) > taus[at]), mine)
        assert found[at, 1:] == pytest.approx(band, abs=0.051), "a run of twenty is 0.05"
    assert (found[:, 1] <= found[:, 0]).all() and (found[:, 0] <= found[:, 2]).all()
    assert (np.diff(found[:, 0]) <= 0).all()


def test_data_sets_weigh_the_same_whatever_their_seeds() -> None:
    mine = [np.array([0.9]), np.array([0.1, 0.1, 0.1])]
    assert profile(mine, np.array([0.5]))[0].tolist() == [0.5, 0.5, 0.5]
    assert improvement(mine, [np.array([0.5]), np.array([0.5])])[0] == 0.5


def test_improvement_is_the_mean_of_mann_and_whitney() -> None:
    first, second = runs(1), runs(2, seeds=3)
    chance, low, high = improvement(first, second)

    def literal(xs: Runs, ys: Runs) -> float:
        by_task = [
            np.mean([(x > y) + 0.5 * (x == y) for x in one for y in other])
            for one, other in zip(xs, ys, strict=True)
        ]
        return float(np.mean(by_task))

    assert chance == pytest.approx(literal(first, second))
    u = [stats.mannwhitneyu(x, y, alternative="greater").statistic / (len(x) * len(y))
         for x, y in zip(first, second, strict=True)]  # fmt: skip
    assert chance == pytest.approx(np.mean(u))
    assert (low, high) == pytest.approx(literal_band(literal, first, second), abs=0.03)
    assert improvement(second, first)[0] == pytest.approx(1 - chance)
    assert improvement(first, first)[0] == 0.5


def test_aggregates() -> None:
    mine = runs(3)
    scores = np.column_stack(mine)
    found = aggregates(mine)
    assert found["mean"][0] == pytest.approx(scores.mean(axis=0).mean())
    assert found["median"][0] == pytest.approx(np.median(scores.mean(axis=0)))
    middle = np.sort(scores, axis=None)[5:15]
    assert found["iqm"][0] == pytest.approx(middle.mean())
    assert found["optimality_gap"][0] == pytest.approx(1 - scores.mean())
    band = literal_band(lambda one: stats.trim_mean(np.column_stack(one), 0.25, axis=None), mine)
    assert found["iqm"][1:] == pytest.approx(band, abs=0.01)
    # the first three of five seeds, where another data set has three
    fewer = [mine[0], mine[1][:3]]
    assert aggregates(fewer)["mean"][0] == pytest.approx(np.mean([x[:3] for x in fewer]))


def test_one_seed_has_no_spread() -> None:
    assert aggregates([np.array([0.4]), np.array([0.6])])["mean"] == (0.5, 0.5, 0.5)
