"""Names and numbers as short text, for statistics, figures and the page alike."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

Row = Mapping[Any, Any]
"""One row of a frame, by column."""
NewRow = dict[str, Any]
"""A row that becomes one of a table, by column."""


def is_missing(value: object) -> bool:
    """Whether a cell of a frame has no value: None, NaN or pandas' NA."""
    # pandas' NA first: its comparison is NA again, which has no truth value
    return value is None or value is pd.NA or value != value


def methods_label(value: object) -> str:
    """'["vpt"]' as "vpt", '["vfpt", "tcpa"]' as "vfpt + tcpa"; another value as it is."""
    if is_missing(value):
        return ""
    text = str(value)
    if not text.startswith("["):
        return text
    return " + ".join(part.strip(" '\"") for part in text.strip("[]").split(","))


def method_column(trials: pd.DataFrame) -> pd.Series:
    """'vpt' or 'vfpt + tcpa' of each trial."""
    if "methods" not in trials:
        return pd.Series("", index=trials.index)
    # A study of thousands of trials has a handful of chains: each is parsed once.
    names = {value: methods_label(value) for value in trials["methods"].unique()}
    return trials["methods"].map(names)


def heading(factor: str, dataset: str) -> str:
    """Name of a table: the factor, and the data set where there are several."""
    return f"{factor} on {dataset}" if dataset else factor


def pair_name(row: Row, *, with_levels: bool) -> str:
    """Name of an interaction: 'a × b', or with their levels 'a=1 × b=2'."""
    names = [row["factor"], row["other"]]
    if with_levels:
        names = [f"{n}={v}" for n, v in zip(names, (row["level"], row["other_level"]), strict=True)]
    return " × ".join(names)


def number(value: object) -> str:
    """Any cell as short text; missing values as nothing."""
    if is_missing(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
