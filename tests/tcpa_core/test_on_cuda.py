"""Every method on a GPU that is not there: no mistake of device or number format, no more than its
budget of kernels, waits of the host and generators (`benchmarks.fake_cuda`)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fake_cuda.cases import all_cases
from benchmarks.fake_cuda.device import why_not
from benchmarks.fake_cuda.sweep import COMMAND, budgets, excess, label, runs

ROOT = Path(__file__).parents[2]
BUDGETS = budgets()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """In a process of its own, since it changes torch for good."""
    if reason := why_not():
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("cuda") / "rows.json"
    command = [sys.executable, "-m", "benchmarks.fake_cuda", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("name", BUDGETS)
def test_a_run_stays_within_its_budget(name: str, rows: dict[str, Any]) -> None:
    found = excess(rows[name], BUDGETS[name])
    assert not found, f"{name}: {'; '.join(found)}\nWhere that is meant: {COMMAND}"


def test_every_run_has_a_budget() -> None:
    known = {label(case, p, m) for case in all_cases() for p, m, _ in runs(case)}
    missing, gone = sorted(known - set(BUDGETS)), sorted(set(BUDGETS) - known)
    assert not missing, f"no budget of {missing[:3]}; add it with {COMMAND}"
    assert not gone, f"budgets of runs that are no more: {gone[:3]}; {COMMAND}"


def test_no_budget_allows_a_wait_or_a_generator() -> None:
    """Of a step, nor a wait of a batch of evaluation."""
    keys = ("waits", "generators", "eval_waits")
    allowed = {name: row for name, row in BUDGETS.items() if any(row.get(key) for key in keys)}
    assert not allowed


def test_what_is_above_its_budget_is_told_with_its_lines() -> None:
    row = {"kernels": 11, "waits": 1, "generators": 0, "sites": ["1 x value at methods/x.py:f:3"]}
    assert excess(row, {"kernels": 20, "waits": 1, "generators": 0}) == []
    (told,) = excess(row, {"kernels": 20, "waits": 0, "generators": 0})
    assert "waits: 1, at most 0" in told and "methods/x.py:f:3" in told
    assert "kernels: 11, at most 10" in excess(row, {"kernels": 10})[0]
    assert excess({"error": "RuntimeError at x.py:3"}, {"waits": 0}) == ["RuntimeError at x.py:3"]


SMALL_PICTURES = """
import json
from unittest.mock import patch
import numpy as np
import torch
from benchmarks.fake_cuda.device import fake_gpu, pretend
from benchmarks.fake_cuda.watch import Log
from tcpa_core.data._cache import ImageStore, join
from tcpa_core.data._decode import ResizeRule
from tcpa_core.data.base import Split
from tcpa_core.settings import DataConfig
from tcpa_core.training import image_source

pretend()


def store(sides, rule):
    sides = np.array(sides)
    lengths = 3 * sides**2
    nothing = np.zeros(len(sides), np.int64)
    return ImageStore(
        np.zeros(lengths.sum(), np.uint8), np.cumsum([0, *lengths[:-1]]), sides, sides,
        nothing, nothing, nothing.astype(bool), rule=rule,
    )


found = {}
for resize in ("squash", "short_side"):
    rule = ResizeRule(resize, 24 if resize == "squash" else 27, "bicubic")
    cfg = DataConfig(resize=resize, flip=True, random_crop=resize == "short_side")
    images = join(store([8, 8, 5, 20], rule), store([8, 27 if resize != "squash" else 24], rule))
    split = Split(images=images, labels=np.zeros(6, np.int64), paths=())
    for once in (True, False):
        log = Log(with_sites=True)
        with fake_gpu(log):
            room = patch.object(image_source, "RESIDENT_SHARE", 0.25 if once else 4e-8)
            with room:
                source = image_source.ImageSource(split, cfg, 24, (0.5,) * 3, (0.5,) * 3, "cuda")
            drawn = torch.zeros(4, image_source.DRAWS, device="cuda")
            indices = torch.zeros(4, dtype=torch.long, device="cuda")
            for phase in ("first", "second"):
                log.phase = phase
                batch = source.batch(indices, drawn)
                evaluated = source.batch(slice(0, 4))
        found[f"{resize}, {'once' if once else 'each time'}"] = {
            "by": type(source._windows).__name__,
            "where": source.where.type,
            "shapes": [list(batch.shape), list(evaluated.shape)],
            "device": batch.device.type,
            "waits": [(e.site, e.wait) for e in log.of("second") if e.wait],
            "kernels": sum(e.work.kernels for e in log.of("second")),
        }
print(json.dumps(found))
"""


def test_small_pictures_are_enlarged_on_the_device_without_a_wait() -> None:
    if reason := why_not():
        pytest.skip(reason)
    command = [sys.executable, "-c", SMALL_PICTURES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert {name: row["by"] for name, row in found.items()} == {
        "squash, once": "Whole",
        "squash, each time": "Enlarger",
        "short_side, once": "Gathered",
        "short_side, each time": "Enlarger",
    }
    for row in found.values():
        assert (row["where"], row["device"]) == ("cuda", "cuda")
        assert row["shapes"] == [[4, 3, 24, 24]] * 2
        assert row["waits"] == []
        assert row["kernels"] > 0
