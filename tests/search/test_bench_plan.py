"""What a bench will cost: told from any column on record, and with the epochs that are stopped."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search.planning.bench_plan import BenchPlan, plan_bench
from search.planning.bench_view import show_bench_plan
from search.study.folder import StudyDir
from spaces.read_suite import load_suite
from tcpa_core.training.estimate import VALIDATION
from tests.search.test_plan_cost import ended, record
from tests.tcpa_core.data_layouts import make

SUITE = """\
name: small
base: {{backbone.name: vit_nano, train.epochs: 6}}
axes: {{optim.lr: {{float: [1e-4, 1e-1], log: true}}}}
datasets: {{digits: {{data.name: digits}}, mine: {{data.name: folder, data.root: {root}}}}}
methods: {{Linear: {{chain: [linear]}}}}
sampler: {{name: random}}
scheduler: {scheduler}
budget: {{trials: 9}}
confirm: {{top: 2, seeds: 3}}
"""
PICTURES = 1078 + VALIDATION * 269
"""Of an epoch over digits, those of val by what they cost."""


def plan(tmp_path: Path, left: slice, **settings: Any) -> BenchPlan:
    """A plan of some cells of two columns; of digits there is a trial on record, 2 s an epoch."""
    make("folder", tmp_path / "set")
    path = tmp_path / "suite.yaml"
    scheduler = settings or {"name": "none"}
    path.write_text(SUITE.format(root=tmp_path / "set", scheduler=scheduler))
    suite = load_suite(str(path))
    folder = tmp_path / "studies" / "small"
    study = StudyDir(folder / "digits-linear")
    study.path.mkdir(parents=True)
    record(study, ended("0", 12.0, 6, methods=["linear"]))
    return plan_bench(suite, suite.cells[left], suite.cells, folder)


def test_of_a_bench_that_is_done_no_empty_lines_are_shown(tmp_path: Path) -> None:
    said = io.StringIO()
    show_bench_plan(plan(tmp_path, slice(0)), Console(file=said, width=200))
    lines = said.getvalue().splitlines()
    assert "2 data sets; 2 done, 0 left" in said.getvalue()
    assert not [line for line in lines if line.startswith(("  trials", "  cost", "  order"))]


@pytest.mark.parametrize("left", [slice(0, 2), slice(1, 2)])
def test_a_column_that_is_done_tells_how_fast_a_method_is(left: slice, tmp_path: Path) -> None:
    """Goes on with the second column as one that has both before it."""
    found = plan(tmp_path, left)
    (mine,) = (one for one in found.cells if one.cell.dataset == "mine")
    sizes = found.data["mine"].sizes
    pictures = sizes["train"] + VALIDATION * sizes["val"]
    assert mine.estimate is not None
    assert mine.estimate.seconds == pytest.approx((9 + 6) * 6 * 2 * pictures / PICTURES)
    assert found.num_done == 2 - len(found.cells)


def test_what_early_stopping_leaves_is_counted_of_the_search_alone(tmp_path: Path) -> None:
    found = plan(tmp_path, slice(0, 1), name="asha", grace_epochs=1, reduction_factor=3)
    (digits,) = found.cells
    assert digits.estimate is not None
    told = (digits.estimate.low, digits.estimate.seconds, digits.estimate.high)
    # of six epochs one at least, and 1 + 2/3 + 3/9 as it is meant
    assert told == pytest.approx((2 * (9 * 1 + 6 * 6), 2 * (9 * 2 + 6 * 6), 2 * (9 + 6) * 6))
