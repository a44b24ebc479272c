"""A population in a real search, whose driver is killed just behind a decision."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.faults]

SPACE = """
name: herd
base:
  backbone.name: vit_nano
  data.name: digits
  data.size_per_class: 20
  methods: [linear]
  train.epochs: 6
axes:
  optim.lr: {float: [1.0e-5, 1.0e-1], log: true}
  optim.weight_decay: {float: [1.0e-4, 1.0e-1], log: true}
sampler: {name: random, seed: 1}
scheduler: {name: pbt, population: 4, interval: 2}
"""
PATIENCE_S = 240.0


def events_of(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_bytes().splitlines()]


def test_every_epoch_is_trained_once_and_no_trial_counts_twice(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    tcpa = [sys.executable, "-m", "search.cli"]
    rest = ["--root", "studies", "--workers", "1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TCPA_CACHE": str(tmp_path / "cache")}
    journal = tmp_path / "studies" / "herd" / "journal.jsonl"
    with (tmp_path / "log").open("w") as log:
        search = [*tcpa, "search", "space.yaml", *rest]
        driver = subprocess.Popen(search, cwd=tmp_path, env=env, stdout=log, stderr=log)
        begun = time.monotonic()
        while driver.poll() is None and time.monotonic() - begun < PATIENCE_S:
            if journal.exists() and b'"from":{' in journal.read_bytes():
                break
            time.sleep(0.02)
        assert driver.poll() is None, (tmp_path / "log").read_text()
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        resume = [*tcpa, "resume", "herd", *rest]
        assert subprocess.run(resume, cwd=tmp_path, env=env, stdout=log, stderr=log).returncode == 0
        search += ["--study", "again"]
        assert subprocess.run(search, cwd=tmp_path, env=env, stdout=log, stderr=log).returncode == 0
    again = Counter(e["kind"] for e in events_of(tmp_path / "studies" / "again" / journal.name))
    events = events_of(journal)
    planned = {e["trial"]: e for e in events if e["kind"] == "planned"}
    ended = {e["trial"]: e for e in events if e["kind"] in ("completed", "pruned", "failed")}
    children = {name: e["from"] for name, e in planned.items() if "from" in e}
    assert children and len(planned) == 4 + len(children)
    assert len({e["digest"] for e in planned.values()}) == len(planned)
    assert Counter(e["kind"] for e in events)["planned"] == len(planned)
    replaced = {parent["replaces"]: parent["epoch"] + 1 for parent in children.values()}
    assert {name: e["status"] for name, e in ended.items()} == {
        name: "pruned" if name in replaced else "completed" for name in planned
    }
    trained = Counter((e["trial"], e["epoch"]) for e in events if e["kind"] == "epoch")
    expected = {
        (name, epoch): 1
        for name, e in planned.items()
        for epoch in range(e.get("from", {}).get("epoch", 0) + 1, replaced.get(name, 6) + 1)
    }
    assert trained == expected
    # Repeated, nothing is trained.
    assert again["reused"] == again["planned"] == len(planned) and not again["started"]
