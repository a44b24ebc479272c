"""A minute of random faults on two nodes; `python -m benchmarks.soak` is the same for twenty."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.soak import soak

pytestmark = pytest.mark.integration


def test_a_minute_of_random_faults_loses_and_repeats_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    row = soak(tmp_path, 2, trials=20, nodes=2, minutes=1.5, gap_s=(2.0, 5.0), most_faults=4)
    assert row["clean"], row
    for name in ("worker", "node", "driver", "stop"):
        record_property(f"{name} faults", row[f"{name} faults"])
        assert row[f"{name} faults"] == 1
    assert row["trials"] == row["ended"] == 20
