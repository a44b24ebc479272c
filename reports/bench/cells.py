"""What the studies of one cell ended with: values by seed, cost, and what is missing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from reports.labels import is_missing, plural
from reports.statistics.published_comparison import Published, comparable
from reports.study_trials import StudyTrials
from reports.tables import frame_of, ranking
from reports.verdicts.words import searched_settings
from spaces.bench_cells import Cell
from spaces.confirmations import confirms, is_of
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record import files

SPLITS = ("test", "val")
"""Metrics of a bench, the one that its table shows first."""
ENDED = ("completed", "pruned", "failed")


@dataclass(frozen=True, slots=True)
class CellFound:
    """A cell with what its studies say."""

    cell: Cell
    missing: str = ""
    """Why it has no value, or not all of its seeds; "": it is whole."""
    score: str = ""
    """What its values are, in words: "accuracy"."""
    values: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """By split, the score by seed."""
    trials: Mapping[int, str] = field(default_factory=dict)
    """Behind them, by seed."""
    is_fresh: bool = False
    """Whether its seeds are those of a confirmation."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Columns of `cells` on its setting, size and cost."""
    searched: Sequence[float] = ()
    """Objective of each point of its search, of one stopped early what it had reached; () until the
    search has ended."""
    objective: tuple[str, int] = ("", 1)
    """By which the search selects, and 1 where larger is better, else -1."""
    prints: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of its data and weights."""
    published: tuple[Published, ...] = ()
    """What may stand beside it."""
    notes: tuple[str, ...] = ()


def look(cell: Cell, num_seeds: int = 0) -> CellFound:
    """Read the studies of a cell.

    Args:
        num_seeds: Fresh seeds that it is to have; 0: as many as its confirmation has.
    """
    search, why = _read(cell.study)
    if search is None:
        return CellFound(cell, why or "not started")
    confirmation, of_confirmation = None, ""
    if cell.confirmation is not None:
        confirmation, of_confirmation = _read(cell.confirmation)
    studies = [one for one in (search, confirmation) if one is not None]
    objective = search.study.objectives[0]
    found = CellFound(
        cell,
        about=_cost(studies),
        objective=(objective.metric, objective.sign),
        prints=dict(search.study.document.get("fingerprints") or {}),
        notes=tuple(search.study.data_notes()),
    )
    if not _is_finished(search):
        return replace(found, missing=_running("search", search))
    found = replace(found, searched=_points(search))
    if cell.confirmation is not None:
        why = _unconfirmed(search, confirmation, of_confirmation)
        if why:
            return replace(found, missing=why)
    return _with_values(found, confirmation or search, num_seeds)


def _with_values(found: CellFound, source: StudyTrials, num_seeds: int) -> CellFound:
    """The cell with the values of what its last study selected."""
    selected = ranking(source.trials, source.study).selected
    if selected is None:
        return replace(found, missing="no trial has completed")
    used = source.trials[source.trials["left_out"] == ""]
    rows = used[used["point"].fillna(used["trial"]) == selected.point]
    rows = rows.assign(seed=rows["seed"].fillna(0).astype(int)).drop_duplicates("seed")
    score = source.study.score
    values = {"test": _by_seed(rows, score.test), "val": _by_seed(rows, score.val)}
    is_fresh = found.cell.confirmation is not None
    lacks = [_lacks(source, rows, num_seeds if is_fresh else 0)]
    lacks += [] if values["test"] else ["its test split was not read"]
    published, held_back = comparable(rows, frame_of(source.epochs)) if values["test"] else ((), [])
    return replace(
        found,
        missing="; ".join(filter(None, lacks)),
        score=score.label,
        values=values,
        trials=dict(zip(rows["seed"].tolist(), rows["trial"], strict=True)),
        is_fresh=is_fresh,
        about={**found.about, **_size(rows), "setting": _setting(source, rows)},
        published=tuple(published),
        notes=(*found.notes, *held_back),
    )


def _read(folder: Path) -> tuple[StudyTrials | None, str]:
    """A study, or why there is none; "" where its folder is not there yet."""
    if not (folder / files.DESCRIPTION).is_file() or not (folder / files.JOURNAL).is_file():
        return None, ""
    try:
        return StudyTrials.of(folder), ""
    except (StudyError, RecordError) as err:
        return None, f"cannot be read: {err}"


def _is_finished(one: StudyTrials) -> bool:
    return one.course is not None and one.course.is_finished


def _running(what: str, one: StudyTrials) -> str:
    ended = int(one.trials["status"].isin(ENDED).sum())
    budget = one.study.space.get("budget") or {}
    of = f" of {budget['trials']}" if one.study.kind == "search" and budget.get("trials") else (
        f" of {len(one.trials)}")  # fmt: skip
    return f"{what} has not ended: {ended}{of} trials"


def _unconfirmed(search: StudyTrials, confirmation: StudyTrials | None, why: str) -> str:
    """What a cell lacks whose search has ended; "": its confirmation has, too."""
    if confirmation is None:
        if why:
            return f"its confirmation {why}"
        best = ranking(search.trials, search.study).selected
        if best is None:
            return "no trial of its search has completed"
        metric = search.study.objectives[0].metric
        return f"not confirmed on fresh seeds yet (search: {metric} {best.value:.4f}, optimistic)"
    document = confirmation.study.document
    if confirms(document) and not is_of(document, search.study.document):
        return f"{confirmation.study.name} confirms another search"
    return "" if _is_finished(confirmation) else _running("confirmation", confirmation)


def _lacks(source: StudyTrials, rows: pd.DataFrame, num_seeds: int) -> str:
    """Seeds that a cell was to have and has not."""
    trials, have = source.trials, set(rows["seed"])
    planned = trials[trials["point"] == rows.iloc[0]["point"]]
    lost = planned[~planned["seed"].isin(have)].drop_duplicates("seed")
    num = max(num_seeds, len(have) + len(lost))
    if num <= len(have):
        return ""
    reasons = [
        f"seed {row['seed']} {_told(row['reason']) or row['left_out']}"
        for row in lost.to_dict("records")
    ]
    return f"{len(have)} of {plural(num, 'seed')}" + (f": {'; '.join(reasons)}" if reasons else "")


def _told(reason: Any) -> str:
    return "" if is_missing(reason) else str(reason)


def _by_seed(rows: pd.DataFrame, column: str) -> dict[int, float]:
    if column not in rows:
        return {}
    found = zip(rows["seed"].tolist(), rows[column].astype(float), strict=True)
    return {int(seed): float(value) for seed, value in found if value == value}


def _points(search: StudyTrials) -> list[float]:
    """The objective of each point that was trained, a mean over its seeds."""
    metric, trials = search.study.objectives[0].metric, search.trials
    rows = trials[trials["status"].isin(["completed", "pruned"]) & trials[metric].notna()]
    means = rows.groupby(rows["point"].fillna(rows["trial"]), sort=False)[metric].mean()
    return [float(value) for value in means if abs(value) < float("inf")]


def _setting(source: StudyTrials, rows: pd.DataFrame) -> str:
    """The selected setting in words."""
    first = rows.iloc[0]
    if source.study.kind == "search":
        return searched_settings(source.trials, source.study)[first["trial"]]
    levels = [cell["level"] for cell in json.loads(first["cells"])]
    return levels[0] if levels else ""


def _size(rows: pd.DataFrame) -> dict[str, Any]:
    names = ("num_trainable", "num_trainable_no_head", "flops_per_image")
    found = {name: _mean(rows[name]) for name in names}
    deviations = dict.fromkeys(filter(None, rows["deviation"]))
    return {**found, "train_s": _mean(rows["duration_s"]), "deviation": "; ".join(deviations)}


def _mean(column: pd.Series) -> float | None:
    known = column.dropna().astype(float)
    return float(known.mean()) if len(known) else None


def _cost(studies: Sequence[StudyTrials]) -> dict[str, Any]:
    """What was trained for the cell so far; what another study had trained already is counted."""
    ended = pd.concat([one.trials[one.trials["status"].isin(ENDED)] for one in studies])
    source = ended.get("reused_from", pd.Series("", index=ended.index)).fillna("")
    trials = ended[source == ""]
    return {
        "reused": len(ended) - len(trials),
        "trials": len(trials),
        "epochs": int(trials["num_epochs"].fillna(0).sum()),
        "cost_s": float(trials["duration_s"].fillna(0).sum()),
        "gpu_s": float(trials["gpu_s"].fillna(0).sum()),
    }
