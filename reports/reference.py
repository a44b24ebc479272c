"""Published results, to be shown beside ours: never mixed with them.

`reference.csv` holds what papers and repositories print, one number a row. A method is written as
our chain ("vfpt+tcpa"), a setting of it behind it ("cvpt weights=shared_frozen"); one that this
package does not have keeps its printed name. All are ViT-B/16 pre-trained with labels on
ImageNet-21k unless `protocol` says otherwise.
"""

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
)
_PERCENT = ("accuracy", "miou_single_scale", "miou_multi_scale")


def load_reference() -> pd.DataFrame:
    """All published numbers, in the order of their sources.

    Returns:
        Columns `COLUMNS`. `benchmark` is hta, vtab1k, fgvc or ade20k; `protocol` how the epoch was
        selected; `metric` accuracy, miou_single_scale, miou_multi_scale (all fractions, where the
        file has percent as printed) or num_trainable_no_head; `caveat` is empty or says what to
        know before comparing.
    """
    with (files("reports") / "reference.csv").open() as file:
        frame = pd.read_csv(file, keep_default_na=False, dtype=str)
    values = frame["value"].astype(float)
    frame["value"] = values.where(~frame["metric"].isin(_PERCENT), (values / 100).round(4))
    return frame[list(COLUMNS)]
