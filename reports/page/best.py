"""The best of each method, or the levels of a design, with bars; and what ended early."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from reports.frames import Frames
from reports.labels import Row, column_head, group_column, is_missing, on_val, p_text, plural
from reports.page.facts import NAMES
from reports.plots.base import GREY, styles_of
from reports.statistics.contest import OPEN
from reports.tables import last_epochs, ranking
from reports.verdicts.words import quantity, searched_settings, seeds_said
from spaces.wording import by_reason
from tcpa_core.record.scores import is_share

SAID = {"completed": "completed", "pruned": "stopped early", "failed": "failed",
        "running": "running", "planned": "waiting"}  # fmt: skip
"""A trial's status as people say it."""
ROWS = 24
"""Methods or levels that the first screen shows; the evidence has all."""
REASONS = 4
"""Reasons of failures that are told, the most frequent first."""


def best(found: Frames) -> dict[str, Any]:
    """Title, head of the value, and rows with a bar."""
    if found.study.kind == "ablation":
        title = "Rows" if found.study.compares_rows else "Levels"
        rows, head = _levels(found), f"mean {column_head(found.study.score.val)}"
    else:
        rows, metric = _methods(found), found.study.objectives[0].metric
        title = "Best of each method" if len(rows) > 1 else "Best setting"
        head = f"best {column_head(metric) if is_share(metric) else metric}"
    _add_bars(rows)
    return {
        "title": title,
        "head": head,
        "rows": rows[:ROWS],
        "more": max(0, len(rows) - ROWS),
        "has_differences": any(row["difference"] for row in rows),
        "has_hollow": any(row["note"] and row["value"] is not None for row in rows),
        "settings": _settings_head(found) if any(row["setting"] for row in rows) else "",
    }


def _settings_head(found: Frames) -> str:
    return "best setting" if found.study.kind == "search" else "in the search"


def _methods(found: Frames) -> list[dict[str, Any]]:
    """A row for each method that was searched, the best first, those without a value last."""
    study, trials = found.study, found.trials
    objective = study.objectives[0]
    shown, settings = quantity(objective.metric), searched_settings(trials, study)
    styles, groups = styles_of(found), group_column(trials)
    rows = []
    for name in dict.fromkeys([*styles, *groups.unique()]):
        part = trials[groups == name]
        trial, value, note, missing = _best_of(found, part)
        counts = Counter(part["status"])
        lost = [
            f"{counts[s]} {SAID[s].split()[0]}" for s in ("failed", "pruned", *OPEN) if counts[s]
        ]
        lost += [f"the best lacks {seeds_said(missing)}"] if missing else []
        rows.append({
            "name": name or "all trials",
            "setting": _without(settings.get(trial, ""), name),
            "trial": trial,
            "note": note,
            "trials": f"{len(part)} ({counts['completed']})",
            "lost": ", ".join(lost),
            "num_missing": len(missing),
            "value": value,
            "text": "–" if value is None else shown.value(value),
            "difference": "",
            "params": _params(trials[trials["trial"] == trial]),
            "colour": styles.get(name, (GREY, "o"))[0],
        })  # fmt: skip
    return sorted(rows, key=lambda row: _place(row, objective.sign))


def _place(row: Row, sign: int) -> tuple[bool, bool, int, float, str]:
    """What has no value is last; what lacks seeds is behind, and of equal values the first one
    leads, as where a setting is selected."""
    value = row["value"]
    worth = round(sign * (value or 0), 12)  # equal means of other seeds differ in their last bits
    return value is None, bool(row["note"]), row["num_missing"], -worth, row["trial"]


def _best_of(found: Frames, part: pd.DataFrame) -> tuple[str, float | None, str, tuple[int, ...]]:
    """Trial, value, note and missing seeds of a method's best setting; what was stopped counts
    where none completed."""
    chosen = ranking(part, found.study).selected
    if chosen is not None:
        return chosen.trials[0], chosen.value, "", chosen.missing
    objective = found.study.objectives[0]
    stopped = part[(part["status"] == "pruned") & part[objective.metric].notna()]
    if stopped.empty:
        return "", None, "no value" if len(part) else "no trial yet", ()
    worth = objective.sign * stopped[objective.metric].astype(float)
    place = int(worth.to_numpy().argmax())
    row, at = stopped.iloc[place], last_epochs(stopped).iloc[place]
    note = "stopped early" if is_missing(at) else f"stopped at epoch {int(at)}"
    return str(row["trial"]), float(row[objective.metric]), note, ()


def _without(setting: str, method: str) -> str:
    """A setting without the method's name, which stands beside it."""
    return setting.removeprefix(method).removeprefix(", ") if method else setting


def _params(trials: pd.DataFrame) -> str:
    """Trainable parameters, where all of these trials have the same."""
    known = {int(v) for v in trials["num_trainable"].dropna() if v}
    return f"{known.pop():,}" if len(known) == 1 else ""


def _levels(found: Frames) -> list[dict[str, Any]]:
    """A row for each level of a design: its mean on val, and the difference to the baseline."""
    shown, study, styles = quantity(found.study.score.val), found.study, styles_of(found)
    trials, before = found.trials, _in_the_search(found)
    levels = on_val(found.ablation)
    several = levels.groupby(["factor", "dataset"], sort=False).ngroups > 1
    rows = []
    for row in levels.to_dict("records"):
        of_row = trials[trials["trial"].isin(json.loads(row["trials"]))]
        groups = set(group_column(of_row)) if several else {str(row["level"])}
        colours = {styles.get(name, (GREY, "o"))[0] for name in groups}
        values = [] if not row["n"] else [row["mean"]]
        name = str(row["level"])
        rows.append({
            "name": _level_name(row, several),
            "setting": before.get(name, ""),
            "trial": "",
            "note": "",
            "trials": str(row["n"]),
            "lost": _lacks(row, study.races),
            "value": row["mean"] if row["n"] else None,
            "text": shown.mean(values, *_ends(row)) if values else "–",
            "difference": _difference(row, study.races),
            "params": _params(of_row),
            "colour": colours.pop() if len(colours) == 1 else GREY,
        })  # fmt: skip
    return rows


def _lacks(row: Row, races: bool) -> str:
    """Which seeds a level lacks; a race gives rows that are clearly worse no further ones."""
    missing = str(row["missing"])
    if races and all("(not planned)" in part for part in missing.split(";")):
        return f"no more seeds than {row['n']}"
    return f"lacks {missing}" if missing else ""


def _level_name(row: Row, several: bool) -> str:
    name = f"{row['factor']} = {row['level']}" if several else str(row["level"])
    return f"{name} on {row['dataset']}" if row["dataset"] else name


def _ends(row: Row) -> tuple[float | None, float | None]:
    """The interval of a level's mean."""
    return (None, None) if is_missing(row["low"]) else (row["low"], row["high"])


def _in_the_search(found: Frames) -> dict[str, str]:
    """What the search saw of each row of its confirmation."""
    shown = quantity(found.study.objectives[0].metric)
    values = found.study.confirms.get("values") or {}
    return {found.study.row_names.get(row, row): shown.value(value)
            for row, value in values.items()}  # fmt: skip


def _difference(row: Row, races: bool) -> str:
    """Difference to the baseline and p after Holm; rows of a race have a verdict instead."""
    if row["is_baseline"]:
        return "baseline"
    if is_missing(row["diff"]):
        return ""
    shown = quantity(row["metric"]).difference(row["diff"]).removesuffix(" points")
    p = row["p_holm"]
    if races:
        return shown
    return f"{shown}, {'not tested' if is_missing(p) else 'p ' + _equals(p_text(p))}"


def _equals(p: str) -> str:
    return f"< {p[1:]}" if p.startswith("<") else f"= {p}"


def _add_bars(rows: Sequence[dict[str, Any]]) -> None:
    """Lengths of the bars in percent of the longest; shares begin at 0."""
    values = [abs(row["value"]) for row in rows if row["value"] is not None]
    longest = max(values, default=0.0)
    for row in rows:
        known = row["value"] is not None and longest
        row["bar"] = f"{100 * abs(row['value']) / longest:.1f}" if known else "0"


def ended(found: Frames) -> list[str]:
    """Sentences on what failed and what was stopped, by reason."""
    trials = found.trials
    return [*_failed(trials), *_stopped(trials, found)]


def _failed(trials: pd.DataFrame) -> Iterator[str]:
    failed = trials[trials["status"] == "failed"]
    if failed.empty:
        yield "No trial failed."
        return
    reasons = by_reason(zip(failed["trial"], failed["reason"].fillna(""), strict=True))
    for reason, names in reasons[:REASONS]:
        yield f"{plural(len(names), 'trial')} failed: {reason.rstrip('.')}."
    rest = len(reasons) - REASONS
    if rest > 0:
        yield f"{plural(rest, 'further reason')} of failures: see the trials."


def _stopped(trials: pd.DataFrame, found: Frames) -> Iterator[str]:
    stopped = trials[trials["status"] == "pruned"]
    if stopped.empty:
        return
    scheduler = str((found.study.space.get("scheduler") or {}).get("name") or "")
    who = NAMES.get(scheduler, scheduler) if scheduler not in ("", "none") else "The study"
    who = who[0].upper() + who[1:]
    epochs = Counter(int(n) for n in last_epochs(stopped).dropna())
    after = ", ".join(f"{n} after epoch {at}" for at, n in sorted(epochs.items())[:6])
    more = ", others later" if len(epochs) > 6 else ""
    yield f"{who} stopped {len(stopped)}{': ' + after + more if after else ''}."
