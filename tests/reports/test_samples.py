"""What a report says of single images: from the files of workers to a table and the page."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import reports
from reports.build import build_report
from reports.page import samples as page
from reports.plots import confusion as confusion_figure
from reports.samples import gather, measures
from reports.samples.gather import DataSamples, ScoredTrial
from tcpa_core.config import TrialConfig
from tcpa_core.record.events import Event
from tcpa_core.record.files import CHECKPOINTS, PREDICTIONS
from tcpa_core.record.predictions import Predictions
from tcpa_core.training.commands import Submit
from tcpa_core.training.worker import Worker
from tests.reports.images import ablation, ended, keep, predicted, split
from tests.reports.studies import cell, planned, write

mcnemar_of = pytest.importorskip("statsmodels.stats.contingency_tables").mcnemar
proportion_confint = pytest.importorskip("statsmodels.stats.proportion").proportion_confint

LEVELS = {"VPT": 1.0, "+R": 2.0, "+R+T": 2.6}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation of three levels with two seeds, reported."""
    folder = ablation(tmp_path_factory.mktemp("images") / "parts", LEVELS)
    build_report(folder)
    return folder


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are built in a moment."""
    monkeypatch.setattr("reports.build.draw_all", lambda *args: [])


def check_against_journal(study: reports.Frames, trials: int, splits: int = 2) -> None:
    """The table's accuracies are the journal's, to the bit."""
    rows, recorded = study.predictions, study.trials.set_index("trial")
    right = rows["label"].astype(str) == rows["class_1"].astype(str)
    found = right.groupby([rows["trial"].astype(str), rows["split"].astype(str)]).mean()
    assert len(found) == splits * trials
    for (trial, name), accuracy in found.items():
        assert accuracy == recorded.loc[trial, f"{name}_accuracy"]


def test_the_table_has_the_accuracies_of_the_journal(study: Path) -> None:
    check_against_journal(reports.load(study), trials=6)
    rows = pd.read_parquet(study / "tables" / "predictions.parquet")
    assert len(rows) == 6 * (400 + 200) and not rows.duplicated(["trial", "image"]).any()
    chances = rows[[f"probability_{n}" for n in range(1, 6)]].to_numpy()
    assert (np.diff(chances, axis=1) <= 0).all() and chances.dtype == np.float32
    of_label = rows["class_1"].astype(str) == rows["label"].astype(str)
    assert (rows["probability_1"] == rows["probability_of_label"])[of_label].all()
    schema = pq.read_schema(study / "tables" / "predictions.parquet")
    assert b"accuracy counts" in schema.field("class_1").metadata[b"meaning"]
    assert schema.metadata[b"tcpa.table"] == b"predictions"
    frames = reports.load(study)
    assert frames.predictions.equals(rows), "Python has the same table"


def test_real_trials_of_a_pack(tmp_path: Path) -> None:
    """Two of each of two methods, each pair trained together by a real worker."""
    settings = {"train.epochs": 1, "train.batch_size": 50, "data.size_per_class": 5}
    folder = tmp_path / "real"
    worker, events = Worker(folder, tmp_path / "cache", "cpu"), []
    told: list[Event] = []
    for number, method in enumerate(["linear", "linear", "vpt", "vpt"]):
        config = TrialConfig.from_flat({**settings, "methods": [method], "seed": number % 2})
        at = [cell("methods", method, number // 2, number < 2)]
        events.append({**planned(number, seed=number % 2, cells=at), "params": config.flat()})
        trial = f"{number:05d}"
        worker.take(Submit(trial=trial, params=config.flat(), until_epoch=1, test_at_end=True))
    while not worker.idle:
        told += worker.work()
    events += [event.as_dict() for event in told]
    made = write(tmp_path / "study", events, "ablation")
    (folder / CHECKPOINTS).rename(made / CHECKPOINTS)
    found = reports.load(made)
    check_against_journal(found, trials=4)
    shown = page.samples(found, [])
    assert shown and [row["name"] for row in shown["parts"][0]["rows"]] == ["vpt", "linear"]
    assert shown["parts"][0]["num_images"] == 450 and shown["parts"][0]["missed"]["pictures"]


@pytest.mark.usefixtures("without_figures")
def test_a_search_shows_the_selected_trial_only(tmp_path: Path) -> None:
    found = [predicted(200, 3, skill, n) for n, skill in enumerate([1.0, 3.0])]
    events = []
    for n, one in enumerate(found):
        events += [planned(n, optim__lr=0.1 + n), ended(n, one)]
    made = write(tmp_path / "search", events)
    keep(made, found)
    found_by = reports.load(made)
    assert set(found_by.predictions["trial"].astype(str)) == {"00001"}
    check_against_journal(found_by, trials=1)
    rows = found_by.predictions
    assert rows["class_4"].isna().all() and rows["class_3"].notna().all(), "three classes"
    text = build_report(made).html.read_text()
    assert "200 test images of 3 classes, 1 tested trial." in text
    assert "Images that the trial gets wrong" in text and "p (Holm)" not in text.split("Single")[1]


@pytest.mark.parametrize("damage", ["none", "torn", "of another training", "no val", "none kept"])
def test_what_is_missing_is_said_and_harms_nothing(damage: str, tmp_path: Path) -> None:
    made = ablation(tmp_path / "parts", LEVELS, seeds=1)
    file = made / CHECKPOINTS / "00002" / PREDICTIONS
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "of another training":
        keep(made, [None, None, predicted(400, 10, 2.6, 77)])
    elif damage == "no val":
        one = gather.read_predictions(file)
        only_test = Predictions(one.class_names, {"test": one.splits["test"]}, {})
        keep(made, [None, None, only_test])
    elif damage == "none kept":
        for number in range(3):
            (made / CHECKPOINTS / f"{number:05d}" / PREDICTIONS).unlink()
    found = reports.load(made)
    about, shown = found.samples.notes, page.samples(found, [])
    if damage == "none kept":
        assert shown is None and not about and found.predictions.empty
        return
    assert bool(about) == (damage not in ("none", "no val"))
    assert all("00002" in note for note in about)
    if damage != "no val":
        check_against_journal(found, trials=2 if about else 3)
    assert shown and shown["parts"][0]["num_trials"] == (2 if about else 3)


@pytest.mark.usefixtures("without_figures")
def test_a_table_of_an_earlier_report_does_not_stay(tmp_path: Path) -> None:
    made = ablation(tmp_path / "parts", {"VPT": 1.0}, seeds=2)
    (made / CHECKPOINTS / "00000" / PREDICTIONS).write_bytes(b"torn")
    summary = build_report(made)
    assert (made / "tables" / "predictions.parquet").exists()
    assert any("00000" in note and "single images" in note for note in summary.notes)
    assert "1 tested trial" in summary.html.read_text()
    for number in range(2):
        (made / CHECKPOINTS / f"{number:05d}" / PREDICTIONS).unlink()
    text = build_report(made).html.read_text()
    assert not (made / "tables" / "predictions.parquet").exists()
    assert 'id="samples"' not in text and "Single images" not in text


def test_more_rows_than_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MOST_ROWS", 4 * 600)
    made = ablation(tmp_path / "parts", LEVELS)
    found = reports.load(made).samples
    assert len(found.trials) == 4 and {one.group for one in found.trials} == set(LEVELS)
    assert "4 of 6 tested trials" in found.notes[0]


def test_mcnemar_and_wilson_are_those_of_statsmodels() -> None:
    for seed, images in enumerate([30, 400, 4000]):
        a, b = (predicted(images, 10, 1.0 + n, 10 * seed + n).splits["test"] for n in range(2))
        found = measures.mcnemar(a, b)
        right = [one.classes[:, 0] == one.labels for one in (a, b)]
        table = [[int((x & y).sum()) for y in (right[1], ~right[1])] for x in (right[0], ~right[0])]
        assert (found.only_first, found.only_second) == (table[0][1], table[1][0])
        assert found.p == pytest.approx(mcnemar_of(table, exact=True).pvalue, rel=1e-9)
        low, high = measures.wilson([int(right[0].sum()), 0, images], images)
        for place, hits in enumerate([int(right[0].sum()), 0, images]):
            expected = proportion_confint(hits, images, method="wilson")
            assert (low[place], high[place]) == pytest.approx(expected, abs=1e-9)
    assert measures.mcnemar(a, a) == measures.McNemar(0, 0, 1.0)


def test_calibration_is_the_formula() -> None:
    one = predicted(500, 10, 2.0, 3).splits["test"]
    error = total = 0.0
    for b in range(15):
        low, high = b / 15, (b + 1) / 15
        inside = [n for n in range(500) if low < one.probabilities[n, 0] <= high]
        if inside:
            accuracy = sum(one.classes[n, 0] == one.labels[n] for n in inside) / len(inside)
            confidence = sum(float(one.probabilities[n, 0]) for n in inside) / len(inside)
            error += len(inside) * abs(accuracy - confidence)
            total += len(inside)
    found = measures.calibration(one)
    assert total == 500 and found.error == pytest.approx(error / 500, rel=1e-6)
    assert found.bins["count"].sum() == 500
    sure = split(np.array([0, 1, 1]), np.array([[50.0, 0.0]] * 3))
    assert measures.calibration(sure).error == pytest.approx(2 / 3), "probability 1 has a bin"


def test_confusion_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    one, other = (
        ScoredTrial(f"{n:05d}", group, 0, "made", 0.5 - n / 10, Predictions(
            ("a", "b", "c", "d"), {"test": split(labels, np.eye(4)[taken_for] * 4)}, {}
        ))
        for n, (group, taken_for) in enumerate(
            [("vpt", [0, 1, 1, 1, 0, 3]), ("tcpa", [0, 0, 2, 1, 0, 3])]
        )
    )  # fmt: skip
    assert measures.confusion(one.test, 4).tolist() == [
        [1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0],
    ]  # fmt: skip
    pairs = measures.confused_pairs(one, 5)
    assert pairs.to_numpy().tolist() == [["a", "b", 2, 3], ["c", "d", 1, 1], ["b", "a", 1, 2]]
    classes = measures.per_class(one)
    assert classes["label"].tolist() == ["a", "b", "c"], "d has no test image"
    assert classes["accuracy"].tolist() == pytest.approx([1 / 3, 1 / 2, 0])
    assert classes["confused_with"].tolist() == ["b", "a", "d"]
    data = DataSamples((one, other))
    missed = measures.missed_by_all(data)
    assert set(missed["index"]) == {2, 4, 5}
    row = missed[missed["index"] == 5].iloc[0]
    assert (row["label"], row["predicted"], row["by"]) == ("c", "d", 2)
    assert [trial.group for trial in data.best] == ["vpt", "tcpa"]


def test_the_page_compares_the_best_of_each_level(study: Path) -> None:
    text = (study / "report" / "report.html").read_text()
    (data,) = reports.load(study).samples.by_data
    best = data.best
    assert [one.group for one in best] == ["+R+T", "+R", "VPT"]
    test = measures.mcnemar(best[0].test, best[2].test)
    row = re.search(r"VPT</td>.*?</tr>", text[text.index('id="samples"') :], re.S)
    assert row and f">{test.only_first}<" in row[0] and f">{test.only_second}<" in row[0]
    assert (
        f"Images that no tested trial gets right: {len(measures.missed_by_all(data))} of 400"
        in text
    )
    assert '<a href="#samples">' in text
    for figure in page.FIGURES:
        assert (study / "report" / "figures" / f"{figure}.svg").is_file()
        assert text.count(f"(report/figures/{figure}.svg") == 1, "in this part alone"


def test_two_hundred_classes_are_readable_and_pictures_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ablation(tmp_path / "many", {"vpt": 3.0, "tcpa": 3.5}, 1, 3000, 200)
    found = reports.load(made)
    pairs = confusion_figure.prepare(found)
    assert len(pairs) == confusion_figure.MOST_PAIRS and pairs["count"].is_monotonic_decreasing
    shown = page.samples(found, [])
    assert shown and shown["parts"][0]["num_shown"] == 12 < len(shown["parts"][0]["classes"]) == 200
    assert len(json.dumps(shown)) < 500_000
    assert len(shown["parts"][0]["missed"]["pictures"]) == page.MOST_PICTURES
    monkeypatch.setattr(page, "MOST_BYTES", 5_000)
    few = page.samples(found, [])
    assert few
    sizes = [len(one["picture"]) for one in few["parts"][0]["missed"]["pictures"]]
    assert sizes and sum(sizes) <= 5_000


@pytest.mark.usefixtures("without_figures")
def test_without_pictures_images_are_named(tmp_path: Path) -> None:
    found = [predicted(60, 3, 0.5, n, pictures=False) for n in range(2)]
    events = []
    for n, one in enumerate(found):
        at = [cell("components", f"level {n}", n, n == 0)]
        events += [planned(n, cells=at), ended(n, one)]
    made = write(tmp_path / "plain", events, "ablation")
    keep(made, found)
    assert "No pictures of them are at hand. test/" in build_report(made).html.read_text()


@pytest.mark.usefixtures("without_figures")
def test_names_of_classes_and_images_stay_text(tmp_path: Path) -> None:
    one = predicted(40, 2, 0.5, 0)
    bad = "<script>alert(1)</script>"
    test = one.splits["test"]
    keys = [f"{bad}{n}" for n in range(40)]
    splits = {"test": gather.SplitPredictions(
        keys, test.labels, test.classes, test.probabilities, test.of_label)}  # fmt: skip
    made = write(tmp_path / "odd", [planned(0, data__name=bad), ended(0, one)])
    keep(made, [Predictions((bad, "$x_1$"), splits, one.pictures)])
    text = build_report(made).html.read_text()
    assert "Single images" in text and bad not in text
