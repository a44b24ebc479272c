"""Cells of published tables that a protocol of this package can be trained for."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import pandas as pd

from reports.statistics.published import BACKBONE, SEGMENTER, VTAB_TRAIN_IMAGES, load_reference
from reports.statistics.published_comparison import FIELDS, NO_CLASSES, Value
from tcpa_core import plugins

MODELS = {
    BACKBONE: "vit_base_patch16_224.augreg_in21k",
    SEGMENTER: "vit_large_patch16_384.augreg_in21k_ft_in1k",
}
"""timm's names of the published backbones."""
ASPECTS = ("backbone", "img_size", "train_images", "num_prompts")
"""Columns of reference.csv that say of what a number is, beside its protocol."""


@dataclass(frozen=True, slots=True)
class PublishedCell:
    """A number for one method on one data set, or two of a segmentation."""

    protocol: str
    """As trials claim it."""
    method: str
    """Our chain, and its settings behind it: "vfpt+tcpa", "cvpt num_prompts=200"."""
    dataset: str
    """As in reference.csv."""
    source: str
    values: Mapping[str, float]
    """Fractions, by the column of `trials` that holds ours; the leading one first."""
    caveat: str
    aspects: Mapping[str, Value]
    """What is known of `ASPECTS`."""

    @property
    def methods(self) -> list[str]:
        """The chain."""
        return self.method.partition(" ")[0].split("+")

    @property
    def own_settings(self) -> dict[str, Any]:
        """Settings of the method that its name says, by dotted path."""
        given = (one.partition("=") for one in self.method.split(" ")[1:])
        return {f"{self.methods[-1]}.{name}": _read(text) for name, _, text in given}

    @property
    def model(self) -> str:
        """timm's name of the backbone."""
        return MODELS[str(self.aspects["backbone"])]

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for study.yaml."""
        return asdict(self)

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """What `as_dict` gave."""
        return cls(**found)


def published_cells() -> list[PublishedCell]:
    """All of them, in the order of reference.csv: means over data sets are none."""
    frame = load_reference()
    frame = frame[~frame["dataset"].str.startswith("mean") & frame["metric"].isin([*FIELDS])]
    frame = frame.assign(claims=frame.apply(_protocol, axis=1))
    of_ours = frame["method"].map(_is_ours) & (frame["claims"] != "")
    alike = frame[of_ours].groupby(
        ["source", "table", "claims", "dataset", "method"], sort=False, dropna=False
    )
    return [_cell(rows) for _, rows in alike]


def _protocol(row: pd.Series) -> str:
    """Which of our protocols a number was made by; "": none.

    Of TCPA's first table what was selected by the last epoch was taken over from VPT's.
    """
    if row["benchmark"] == "ade20k":
        return "cvpt-ade20k"
    is_vtab = row["train_images"] == VTAB_TRAIN_IMAGES
    if row["selection"] == "last epoch":
        return "vpt-vtab" if is_vtab else "vpt-fgvc"
    return "tcpa-hta" if row["selection"] == "best test epoch" and not is_vtab else ""


def _is_ours(method: str) -> bool:
    chain = re.split(r"\+", method.partition(" ")[0])
    return set(chain) <= {*plugins.names("tcpa_core.methods")}


def _read(text: str) -> object:
    if text.isdigit():
        return int(text)
    return {"true": True, "false": False}.get(text, text)


def _cell(rows: pd.DataFrame) -> PublishedCell:
    row = rows.iloc[0]
    known = {name: row[name] for name in ASPECTS if not pd.isna(row[name])}
    prompts = f" num_prompts={row['num_prompts']}" if "num_prompts" in known else ""
    values = zip(rows["metric"].map(FIELDS), rows["value"].astype(float), strict=True)
    return PublishedCell(
        protocol=row["claims"],
        method=f"{row['method']}{prompts}",
        dataset=row["dataset"],
        source=f"{row['source']} {row['table']}",
        values={str(name): float(value) for name, value in values},
        caveat=row["caveat"].removesuffix(NO_CLASSES),
        aspects={
            name: value if isinstance(value, str) else int(value) for name, value in known.items()
        },
    )
