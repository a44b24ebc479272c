"""Pictures with masks: the class of every pixel, for `task.name: segment`.

Layouts, all found from `data.root`:

    ADE20K       images/{training,validation}/, annotations/{training,validation}/,
                 objectInfo150.txt
    CamVid       {train,val,test}/, {train,val,test}annot/, classes.txt
    Cityscapes   leftImg8bit/{train,val}/CITY/*_leftImg8bit.png,
                 gtFine/{train,val}/CITY/*_gtFine_labelIds.png (or labelTrainIds)
    Pascal VOC   JPEGImages/, SegmentationClass/, ImageSets/Segmentation/{train,val}.txt
    others       images/{train,val,test}/ with masks/, labels/ or annotations/ beside, or the same
                 two below {train,val,test}/, or all in images/ and masks/, with train.txt, val.txt
                 and test.txt or without

A mask has its picture's name, or that with an end such as _mask or _labels, and its size. It is
8-bit grey or has a palette, whose numbers count. Values count the classes from 0; 255 has none, nor
have those in `data.ignore`, 0 with `data.reduce_zero_label` (ADE20K's own way), and those that the
list of classes calls void. Classes are told by the list (`classes.txt`, one a line), by the layout,
or by `data.num_classes`. Masks in colours need `class_dict.csv`, with a line `name,r,g,b` for each.

ADE20K, Cityscapes and VOC publish no masks of test: their val is test here, as papers score them,
and `data.val_fraction` of train is val. Other sets without test give a fifth of train for it.
"""

import os
from dataclasses import replace
from pathlib import Path

from tcpa_core.data._mask_classes import classes_of
from tcpa_core.data._mask_layouts import Layout, Pairs, layout_of, pairs_of, unmasked
from tcpa_core.data._rows import Rows, assemble
from tcpa_core.data.base import Listing, need_root
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DataConfig

HAS_MASKS = True
USES = (
    "num_classes",
    "ignore",
    "reduce_zero_label",
    "train_list",
    "scale_range",
    "max_class_share",
)
VAL_IS_TEST = {"ade20k": "ADE20K", "cityscapes": "Cityscapes", "voc": "Pascal VOC"}
"""Layouts of sets whose test masks are not published."""


def draws_val(cfg: DataConfig) -> bool:
    """Whether val is split off here."""
    layout = layout_of(Path(os.path.expanduser(cfg.root or "")))
    return layout is None or "val" not in _own_splits(layout)


def recognises(root: Path) -> bool:
    """Whether a folder has one of the layouts."""
    return layout_of(root) is not None


def read(cfg: DataConfig) -> Listing:
    """List the pictures and their masks.

    Raises:
        ConfigError: data.root is not set, or settings of classes contradict the files.
        DataError: No layout is known, or pictures and masks do not fit each other.
    """
    root = need_root(cfg)
    layout = layout_of(root)
    if layout is None:
        raise DataError(
            f"{root.absolute()} has no folders of pictures and masks: data.root must hold "
            "images/train and masks/train (or labels/, annotations/), or train and trainannot, or "
            "the folders of ADE20K, Cityscapes or Pascal VOC."
        )
    found = pairs_of(root, layout, _lists(cfg, layout))
    names, source, values = classes_of(cfg, root, layout, found["train"])
    notes = [
        f"the pictures of {place}/ have no masks and are not read."
        for place in unmasked(root, layout)
    ]
    if "val" in found and layout.kind in VAL_IS_TEST and "test" not in found:
        found["test"] = found.pop("val")
        notes.append(
            f"{VAL_IS_TEST[layout.kind]} comes without masks of test: its val is test, as papers "
            "score it, and val is drawn from train."
        )
    for split, pairs in found.items():
        if not pairs.images:
            raise DataError(
                f"split {split} has no pictures: {root.absolute() / pairs.source} is empty; fill "
                "it or remove it."
            )
    rows = {split: _rows(pairs) for split, pairs in found.items()}
    listing = assemble(root, rows, cfg, names=(names, source), notes=notes)
    mask_of = {
        image: mask
        for pairs in found.values()
        for image, mask in zip(pairs.images, pairs.masks, strict=True)
    }
    splits = {
        name: replace(split, masks=tuple(mask_of[key] for key in split.keys))
        for name, split in listing.splits.items()
    }
    return replace(listing, splits=splits, mask_values=values)


def _rows(pairs: Pairs) -> Rows:
    return Rows(keys=pairs.images, labels=[0] * len(pairs.images), source=pairs.source)


def _lists(cfg: DataConfig, layout: Layout) -> dict[str, str]:
    lists = dict(layout.lists)
    if cfg.train_list is not None:
        if not lists:
            raise ConfigError(
                f"data.train_list={cfg.train_list!r} names a list, but this data set has none: its "
                "splits are folders; leave it out."
            )
        lists["train"] = cfg.train_list
    return lists


def _own_splits(layout: Layout) -> set[str]:
    splits = {*layout.folders, *layout.lists} - {""}
    return splits - {"val"} if layout.kind in VAL_IS_TEST else splits
