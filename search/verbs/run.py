"""Run a study with what a user wants around it: progress, MLflow mirror, what comes next."""

from collections.abc import Callable
from pathlib import Path
from shlex import quote

from rich.console import Console

from search.driver.driver import StudyOutcome, run_study
from search.driver.placement import Placement
from search.driver.recorder import Listener
from search.exit_codes import DONE, FAILURES, STOPPED
from search.proposals.samplers.base import check_sampler
from search.study.earlier import earlier_of
from search.study.folder import StudyDir
from search.study.identity import Change, accept_change
from search.study.reuse_roots import Given
from search.terminal import drop_lost_output
from search.tracking.mirror import Mirror, check_tracker, tracking_of
from search.verbs.progress import Watch
from spaces.sections import Cluster
from tcpa_core.record.events import Event

CLOSE_S = 60.0
"""How long a finished study waits for a tracker that takes nothing."""
HURRY_S = 2.0
"""The same after a fault or a signal: a preempted job is often given 30 s in all."""


def run_and_watch(
    study: StudyDir,
    root: Path,
    console: Console,
    *,
    placement: Placement | None = None,
    tracking_uri: str | None = None,
    change: Change | None = None,
    cluster: Cluster | None = None,
    reuse: Given = None,
) -> int:
    """Run what is left of a study and show it.

    Args:
        placement: Where trials run.
        change: Other data or weights than were recorded, with which the user goes on.
        cluster: What the study asks of a cluster; None: what it asked for when it was made.
        reuse: From which folders it takes what earlier studies have completed, as of `earlier_of`.

    Returns:
        The exit code: 0 done, 1 with failed trials or without a test score, 3 stopped early.
    """
    outcome = run_watched(
        study,
        root,
        console,
        placement=placement,
        tracking_uri=tracking_uri,
        change=change,
        cluster=cluster,
        reuse=reuse,
    )
    return sum_up(study, root, outcome, console)


def sum_up(study: StudyDir, root: Path, outcome: StudyOutcome, console: Console) -> int:
    """Say how a run ended and what comes next; the exit code as of `run_and_watch`."""
    drop_lost_output()
    counts = ", ".join(f"{n} {status}" for status, n in sorted(outcome.counts.items()))
    ended = f"trials {counts}" if counts else "no trial has ended"
    if outcome.num_reused:
        ended += f" ({outcome.num_reused} of them reused from earlier studies)"
    console.print(f"{study.name}: {ended}; {outcome.reason}.", markup=False)
    shown = _quoted_root(study, root)
    if not outcome.finished:
        console.print(
            f"Continue with: tcpa resume {study.name} --root {shown}",
            markup=False,
            soft_wrap=True,
        )
        return STOPPED
    if outcome.without_score:
        missing = ", ".join(outcome.without_score)
        console.print(
            f"Without a test score: {missing}. Correct what the notice says, then: "
            f"tcpa resume {study.name} --root {shown}",
            markup=False,
        )
    console.print(f"Report: tcpa report {study.name} --root {shown}", markup=False, soft_wrap=True)
    return FAILURES if outcome.counts.get("failed") or outcome.without_score else DONE


def run_watched(
    study: StudyDir,
    root: Path,
    console: Console,
    *,
    placement: Placement | None = None,
    tracking_uri: str | None = None,
    change: Change | None = None,
    cluster: Cluster | None = None,
    reuse: Given = None,
    show: Callable[..., Watch] = Watch,
) -> StudyOutcome:
    """Run what is left of a study with a live table and the MLflow mirror.

    Args:
        show: What a user sees of it; the others as of `run_and_watch`.
    """
    space = study.space()
    if cluster is not None:
        space = space.replaced(cluster=cluster)
    check_sampler(space.sampler)
    # Before the driver starts: a trial trained on other data must not lack the record of it.
    if change:
        accept_change(study, change)
    earlier, gone = earlier_of(study, space, reuse)
    uri, artifacts = tracking_of(study, root, tracking_uri)
    check_tracker(uri)  # the mirror makes a new local database while Ray starts
    total = len(space.design()) if space.ablation else study.outline().total
    again = f"tcpa resume {study.name} --root {_quoted_root(study, root)}"
    with show(study.name, space, total, console, again=again) as watch:
        watch.recall(study.events())  # first: of a damaged journal nothing is locked or mirrored
        # One driver until all is mirrored: two mirrors would write runs twice.
        with study.held():
            mirror = Mirror(
                study.path, uri, artifact_root=artifacts, warn=watch.say, verdict=_verdict
            )
            patience_s = HURRY_S
            try:
                outcome = run_study(
                    space,
                    study,
                    placement=placement,
                    listeners=[_shown_by(watch), mirror.put],
                    notices=[*([f"{change}; accepted."] if change else []), *gone],
                    on_signal=watch.stop,
                    earlier=earlier,
                )
                # Only an orderly end waits for a slow tracker: after a fault time is short.
                patience_s = CLOSE_S if outcome.finished else HURRY_S
            finally:
                _close(mirror, patience_s, study.name, root, console)
    return outcome


def _quoted_root(study: StudyDir, root: Path) -> str:
    """What stands behind `--root` in a command."""
    storage = f" --storage {quote(study.storage)}" if study.storage else ""
    return quote(str(root)) + storage


def _verdict(study: Path) -> str:
    """What a finished study says, for MLflow."""
    # Statistics take seconds to load: once a study is finished, not before it begins.
    from search.verbs.verdict import verdict_text

    return verdict_text(study)


def _shown_by(watch: Watch) -> Listener:
    """A listener that shows events as long as somebody can see them."""

    def show(event: Event) -> None:
        try:
            watch(event)
        except OSError:  # of a closed terminal
            drop_lost_output()

    return show


def _close(mirror: Mirror, patience_s: float, study: str, root: Path, console: Console) -> None:
    """Let the mirror write what is left; say what it lacks, also if a signal ends the wait."""
    is_whole = False
    try:
        is_whole = mirror.close(patience_s)
    finally:
        if not is_whole:
            console.print(
                f"MLflow lacks {mirror.lacking()}; complete it with: "
                f"tcpa sync {study} --root {quote(str(root))}",
                markup=False,
                soft_wrap=True,
            )
