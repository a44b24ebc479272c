"""What the page says of a segmentation's classes and pictures: each class over seeds, method beside
method, and the pictures that the best trial gets worst."""

import base64
import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.draw import Drawn
from reports.frames import Frames
from reports.labels import NewRow, is_missing, on_val
from reports.page.cell_text import signed
from reports.plots.base import styles_of
from reports.samples.regions import (
    ClassScore,
    DataRegions,
    SegmentedTrial,
    class_scores,
    confused_classes,
    groups_of,
)
from reports.statistics.paired_tests import summarise
from tcpa_core.record.masks import Rgb, painted, read_mask
from tcpa_core.record.regions import IGNORED, SIDE

FIGURES = ("confused_pixels",)
"""Figures that stand in this part of the page."""
MOST_DATA_SETS = 6
"""Of a page; the table has all."""
MOST_BYTES = 2_000_000
"""Of all pictures of a page."""
MOST_CLASSES = 20
"""Rows of classes that are shown at once; the others are folded away."""
MOST_GROUPS = 8
"""Methods or levels that have a column, the best on val first."""
MOST_PAIRS = 8
ABOUT = (
    "IoU of a class is what truth and prediction share of all pixels that either of them gives it, "
    "over all test pictures together; ± is half of Student's 95 % interval over seeds. Below it "
    "stands the difference to the baseline, paired by seed, with the 95 % interval of the paired t "
    "test; * p < 0.05, ** p < 0.01 after Holm over all classes and methods of the table. mIoU is "
    "the mean over classes that occur."
)
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#882255",
           "#999933", "#44AA99", "#332288", "#DDCC77", "#AA4499", "#117733", "#88CCEE", "#661100",
           "#6699CC", "#AA4466")  # fmt: skip
"""Of classes, the largest first: Okabe and Ito's, then Tol's, which colour-blind readers can
distinguish; further ones differ in hue alone."""
UNLABELLED = "#E4E4E0"


def regions(found: Frames, drawn: Sequence[Drawn]) -> dict[str, Any] | None:
    """What regions.html.j2 shows; None: no trial has kept what it found."""
    shown = found.regions.by_data[:MOST_DATA_SETS]
    if not shown:
        return None
    styles, left = styles_of(found), MOST_BYTES
    parts = []
    for data in shown:
        part = _part(data, found, styles, left)
        left -= sum(len(file) for one in part["worst"]["pictures"] for file in one["files"])
        parts.append(part)
    return {
        "parts": parts,
        "drawn": [one for one in drawn if one.path],
        "left_out": [one.dataset for one in found.regions.by_data[MOST_DATA_SETS:]],
        "about": ABOUT,
    }


def _part(
    data: DataRegions, found: Frames, styles: Mapping[str, tuple[str, str]], left: int
) -> dict[str, Any]:
    groups = dict([*groups_of(data).items()][:MOST_GROUPS])
    base, best = _baseline(found, groups), data.best[0]
    classes = _classes(data, class_scores(groups, base), groups)
    return {
        "dataset": data.dataset,
        "num_images": len(best.test.keys),
        "num_classes": len(data.class_names),
        "num_trials": len(data.trials),
        "best": best.name,
        "says": _sentences(best),
        "groups": [_group(name, trials, styles) for name, trials in groups.items()],
        "has_scales": "test_miou_multiscale" in found.trials
        and bool(found.trials["test_miou_multiscale"].notna().any()),
        "scores": [_scores(name, trials, found) for name, trials in groups.items()],
        "baseline": base if len(groups) > 1 else "",
        "classes": classes,
        "num_shown": MOST_CLASSES if len(classes) > MOST_CLASSES + 3 else len(classes),
        "pairs": confused_classes(best, MOST_PAIRS).to_dict("records"),
        "worst": _worst(best, left),
    }


def _baseline(found: Frames, groups: Mapping[str, object]) -> str:
    """The design's level that others are compared with, else the best one on val."""
    levels = on_val(found.ablation)
    names = levels[levels["is_baseline"].astype(bool)]["level"]
    return next((str(name) for name in names if name in groups), next(iter(groups)))


def _sentences(best: SegmentedTrial) -> list[str]:
    """Which class is found worst, and what it is taken for."""
    iou, names = best.test.class_iou, best.found.class_names
    if np.isnan(iou).all():
        return []
    place = int(np.nanargmin(iou))
    said = f"Its class of lowest IoU is {names[place]}, {_percent(iou[place])} %"
    wrong = best.test.confusion[place].copy()
    of, wrong[place] = int(wrong.sum()), 0
    if wrong.any():
        most = int(wrong.argmax())
        said += f": {_percent(wrong[most] / of)} % of its pixels are taken for {names[most]}"
    return [f"{said}."]


def _group(
    name: str, trials: Mapping[int, SegmentedTrial], styles: Mapping[str, tuple[str, str]]
) -> NewRow:
    return {"name": name or "all trials", "style": styles.get(name), "n": len(trials)}


def _scores(name: str, trials: Mapping[int, SegmentedTrial], found: Frames) -> NewRow:
    """What a method or level scores on test over its seeds: of the pixels' counts, and as recorded
    at several scales."""
    scores = [one.test.scores for one in trials.values()]
    names = [one.trial for one in trials.values()]
    rows = found.trials[found.trials["trial"].isin(names)]
    scales = rows["test_miou_multiscale"].dropna().tolist()
    return {
        "miou": _mean([one.miou for one in scores]),
        "multiscale": _mean(scales) if len(scales) == len(scores) else "",
        "mean_accuracy": _mean([one.mean_accuracy for one in scores]),
        "accuracy": _mean([one.accuracy for one in scores]),
    }


def _classes(
    data: DataRegions,
    scores: Sequence[Mapping[str, ClassScore]],
    groups: Mapping[str, object],
) -> list[NewRow]:
    """Rows of classes that test has, those of the lowest mean IoU first."""
    one = data.trials[0].test
    pixels, images = one.labelled.sum(0), (one.labelled > 0).sum(0)
    rows = []
    for place, label in enumerate(data.class_names):
        means = {group: scores[place][group].over_seeds.mean for group in groups}
        known = [mean for mean in means.values() if mean is not None]
        if not known:
            continue
        highest = max(known) if len(known) > 1 else None
        rows.append({
            "label": label,
            "share": _percent(pixels[place] / max(1, int(pixels.sum()))),
            "images": int(images[place]),
            "mean": sum(known) / len(known),
            "cells": [_cell(scores[place][group], means[group] == highest) for group in groups],
        })  # fmt: skip
    return sorted(rows, key=lambda row: row["mean"])


def _cell(score: ClassScore, is_best: bool) -> NewRow:
    found, paired = score.over_seeds, score.difference
    half = "" if found.low is None or found.high is None else (
        f" ± {50 * (found.high - found.low):.1f}")  # fmt: skip
    difference = ""
    if paired is not None and paired.diff is not None:
        difference = _points(paired.diff)
        if paired.low is not None and paired.high is not None:
            difference += f" [{_points(paired.low)}, {_points(paired.high)}]"
        p = score.p_holm
        difference += "" if p is None else "*" * sum(p < level for level in (0.05, 0.01))
    return {
        "text": "–" if found.mean is None else f"{100 * found.mean:.1f}{half}",
        "value": found.mean,
        "difference": difference,
        "is_best": is_best,
    }


def _points(value: float) -> str:
    return signed(value, 100)[:-1] if not is_missing(value) else ""


def _worst(best: SegmentedTrial, left: int) -> dict[str, Any]:
    """The pictures of lowest IoU that were kept: each beside its truth and its prediction."""
    masks = {}
    for number, kept in best.found.pictures.items():
        truth, prediction = (read_mask(file, 2 * SIDE) for file in (kept.truth, kept.prediction))
        if truth is not None and prediction is not None:
            masks[number] = truth, prediction
    names = best.found.class_names
    counts = np.zeros(IGNORED + 1, np.int64)
    for mask in (one for pair in masks.values() for one in pair):
        counts += np.bincount(mask.ravel(), minlength=IGNORED + 1)
    present = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    labels = [label for label in present if label < len(names)]
    palette = {IGNORED: _rgb(UNLABELLED)}
    palette |= {label: colour(place) for place, label in enumerate(labels)}
    iou, pictures = best.test.picture_iou, []
    for number, pair in masks.items():
        files = [_base64(best.found.pictures[number].picture)]
        files += [_base64(painted(mask, palette)) for mask in pair]
        left -= sum(map(len, files))
        if left < 0:
            break
        pictures.append({
            "files": files,
            "name": best.test.keys[number],
            "iou": "–" if np.isnan(iou[number]) else _percent(iou[number]),
        })  # fmt: skip
    legend = [{"name": names[label], "colour": _hex(palette[label])} for label in labels]
    if counts[IGNORED]:
        legend.append({"name": "not labelled", "colour": UNLABELLED})
    return {"pictures": pictures, "legend": legend, "num_kept": len(best.found.pictures)}


def colour(place: int) -> Rgb:
    """Of the class at this place, the largest first."""
    if place < len(COLOURS):
        return _rgb(COLOURS[place])
    golden = 0.618034  # of a full turn: the next hue lies in the largest gap
    light = (0.45, 0.62, 0.78)[place % 3]
    red, green, blue = colorsys.hls_to_rgb((place * golden) % 1, light, 0.6)
    return round(255 * red), round(255 * green), round(255 * blue)


def _rgb(text: str) -> Rgb:
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def _hex(rgb: Rgb) -> str:
    return f"#{bytes(rgb).hex()}"


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode()


def _mean(values: Sequence[float]) -> str:
    found = summarise(values)
    half = "" if found.low is None or found.high is None else (
        f" ± {50 * (found.high - found.low):.1f}")  # fmt: skip
    return f"{100 * (found.mean or 0.0):.1f}{half}"


def _percent(share: Any) -> str:
    return f"{100 * float(share):.1f}"
