"""What a study that runs says in single lines: in a log, and above the live view."""

from search.verbs.live_view import left_text, peak_text, rate_text
from search.verbs.standing import View, counts_text, reused_text
from tcpa_core.record.events import Ended

SHOWN = 5
"""Open trials that a line names."""


def ended_line(view: View, event: Ended) -> str:
    """ "trial 00003 completed val_accuracy 0.8213 (vpt, lr 0.012)"."""
    result, metric = event.result, view.outline.metric
    value = getattr(result, metric, None)
    shown = "" if value is None else f" {metric} {value:.4f}"
    planned = view.state.trials[event.trial].planned
    last = planned.begins_after + (result.num_epochs or 0)
    epochs = f" after epoch {last}" if event.kind == "pruned" else ""
    settings = view.settings_text(planned)
    told = f" ({settings})" if settings else ""
    reused = view.state.trials[event.trial].reused
    told += f", reused from {reused.text}" if reused else ""
    told += f", begun from {planned.parent.trial}" if planned.parent else ""
    reason = f": {result.reason}" if result.reason else ""
    return f"trial {event.trial} {event.kind}{epochs}{shown}{told}{reason}"


def progress_line(view: View) -> str:
    """Counts, the best so far, rate and time left."""
    parts = [_ended(view), f"best {view.best_text()}"]
    if peak := view.leading:
        parts.append(f"leading {peak_text(view, peak)}")
    parts += filter(None, (rate_text(view.pace), left_text(view.pace)))
    return "; ".join(parts)


def recalled_line(study: str, view: View) -> str:
    """What earlier drivers have left."""
    best = f"; best {view.best_text()}" if view.selected else ""
    return f"{study} goes on: {_ended(view)}{best}"


def stop_line(reason: str, view: View, again: str) -> str:
    """What a signal does, and how to go on.

    Args:
        reason: "interrupted by SIGINT".
        again: The command that goes on with the study.
    """
    second = ""
    if reason.endswith("SIGINT"):
        second = "; Ctrl-C again ends at once"
    elif reason.endswith("SIGTERM"):
        second = "; another SIGTERM ends at once"
    left = view.num_left
    go_on = "1 trial goes on" if left == 1 else f"{left} trials go on"
    return f"{reason}: stopping at the next epoch boundary{second}. {go_on} later with: {again}"


def closing_lines(view: View) -> list[str]:
    """Why trials failed, and which ones are open."""
    lines = [f"failed: {reason}" for reason in view.failures]
    if view.open:
        names = [f"{one.name} at epoch {one.epochs_text}" for one in view.open[:SHOWN]]
        rest = len(view.open) - SHOWN
        lines.append(f"open: {', '.join(names)}{f' and {rest} more' if rest > 0 else ''}")
    return lines


def _ended(view: View) -> str:
    of = f" of {view.total}" if view.total else ""
    reused = f"; {reused_text(view)}" if view.reused else ""
    return (
        f"{view.num_ended}{of} trials ended ({counts_text(view.counts) or 'none planned'}{reused})"
    )
