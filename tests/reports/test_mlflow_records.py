"""The same tables from the journal and from MLflow, cell by cell."""

from pathlib import Path

import pandas as pd
import pytest

import reports
from reports.frames import frames
from reports.records.journal import load_journal
from reports.records.mlflow_records import load_mlflow
from search.tracking.mirror import sync
from tcpa_core.errors import StudyError
from tests.reports.segments import segment_study
from tests.reports.studies import components, epoch, final, over_datasets, planned, write

pytestmark = pytest.mark.integration
TRIALS = {"search": 18, "ablation": 6, "datasets": 8, "maps": 4}


def make(folder: Path, kind: str) -> Path:
    """A study with every state a trial can be in."""
    if kind == "ablation":
        rows = {"VPT": {0: 0.8, 1: 0.81, 2: 0.805}, "+R": {0: 0.83, 1: 0.82, 2: 0.85}}
        return write(folder, components(rows), kind)
    if kind == "maps":
        return segment_study(folder, {"linear": 0.5, "vpt": 0.8}, 2, ("sky", "road"), 2)
    if kind == "datasets":
        rows = {"VPT": [0.8, 0.81], "+R": [0.83, 0.82]}
        return write(folder, over_datasets({"dtd": rows, "svhn": rows}), "ablation")
    events = [{"kind": "study", "name": folder.name, "study_kind": "search", "source": "x"}]
    for n in range(12):
        method = ["vfpt", "tcpa"] if n % 2 else ["vpt"]
        events += [planned(n, methods=method, optim__lr=0.01 * (n + 1), data__root=None)]
        events += [{"kind": "started", "trial": f"{n:05d}", "worker": "w", "device": "cpu"}]
        events += [epoch(n, 1, 0.3), epoch(n, 2, 0.4 + 0.01 * n)]
        events += [final(n, "completed", 0.5 + 0.013 * n, device="cpu", warnings=["random"])]
    events += [{"kind": "tested", "trial": "00011", "test_loss": 0.5, "test_accuracy": 0.6}]
    events += [planned(12), epoch(12, 1, float("nan")), epoch(12, 1, 0.25)]  # trained again
    events += [planned(13), {"kind": "started", "trial": "00013", "worker": "w", "device": "cpu"}]
    events += [planned(14, seed=2), final(14, "failed", reason="loss is nan"), planned(15)]
    events += [planned(16), final(16, "completed", 0.7)]
    events += [planned(17), epoch(17, 1, 0.2), final(17, "pruned", 0.2)]
    return write(folder, events)


@pytest.mark.parametrize("kind", ["search", "ablation", "datasets", "maps"])
def test_tables_are_equal_cell_by_cell(kind: str, tmp_path: Path) -> None:
    study = make(tmp_path / kind, kind)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(2):  # mirroring twice changes nothing
        sync(study, uri, artifact_root=tmp_path / "artifacts")
    ours, tables = frames(load_journal(study))
    theirs, mirrored = frames(load_mlflow(uri, study.name))
    assert tables.keys() == mirrored.keys()
    for name, table in tables.items():
        assert mirrored[name].schema.equals(table.schema, check_metadata=True), name
        pd.testing.assert_frame_equal(
            mirrored[name].to_pandas(), table.to_pandas(), check_exact=True, obj=name
        )
    assert ours.notes == theirs.notes and len(ours.trials) == TRIALS[kind]
    again = reports.load(study.name, tracking_uri=uri)
    assert again.trials.equals(theirs.trials)


def test_unknown_study_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study 'nothing'"):
        load_mlflow(f"sqlite:///{tmp_path}/mlflow.db", "nothing")
