"""What earlier studies have completed: found by digest, so that no trial is trained twice.

A digest holds all settings of a trial, its seed, the content of its data and weights, and the
version of the training code. Not in it are files that users may edit: methods, kinds of data and
tasks are compared by a hash that study.yaml records, and a study that went on with changed data
under its old digests is passed over.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from search.study.description import Description, read_description
from search.study.digests import Digests, checked
from search.study.folder import StudyDir
from search.study.reuse_roots import Given
from spaces.space import Space
from tcpa_core import plugins
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.errors import RecordError
from tcpa_core.record import files
from tcpa_core.record.events import Ended, Planned, Reused, Tested, TrialEvent
from tcpa_core.record.scores import TASK
from tcpa_core.record.values import TrialResult

DEPTH = 4
"""Levels of folders below a root in which studies are looked for."""
_NO_STUDIES = ("mlartifacts", files.CHECKPOINTS)

Code = Mapping[str, str]
"""Hashes of the files of methods, kinds of data and tasks, as "methods/vpt"."""


@dataclass(frozen=True, slots=True)
class Found:
    """A completed trial of an earlier study."""

    study: str
    study_id: str
    """Of the study that trained it, which may have been another one than has it here."""
    trial: str
    folder: Path
    """Of its checkpoints; it may be gone."""
    events: Sequence[TrialEvent]
    """From its plan to its end, and its score."""

    @property
    def result(self) -> TrialResult:
        """Its outcome."""
        return next(e.result for e in reversed(self.events) if isinstance(e, Ended))

    @property
    def tested(self) -> Tested | None:
        """What the test split said of its selected state; None: it was not read."""
        for event in reversed(self.events):
            if isinstance(event, Tested) and event.test_accuracy is not None:
                return event
        scores = {n: v for n, v in self.result.as_dict().items() if n.startswith("test_")}
        if scores["test_accuracy"] is None:
            return None
        return Tested(trial=self.trial, **scores)

    @property
    def has_state(self) -> bool:
        """Whether its trained state is there."""
        return (self.folder / files.LAST).is_file()


def code_of(configs: Iterable[TrialConfig]) -> Code:
    """Hashes of the files that trials run and whose changes no digest tells."""
    named = {
        name
        for config in configs
        for name in _named(config.methods, config.data.name, config.task.name)
    }
    return {name: plugins.source_hash(*_module(name)) for name in sorted(named)}


class Earlier:
    """The studies of some folders, read once.

    Args:
        roots: Folders that hold studies, also deeper ones.
        own: Folder of the study that asks, which is left out.
        code: Of the trials that are asked for, as of `code_of`.
        keep: Remember where in long journals trials stand; false where nothing may be written.
    """

    def __init__(
        self, roots: Sequence[Path], own: Path | None, code: Code, *, keep: bool = True
    ) -> None:
        self._roots = roots
        self._own = own.resolve() if own else None
        self._code = code
        self._keep = keep
        self._documents: dict[Path, Description | None] = {}

    @cached_property
    def _journals(self) -> dict[Path, Digests]:
        """By folder of the study."""
        found = {}
        for folder in dict.fromkeys(f for root in self._roots for f in study_folders(root)):
            if folder != self._own:
                with suppress(OSError):  # gone since, or none yet
                    found[folder] = Digests.of(folder / files.JOURNAL, keep=self._keep)
        return found

    @cached_property
    def _places(self) -> dict[str, list[tuple[Digests, str]]]:
        found: dict[str, list[tuple[Digests, str]]] = {}
        for journal in self._journals.values():
            for digest, trial in journal.completed():
                found.setdefault(digest, []).append((journal, trial))
        return found

    @property
    def num_completed(self) -> int:
        """Digests of which a completed trial is known."""
        return len(self._places)

    def find(self, digest: str) -> Found | None:
        """A completed trial of that digest: one whose trained state is there before others.

        One that has neither its state nor a score on the test split is none: it may be selected,
        and has to be scored then.
        """
        best = None
        for journal, trial in self._places.get(digest, ()):
            with suppress(RecordError, OSError):  # damaged, or gone: it is trained
                found = self._found(journal, trial, digest)
                if found is not None and found.has_state:
                    return found
                if found is not None and found.tested is not None:
                    best = best or found
        return best

    def studies(self) -> Iterator[tuple[Path, Description]]:
        """Folders and descriptions of the studies that may be used, the newest first."""
        found = [(f, d) for f in self._journals if (d := self.document(f)) is not None]
        yield from sorted(found, key=lambda one: str(one[1].get("created", "")), reverse=True)

    def document(self, folder: Path) -> Description | None:
        """study.yaml of a study that may be used; None: it may not, or cannot be read."""
        if folder not in self._documents:
            self._documents[folder] = None
            with suppress(RecordError, OSError):
                found = read_description(folder)
                # Its trials may have been trained on other data than their digests say.
                if not found.get("accepted_changes"):
                    self._documents[folder] = found
        return self._documents[folder]

    def runs_same_code(self, document: Description, params: Flat) -> bool:
        """Whether methods and data of a trial are read as they were in a study."""
        recorded = document.get("code")
        task = params.get(TASK, "classify")
        names = _named(params.get("methods", ()), params.get("data.name", ""), task)
        return isinstance(recorded, dict) and all(
            name in self._code and recorded.get(name) == self._code[name] for name in names
        )

    def _found(self, journal: Digests, trial: str, digest: str) -> Found | None:
        folder = journal.path.parent
        document = self.document(folder)
        if document is None:
            return None
        events = checked(journal.record(trial), digest, trial)
        planned = events[0]
        assert isinstance(planned, Planned)
        if not self.runs_same_code(document, planned.params):
            return None
        return found_of(folder, document, trial, events)


def found_of(
    folder: Path, document: Mapping[str, Any], trial: str, events: Sequence[TrialEvent]
) -> Found:
    """A trial of a study; of one that was reused itself, the study that trained it is named."""
    reused = next((e for e in reversed(events) if isinstance(e, Reused)), None)
    return Found(
        study=reused.study if reused else folder.name,
        study_id=reused.study_id if reused else str(document["id"]),
        trial=reused.source if reused else trial,
        folder=folder / files.CHECKPOINTS / trial,
        events=events,
    )


def earlier_of(
    study: StudyDir, space: Space, given: Given = None
) -> tuple[Earlier | None, list[str]]:
    """The studies from which one that is run takes trials, and what there is to say about them.

    Args:
        space: Of that study.
    """
    document = study.document()
    given = document.get("reuse", False) if given is None else given
    # Made by an earlier version, or its trials are not what their digests say.
    if not isinstance(given, list) or document.get("accepted_changes"):
        return None, []
    folders = [Path(str(root)) for root in given]
    gone = [f"--reuse: {root} is not there any more; its studies are left out."
            for root in folders if not root.is_dir()]  # fmt: skip
    roots = [study.path.parent, *(root for root in folders if root.is_dir())]
    return Earlier(roots, study.path, code_of(space.trials)), gone


def study_folders(root: Path) -> Iterator[Path]:
    """Folders of studies below a root, resolved, in the order of their paths."""
    yield from _below(root.resolve(), DEPTH)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _NO_STUDIES:
            continue
        if not entry.is_dir(follow_symlinks=False):
            continue
        path = Path(entry.path)
        if (path / files.DESCRIPTION).is_file():
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _named(methods: Iterable[str], data: str, task: str) -> list[str]:
    return [*(f"methods/{name}" for name in methods), f"data/{data}", f"tasks/{task}"]


def _module(name: str) -> tuple[str, str]:
    kind, _, plugin = name.partition("/")
    return f"tcpa_core.{kind}", plugin
