"""The trained trials that verbs take by study and number, or as an exported folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.study.folder import StudyDir, named_trial
from search.study.working_copy import opened
from spaces.selection import Results
from tcpa_core.errors import ConfigError, StudyError
from tcpa_core.record import files

BEST = "best"
"""Stands for a trial of the selected point, that of its first seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a trained trial lies."""

    path: Path
    """A trial's checkpoint folder, a checkpoint, or an exported folder."""
    study: StudyDir | None = None
    """None: it is given by its path."""
    trial: str = ""
    rest: Sequence[str] = ()
    """What the user typed behind it."""


def source_of(root: Path, storage: str | None, words: Sequence[str], usage: str) -> Source:
    """The trained trial that the first words of a command name.

    Args:
        root: Folder of the studies.
        storage: Storage address of the studies, if the user gave one.
        words: STUDY TRIAL and others, or PATH and others.
        usage: How the command is typed, for messages.

    Raises:
        ConfigError: There are too few words.
        StudyError: There is no such study or trial.
    """
    first = Path(words[0])
    if (first / files.DESCRIPTION).is_file():  # a study by its path
        root, words = first.parent, [first.name, *words[1:]]
    elif first.exists() and not (root / words[0] / files.DESCRIPTION).is_file():
        return Source(path=first, rest=words[1:])
    if len(words) < 2:
        raise ConfigError(f"{words[0]!r} is no folder here, and a study needs a trial: {usage}.")
    study = opened(root, words[0], storage)
    trial = _trial(study, words[1])
    folder = study.trial_folder(trial)
    if not folder.is_dir():
        status = study.state().trials[trial].status
        raise StudyError(
            f"{study.name}: trial {trial} ({status}) has left no weights, {folder} is not there; "
            f"take another one, {BEST!r} is the selected one."
        )
    return Source(path=folder, study=study, trial=trial, rest=words[2:])


def trial_called(study: StudyDir, text: str) -> str:
    """Name of a trial that a user may have written as a number, or as `best`.

    Raises:
        StudyError: None is the best yet.
    """
    if text != BEST:
        return named_trial(text)
    selected = Results.of(study.space(), study.state()).ranking().selected
    if selected is None:
        raise StudyError(f"{study.name} has no completed trial yet, so none is the best.")
    return selected.trials[0]


def _trial(study: StudyDir, text: str) -> str:
    """Name of a trial of a study that has left something behind."""
    trial, known = trial_called(study, text), list(study.state().trials)
    if trial not in known:
        raise StudyError(
            f"{study.name} has no trial {text!r}; {_trials_text(known)}, and {BEST!r} is the "
            "selected one."
        )
    return trial


def _trials_text(names: Sequence[str]) -> str:
    if not names:
        return "it has none yet"
    return f"its {len(names):,} trials are {names[0]} to {names[-1]}"
