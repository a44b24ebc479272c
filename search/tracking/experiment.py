"""The experiment of one study in MLflow: found by the study's id, adopted, or made."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType

from search.study.description import study_id
from search.tracking.mlflow_internals import RUNS_FIRST
from search.tracking.run_values import milliseconds
from spaces.reader import read_stored
from tcpa_core.record import files
from tcpa_core.record import mirror_schema as mirror
from tcpa_core.record.events import Planned, read_journal

PAGE = 1000
"""Runs that one search returns."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    """The study that is mirrored; also one whose study.yaml is gone."""

    folder: Path
    id: str
    """As of its study.yaml."""
    recorded_name: str
    """The name that the study was made with: its folder may have been renamed."""
    created: str

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The study in a folder.

        Raises:
            RecordError: Its study.yaml cannot be read.
        """
        path = folder / files.DESCRIPTION
        loaded = read_stored(path) if path.is_file() else {}
        document = {"name": folder.name, **(loaded if isinstance(loaded, dict) else {})}
        name, created = (str(document.get(key, "")) for key in ("name", "created"))
        return cls(folder, study_id(document), name, created)

    @property
    def name(self) -> str:
        """Name of the study: that of its folder."""
        return self.folder.name

    def planned(self) -> Iterator[Planned]:
        """Trials of its journal."""
        journal = self.folder / files.JOURNAL
        for event in read_journal(journal) if journal.exists() else ():
            if isinstance(event, Planned):
                yield event


class StudyRuns:
    """The runs of one study alone, whoever else has runs in its experiment.

    Args:
        client: Of the tracker.
        study: What is mirrored.
        artifact_root: Where a new experiment keeps its artifacts; None: the server decides.
        warn: Called with a line where the experiment has another name than the study.
    """

    def __init__(
        self,
        client: MlflowClient,
        study: Mirrored,
        artifact_root: Path | None,
        warn: Callable[[str], None],
    ) -> None:
        self._client = client
        self._study = study
        self.experiment = self._find_experiment(artifact_root, warn)
        """Its id."""

    def first(self, key: str) -> Run | None:
        """A run with this condition."""
        found = self._client.search_runs([self.experiment], self._ours(key), max_results=1)
        return found[0] if found else None

    def __iter__(self) -> Iterator[Run]:
        """All runs, the oldest first."""
        yield from _pages(partial(self._client.search_runs, [self.experiment], self._ours()))

    def _ours(self, key: str = "") -> str:
        ours = f"tags.`{mirror.STUDY_ID}` = '{self._study.id}'"
        return f"{ours} and {key}" if key else ours

    def _find_experiment(self, artifact_root: Path | None, warn: Callable[[str], None]) -> str:
        """The experiment of this study, by its full id: its name may be another study's, too."""
        found = self._experiment_of(self._study.id) or self._adopted()
        name = found.name if found else self._free_name()
        if name != self._study.name and name.startswith(f"{self._study.name}-"):
            warn(f"MLflow has another study of this name; this one is mirrored as {name!r}.")
        if found is None:
            location = f"{artifact_root.resolve().as_uri()}/{name}" if artifact_root else None
            tags = {**RUNS_FIRST, mirror.STUDY_ID: self._study.id}
            return str(self._client.create_experiment(name, location, tags))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _experiment_of(self, mark: str) -> Experiment | None:
        key = f"tags.`{mirror.STUDY_ID}` = '{mark}'"
        found = self._client.search_experiments(ViewType.ALL, max_results=1, filter_string=key)
        return found[0] if found else None

    def _free_name(self) -> str:
        """The study's name; where another experiment has that, with as much of the id as needed."""
        name = self._study.name
        names = (name, f"{name}-{self._study.id[:8]}", f"{name}-{self._study.id}")
        return next(n for n in names if self._client.get_experiment_by_name(n) is None)

    def _adopted(self) -> Experiment | None:
        """The experiment that an earlier version made for this study; its runs get our id.

        Its mark was the second in which the study was made, and it could be shared by several
        studies of a name. Ours are the runs of trials planned at the millisecond of our journal.
        """
        old = self._experiment_of(self._study.created) if self._study.created else None
        if old is None or not old.name.startswith(self._study.recorded_name):
            return None
        ours = {
            (planned.trial, planned.digest, milliseconds(planned))
            for planned in self._study.planned()
        }
        for run in _pages(partial(self._client.search_runs, [old.experiment_id])):
            tags = run.data.tags
            trial = tags.get(mirror.TRIAL), tags.get(mirror.DIGEST), run.info.start_time
            if mirror.STUDY_ID not in tags and (
                trial in ours or tags.get(mirror.KIND) == mirror.OF_STUDY
            ):
                self._client.set_tag(run.info.run_id, mirror.STUDY_ID, self._study.id)
        self._client.set_experiment_tag(old.experiment_id, mirror.STUDY_ID, self._study.id)
        return old


def _pages(search: Callable[..., Any]) -> Iterator[Run]:
    """Runs of a search, the oldest first."""
    token = None
    while True:
        page = search(max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token)
        yield from page
        token = page.token
        if not token:
            return
