"""Published results, to be shown next to ours and never mixed with them.

`reference.csv` holds what papers and repositories print, one number a row. A method is written as
our chain ("vfpt+tcpa"), a setting of it behind it ("cvpt weights=shared_frozen"); one that this
package does not have keeps its printed name. Numbers that a table took over from another one have
the protocol of the table they come from. A mean that nobody prints is marked as computed.
"""

from functools import cache
from importlib.resources import files

import pandas as pd

COLUMNS = (
    "source",
    "table",
    "benchmark",
    "protocol",
    "dataset",
    "method",
    "metric",
    "value",
    "caveat",
    "backbone",
    "img_size",
    "train_images",
    "selection",
    "num_prompts",
)
_PERCENT = ("accuracy", "miou_single_scale", "miou_multi_scale")

BACKBONE = "ViT-B/16, ImageNet-21k"
"""Of all classification results: supervised on ImageNet-21k, at 224 pixels."""
SEGMENTER = "ViT-L/16, ImageNet-21k"

HTA_TRAIN_IMAGES = {
    "dtd": 1880, "cub": 5394, "nabirds": 21536, "dogs": 10800, "flowers": 1020, "food101": 60600,
    "cifar100": 40000, "cifar10": 40000, "gtsrb": 21312, "svhn": 58605,
}  # fmt: skip
"""Training images of the full data sets, without val. Source: ICML2025-TCPA, data_utils/datasets,
and VPT's lists of the fine-grained sets."""
VTAB_TRAIN_IMAGES = 1000
"""Of every task of VTAB-1k in the final runs, which train on train and val."""


def load_reference() -> pd.DataFrame:
    """All published numbers, in the order of their sources.

    Returns:
        Columns `COLUMNS`. `benchmark` is hta, vtab1k, fgvc or ade20k; `protocol` how the epoch was
        selected, in words; `metric` accuracy, miou_single_scale, miou_multi_scale (all fractions,
        where the file has percent as printed) or num_trainable_no_head; `caveat` is empty or says
        what to know before comparing. What has to agree with a study before a number is shown next
        to it: `backbone`, `img_size` in pixels, `train_images` (missing for means) and `selection`,
        which is the protocol, but for cells of HTA's table that are VTAB-1k's. Of a segmentation
        it is not `selection` but `num_prompts`, and the claimed protocol of the trials.
    """
    return _reference().copy()


@cache
def _reference() -> pd.DataFrame:
    with (files("reports") / "reference.csv").open() as file:
        frame = pd.read_csv(file, keep_default_na=False, dtype=str)
    values = frame["value"].astype(float)
    frame["value"] = values.where(~frame["metric"].isin(_PERCENT), (values / 100).round(4))
    # What no row of the file repeats: it is the same within a benchmark.
    segments = frame["benchmark"] == "ade20k"
    frame["backbone"] = segments.map({False: BACKBONE, True: SEGMENTER})
    frame["img_size"] = segments.map({False: 224, True: 512})
    of_vtab = (frame["benchmark"] == "vtab1k") | (frame["protocol"] == "mixed")
    is_mean = frame["dataset"].str.startswith("mean")
    images = frame["dataset"].map(HTA_TRAIN_IMAGES).mask(of_vtab, VTAB_TRAIN_IMAGES)
    frame["train_images"] = images.mask(is_mean).astype("Int64")
    # VPT's, whose final runs on VTAB-1k test their last epoch
    frame["selection"] = frame["protocol"].mask(~is_mean & of_vtab, "last epoch")
    prompts = frame["protocol"].str.extract(r"^(\d+) prompts", expand=False)
    frame["num_prompts"] = prompts.astype(float).astype("Int64")
    return frame[list(COLUMNS)]
