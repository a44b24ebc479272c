"""A study that segments: its report shows mIoU, its classes and pictures, and nothing of accuracy
as the value of a trial."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import reports
from reports.build import build_report
from reports.build_side_by_side import build_side_by_side
from reports.page import regions as page
from reports.samples.regions import class_scores, groups_of
from reports.statistics.paired_tests import compare_paired, summarise
from reports.statistics.published_comparison import comparable
from spaces.load import load_space
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record.files import CHECKPOINTS, REGIONS
from tcpa_core.record.regions import IGNORED, Regions, Shown, read_regions, write_regions
from tcpa_core.record.scores import SCORES
from tcpa_core.record.values import OF_SOME_TASKS
from tests.reports.segments import NAMES, SEGMENT, ended, keep, segment_study, segmented
from tests.reports.studies import cell, components, planned, write

SKILLS = {"linear": 0.5, "vpt": 0.7, "cvpt": 0.9}
FEW = ("sky", "road", "tree", "<b>car</b>")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods with three seeds, reported."""
    folder = segment_study(tmp_path_factory.mktemp("regions") / "parts", SKILLS, num_pictures=14)
    build_report(folder)
    return folder


@pytest.fixture(scope="module")
def text(study: Path) -> str:
    return (study / "report" / "report.html").read_text()


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are built in a moment."""
    monkeypatch.setattr("reports.build.draw_all", lambda *args: [])


def small(folder: Path, seeds: int = 2) -> Path:
    """Two methods on four classes and three pictures."""
    return segment_study(folder, {"linear": 0.5, "vpt": 0.9}, seeds, FEW, 3)


def test_levels_are_compared_by_miou_on_one_scale_and_on_several(study: Path, text: str) -> None:
    found = reports.load(study)
    metrics = ("val_miou", "test_miou", "test_miou_multiscale")
    assert tuple(found.ablation["metric"].unique()) == metrics
    for metric in metrics:
        rows = found.ablation[found.ablation["metric"] == metric].set_index("level")
        for level, trials in found.trials.groupby(found.trials["methods"].str.strip('[]"')):
            assert rows.loc[level, "mean"] == pytest.approx(trials[metric].mean())
    markdown = (study / "tables" / "ablation.md").read_text()
    assert "| level | n | val mIoU | test mIoU | test mIoU multi-scale | Δ val to" in markdown
    latex = (study / "tables" / "ablation.tex").read_text()
    assert r"& val mIoU (\%) & test mIoU (\%) & test mIoU multi-scale (\%) &" in latex
    assert r"\begin{tabular}{@{}lrrrrrrr@{}}" in latex, "a column for each of them"
    for head in ("val mIoU %", "test mIoU %", "test mIoU multi-scale %", "mean val mIoU %"):
        assert f">{head}</th>" in text


def test_nothing_says_accuracy_where_a_trial_has_one_value(study: Path, text: str) -> None:
    summary = build_report(study)
    assert summary.verdict and summary.verdict.headline.startswith("By mIoU on val: Against linear")
    said = re.sub(r"<[^>]*>", " ", re.sub(r"<(script|style).*?</\1>", "", text, flags=re.S))
    # Shares of pixels stand beside it, under their own names.
    for line in said.splitlines():
        if "accuracy" in line:
            assert re.search(r"mean.accuracy|val_accuracy|test_accuracy", line), line
    assert "The highest mean mIoU is that of cvpt" in text
    assert "has the best mean val mIoU" in text, "learning curves"
    assert "test accuracy" not in said.lower()


def test_columns_are_those_of_the_task(study: Path, tmp_path: Path) -> None:
    of_task = set(reports.load(study).trials.columns), set(reports.load(study).epochs.columns)
    assert {"val_miou", "test_miou_multiscale", "test_mean_accuracy"} <= of_task[0]
    assert {"val_miou", "val_mean_accuracy"} <= of_task[1]
    plain = reports.load(write(tmp_path / "plain", components({"VPT": {0: 0.6}}), "ablation"))
    assert not OF_SOME_TASKS & {*plain.trials.columns, *plain.epochs.columns}


def test_the_table_of_regions_adds_up(study: Path) -> None:
    found = reports.load(study)
    rows = pd.read_parquet(study / "tables" / "regions.parquet")
    assert rows.equals(found.pixels)
    whole, single = rows[rows["image"].isna()], rows[rows["image"].notna()]
    assert len(whole) == 9 * 2 * len(NAMES) and (single["labelled"] + single["predicted"] > 0).all()
    by = ["trial", "split", "class"]
    counts = ["hits", "labelled", "predicted"]
    sums = single.groupby(by, observed=True)[counts].sum()
    assert (whole.set_index(by)[counts].sort_index() == sums.sort_index()).all(axis=None)
    recorded = found.trials.set_index("trial")
    for (trial, split), part in whole.groupby(["trial", "split"], observed=True):
        assert part["iou"].mean() == pytest.approx(recorded.loc[trial, f"{split}_miou"], abs=1e-12)
        matrix = np.stack(part["taken_for"])
        assert (matrix.sum(1) == part["labelled"]).all() and (
            matrix.diagonal() == part["hits"]
        ).all()
        assert (matrix.sum(0) == part["predicted"]).all()
    assert not (study / "tables" / "regions.csv").exists()


def test_classes_over_seeds_are_a_slow_count(study: Path, text: str) -> None:
    (data,) = reports.load(study).regions.by_data
    groups = groups_of(data)
    assert [*groups] == ["cvpt", "vpt", "linear"], "the best on val first"
    scores = class_scores(groups, "linear")
    values: dict[str, dict[int, float]] = {}
    label = NAMES.index("Road")
    for group, trials in groups.items():
        values[group] = {}
        for seed, one in trials.items():
            hits = union = 0
            for n in range(len(one.test.keys)):
                mine = int(one.test.hits[n, label])
                hits += mine
                union += int(one.test.labelled[n, label] + one.test.predicted[n, label]) - mine
            values[group][seed] = hits / union
    row = scores[label]
    assert row["linear"].difference is None and row["linear"].p_holm is None
    for group in ("cvpt", "vpt"):
        over = summarise([values[group][seed] for seed in (0, 1, 2)])
        assert row[group].over_seeds.mean == pytest.approx(over.mean)
        assert row[group].over_seeds.low == pytest.approx(over.low)
        paired = compare_paired(values[group], values["linear"])
        got = row[group].difference
        assert got and (got.diff, got.low, got.p) == pytest.approx(
            (paired.diff, paired.low, paired.p)
        )
    every = [one for row in scores for one in row.values() if one.difference]
    least = min(every, key=lambda one: one.difference.p)  # type: ignore[union-attr, arg-type, return-value]
    assert (
        least.difference
        and least.difference.p
        and least.p_holm == pytest.approx(min(1.0, least.difference.p * len(every)))
    ), "one family: all classes and methods of the table"
    cell = f"{100 * np.mean(list(values['cvpt'].values())):.1f} ±"
    of_road = re.search(r"<td>Road</td>.*?</tr>", text, re.S)
    assert of_road and cell in of_road[0] and "Differences are to linear" in text


def test_pictures_have_one_palette_which_the_legend_names(study: Path, text: str) -> None:
    found = reports.load(study)
    best = found.regions.by_data[0].best[0]
    part = text[text.index('id="regions"') :]
    legend = dict(re.findall(r'background: (#\w+)"></i>([^<]+)</span>', part))
    assert len(legend) == len(set(legend.values())) and "not labelled" in legend.values()
    by_name = {name: bytes.fromhex(colour[1:]) for colour, name in legend.items()}
    shown = re.findall(r"data:image/png;base64,([^\"]+)", part)
    pictures = [*best.found.pictures.values()]
    assert len(shown) == 2 * len(pictures) == 24
    for n, one in enumerate(pictures):
        for file, kept in zip(shown[2 * n : 2 * n + 2], (one.truth, one.prediction), strict=True):
            mask = np.array(Image.open(io.BytesIO(kept)))
            pixels = np.array(Image.open(io.BytesIO(base64.b64decode(file))).convert("RGB"))
            for label in np.unique(mask):
                name = "not labelled" if label == IGNORED else NAMES[label]
                assert (pixels[mask == label] == [*by_name[name]]).all()
    assert f"The 12 test pictures that {best.name} gets worst" in part
    for number in best.found.pictures:
        assert best.test.keys[number] in part
    assert "report/figures/confused_pixels.svg" in part and 'id="samples"' not in text


def test_colours_of_many_classes_differ() -> None:
    every = [page.colour(place) for place in range(150)]
    assert len(set(every)) == 150
    assert all(0 <= part <= 255 for one in every for part in one)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("damage", ["torn", "of another training", "no pictures", "none kept"])
def test_what_is_missing_is_said_and_harms_nothing(damage: str, tmp_path: Path) -> None:
    made = small(tmp_path / "parts")
    files = [made / CHECKPOINTS / f"{number:05d}" / REGIONS for number in range(4)]
    if damage == "torn":
        files[3].write_bytes(files[3].read_bytes()[:-40])
    elif damage == "of another training":
        write_regions(files[3], segmented(0.1, 77, FEW, 3))
    elif damage == "none kept":
        for file in files:
            file.unlink()
    else:
        for file in files:
            one = read_regions(file)
            bad = {n: Shown(s.picture, b"no PNG", s.prediction) for n, s in one.pictures.items()}
            write_regions(file, replace(one, pictures=bad))
    summary = build_report(made)
    text = summary.html.read_text()
    told = [note for note in summary.notes if "00003" in note]
    assert bool(told) == (damage in ("torn", "of another training"))
    assert ('id="regions"' in text) == (damage != "none kept")
    assert (made / "tables" / "regions.parquet").exists() == (damage != "none kept")
    if damage == "no pictures":
        assert "cannot be shown" in text and "triples" not in text[text.index("<body") :]


@pytest.mark.usefixtures("without_figures")
def test_names_of_classes_stay_text(tmp_path: Path) -> None:
    text = build_report(small(tmp_path / "odd", seeds=1)).html.read_text()
    assert "&lt;b&gt;car&lt;/b&gt;" in text and "<b>car</b>" not in text


@pytest.mark.usefixtures("without_figures")
def test_a_search_selects_by_miou_and_shows_the_selected_trial_only(tmp_path: Path) -> None:
    found = [segmented(skill, n, FEW, 3) for n, skill in enumerate([0.4, 0.9, 0.6])]
    flat = {key.replace(".", "__"): value for key, value in SEGMENT.items()}
    events = []
    for n, one in enumerate(found):
        event = ended(n, one)
        if n != 1:  # test is read for the selected trial alone
            event |= {name: None for name in event if name.startswith("test_")}
        events += [planned(n, optim__lr=0.1 + n, **flat), event]
    space = {"name": "small", "base": dict(SEGMENT),
             "axes": {"optim.lr": {"float": [0.01, 9.0]}}}  # fmt: skip
    made = write(tmp_path / "search", events, space=space)
    keep(made, found)
    summary = build_report(made)
    assert summary.selected and summary.selected.metric == "val_miou", "of a space without one"
    best = found[1].splits["test"].scores.miou
    assert summary.selected.test_score == pytest.approx(best)
    assert any(f"test mIoU {100 * best:.2f} %" in line for line in summary.lines())
    assert summary.verdict and f"{100 * best:.1f} % mIoU on test" in summary.verdict.text
    assert "% mIoU on val" in summary.verdict.headline
    loaded = reports.load(made)
    assert {one.trial for one in loaded.regions.trials} == {"00001"}
    text = summary.html.read_text()
    assert f"test mIoU {100 * best:.2f} %, test mIoU multi-scale {100 * best + 1:.2f} %" in text
    assert ">best val mIoU %</th>" in text and "val_miou >= 40" in text
    assert loaded.study.curve_metric == "val_miou"


def test_studies_of_two_tasks_never_stand_in_one_table(study: Path, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", components({"VPT": {0: 0.6}}), "ablation")
    with pytest.raises(StudyError, match=r"different tasks.*'parts' is judged by mIoU, 'plain' is"):
        build_side_by_side([study, plain], tmp_path / "both")
    assert not (tmp_path / "both").exists()
    other = segment_study(tmp_path / "other", {"lora": 0.8}, num_pictures=14)
    lines = build_side_by_side([study, other], tmp_path / "two")
    assert "cvpt has the highest mean mIoU on val" in lines[0]
    text = (tmp_path / "two" / "report.html").read_text()
    assert "test mIoU multi-scale %" in text and "val %" not in text


def test_a_task_of_another_version_is_named(tmp_path: Path) -> None:
    space = {"name": "odd", "base": {"task.name": "detect"}}
    made = write(tmp_path / "odd", [], "ablation", space)
    with pytest.raises(RecordError, match="'base'"):
        reports.load(made)


AS_PUBLISHED = {
    "protocol": "cvpt-ade20k", "backbone.name": "vit_large_patch16_384.augreg_in21k_ft_in1k",
    "backbone.img_size": 512, "data.root": "/sets/ADEChallengeData2016",
    "cvpt.num_prompts": 200,
}  # fmt: skip


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"cvpt.num_prompts": 10}, "4 have another number of prompts (200; ours: 10)"),
        ({"backbone.name": "deit_tiny_patch16_224"}, "4 of another backbone (ViT-L/16, ImageNet-"),
        ({"backbone.img_size": 224}, "4 at another image size (512 pixels; ours: 224)"),
        ({"protocol": None}, "4 follow another protocol (cvpt-ade20k or vpt-ade20k; ours: none)"),
    ],
)
def test_published_segmentations_stand_beside_those_like_them(
    change: dict[str, object], reason: str, tmp_path: Path
) -> None:
    settings = {k: v for k, v in (AS_PUBLISHED | change).items() if v is not None}
    flat = {key.replace(".", "__"): value for key, value in settings.items()}
    made = segment_study(tmp_path / "like", {"cvpt": 0.8, "linear": 0.5}, 1, FEW, 2, **flat)
    found = reports.load(made)
    shown, notes = comparable(found.used, found.epochs)
    if reason:
        assert not shown and reason in notes[0]
        return
    (one,) = shown
    assert one.method == "cvpt", "of VPT the study has no trial with 200 prompts"
    assert one.values == {"test_miou": 0.4566, "test_miou_multiscale": 0.4792}
    assert "2 have another number of prompts" in notes[0]
    assert "200 prompts" in one.label and "not classification" not in one.label
    build_report(made)
    markdown = (made / "tables" / "ablation.md").read_text()
    assert re.search(r"\| \*cvpt .*\| \| \| \*45.66\* \| \*47.92\* \|", markdown)
    assert "others' mIoU on" in markdown
    assert '>45.66</td><td class="n">47.92</td>' in (made / "report" / "report.html").read_text()


def test_every_score_is_a_share_of_its_own_name() -> None:
    names = [name for one in SCORES.values() for name in (one.val, one.test, *one.variants)]
    assert len(names) == len(set(names)) == 5


def test_a_file_without_val_counts(tmp_path: Path) -> None:
    made = small(tmp_path / "parts")
    file = made / CHECKPOINTS / "00000" / REGIONS
    one = read_regions(file)
    write_regions(file, Regions(one.class_names, {"test": one.splits["test"]}, one.pictures))
    assert len(reports.load(made).regions.trials) == 4


@pytest.mark.usefixtures("without_figures")
def test_the_preset_of_the_paper_has_its_published_rows_beside_it(tmp_path: Path) -> None:
    space = load_space("cvpt_ade20k", {"data.root": "/sets/ADEChallengeData2016"})
    found, events = segmented(0.7, 0, FEW, 2), []
    for number, config in enumerate(space.trials):
        (method,) = config.methods
        label = f"{method} {config.flat()[f'{method}.num_prompts']}"
        event = planned(number, cells=[cell("components", label, number, number == 0)])
        events += [{**event, "params": config.flat()}, ended(number, found)]
    made = reports.load(write(tmp_path / "preset", events, "ablation", space.as_dict()))
    shown, notes = comparable(made.used, made.epochs)
    assert not notes and {one.method: one.cells(("test_miou",)) for one in shown} == {
        "cvpt": ["45.66"], "vpt": ["42.11"]
    }  # fmt: skip
