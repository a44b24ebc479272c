"""What the best trial took the pixels of each class for: a matrix, or of many classes the pairs
that were mistaken most often."""

import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots._confusion import MOST_CLASSES, MOST_PAIRS, bars, matrix, shares_of
from reports.samples.regions import confused_classes

TITLE = "What pixels of test were taken for"
KINDS = ("search", "ablation")
PLACE = 40.5


def prepare(tables: Frames) -> pd.DataFrame:
    """Of the data set with most trials, pairs of classes: `label`, `predicted`, `count`, `of`."""
    if not tables.regions.by_data:
        return pd.DataFrame(columns=["label", "predicted", "count", "of"])
    data = tables.regions.by_data[0]
    best, names = data.best[0], data.class_names
    if len(names) > MOST_CLASSES:
        return confused_classes(best, MOST_PAIRS)
    counts = best.test.confusion
    return pd.DataFrame({
        "label": [label for label in names for _ in names],
        "predicted": [*names] * len(names),
        "count": counts.ravel(),
        "of": counts.sum(1).repeat(len(names)),
    })  # fmt: skip


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """Whose it is, and which class loses most of its pixels to another one."""
    best = tables.regions.by_data[0].best[0]
    wrong = shares_of(data) * (data["label"] != data["predicted"]).to_numpy(bool)
    if not wrong.any():
        return f"Of {best.name}: every pixel is right."
    most = data.iloc[int(wrong.argmax())]
    return (
        f"Of {best.name}: {most['label']} is taken for {most['predicted']} most often, in "
        f"{100 * wrong.max():.1f} % of its pixels."
    )


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A matrix of percents, rows are labels; or a bar for each pair."""
    if data.empty:
        return ""
    shares = 100 * shares_of(data)
    if len(tables.regions.by_data[0].class_names) > MOST_CLASSES:
        return bars(data, [f"{share:.0f} %" for share in shares], "% of the label's pixels on test")
    return matrix(data, [f"{share:.0f}" if share >= 0.5 else "" for share in shares])
