"""What the best trial took the test images of each class for: a matrix, or of many classes the
pairs that were mistaken most often."""

import pandas as pd
from matplotlib.figure import Figure

from reports.frames import Frames
from reports.plots._confusion import MOST_CLASSES, MOST_PAIRS, bars, matrix
from reports.samples.measures import confused_pairs, confusion

TITLE = "What test images were taken for"
KINDS = ("search", "ablation")
PLACE = 40


def prepare(tables: Frames) -> pd.DataFrame:
    """Of the data set with most trials, pairs of classes: `label`, `predicted`, `count`, `of`."""
    columns = ["label", "predicted", "count", "of"]
    if not tables.samples.by_data:
        return pd.DataFrame(columns=columns)
    data = tables.samples.by_data[0]
    best, names = data.best[0], data.class_names
    if len(names) > MOST_CLASSES:
        return confused_pairs(best, MOST_PAIRS)
    counts = confusion(best.test, len(names))
    rows = [
        (label, predicted, int(counts[i, j]), int(counts[i].sum()))
        for i, label in enumerate(names)
        for j, predicted in enumerate(names)
    ]
    return pd.DataFrame(rows, columns=columns)


def sentence(data: pd.DataFrame, tables: Frames) -> str:
    """Whose it is, and what stands out."""
    best = tables.samples.by_data[0].best[0]
    wrong = data[data["label"] != data["predicted"]].sort_values(
        "count", ascending=False, kind="stable"
    )
    if wrong.empty or not wrong.iloc[0]["count"]:
        return f"Of {best.name}: every test image is right."
    most = wrong.iloc[0]
    return (
        f"Of {best.name}: {most['label']} is taken for {most['predicted']} most often, "
        f"{most['count']} times of {most['of']}."
    )


def draw(data: pd.DataFrame, tables: Frames) -> Figure | str:
    """A matrix, rows are labels; or a bar for each pair, as a share of the label's images."""
    if data.empty:
        return ""
    if len(tables.samples.by_data[0].class_names) > MOST_CLASSES:
        texts = [f"{n}/{of}" for n, of in zip(data["count"], data["of"], strict=True)]
        return bars(data, texts, "% of the label's test images")
    return matrix(data, [str(n) if n else "" for n in data["count"]])
