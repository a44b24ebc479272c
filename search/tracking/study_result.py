"""What a study has come to, as values of its own run in MLflow; no client is called."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.tracking.run_values import MAX_TAG, MAX_VALUE
from spaces.selection import Results, Standing
from spaces.wording import setting_text
from tcpa_core.record import mirror_schema as mirror
from tcpa_core.record.events import FINAL_KINDS
from tcpa_core.record.scores import fields_of
from tcpa_core.record.state import StudyState


def metrics_of_study(state: StudyState, results: Results | None) -> dict[str, float]:
    """Numbers of a study by metric: of its selected point, its counts and its cost.

    Those of the selected point are means over its seeds, under the names that trials have, so that
    its run stands in the same columns.
    """
    ended = [one.result for one in state.trials.values() if one.result is not None]
    here = [one.result for one in state.trials.values() if one.result and one.reused is None]
    counts = state.counts()
    peaks = [result.peak_memory_bytes for result in ended if result.peak_memory_bytes]
    return {
        **{f"num_{kind}": float(counts.get(kind, 0)) for kind in FINAL_KINDS},
        "num_trials": float(len(state.trials)),
        "wall_hours": state.spent.hours(),
        "device_hours": math.fsum(result.duration_s or 0.0 for result in here) / 3600,
        **({"num_reused": float(reused)} if (reused := len(state.reused())) else {}),
        **({"peak_memory_bytes": float(max(peaks))} if peaks else {}),
        **_selected_metrics(state, _selected(results)),
    }


def _selected_metrics(state: StudyState, selected: Standing | None) -> dict[str, float]:
    trials = [state.trials[name] for name in selected.trials] if selected else []
    shares = fields_of(trials[0].score) if trials else ()
    names = (*shares, "val_loss", "num_trainable", "best_epoch")
    columns = {
        name: [one.on_test(name) if name.startswith("test_") else one.value(name) for one in trials]
        for name in names
    }
    return {name: math.fsum(values) / len(values) for name, values in _whole(columns)}


def _whole(columns: Mapping[str, Sequence[float | None]]) -> list[tuple[str, list[float]]]:
    """Columns in which every trial has a finite number."""
    found = []
    for name, values in columns.items():
        numbers = [v for v in values if v is not None and math.isfinite(v)]
        if numbers and len(numbers) == len(values):
            found.append((name, numbers))
    return found


def settings_of_selected(results: Results | None, searched: Sequence[str]) -> dict[str, Any]:
    """What was searched, as the selected point has it, by dotted path; {}: nothing is selected."""
    selected = _selected(results)
    if results is None or selected is None:
        return {}
    params = results.state.trials[selected.trials[0]].planned.params
    return {path: params[path] for path in searched if path in params}


def tags_of_study(
    state: StudyState, results: Results | None, settings: Mapping[str, Any]
) -> dict[str, str]:
    """What is said of a study in words."""
    tags = {mirror.STATE: state.phase}
    selected = _selected(results)
    if results is not None and selected is not None:
        found = f"{results.objective.metric} {selected.text()}"
        tags |= {mirror.SELECTED: ", ".join(selected.trials), mirror.SELECTED_VALUE: found}
        tags |= {mirror.BEST + path: str(value) for path, value in settings.items()}
    return {key: value[:MAX_TAG] for key, value in tags.items()}


def note_of_study(
    state: StudyState, results: Results | None, settings: Mapping[str, Any], verdict: str
) -> str:
    """What MLflow shows as the description of a run.

    Args:
        verdict: In plain sentences; "": there is none.
    """
    lines = [verdict] if verdict else []
    selected = _selected(results)
    if results is not None and selected is not None and not verdict:
        shown = setting_text(settings)
        lines.append(f"Selected: {results.objective.metric} {selected.text(shown)}")
    counts = state.counts()
    told = ", ".join(f"{counts[kind]} {kind}" for kind in FINAL_KINDS if counts.get(kind))
    if reused := len(state.reused()):
        told += f"; {reused} reused from earlier studies"
    hours = state.spent.hours()
    time = f"{60 * hours:.1f} min" if hours < 2 else f"{hours:.1f} h"
    lines.append(f"{len(state.trials)} trials ({told or 'none has ended'}) in {time}.")
    failed = [(n, t.result.reason) for n, t in state.trials.items() if t.result and t.result.reason
              and t.result.status == "failed"]  # fmt: skip
    if failed:
        lines.append(f"Failed: trial {failed[0][0]} ({failed[0][1]})"
                     + f" and {len(failed) - 1} more." * (len(failed) > 1))  # fmt: skip
    return "\n\n".join(lines)[:MAX_VALUE]


def _selected(results: Results | None) -> Standing | None:
    return results.ranking().selected if results else None
