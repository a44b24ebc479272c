"""What `tcpa status`, `tcpa list` and `tcpa plan` print with --json: docs/watching.md has the keys.

Keys are never renamed or removed, only added. A number is a number, in the units of its name; what
is not known is null.
"""

import json
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search.verbs.look import Look
from search.verbs.overview import looks
from search.verbs.standing import OpenTrial, View
from spaces.selection import Standing
from tcpa_core.record.scores import fields_of

SCHEMA = 1
"""Of all documents; raised when a key changes its meaning."""
Json = dict[str, Any]


def print_document(document: Mapping[str, Any]) -> None:
    """Print it to stdout, alone; a number that is not finite is null, as JSON has none."""
    text = json.dumps(_finite(document), indent=2, ensure_ascii=True, allow_nan=False)
    sys.stdout.write(f"{text}\n")


def status_document(look: Look) -> Json:
    """`tcpa status --json`."""
    view, state = look.view, look.view.state
    confirmation = look.confirmation()
    waiting = state.waiting.text if state.waiting and look.driver else None
    return {
        "schema": SCHEMA,
        **_of_study(look, with_params=True),
        "driver": look.driver
        and {"host": look.driver.host, "pid": look.driver.pid, "since": look.driver.since},
        "waiting_for": waiting,
        "epochs": {"trained": view.pace.epochs, "left": view.pace.epochs_left},
        "elapsed_s": view.elapsed_s,
        "epochs_per_hour": view.pace.epochs_per_h,
        "left_s": view.pace.left_s,
        "note": view.results.ranking().note or None,
        "leading": _leading(view),
        "open_trials": [_open(view, one) for one in view.open],
        "failures": [
            {"reason": one.text, "count": len(one.trials), "trials": list(one.trials)}
            for one in view.failures
        ],
        "reused": [{"study": name, "count": n} for name, n in view.reused.items()],
        "stopped_early": [{"epoch": e, "count": n} for e, n in view.stopped_at.items()],
        "confirmed_by": confirmation
        and {"study": confirmation.study.name, "state": confirmation.phase},
        "next": list(look.next_commands(confirmation)),
    }


def list_document(root: Path, storage: str | None = None) -> Json:
    """`tcpa list --json`.

    Raises:
        StudyError: There is no such folder.
    """
    studies = [
        {"study": name, "error": found} if isinstance(found, str) else _of_study(found)
        for name, found in looks(root, storage)
    ]
    return {"schema": SCHEMA, "root": str(root), "storage": storage, "studies": studies}


def _of_study(look: Look, *, with_params: bool = False) -> Json:
    view, state = look.view, look.view.state
    names = ("completed", "pruned", "failed", "running", "interrupted", "waiting")
    last = state.last
    return {
        "study": look.study.name,
        "error": None,
        "folder": str(look.study.path),
        "storage": look.study.storage,
        "kind": look.kind,
        "state": look.phase,
        "trials": {
            "total": view.total,
            "ended": view.num_ended,
            **{name: view.counts.get(name, 0) for name in names},
        },
        "objective": {"metric": view.outline.metric, "goal": view.outline.objective[0].goal},
        "best": _best(view, with_params),
        "last_event": last and {"kind": last.kind, "time": _time(last.t)},
    }


def _best(view: View, with_params: bool) -> Json | None:
    best = view.selected
    if best is None:
        return None
    planned = view.state.trials[best.trials[0]].planned
    return {
        "value": best.value,
        **{
            name: _on_test(view, best, name)
            for name in fields_of(view.outline.score)
            if name.startswith("test_")
        },
        "trials": list(best.trials),
        "seeds": list(best.seeds),
        "missing_seeds": list(best.missing),
        "settings": view.settings(planned),
        **({"params": dict(planned.params)} if with_params else {}),
    }


def _on_test(view: View, best: Standing, name: str) -> float | None:
    """Mean over the trials that have the number."""
    found = (view.state.trials[trial].on_test(name) for trial in best.trials)
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def _leading(view: View) -> Json | None:
    peak = view.leading
    if peak is None:
        return None
    settings = view.settings(peak.state.planned)
    return {"value": peak.value, "trial": peak.name, "epoch": peak.epoch, "settings": settings}


def _open(view: View, one: OpenTrial) -> Json:
    report, started = one.state.report, one.state.started
    return {
        "trial": one.name,
        "epoch": one.state.epoch,
        "epochs": one.state.epochs,
        "train_loss": report.train_loss if report else None,
        "val_loss": report.val_loss if report else None,
        **{
            name: getattr(report, name, None)
            for name in fields_of(view.outline.score)
            if name.startswith("val_")
        },
        "device": one.device or None,
        "host": one.host or None,
        "since": _time(started.t) if started else None,
        "seed": one.state.planned.seed,
        "settings": view.settings(one.state.planned),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
