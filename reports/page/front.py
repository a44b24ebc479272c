"""What the first screen says: who leads, and what a reader must know with it."""

from collections.abc import Sequence
from typing import Any

from reports.draw import Drawn
from reports.frames import Frames


def front(found: Frames, drawn: Sequence[Drawn]) -> dict[str, Any]:
    """What front.html.j2 shows, beside the summary."""
    return {
        "overall": overall(found),
        "sentences": [one.sentence for one in drawn if not one.path and one.sentence],
        "num_used": len(found.used),
    }


def overall(found: Frames) -> list[dict[str, Any]]:
    """Per factor the level with the highest mean accuracy on val over all data sets."""
    ranks = found.ranks[found.ranks["metric"] == "val_accuracy"]
    best = []
    for factor, rows in ranks.groupby("factor", sort=False):
        top = max(rows.to_dict("records"), key=lambda row: row["mean"])
        best.append({"factor": factor, "level": top["level"], "n": top["n"], "levels": len(rows),
                     "mean": f"{100 * top['mean']:.2f}", "rank": top["mean_rank"]})  # fmt: skip
    return best
