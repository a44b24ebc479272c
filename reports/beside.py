"""Published numbers that may stand beside ours: same data set and same way to select the epoch."""

from reports.cross import dataset_of
from reports.frames import Frames
from reports.reference import load_reference
from reports.text import Reference

PROTOCOLS = {"best_val": "best val epoch", "last_epoch": "last epoch",
             "best_test_epoch": "best test epoch"}  # fmt: skip
"""Our `train.selection` in the words of reference.csv."""


def references_for(found: Frames) -> tuple[tuple[Reference, ...], list[str]]:
    """Published accuracies for a study of one data set, and sentences on those kept back."""
    used = found.used
    datasets = set(dataset_of(used))
    if len(datasets) != 1 or "train.selection" not in used:
        return (), []
    dataset = str(datasets.pop())
    frame = load_reference()
    same = frame[(frame["metric"] == "accuracy") & (frame["dataset"] == dataset)]
    protocols = {PROTOCOLS.get(str(one), str(one)) for one in used["train.selection"].unique()}
    fits = same["protocol"].isin(protocols) if len(protocols) == 1 else same["protocol"] == ""
    notes = []
    if len(same) and not fits.all():
        notes.append(
            f"{int((~fits).sum())} published numbers for {dataset} are not shown beside ours: "
            f"they select the epoch otherwise ({', '.join(sorted(set(same['protocol'][~fits])))})."
        )
    rows = same[fits].to_dict("records")
    return tuple(
        Reference(r["method"], f"{r['source']} {r['table']}", r["value"], r["caveat"]) for r in rows
    ), notes
