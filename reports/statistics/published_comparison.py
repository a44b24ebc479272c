"""Published numbers that may be compared with ours, and sentences on those that may not.

A number is shown only where it and the study agree in data set, backbone, image size and, of a
classification, number of training images and the way to select the epoch; of a segmentation, the
protocol that all trials follow without a deviation, and the number of prompts of some of them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import pandas as pd

from reports.labels import method_column
from reports.statistics.across_data_sets import dataset_of
from reports.statistics.published import (
    BACKBONE,
    SEGMENTER,
    VTAB_TRAIN_IMAGES,
    load_reference,
)
from tcpa_core.record.scores import SCORES, TASK

SELECTIONS = {"best_val": "best val epoch", "best_val_loss": "best val loss epoch",
              "last_epoch": "last epoch", "best_test_epoch": "best test epoch"}  # fmt: skip
"""Our `train.selection` in the words of reference.csv."""

DATASETS = {
    "cifar": "cifar100", "cifar-100": "cifar100", "cifar-10": "cifar10", "cub_200_2011": "cub",
    "food-101": "food101", "oxford_flowers102": "flowers", "oxfordflower": "flowers",
    "flowers-102": "flowers", "flowers102": "flowers", "stanford-dogs": "dogs",
    "stanford_dogs": "dogs", "adechallengedata2016": "ade20k", "ade": "ade20k",
}  # fmt: skip
"""Usual folder names that differ from the data set's name in reference.csv."""

IN21K = re.compile(r"vit_base_patch16_224(\.(augreg|orig)_in21k|_in21k)")
"""timm's names of the published backbone."""
LARGE = re.compile(r"vit_large_patch16_(224|384)(\.(augreg|orig)_in21k(_ft_in1k)?|_in21k)")
"""Those of the published segmentations'."""

FIELDS = {"accuracy": "test_accuracy", "miou_single_scale": "test_miou",
          "miou_multi_scale": "test_miou_multiscale"}  # fmt: skip
"""Columns of `trials` that hold what a metric of reference.csv is."""
MEASURES = {"classify": "test accuracies", "segment": "mIoU on the data set's validation images"}
"""What published rows hold, by task."""
NO_CLASSES = "; segmentation, not classification"
"""What reference.csv says where a table of accuracies could be meant."""
SEGMENTING = ("cvpt-ade20k", "vpt-ade20k")
"""Protocols with the head and the schedule of the published segmentations."""

Value = str | int | None
"""What a study or a paper has of one aspect; None: not known."""
Ours = Mapping[str, tuple[Value, ...]]
"""What the study's trials have, per column of the reference table; several values: they differ."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published result, with all that a reader has to know before comparing."""

    method: str
    source: str
    values: Mapping[str, float]
    """Fractions, by the column of `trials` that holds ours."""
    measure: str = MEASURES["classify"]
    caveat: str = ""
    benchmark: str = ""
    backbone: str = ""
    selection: str = ""

    @property
    def accuracy(self) -> float:
        """That of a classification."""
        return self.values["test_accuracy"]

    @property
    def on_test(self) -> float | None:
        """Its task's score on test; None: only a variant of it is published."""
        return next((self.values[one.test] for one in SCORES.values() if one.test in self.values),
                    None)  # fmt: skip

    def cells(self, metrics: Sequence[str]) -> list[str]:
        """In percent, by columns of `trials`; "": not published."""
        known = (self.values.get(metric) for metric in metrics)
        return ["" if value is None else f"{100 * value:.2f}" for value in known]

    @property
    def label(self) -> str:
        """The row's name in a table."""
        parts = (self.source, self.benchmark, self.backbone, self.selection, self.caveat)
        return f"{self.method} ({'; '.join(part for part in parts if part)})"


def comparable(used: pd.DataFrame, epochs: pd.DataFrame) -> tuple[tuple[Published, ...], list[str]]:
    """Published results for a study of one data set, and sentences on those held back.

    Args:
        used: Trials that statistics use; rows as in `trials`.
        epochs: As in `epochs`; their speed gives the number of training images.
    """
    # a study has one task, and one of before there were tasks classifies
    task = next(iter(used[TASK].dropna()), "classify") if TASK in used else "classify"
    frame, score = load_reference(), SCORES[task]
    # Folders are named by whoever downloaded them.
    names = [DATASETS.get(name.lower(), name.lower()) for name in map(str, dataset_of(used))]
    is_score = frame["metric"].map(FIELDS).isin([score.test, *score.variants])
    of_ours = frame[is_score & frame["dataset"].isin(names)]
    if of_ours.empty:
        return (), []
    if len(set(names)) > 1:
        about = f"published numbers for {', '.join(sorted(set(of_ours['dataset'])))}"
        return (), [f"{len(of_ours)} {about} are not shown beside ours: this study has several "
                    "data sets."]  # fmt: skip
    agrees, told, ours = (
        _classified(of_ours, used, epochs) if task == "classify" else _segmented(of_ours, used)
    )
    shown = of_ours[agrees.all(axis=1)]
    alike = shown.groupby(["source", "table", "method"], sort=False)
    return tuple(_published(rows, task) for _, rows in alike), _held_back(told, agrees, ours)


Agreement = tuple[pd.DataFrame, pd.DataFrame, Ours]
"""Whether a row agrees in each aspect (on its own, since the note counts the numbers that fail it),
the rows as they are told of, and what the trials have."""


def differing(theirs: Mapping[str, Value], used: pd.DataFrame, epochs: pd.DataFrame) -> list[str]:
    """In what trials differ from a published result, beside what their protocol fixes.

    Args:
        theirs: Any of backbone, img_size, train_images, as in reference.csv.
        used: Trials that statistics use; rows as in `trials`.
        epochs: As in `epochs`.
    """
    ours = {**_model(used), "train_images": _train_images(used, epochs)}
    return [
        f"{_WORDS[name]} {' and '.join(map(_text, found))} (published: {_text(theirs[name])})"
        for name, found in ours.items()
        if name in theirs and found != (theirs[name],)
    ]


def _classified(rows: pd.DataFrame, used: pd.DataFrame, epochs: pd.DataFrame) -> Agreement:
    ours = {
        **_model(used),
        "train_images": _train_images(used, epochs),
        "selection": _values(
            used, ("train.selection",), lambda name: SELECTIONS.get(str(name), str(name))
        ),
    }
    return pd.DataFrame({name: _equal(rows[name], ours[name]) for name in ours}), rows, ours


def _segmented(rows: pd.DataFrame, used: pd.DataFrame) -> Agreement:
    prompts = {method: _prompts(used, method) for method in rows["method"].unique()}
    ours = {
        **_model(used),
        "protocol": _values(used, ("protocol", "deviation"), _protocol),
        "num_prompts": tuple(dict.fromkeys(n for found in prompts.values() for n in found)),
    }
    agrees = pd.DataFrame(
        {name: _equal(rows[name], ours[name]) for name in ("backbone", "img_size")}
    )
    # a sweep has other numbers of prompts, too, and names them in its rows
    agrees["protocol"] = set(ours["protocol"]) <= {*SEGMENTING}
    agrees["num_prompts"] = [
        theirs in prompts[method]
        for theirs, method in zip(rows["num_prompts"], rows["method"], strict=True)
    ]
    return agrees, rows.assign(protocol=" or ".join(SEGMENTING)), ours


def _equal(theirs: pd.Series, ours: tuple[Value, ...]) -> pd.Series:
    return theirs.map(lambda value: ours == (value,))


def _published(rows: pd.DataFrame, task: str) -> Published:
    """What one table prints of a method."""
    row = rows.iloc[0]
    values = zip(rows["metric"].map(FIELDS), rows["value"], strict=True)
    is_map = task != "classify"
    prompts = f", {row['num_prompts']} prompts" if is_map else ""
    return Published(
        method=row["method"],
        source=f"{row['source']} {row['table']}",
        values={str(name): float(value) for name, value in values},
        measure=MEASURES[task],
        caveat=row["caveat"].removesuffix(NO_CLASSES) if is_map else row["caveat"],
        benchmark=row["benchmark"],
        backbone=f"{row['backbone']}, {row['img_size']} px",
        selection=f"SETR-PUP{prompts}" if is_map else row["selection"],
    )


def _model(used: pd.DataFrame) -> Ours:
    return {
        "backbone": _values(used, ("backbone.name", "backbone.tag", "backbone.weights"), _backbone),
        "img_size": _values(used, ("backbone.name", "backbone.img_size"), _img_size),
    }


def _protocol(name: str | None, deviation: str | None) -> str:
    return f"{name or 'none'}{' with deviations' if deviation else ''}"


def _prompts(used: pd.DataFrame, method: str) -> list[int]:
    """Numbers of prompts of the trials of one method."""
    path = f"{method}.num_prompts"
    of_method = used[method_column(used) == method]
    return [int(n) for n in of_method[path].dropna().unique()] if path in used else []


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
    if LARGE.fullmatch(str(name)):
        return SEGMENTER
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


_WORDS = {"backbone": "backbone", "img_size": "image size", "train_images": "training images"}
_ASPECTS: Mapping[str, str] = {
    "backbone": "{n} of another backbone ({theirs}; ours: {ours})",
    "img_size": "{n} at another image size ({theirs} pixels; ours: {ours})",
    "train_images": "{n} trained on another number of images ({theirs}; ours: {ours})",
    "selection": "{n} select the epoch otherwise ({theirs}; ours: {ours})",
    "protocol": "{n} follow another protocol ({theirs}; ours: {ours})",
    "num_prompts": "{n} have another number of prompts ({theirs}; ours: {ours})",
}


def _held_back(rows: pd.DataFrame, agrees: pd.DataFrame, ours: Ours) -> list[str]:
    """One sentence: how many results are not shown, and each reason with its count."""
    count = int((~agrees.all(axis=1)).sum())
    if not count:
        return []
    reasons = []
    for name, text in _ASPECTS.items():
        theirs = rows.loc[~agrees[name], name] if name in agrees else ()
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
