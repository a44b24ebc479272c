"""A study that segments, wherever a terminal, a document or a tracker shows a trial's value."""

import io
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console

from reports.labels import Quantity
from search.proposals.optuna_study import OptunaStudy
from search.study.folder import StudyDir
from search.study.journal import Journal
from search.tracking.run_values import metrics_of
from search.tracking.study_result import metrics_of_study
from search.tracking.view import view_tag
from search.verbs.documents import status_document
from search.verbs.event_files import write_events
from search.verbs.export import facts_of
from search.verbs.live_view import live_page
from search.verbs.look import Look
from search.verbs.run_lines import ended_line, progress_line
from search.verbs.status import status_lines
from spaces.selection import Results
from tcpa_core.record.events import Ended, Epoch, Tested
from tests.journals import write
from tests.search.conftest import make_space
from tests.search.test_event_files import points

BASE = {"task.name": "segment", "train.epochs": 4}
AXES = {"methods": {"choice": [["linear"], ["vpt"]]}, "optim.lr": {"float": [0.001, 0.1]}}
OBJECTIVE = {"metric": "val_miou"}
ON_TEST = {"test_accuracy": 0.7, "test_miou": 0.41, "test_mean_accuracy": 0.5}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    """Of three trials the one of lower pixel accuracy has the higher mIoU; one still runs."""
    root = tmp_path_factory.mktemp("segment")
    space = make_space(base=BASE, axes=AXES, objective=OBJECTIVE)
    made = StudyDir.create(root, "maps", space, {"data": "d", "weights": "w"}, "")
    events: list[dict[str, Any]] = [{"kind": "study", "name": "maps"}]
    for n, (accuracy, miou) in enumerate([(0.8, 0.3), (0.7, 0.4), (0.6, 0.35)]):
        trial = f"{n:05d}"
        point = {"methods": ["vpt"], "optim.lr": 0.01 * (n + 1)}
        config = space.config(point, seed=0)
        events += [
            {"kind": "planned", "trial": trial, "point": str(n), "params": config.flat(),
             "seed": 0, "draw": {"methods": "vpt", "optim.lr": 0.01 * (n + 1)}},
            {"kind": "started", "trial": trial, "device": "cpu", "epoch": 0},
            {"kind": "epoch", "trial": trial, "epoch": 1, "train_loss": 1.0, "val_loss": 0.7,
             "val_accuracy": accuracy, "val_miou": miou, "val_mean_accuracy": 0.5},
        ]  # fmt: skip
        if n < 2:
            events.append({
                "kind": "completed", "trial": trial, "num_epochs": 4, "best_epoch": 4,
                "duration_s": 4.0, "val_accuracy": accuracy, "val_miou": miou, "val_loss": 0.7,
                "val_mean_accuracy": 0.5, "num_trainable": 10,
            })  # fmt: skip
    events.append({"kind": "tested", "trial": "00001", "test_loss": 0.6,
                   "test_miou_multiscale": 0.43, **ON_TEST})  # fmt: skip
    journal = Journal(made.journal_path)
    write(journal, *events)
    journal.close()
    return made


def test_status_and_the_live_view(study: StudyDir) -> None:
    look = Look.at(study)
    lines = [*status_lines(look)]
    assert any(line.startswith("best val_miou 0.4000 (trial 00001)") for line in lines)
    assert "  its test_miou: 0.4100" in lines and "  its test_miou_multiscale: 0.4300" in lines
    assert not any("accuracy" in line for line in lines)
    page = live_page("maps", look.view, (110, 30), elapsed="1 s")
    text = "\n".join(line for line, _ in page.lines)
    assert "best      val_miou 0.4000" in text and "val_miou" in text.split("trial ")[-1]
    assert "0.3500" in text and "accuracy" not in text
    state = study.state(metric="val_miou")
    ended = state.trials["00001"].ended
    assert ended and "completed val_miou 0.4000" in ended_line(look.view, ended)
    assert "best val_miou 0.4000" in progress_line(look.view)


def test_documents_have_the_score_beside_accuracies(study: StudyDir) -> None:
    document = json.loads(json.dumps(status_document(Look.at(study))))
    best = document["best"]
    assert best["value"] == 0.4 and best["test_miou"] == 0.41 and best["test_accuracy"] == 0.7
    assert best["test_miou_multiscale"] == 0.43
    (one,) = document["open_trials"]
    assert (one["val_miou"], one["val_accuracy"]) == (0.35, 0.6)


def test_trackers(study: StudyDir, tmp_path: Path) -> None:
    events = [*study.events()]
    logged = {m.key: m.value for e in events if isinstance(e, Epoch) for m in metrics_of(e)}
    assert logged["epoch/val_miou"] == 0.35
    logged = {m.key: m.value for e in events if isinstance(e, Ended) for m in metrics_of(e)}
    assert logged["val_miou"] == 0.4
    logged = {m.key: m.value for e in events if isinstance(e, Tested) for m in metrics_of(e)}
    assert logged["test_miou"] == 0.41 and logged["test_miou_multiscale"] == 0.43
    state = study.state()
    of_study = metrics_of_study(state, Results.of(study.space(), state))
    assert of_study["val_miou"] == 0.4 and of_study["test_miou"] == 0.41
    (tag,) = view_tag(study.space()).values()
    assert json.loads(tag)["orderByKey"].endswith("val_miou`")
    write_events(study, tmp_path, Console(file=io.StringIO()))
    (file,) = tmp_path.rglob("*00001-vpt/*tfevents*")
    assert points(file, "val_miou") == [(0, 0.4)] and points(file, "test_miou") == [(0, 0.41)]
    assert points(file, "epoch/val_miou") == [(1, 0.4)]


def test_the_copy_for_optunas_pages(study: StudyDir) -> None:
    copy = OptunaStudy(optuna.storages.InMemoryStorage(), study)
    copy.update()
    assert copy.study.best_value == 0.4 and copy.study.metric_names == ["val_miou"]
    attrs = copy.study.best_trial.user_attrs
    assert attrs["test_miou"] == 0.41 and "test_accuracy" not in attrs


def test_the_card_of_an_export(study: StudyDir) -> None:
    named = {one.name: one.value for one in facts_of(study, "00001").measured}
    assert named == {"test mIoU": 0.41, "test mIoU multi-scale": 0.43, "val mIoU": 0.4}


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("val_accuracy", "45.2 % on val"),
        ("test_miou", "45.2 % mIoU on test"),
        ("val_loss", "val_loss 0.452"),
    ],
)
def test_what_is_said_of_a_value(metric: str, said: str) -> None:
    unit = "" if metric == "val_loss" else "fraction"
    assert Quantity(metric, unit).said(0.452) == said
