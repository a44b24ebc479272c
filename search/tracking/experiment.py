"""The experiment of one study in MLflow: found by the study's id, adopted, or made."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, RunTag, ViewType

from search.study.description import study_id
from search.tracking.mlflow_internals import RUNS_FIRST, upload
from search.tracking.run_values import milliseconds
from spaces.reader import read_stored
from tcpa_core.record import files
from tcpa_core.record import mirror_schema as mirror
from tcpa_core.record.events import Planned, read_journal

STATUS = {"completed": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
"""State of a run by that of its trial: a search for finished runs finds completed trials alone."""
ENDED = tuple(STATUS.values())
"""States of a run that is not written to; the tag of the last event says whether its trial has
ended, or only its driver."""
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
    kind: str = "search"
    """"search" or "ablation"."""
    commit: str = ""
    """Of the code that made it; "": it is not known."""
    data: Sequence[Mapping[str, Any]] = ()
    """Its data sets, as study.yaml describes them."""

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The study in a folder.

        Raises:
            RecordError: Its study.yaml cannot be read.
        """
        path = folder / files.DESCRIPTION
        loaded = read_stored(path) if path.is_file() else {}
        document = {"name": folder.name, **(loaded if isinstance(loaded, dict) else {})}
        name, created, kind, commit = (
            str(document.get(key) or "") for key in ("name", "created", "kind", "git")
        )
        data = [one for one in document.get("data") or () if isinstance(one, dict)]
        return cls(folder, study_id(document), name, created, kind, commit, data)

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

    def own_run(self, tracking_uri: str, origin: Mapping[str, str]) -> Run:
        """The study's own run, which the runs of its trials are children of.

        Args:
            origin: Tags that say who began the study and with what; one that has them keeps them.

        It is made or taken up again, and holds study.yaml as that is now.
        """
        tags = {
            mirror.STUDY: self._study.name,
            mirror.STUDY_ID: self._study.id,
            mirror.CREATED: self._study.created,
            mirror.KIND: mirror.OF_STUDY,
        }
        run = self.first(f"tags.`{mirror.KIND}` = '{mirror.OF_STUDY}'")
        if run is not None:
            self._client.update_run(run.info.run_id, status="RUNNING", name=self._study.name)
            # A later 'tcpa sync' is another program, perhaps of another user.
            tags |= {key: v for key, v in origin.items() if key not in run.data.tags}
            self._client.log_batch(run.info.run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        else:
            tags |= origin
            run = self._client.create_run(self.experiment, run_name=self._study.name, tags=tags)
        description = self._study.folder / files.DESCRIPTION
        if description.is_file():  # for reports made from MLflow
            upload([description], run.info.artifact_uri, tracking_uri)
        return run

    def show(self, view: Mapping[str, str]) -> None:
        """Give the experiment's pages a view, as of `view_tag`; one that they have stays."""
        held = self._client.get_experiment(self.experiment).tags
        for key, value in {**RUNS_FIRST, **view}.items():
            if held.get(key) != value:
                self._client.set_experiment_tag(self.experiment, key, value)

    def first(self, key: str) -> Run | None:
        """A run with this condition."""
        found = self._client.search_runs([self.experiment], self._ours(key), max_results=1)
        return found[0] if found else None

    def run_of(self, trial: str) -> Run | None:
        """The run of a trial."""
        return self.first(f"tags.`{mirror.TRIAL}` = '{trial}'")

    def __iter__(self) -> Iterator[Run]:
        """All runs, the oldest first."""
        yield from _pages(partial(self._client.search_runs, [self.experiment], self._ours()))

    def _ours(self, key: str = "") -> str:
        ours = f"tags.`{mirror.STUDY_ID}` = '{self._study.id}'"
        return f"{ours} and {key}" if key else ours

    def _find_experiment(self, artifact_root: Path | None, warn: Callable[[str], None]) -> str:
        """The experiment of this study, by its full id: its name may be another study's, too."""
        # By id and not by name: two studies of one name in two folders may share a tracker.
        found = self._experiment_of(self._study.id) or self._adopted()
        name = found.name if found else self._free_name()
        if name != self._study.name and name.startswith(f"{self._study.name}-"):
            warn(f"MLflow has another study of this name; this one is mirrored as {name!r}.")
        if found is None:
            location = f"{artifact_root.resolve().as_uri()}/{name}" if artifact_root else None
            tags = {**RUNS_FIRST, mirror.STUDY_ID: self._study.id}
            return str(self._client.create_experiment(name, location, tags))
        # Deleted by hand, perhaps to clear up; its name stays taken, and its runs are ours.
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


def without_duplicates(
    runs: Iterable[Run], parent: str, current: Mapping[str, str]
) -> tuple[dict[str, tuple[int, Run]], list[str]]:
    """One run for each trial, of those that a lost answer may have left twice.

    The one that holds most of the journal stays; of equal ones that which is written to, else the
    oldest.

    Args:
        runs: All of a study, the oldest first.
        parent: The study's own run.
        current: Runs that are written to, by trial.

    Returns:
        By trial the number of the last event that its run holds (-1: the trial has not ended
        there) and the run; and the ids of those that are too many.
    """
    kept: dict[str, tuple[int, Run]] = {}
    surplus = []
    for run in runs:
        tags, run_id = run.data.tags, run.info.run_id
        trial = tags.get(mirror.TRIAL)
        if trial is None:
            if tags.get(mirror.KIND) == mirror.OF_STUDY and run_id != parent:
                surplus.append(run_id)
            continue
        last = int(tags.get(mirror.LAST_EVENT, -1)) if run.info.status in ENDED else -1
        before = kept.get(trial)
        if before is None:
            kept[trial] = last, run
        elif (last, run_id == current.get(trial)) > (before[0], False):
            kept[trial] = last, run
            surplus.append(before[1].info.run_id)
        else:
            surplus.append(run_id)
    return kept, surplus


def _pages(search: Callable[..., Any]) -> Iterator[Run]:
    """Runs of a search, the oldest first."""
    token = None
    while True:
        page = search(max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token)
        yield from page
        token = page.token
        if not token:
            return
