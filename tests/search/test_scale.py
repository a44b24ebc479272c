"""Many trials through the whole path: complete, without repeats, at a small and flat cost.

`python -m benchmarks.overhead --trials 1000` is the same at full size.
"""

import argparse
import sys

import pytest

from tests.search.conftest import ROOT

sys.path.insert(0, str(ROOT))
from benchmarks.overhead import measure  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


def test_sixty_trials_are_recorded_whole_and_cost_little() -> None:
    options = argparse.Namespace(
        epochs=1, sampler="tpe", scheduler="none", workers=2, slots=3, mlflow=False
    )
    row = measure(60, options)
    assert (row["planned"], row["ended"]) == (60, 60)
    assert (row["without_end"], row["ended_twice"], row["duplicates"]) == (0, 0, 0)
    # 20 ms on a quiet machine; CPU time, so that neighbours weigh little.
    assert row["driver_ms_per_trial"] < 100
    assert row["rss_mib_by_tenth"][-1] - row["rss_mib_by_tenth"][0] < 100
