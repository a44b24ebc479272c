"""Numbers of single images: confusion, calibration, and trials compared image by image."""

# Axes: N images, C classes, b bins.

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from reports.samples.gather import DataSamples, ScoredTrial
from tcpa_core.record.predictions import SplitPredictions

NUM_BINS = 15
"""Of equal width over [0, 1], for calibration."""
LEVEL = 0.95


def wilson(hits: Any, count: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Wilson's 95 % interval of shares.

    Args:
        hits: Of `count` images each.

    Returns:
        Low and high ends; NaN where there is no image.

    Source:
        E. B. Wilson, JASA 22 (1927), 209-212.
    """
    hits, count = np.asarray(hits, float), np.asarray(count, float)
    z = stats.norm.ppf(0.5 + LEVEL / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = hits / count
        middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z / (1 + z**2 / count) * np.sqrt(
            share * (1 - share) / count + z**2 / (4 * count**2)
        )  # fmt: skip
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def confusion(split: SplitPredictions, num_classes: int) -> npt.NDArray[np.int64]:
    """How many images of each class were taken for each class [C labels, C predicted]."""
    pairs = split.labels.astype(np.int64) * num_classes + split.classes[:, 0]
    counted = np.bincount(pairs, minlength=num_classes**2)
    return counted.reshape(num_classes, num_classes)


def confused_pairs(one: ScoredTrial, most: int) -> pd.DataFrame:
    """Pairs of label and predicted class that were mistaken most often, most frequent first.

    Returns:
        Columns `label`, `predicted`, `count` of images and `of`, the images of the label.
    """
    names = one.found.class_names
    counts = confusion(one.test, len(names))
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    shares = wrong / np.maximum(counts.sum(1, keepdims=True), 1)
    order = np.lexsort((-shares.ravel(), -wrong.ravel()))[:most]
    rows = [divmod(int(place), len(names)) for place in order]
    return pd.DataFrame(
        [(names[i], names[j], int(wrong[i, j]), int(counts[i].sum())) for i, j in rows],
        columns=["label", "predicted", "count", "of"],
    ).query("count > 0")


def per_class(one: ScoredTrial) -> pd.DataFrame:
    """Accuracy of each class of the test split with its interval, in the order of the classes.

    Returns:
        Columns `label`, `count`, `accuracy`, `low`, `high`, and `confused_with`, the class that its
        images were most often mistaken for ("": none was).
    """
    names = one.found.class_names
    counts = confusion(one.test, len(names))
    hits, count = np.diag(counts), counts.sum(1)
    low, high = wilson(hits, count)
    wrong = counts - np.diag(hits)
    others = [names[row.argmax()] if row.any() else "" for row in wrong]
    found = {"label": names, "count": count, "accuracy": hits / np.maximum(count, 1), "low": low,
             "high": high, "confused_with": others}  # fmt: skip
    return pd.DataFrame(found)[count > 0].reset_index(drop=True)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well probabilities of the predicted class agree with how often it is right."""

    bins: pd.DataFrame
    """Those with images: `low` and `high` end, `count`, `confidence` (mean probability of the
    predicted class) and `accuracy` of their images."""
    error: float
    """Expected calibration error: mean over the images of |accuracy - confidence| of their bin."""
    confidence: float
    """Mean probability of the predicted class."""


def calibration(split: SplitPredictions) -> Calibration:
    """Compare probabilities of the predicted class with how often it is right.

    Source:
        C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2; bins are
        (low, high], of which there are NUM_BINS of equal width.
    """
    confidence = split.probabilities[:, 0].astype(float)
    is_right = split.classes[:, 0] == split.labels
    edges = np.linspace(0, 1, NUM_BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, NUM_BINS - 1)
    frame = pd.DataFrame({"place": place, "confidence": confidence, "accuracy": is_right})
    grouped = frame.groupby("place")
    bins = grouped[["confidence", "accuracy"]].mean()
    bins.insert(0, "count", grouped.size())
    bins.insert(0, "high", edges[bins.index + 1])
    bins.insert(0, "low", edges[bins.index])
    gaps = (bins["accuracy"] - bins["confidence"]).abs()
    error = float((gaps * bins["count"]).sum() / len(frame))
    return Calibration(bins.reset_index(drop=True), error, float(confidence.mean()))


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two trials on the same images: what only one of them gets right."""

    only_first: int
    only_second: int
    p: float
    """Exact, two-sided: of the images that they judge differently, each is right on half."""


def mcnemar(first: SplitPredictions, second: SplitPredictions) -> McNemar:
    """McNemar's test, exact: the binomial distribution whatever the counts."""
    a = first.classes[:, 0] == first.labels
    b = second.classes[:, 0] == second.labels
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    differ = only_first + only_second
    p = float(stats.binomtest(only_first, differ).pvalue) if differ else 1.0
    return McNemar(only_first, only_second, p)


def missed_by_all(data: DataSamples[ScoredTrial]) -> pd.DataFrame:
    """Test images that no trial gets right, those with the least probability of the label first.

    Returns:
        Columns `index` in the split, `image`, `label`, `predicted` (by most trials), `by` (how
        many of them) and `probability` of the label (geometric mean over the trials).
    """
    tests = [one.test for one in data.trials]
    wrong = np.all([test.classes[:, 0] != test.labels for test in tests], axis=0)
    places = np.flatnonzero(wrong)
    predicted = np.array([test.classes[places, 0] for test in tests]).reshape(len(tests), -1)
    with np.errstate(divide="ignore"):
        logs = np.mean([np.log(test.of_label[places].astype(float)) for test in tests], axis=0)
    rows = []
    for column, place in enumerate(places.tolist()):
        votes = np.bincount(predicted[:, column])
        label, most = data.class_names[tests[0].labels[place]], int(votes.argmax())
        taken_for = (data.class_names[most], int(votes[most]))
        rows.append((place, tests[0].keys[place], label, *taken_for, math.exp(logs[column])))
    columns = ["index", "image", "label", "predicted", "by", "probability"]
    found = pd.DataFrame(rows, columns=columns)
    return found.sort_values("probability", kind="stable", ignore_index=True)
