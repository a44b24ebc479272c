"""Run a stored trial again and say whether its numbers come out again."""

from collections.abc import Mapping
from contextlib import suppress

from rich.console import Console

from search.study.folder import StudyDir
from search.study.identity import check_unchanged
from search.verbs.stages import Stages
from search.verbs.trained import trial_called
from tcpa_core.config import begun_from
from tcpa_core.errors import StudyError
from tcpa_core.record.events import Epoch, Planned, TrialEvent
from tcpa_core.record.scores import Score, score_of
from tcpa_core.record.values import EpochReport
from tcpa_core.training.run_trial import run_trial

TOLERANCE = 1e-4
"""Relative difference of losses that other hardware or libraries may cause."""

_COMPARED = ("train_loss", "val_loss", "val_accuracy", "val_miou", "val_mean_accuracy")


def replay(
    study: StudyDir,
    trial: str,
    console: Console,
    *,
    device: str | None = None,
    accept: bool = False,
) -> int:
    """Train a trial from its stored settings, outside the study, and compare every epoch.

    One that began from another's state is trained from the seed of its line, through the settings
    of those before it.

    Args:
        accept: Go on with other data or weights than were recorded.

    Returns:
        0 when all numbers agree, 1 when they do not.

    Raises:
        StudyError: The study has no such trial, or it has trained no epoch, or its data or weights
            have changed.
    """
    planned, epochs = stored(study, trial)
    line = study.state().ancestors(planned.trial)
    for before, epoch in reversed(line):
        known = stored(study, before.trial)[1]
        epochs |= {n: report for n, report in known.items() if n <= epoch and n not in epochs}
    if line:
        names = ", ".join(f"{before.trial} up to epoch {epoch}" for before, epoch in line)
        console.print(f"the line of the trial from its seed: {names}, then itself.", markup=False)
    with Stages("checking weights and data") as stages:
        trained = [*(before.config for before, _ in line), planned.config]
        change = check_unchanged(study, accept=accept, trials=trained, progress=stages)
    if change:
        console.print(f"{change}; accepted.", markup=False, soft_wrap=True)
    found = _Comparison(epochs, score_of(planned.params), console)
    # `recorded`: read as when it was planned, without what is asked of new trials since.
    with suppress(LastEpochReached):
        run_trial(
            planned.config,
            on_epoch=found.compare,
            device=device,
            recorded=True,
            ancestors=[(before.config, epoch) for before, epoch in line],
        )
    if found.exact:
        console.print("all numbers agree bit for bit.")
        return 0
    agrees = found.worst <= TOLERANCE
    verdict = "agree within" if agrees else "DIFFER by more than"
    console.print(
        f"numbers {verdict} {TOLERANCE:g}: largest relative difference {found.worst:.1e}."
    )
    if not agrees and _is_of_another_version(study, planned):
        console.print(
            "The trial was planned by a version of TCPA Search that gives other numbers to the "
            "same settings; CHANGELOG.md says since when and why.",
            soft_wrap=True,
        )
    return 0 if agrees else 1


def _is_of_another_version(study: StudyDir, planned: Planned) -> bool:
    """Whether this version would plan the trial under another digest."""
    ids = study.fingerprints()
    today = planned.config.digest(ids["data"], ids["weights"])
    if parent := planned.parent:
        source = study.state().trials[parent.trial].planned
        today = begun_from(today, source.digest, parent.epoch)
    return today != planned.digest


class _Comparison:
    """Numbers of a run beside the stored ones, epoch by epoch."""

    def __init__(self, stored: Mapping[int, EpochReport], score: Score, console: Console) -> None:
        self._stored = stored
        self._score = score
        self._console = console
        self.exact = True
        self.worst = 0.0

    def compare(self, report: EpochReport) -> None:
        """Take one epoch's numbers."""
        known = self._stored.get(report.epoch)
        if known is not None:
            for name in _COMPARED:
                old, new = getattr(known, name), getattr(report, name)
                if old is None:  # not measured: of another task, or by an older version
                    continue
                self.exact = self.exact and old == new
                self.worst = max(self.worst, abs(old - new) / max(abs(old), 1e-12))
            of_task = self._score.val
            self._console.print(
                f"epoch {report.epoch}: val {self._score.label} {getattr(report, of_task):.4f}, "
                f"stored {getattr(known, of_task):.4f}",
                markup=False,
            )
        if report.epoch >= max(self._stored):
            raise LastEpochReached


def stored(study: StudyDir, trial: str) -> tuple[Planned, dict[int, EpochReport]]:
    """A trial and its epochs from the journal.

    Raises:
        StudyError: The study has no such trial, or it has trained no epoch.
    """
    trial = trial_called(study, trial)
    mine = [e for e in study.events() if isinstance(e, TrialEvent) and e.trial == trial]
    planned = next((event for event in mine if isinstance(event, Planned)), None)
    epochs = {event.report.epoch: event.report for event in mine if isinstance(event, Epoch)}
    if planned is None or not epochs:
        raise StudyError(
            f"{study.name} has no trial {trial!r} with a trained epoch; 'tcpa status {study.name}' "
            "and tables/trials.csv list its trials."
        )
    return planned, epochs


class LastEpochReached(Exception):
    """The last stored epoch is compared: a pruned trial is not trained further than it was."""
