"""What the page says of single images: who is right on which, how sure, and what nobody knows."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.draw import Drawn
from reports.frames import Frames
from reports.labels import NewRow, Row, p_text
from reports.plots.base import styles_of
from reports.samples.gather import DataSamples, ScoredTrial
from reports.samples.measures import (
    NUM_BINS,
    calibration,
    confused_pairs,
    mcnemar,
    missed_by_all,
    per_class,
    wilson,
)
from reports.statistics.paired_tests import holm

FIGURES = ("confusion", "reliability")
"""Figures that stand in this part of the page."""
MOST_DATA_SETS = 6
"""Of a page; the table has all."""
MOST_BYTES = 2_000_000
"""Of all pictures of a page."""
MOST_PICTURES = 36
"""Of a data set."""
MOST_CLASSES = 12
"""Rows of classes that are shown at once; the others are folded away."""
MOST_PAIRS = 8
MOST_TRIALS = 60
"""Trials of which any two can be compared on the page."""
ABOUT = (
    "Intervals of shares are Wilson's, 95 %. ECE is the expected calibration error over "
    f"{NUM_BINS} bins of equal width of the predicted class's probability. p is McNemar's, exact "
    "(binomial), two-sided, of the test images that two trials judge differently; after Holm over "
    "the rows of the table. It says what to expect of these two trained models on other images, "
    "and nothing of other seeds."
)


def samples(found: Frames, drawn: Sequence[Drawn]) -> dict[str, Any] | None:
    """What samples.html.j2 shows; None: no trial has kept what it took single images for."""
    shown = found.samples.by_data[:MOST_DATA_SETS]
    if not shown:
        return None
    styles, left = styles_of(found), MOST_BYTES
    parts = []
    for data in shown:
        part = _part(data, styles, left)
        left -= sum(len(one["picture"]) for one in part["missed"]["pictures"])
        parts.append(part)
    return {
        "parts": parts,
        "drawn": [one for one in drawn if one.path],
        "left_out": [one.dataset for one in found.samples.by_data[MOST_DATA_SETS:]],
        "about": ABOUT,
    }


def compared(shown: Mapping[str, Any] | None) -> list[Any]:
    """What the page's script compares trials by: for each data set the trials with their bits."""
    parts = shown["parts"] if shown else []
    return [part["compared"] and part["compared"]["trials"] for part in parts]


def _part(
    data: DataSamples[ScoredTrial], styles: Mapping[str, tuple[str, str]], left: int
) -> dict[str, Any]:
    best = data.best
    classes = per_class(best[0]).sort_values("accuracy", kind="stable", ignore_index=True)
    return {
        "dataset": data.dataset,
        "num_images": len(data.trials[0].test.labels),
        "num_classes": len(data.class_names),
        "num_trials": len(data.trials),
        "best": best[0].name,
        "says": _sentences(best[0], classes),
        "rows": _rows(best, styles),
        "classes": [_class_row(row) for row in classes.to_dict("records")],
        "num_shown": MOST_CLASSES if len(classes) > MOST_CLASSES + 3 else len(classes),
        "pairs": confused_pairs(best[0], MOST_PAIRS).to_dict("records"),
        "missed": _missed(data, left),
        "compared": _compared(data),
    }


def _sentences(best: ScoredTrial, classes: pd.DataFrame) -> list[str]:
    """What the figures and tables of a trial say."""
    worst, measured = classes.iloc[0], calibration(best.test)
    found = []
    if worst["accuracy"] < 1:
        found.append(
            f"Least often right on {worst['label']}: {_percent(worst['accuracy'])} % of "
            f"{worst['count']}, taken for {worst['confused_with']} most often."
        )
    gap = 100 * (measured.confidence - best.test.accuracy)
    found.append(
        f"Its probabilities are {abs(gap):.1f} points too {'high' if gap > 0 else 'low'} on "
        f"average: {_percent(measured.confidence)} % for what is right in "
        f"{_percent(best.test.accuracy)} %."
    )
    return found


def _rows(best: Sequence[ScoredTrial], styles: Mapping[str, tuple[str, str]]) -> list[Any]:
    """The best trial of each method or level, the first one compared with every other."""
    tests = [mcnemar(best[0].test, one.test) for one in best[1:]]
    adjusted = holm([test.p for test in tests])
    rows = []
    for place, one in enumerate(best):
        accuracy, count = one.test.accuracy, len(one.test.labels)
        low, high = wilson(accuracy * count, count)
        row: NewRow = {
            "name": one.group or one.trial,
            "trial": one.trial,
            "seed": one.seed,
            "style": styles.get(one.group) if one.group else None,
            "val": _percent(one.val_score),
            "test": _percent(accuracy),
            "interval": f"[{_percent(low)}, {_percent(high)}]",
            "confidence": _percent(calibration(one.test).confidence),
            "ece": f"{calibration(one.test).error:.3f}",
            "test_of": None,
        }
        if place:
            test = tests[place - 1]
            row["test_of"] = {"best": test.only_first, "this": test.only_second,
                              "p": p_text(test.p),
                              "adjusted": p_text(adjusted[place - 1] or 0.0)}  # fmt: skip
        rows.append(row)
    return rows


def _class_row(row: Row) -> NewRow:
    return {
        "label": row["label"],
        "count": row["count"],
        "accuracy": _percent(row["accuracy"]),
        "value": row["accuracy"],
        "interval": f"[{_percent(row['low'])}, {_percent(row['high'])}]",
        "places": [round(100 * row[name], 1) for name in ("low", "accuracy", "high")],
        "confused_with": row["confused_with"],
    }


def _missed(data: DataSamples[ScoredTrial], left: int) -> dict[str, Any]:
    """The images that no trial gets right; of the worst that were kept, pictures."""
    missed = missed_by_all(data)
    pictures: dict[int, bytes] = {}
    for one in data.trials:
        pictures = {**one.found.pictures, **pictures}
    shown: list[NewRow] = []
    without: list[Row] = []
    for row in missed.to_dict("records"):
        picture = base64.b64encode(pictures.get(row["index"], b"")).decode()
        row["probability"] = _percent(row["probability"])
        if not picture or len(shown) == MOST_PICTURES or len(picture) > left:
            without.append(row)
            continue
        left -= len(picture)
        shown.append({**{str(name): value for name, value in row.items()}, "picture": picture})
    return {
        "count": len(missed),
        "pictures": shown,
        "names": [] if shown else without[:MOST_CLASSES],
        "num_without": len(without),
    }


def _compared(data: DataSamples[ScoredTrial]) -> dict[str, Any] | None:
    """Which test images each trial gets right, as bits, for the page's own comparison of two."""
    if len(data.trials) < 2:
        return None
    leaders = data.best[:MOST_TRIALS]
    others = [one for one in data.trials if one not in leaders][: MOST_TRIALS - len(leaders)]
    return {
        "trials": [
            {"name": one.name, "bits": base64.b64encode(
                np.packbits(one.test.classes[:, 0] == one.test.labels).tobytes()).decode()}
            for one in (*leaders, *others)
        ],
        "left_out": len(data.trials) - len(leaders) - len(others),
    }  # fmt: skip


def _percent(share: Any) -> str:
    return f"{100 * float(share):.1f}"
