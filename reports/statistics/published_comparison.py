"""Published numbers that may be compared with ours, and sentences on those that may not.

A number is shown only where it and the study agree in data set, number of training images,
backbone, image size and the way to select the epoch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import pandas as pd

from reports.labels import Row
from reports.statistics.across_data_sets import dataset_of
from reports.statistics.published import BACKBONE, VTAB_TRAIN_IMAGES, load_reference

SELECTIONS = {"best_val": "best val epoch", "best_val_loss": "best val loss epoch",
              "last_epoch": "last epoch", "best_test_epoch": "best test epoch"}  # fmt: skip
"""Our `train.selection` in the words of reference.csv."""

DATASETS = {
    "cifar": "cifar100", "cifar-100": "cifar100", "cifar-10": "cifar10", "cub_200_2011": "cub",
    "food-101": "food101", "oxford_flowers102": "flowers", "oxfordflower": "flowers",
    "flowers-102": "flowers", "flowers102": "flowers", "stanford-dogs": "dogs",
    "stanford_dogs": "dogs",
}  # fmt: skip
"""Usual folder names that differ from the data set's name in reference.csv."""

IN21K = re.compile(r"vit_base_patch16_224(\.(augreg|orig)_in21k|_in21k)")
"""timm's names of the published backbone."""

Value = str | int | None
"""What a study or a paper has of one aspect; None: not known."""
Ours = Mapping[str, tuple[Value, ...]]
"""What the study's trials have, per column of the reference table; several values: they differ."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published test accuracy, with all that a reader has to know before comparing."""

    method: str
    source: str
    accuracy: float
    """Fraction."""
    caveat: str = ""
    benchmark: str = ""
    backbone: str = ""
    selection: str = ""

    @property
    def label(self) -> str:
        """The row's name in a table."""
        parts = (self.source, self.benchmark, self.backbone, self.selection, self.caveat)
        return f"{self.method} ({'; '.join(part for part in parts if part)})"


def comparable(used: pd.DataFrame, epochs: pd.DataFrame) -> tuple[tuple[Published, ...], list[str]]:
    """Published accuracies for a study of one data set, and sentences on those held back.

    Args:
        used: Trials that statistics use; rows as in `trials`.
        epochs: As in `epochs`; their speed gives the number of training images.
    """
    frame = load_reference()
    # Folders are named by whoever downloaded them.
    names = [DATASETS.get(name.lower(), name.lower()) for name in map(str, dataset_of(used))]
    of_ours = frame[(frame["metric"] == "accuracy") & frame["dataset"].isin(names)]
    if of_ours.empty:
        return (), []
    if len(set(names)) > 1:
        about = f"published numbers for {', '.join(sorted(set(of_ours['dataset'])))}"
        return (), [f"{len(of_ours)} {about} are not shown beside ours: this study has several "
                    "data sets."]  # fmt: skip
    ours = _ours(used, epochs)
    # Each aspect on its own, since the note counts the numbers that fail it.
    agrees = pd.DataFrame({
        name: of_ours[name].map(lambda theirs, name=name: ours[name] == (theirs,))
        for name in ours
    })  # fmt: skip
    shown = of_ours[agrees.all(axis=1)].to_dict("records")
    return tuple(map(_published, shown)), _held_back(of_ours, agrees, ours)


def _published(row: Row) -> Published:
    return Published(
        method=row["method"],
        source=f"{row['source']} {row['table']}",
        accuracy=row["value"],
        caveat=row["caveat"],
        benchmark=row["benchmark"],
        backbone=f"{row['backbone']}, {row['img_size']} px",
        selection=row["selection"],
    )


def _ours(used: pd.DataFrame, epochs: pd.DataFrame) -> Ours:
    """What has to agree, as the trials have it."""
    return {
        "backbone": _values(used, ("backbone.name", "backbone.tag", "backbone.weights"), _backbone),
        "img_size": _values(used, ("backbone.name", "backbone.img_size"), _img_size),
        "train_images": _train_images(used, epochs),
        "selection": _values(
            used, ("train.selection",), lambda name: SELECTIONS.get(str(name), str(name))
        ),
    }


def _values(
    trials: pd.DataFrame, names: Sequence[str], read: Callable[..., Value]
) -> tuple[Value, ...]:
    """Distinct values of what some settings mean together; None: not set."""
    columns = trials.reindex(columns=list(names)).astype(object)
    columns = columns.where(columns.notna(), None).drop_duplicates()
    return tuple(dict.fromkeys(read(*row) for row in columns.itertuples(index=False)))


def _backbone(stem: object, tag: object, weights: object) -> str:
    name = stem if tag is None else f"{stem}.{tag}"
    if weights == "random":
        return f"{name} with random weights"
    return BACKBONE if IN21K.fullmatch(str(name)) else str(name)


def _img_size(name: object, size: int | None) -> int | str:
    """Pixels; where none are set the model's own, as far as its name says them."""
    if size is not None:
        return int(size)
    in_name = re.search(r"_(\d{3})(?![0-9])", str(name))
    return int(in_name[1]) if in_name else "the model's own"


def _train_images(used: pd.DataFrame, epochs: pd.DataFrame) -> tuple[Value, ...]:
    """Images that are trained on: those of an epoch, from its speed and duration.

    Without an epoch, or with one that leaves images out, those that VTAB-1k's layout has.
    """
    # With drop_last an epoch has fewer images than the training split.
    if not used.reindex(columns=["train.drop_last"]).eq(True).any(axis=None):
        rows = epochs[epochs["trial"].isin(used["trial"])]
        counted = (rows["images_per_s"] * rows["duration_s"]).dropna().round().astype(int)
        if len(counted):
            return tuple(counted.drop_duplicates().tolist())
    return _values(used, ("data.name", "data.train_on"), _listed_images)


def _listed_images(name: object, train_on: object) -> int | None:
    if name != "vtab1k":
        return None
    return VTAB_TRAIN_IMAGES if train_on == "train_and_val" else VTAB_TRAIN_IMAGES - 200


_ASPECTS: Mapping[str, str] = {
    "backbone": "{n} of another backbone ({theirs}; ours: {ours})",
    "img_size": "{n} at another image size ({theirs} pixels; ours: {ours})",
    "train_images": "{n} trained on another number of images ({theirs}; ours: {ours})",
    "selection": "{n} select the epoch otherwise ({theirs}; ours: {ours})",
}


def _held_back(rows: pd.DataFrame, agrees: pd.DataFrame, ours: Ours) -> list[str]:
    """One sentence: how many results are not shown, and each reason with its count."""
    count = int((~agrees.all(axis=1)).sum())
    if not count:
        return []
    reasons = []
    for name, text in _ASPECTS.items():
        theirs = rows.loc[~agrees[name], name]
        if len(theirs):
            values = dict.fromkeys(map(_text, theirs))
            mine = " and ".join(map(_text, ours[name])) or "unknown"
            reasons.append(text.format(n=len(theirs), theirs=" or ".join(values), ours=mine))
    dataset = rows["dataset"].iloc[0]
    return [f"{count} published numbers for {dataset} are not shown beside ours: "
            f"{'; '.join(reasons)}."]  # fmt: skip


def _text(value: object) -> str:
    if value is None or value is pd.NA:
        return "unknown"
    return f"{value:,}" if isinstance(value, Integral) else str(value)
