"""Published numbers stand beside a study where all that matters agrees; a note says why not."""

from pathlib import Path
from typing import Any

import pytest

from reports.build import build_report
from reports.frames import Frames, load
from reports.page.level_tables import to_latex, to_markdown
from reports.statistics.published_comparison import Published, comparable
from tests.reports.studies import cell, components, epoch, final, planned, write

AS_PUBLISHED = {
    "backbone.name": "vit_base_patch16_224.augreg_in21k", "data.name": "vtab1k",
    "data.root": "/sets/vtab/dtd", "data.train_on": "train_and_val",
    "train.selection": "last_epoch",
}  # fmt: skip
"""Settings of VPT's final runs on VTAB-1k, whose numbers for DTD stand in TCPA's first table."""


def study(folder: Path, images: int = 0, **changes: Any) -> Frames:
    """Two rows with two seeds; `images` that an epoch trains on, 0: no epoch was recorded."""
    settings = AS_PUBLISHED | {k.replace("__", "."): v for k, v in changes.items()}
    events = []
    for number in range(4):
        order, seed = divmod(number, 2)
        at = [cell("components", ["VPT", "+R"][order], order, order == 0)]
        known = {k.replace(".", "__"): v for k, v in settings.items() if v is not None}
        events.append(planned(number, seed=seed, cells=at, row=order, **known))
        if images:
            events.append(epoch(number, 1, 0.5) | {"images_per_s": images / 4, "duration_s": 4.0})
        events.append(final(number, "completed", 0.6 + 0.01 * order, test_accuracy=0.6))
    return load(write(folder / "study", events, "ablation"))


def compared(found: Frames) -> tuple[tuple[Published, ...], list[str]]:
    return comparable(found.used, found.epochs)


def test_numbers_of_the_same_setting_are_shown_with_what_to_know(tmp_path: Path) -> None:
    found = study(tmp_path)
    shown, notes = compared(found)
    assert {one.method: one.accuracy for one in shown} == {
        "full": 0.643, "linear": 0.632, "vpt": 0.658
    }  # fmt: skip
    assert all("1,000 training images" in one.caveat for one in shown)
    (note,) = notes
    assert note == (
        "16 published numbers for dtd are not shown beside ours: 16 trained on another number of "
        "images (1,880; ours: 1,000); 16 select the epoch otherwise (best test epoch; ours: last "
        "epoch)."
    )
    markdown = to_markdown(found.ablation, shown).replace("\\", "")
    row = next(line for line in markdown.splitlines() if line.startswith("| *vpt ("))
    said = ("hta", "ViT-B/16, ImageNet-21k, 224 px", "last epoch", "1,000 training images")
    assert all(text in row for text in said), row
    caption = next(line for line in markdown.splitlines() if line.startswith("Published rows"))
    assert all(text in caption for text in said), caption
    assert r"\footnotesize Published rows are others' test accuracies (benchmark hta; " in to_latex(
        found.ablation, shown
    )


def test_the_page_carries_them_too(tmp_path: Path) -> None:
    study(tmp_path)
    summary = build_report(tmp_path / "study")
    page = summary.html.read_text()
    assert "vpt (arXiv:2505.02406 Table 1; hta; ViT-B/16, ImageNet-21k, 224 px; last epoch;" in page
    assert "Published rows are others&#39; test accuracies" in page
    assert any(note.startswith("16 published numbers for dtd") for note in summary.notes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"backbone__name": "vit_nano"}, "19 of another backbone (ViT-B/16, ImageNet-21k; ours: "
         "vit_nano)"),
        ({"backbone__name": "vit_base_patch16_224.augreg_in21k_ft_in1k"}, "of another backbone"),
        ({"backbone__name": "vit_large_patch16_224.augreg_in21k"}, "of another backbone"),
        ({"backbone__weights": "random"}, "with random weights"),
        ({"backbone__img_size": 384}, "19 at another image size (224 pixels; ours: 384)"),
        ({"data__train_on": "train"}, "number of images (1,000 or 1,880; ours: 800)"),
        ({"images": 1880}, "3 trained on another number of images (1,000; ours: 1,880)"),
        ({"images": 640}, "ours: 640"),
        ({"data__name": "folder"}, "number of images (1,000 or 1,880; ours: unknown)"),
        ({"train__selection": "best_val"}, "ours: best val epoch"),
        ({"train__selection": "best_test_epoch"}, "3 select the epoch otherwise (last epoch; ours: "
         "best test epoch)"),
    ],
)  # fmt: skip
def test_a_number_that_differs_in_one_respect_is_held_back(
    changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    shown, (note,) = compared(study(tmp_path, **changes))
    assert shown == ()
    assert note.startswith("19 published numbers for dtd are not shown beside ours: ")
    assert why in note


def test_full_data_stands_beside_full_data(tmp_path: Path) -> None:
    """HTA's whole training split and the authors' way to select: their rows, not VTAB's."""
    found = study(
        tmp_path, images=1880, data__name="folder", data__train_on="train",
        train__selection="best_test_epoch",
    )  # fmt: skip
    shown, (note,) = compared(found)
    assert len(shown) == 16 and {one.benchmark for one in shown} == {"hta"}
    assert {"vpt", "full", "linear"}.isdisjoint(one.method for one in shown)
    assert note.startswith("3 published numbers for dtd")


def test_folder_names_of_vtab_find_their_data_set(tmp_path: Path) -> None:
    shown, _ = compared(study(tmp_path, data__root="/sets/cifar"))
    assert {one.method: one.accuracy for one in shown} == {
        "full": 0.689, "linear": 0.634, "vpt": 0.788
    }  # fmt: skip


def test_trials_that_differ_among_themselves_have_no_number_beside_them(tmp_path: Path) -> None:
    events = []
    for number, size in enumerate((224, 384)):
        known = {k.replace(".", "__"): v for k, v in AS_PUBLISHED.items()}
        events += [
            planned(number, cells=[cell("size", str(size), number, number == 0)],
                    backbone__img_size=size, **known),
            final(number, "completed", 0.6, test_accuracy=0.6),
        ]  # fmt: skip
    shown, (note,) = compared(load(write(tmp_path / "s", events, "ablation")))
    assert shown == () and "ours: 224 and 384" in note


def test_several_data_sets_are_said(tmp_path: Path) -> None:
    events = []
    for number, name in enumerate(("dtd", "svhn")):
        known = {k.replace(".", "__"): v for k, v in AS_PUBLISHED.items()} | {"data__root": name}
        at = cell("components", "VPT", 0, True) | {"dataset": name}
        events += [planned(number, cells=[at], **known),
                   final(number, "completed", 0.6, test_accuracy=0.6)]  # fmt: skip
    shown, (note,) = compared(load(write(tmp_path / "s", events, "ablation")))
    assert shown == ()
    assert note == (
        "38 published numbers for dtd, svhn are not shown beside ours: this study has several data "
        "sets."
    )


def test_a_data_set_that_nobody_published_has_no_note(tmp_path: Path) -> None:
    assert compared(study(tmp_path, data__root="/sets/my_frogs")) == ((), [])
    silent = write(tmp_path / "silent", components({"A": {0: 0.8}, "B": {0: 0.9}}), "ablation")
    assert compared(load(silent)) == ((), [])
