"""Pareto fronts: what nothing cheaper is at least as good as."""

from typing import Any

import numpy as np
import pandas as pd


def on_front(cost: pd.Series, worth: pd.Series) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """True where nothing is cheaper and worth at least as much; of equal points the first.

    Args:
        cost: Smaller is better; without one a point is on no front.
        worth: Larger is better.
    """
    gain: np.ndarray[Any, Any] = worth.to_numpy(float)
    order = np.lexsort((-gain, cost.to_numpy(float)))
    best = np.maximum.accumulate(gain[order]) if len(gain) else gain
    is_first = np.r_[True, best[1:] > best[:-1]] if len(gain) else np.zeros(0, bool)
    front = np.zeros(len(gain), dtype=bool)
    front[order] = is_first & np.isfinite(cost.to_numpy(float)[order])
    return front
