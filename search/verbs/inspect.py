"""Look into trained trials of a study, by their checkpoints or trained again where one is lost."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from search.study.folder import StudyDir
from search.study.identity import check_unchanged
from search.study.working_copy import opened
from search.verbs.replay import LastEpochReached, stored
from search.verbs.stages import Stages
from search.verbs.trained import trial_called
from spaces.axes import label
from tcpa_core.data.base import Progress
from tcpa_core.errors import CheckpointError
from tcpa_core.inspection import inspect_trial
from tcpa_core.record import files
from tcpa_core.record.events import Planned
from tcpa_core.record.values import EpochReport
from tcpa_core.training.run_trial import run_trial

SETTINGS_IN_LABEL = 2
"""Most settings that a label names; where more of them differ it names the trial."""


def look_into(
    study: StudyDir,
    trials: Sequence[str],
    console: Console,
    *,
    images: int,
    accept: bool = False,
) -> dict[str, Mapping[str, Any]]:
    """What `tcpa_core.inspection` finds in each trial, by its label in figures.

    Args:
        trials: Names of trials on the same data; OTHER/TRIAL is one of another study beside this.
        images: Val images to look at.
        accept: Go on with other data or weights than were recorded.

    Raises:
        StudyError: The study has no such trial, or it has trained no epoch, or its data or weights
            have changed.
        ConfigError: A method of a trial cannot say what its attention is.
    """
    places = {text: _place(study, text) for text in trials}
    planned = {text: stored(*place)[0] for text, place in places.items()}
    for text, (owner, _) in places.items():
        with Stages("checking weights and data") as stages:
            configs = [planned[text].config]
            change = check_unchanged(owner, accept=accept, trials=configs, progress=stages)
        if change:
            console.print(f"{change}; accepted.", markup=False, soft_wrap=True)
    # An ablation's row says more than the settings that make it up.
    names = {text: row for text, one in planned.items() if (row := row_of(one))}
    settings = {text: one.params for text, one in planned.items()}
    found: dict[str, Mapping[str, Any]] = {}
    for text, name in labels(settings, names).items():
        owner, trial = places[text]
        try:
            folder = owner.trial_folder(trial)
            # A trial that trains, or was interrupted, has its best state in its last checkpoint.
            has_ended = (folder / files.BEST).exists()
            path = folder / (files.BEST if has_ended else files.LAST)
            with Stages(f"looking into trial {text}") as stages:
                look = inspect_trial(path, images=images, progress=stages)
        # Lost or of another version: the same settings and seed give the same state again.
        except CheckpointError as err:
            console.print(f"trial {text} is trained again: {err}", markup=False, soft_wrap=True)
            with tempfile.TemporaryDirectory() as place, Stages("training it again") as stages:
                path = train_again(owner, trial, Path(place), stages)
                look = inspect_trial(path, images=images, progress=stages)
        found[name] = look
        console.print(f"looked into trial {text} ({name})", markup=False)
    return found


def train_again(
    study: StudyDir, trial: str, folder: Path, progress: Progress | None = None
) -> Path:
    """Train a trial as far as it was trained, which gives the same numbers; its best state."""
    planned, epochs = stored(study, trial)

    def stop(report: EpochReport) -> None:
        if progress:
            progress("epochs trained again", report.epoch, max(epochs))
        if report.epoch >= max(epochs):
            raise LastEpochReached

    with suppress(LastEpochReached):
        run_trial(planned.config, on_epoch=stop, folder=folder, recorded=True)
    return folder / files.BEST


def row_of(planned: Planned) -> str:
    """Row of a trial in an ablation that compares rows and not values of settings; else ""."""
    cells = planned.cells
    is_row = len(cells) == 1 and "." not in cells[0]["factor"]
    return str(cells[0]["level"]) if is_row else ""


def _place(study: StudyDir, text: str) -> tuple[StudyDir, str]:
    name, _, trial = text.rpartition("/")
    owner = opened(study.path.parent, name, study.storage) if name else study
    return owner, trial_called(owner, trial)


def labels(settings: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, str]:
    """A short label for each trial: its row or methods; among equals what tells them apart.

    Args:
        settings: By trial.
        names: Rows of an ablation, by trial; else {}.
    """
    groups: dict[str, list[str]] = {}
    for trial, one in settings.items():
        groups.setdefault(names.get(trial) or " + ".join(one["methods"]), []).append(trial)
    found = {}
    for name, trials in groups.items():
        paths = dict.fromkeys(path for trial in trials for path in settings[trial])
        values = {path: [_short(settings[t].get(path)) for t in trials] for path in paths}
        differing = [path for path in paths if len(set(values[path])) > 1]
        tails = [
            ", ".join(f"{path.rpartition('.')[2]}={values[path][i]}" for path in differing)
            for i in range(len(trials))
        ]
        if len(differing) > SETTINGS_IN_LABEL or len(set(tails)) < len(trials):
            tails = [f"trial {trial}" for trial in trials]
        for trial, tail in zip(trials, tails, strict=True):
            found[trial] = name if len(trials) == 1 else f"{name}, {tail}"
    return {trial: found[trial] for trial in settings}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else label(value)
