"""The report of a study in a storage, where workers have sent what trials took images for."""

import shutil
from pathlib import Path

import pandas as pd

from search.study.folder import StudyDir
from search.verbs.report import report_text
from tcpa_core.record.files import CHECKPOINTS, PREDICTIONS
from tests.reports.images import ended, keep, predicted
from tests.reports.segments import segment_study
from tests.reports.studies import cell, planned, write


def test_a_report_brings_what_lies_in_the_storage(tmp_path: Path) -> None:
    found = [predicted(100, 3, 1.0 + n, n) for n in range(3)]
    events = []
    for n, one in enumerate(found):
        at = [cell("components", f"level {n}", n, n == 0)]
        events += [planned(n, cells=at), ended(n, one)]
    folder = write(tmp_path / "root" / "stored", events, "ablation")
    stored = tmp_path / "storage" / "stored"
    keep(stored, [*found[:2], None])  # the last one's is lost
    study = StudyDir(folder)
    study.storage = f"file://{tmp_path}/storage"
    text = report_text(study)
    assert "1 of 3 tested trials have not kept" in text
    rows = pd.read_parquet(folder / "tables" / "predictions.parquet")
    assert set(rows["trial"].astype(str)) == {"00000", "00001"}
    shutil.rmtree(stored)
    file = folder / CHECKPOINTS / "00000" / PREDICTIONS
    time = file.stat().st_mtime_ns
    assert "1 of 3 tested trials have not kept" in report_text(study)
    assert file.stat().st_mtime_ns == time, "what is here is not brought again"


def test_so_it_does_what_a_segmentation_has_found(tmp_path: Path) -> None:
    folder = segment_study(tmp_path / "root" / "maps", {"vpt": 0.8}, 2, ("sky", "road"), 2)
    stored = tmp_path / "storage" / "maps" / CHECKPOINTS
    stored.parent.mkdir(parents=True)
    (folder / CHECKPOINTS).rename(stored)
    study = StudyDir(folder)
    study.storage = f"file://{tmp_path}/storage"
    report_text(study)
    rows = pd.read_parquet(folder / "tables" / "regions.parquet")
    assert set(rows["trial"].astype(str)) == {"00000", "00001"}
