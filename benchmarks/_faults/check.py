"""One check for every fault: nothing lost, nothing twice, and all records say the same."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities import Run

from search.proposals.sampled import Sampled
from search.study.address import default_uri
from search.study.folder import StudyDir
from search.study.identity import fingerprints_of
from spaces.space import Space
from tcpa_core.record.events import FINAL_KINDS, Epoch, read_journal
from tcpa_core.record.values import EpochReport, TrialResult
from tests.search.stub import accuracy

Numbers = dict[str, list[float]]
"""Validation loss after every epoch, by trial digest: what a fault must not change."""


@dataclass
class Audit:
    """What was found in a study's records."""

    trials: int = 0
    """Planned."""
    ended: int = 0
    lost: int = 0
    """Planned without an end, or missing from the trials that an undisturbed run has."""
    repeated: int = 0
    """Planned or ended twice, or none of the undisturbed run's."""
    epochs: int = 0
    epochs_lost: int = 0
    epochs_repeated: int = 0
    wrong_numbers: int = 0
    """Trials whose losses differ from those of an undisturbed run."""
    mlflow: int = 0
    """Runs and metric points that MLflow lacks, has twice or has otherwise."""
    parquet: int = 0
    """Rows of the study's tables that are missing, double or different."""
    statuses: Counter[str] = field(default_factory=Counter)
    drivers: int = 0
    """Times that a driver began or took the study up."""
    restarts: int = 0
    """Trials taken up by another worker or driver."""

    @property
    def is_clean(self) -> bool:
        """Whether everything holds."""
        return not any(self.faults().values())

    def faults(self) -> dict[str, int]:
        """The counts that have to be 0."""
        trials = ("lost", "repeated", "wrong_numbers")
        epochs = ("epochs_lost", "epochs_repeated")
        return {name: getattr(self, name) for name in (*trials, *epochs, "mlflow", "parquet")}


def audit(
    study: StudyDir, expected: Numbers, *, tracking_uri: str | None, tables: bool = False
) -> Audit:
    """Check the records of a finished study.

    Args:
        study: Its folder.
        expected: Of an undisturbed run with the same seed.
        tracking_uri: MLflow that mirrors it; None: not mirrored.
        tables: Whether its Parquet tables have been made and are to be checked.

    Returns:
        Counts; those of `Audit.faults` are 0 where all is well.
    """
    journal = read_journal(study.journal_path, allow_torn_tail=False)
    events = [event.as_dict() for event in journal]
    assert [e["n"] for e in events] == list(range(len(events))), "journal numbers have gaps"
    assert events[-1]["kind"] == "finished", f"the study ended with {events[-1]}"
    found = Audit(drivers=sum(e["kind"] in ("study", "resumed") for e in events))
    found.restarts = sum(e["kind"] == "started" and e["epoch"] > 0 for e in events)
    _audit_trials(found, events, expected)
    if tracking_uri is not None:
        mirrored, recorded = mlflow_points(study, tracking_uri), journal_points(events)
        found.mlflow = _differences(mirrored, recorded)
    if tables:
        found.parquet = _differences(*_table_rows(study, events))
    return found


def check(study: StudyDir, space: Space) -> Audit:
    """Check a stub study, mirrored in its own folder, against an undisturbed run.

    Raises:
        AssertionError: Something was lost, doubled or changed.
    """
    root = study.path.parent
    found = audit(study, stub_numbers(space), tracking_uri=default_uri(root))
    assert found.is_clean, found
    return found


def _audit_trials(found: Audit, events: list[dict[str, Any]], expected: Numbers) -> None:
    planned = [e for e in events if e["kind"] == "planned"]
    digests = {e["trial"]: e["digest"] for e in planned}
    ends = [e for e in events if e["kind"] in FINAL_KINDS]
    found.trials, found.ended = len(planned), len(ends)
    found.statuses = Counter(e["status"] for e in ends)
    found.lost = len(digests.keys() - {e["trial"] for e in ends})
    found.lost += len(expected.keys() - set(digests.values()))
    found.repeated = len(planned) - len(set(digests.values()))
    found.repeated += len(ends) - len({e["trial"] for e in ends})
    found.repeated += len(set(digests.values()) - expected.keys())
    curves: dict[str, dict[int, float]] = {trial: {} for trial in digests}
    for event in events:
        if event["kind"] == "epoch":
            curve = curves[event["trial"]]
            found.epochs_repeated += event["epoch"] in curve
            curve[event["epoch"]] = event["val_loss"]
            found.epochs += 1
    for end in ends:
        curve = curves[end["trial"]]
        found.epochs_lost += len(set(range(1, end["num_epochs"] + 1)) - curve.keys())
        found.epochs_repeated += len(curve.keys() - set(range(1, end["num_epochs"] + 1)))
        values = [curve[number] for number in sorted(curve)]
        right = expected.get(digests[end["trial"]], [])[: end["num_epochs"]]
        found.wrong_numbers += not _close(values, right)


def _table_rows(
    study: StudyDir, events: list[dict[str, Any]]
) -> tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]:
    """Rows of trials.parquet and epochs.parquet, and what the journal says that they are."""
    rows: Counter[tuple[Any, ...]] = Counter()
    for name, columns in (
        ("trials", ["trial", "digest", "status", "val_accuracy"]),
        ("epochs", ["trial", "epoch", "val_accuracy"]),
    ):
        table = pq.read_table(study.path / "tables" / f"{name}.parquet", columns=columns)
        rows.update(zip(*(table[column].to_pylist() for column in columns), strict=True))
    digests = {e["trial"]: e["digest"] for e in events if e["kind"] == "planned"}
    right: Counter[tuple[Any, ...]] = Counter()
    for event in events:
        if event["kind"] == "epoch":
            right[event["trial"], event["epoch"], event["val_accuracy"]] += 1
        elif event["kind"] in FINAL_KINDS:
            trial = event["trial"]
            right[trial, digests[trial], event["status"], event["val_accuracy"]] += 1
    return rows, right


def _differences(found: Counter[Any], right: Counter[Any]) -> int:
    return ((found - right) + (right - found)).total()


def _close(found: list[float], right: list[float]) -> bool:
    """Equal to float32's rounding: packs of other sizes add in another order."""
    same = len(found) == len(right)
    return same and all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(found, right, strict=True))


def stub_numbers(space: Space) -> Numbers:
    """The numbers of an undisturbed run with stub training and a sampler that does not learn."""
    source = Sampled(space, "undisturbed")
    prints = fingerprints_of(space.trials)
    numbers: Numbers = {}
    while len(numbers) < (space.budget.trials or 0):
        proposal = source.propose(0)
        assert proposal is not None
        params = proposal.config.flat()
        epochs = range(1, params["train.epochs"] + 1)
        digest = proposal.config.digest(prints["data"], prints["weights"])
        numbers[digest] = [1 - accuracy(params, e) for e in epochs]
    source.close()
    return numbers


def numbers_of(study: StudyDir) -> Numbers:
    """The numbers of a study that nobody disturbed."""
    digests = {name: one.planned.digest for name, one in study.state().trials.items()}
    curves: Numbers = {digest: [] for digest in digests.values()}
    for event in study.events():
        if isinstance(event, Epoch):
            curves[digests[event.trial]].append(event.report.val_loss)
    return curves


Point = tuple[str, str, int, float]
"""Trial, name, step, value; the state of a run is a point with the name "status"."""

_STATES = {"FINISHED": 1.0, "FAILED": 2.0, "KILLED": 3.0}
_ENDED = {"completed": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
_PER_EPOCH = [f.name for f in fields(EpochReport) if f.name != "epoch"]
_FINAL = [f.name for f in fields(TrialResult)]


def journal_points(events: list[dict[str, Any]]) -> Counter[Point]:
    """Every point that MLflow should hold."""
    points: Counter[Point] = Counter({("", "status", 0, _STATES["FINISHED"]): 1})
    for event in events:
        kind, trial = event["kind"], event.get("trial", "")
        if kind == "epoch":
            points.update(
                (trial, f"epoch/{k}", event["epoch"], float(event[k]))
                for k in _PER_EPOCH
                if k in event  # each task has scores of its own
            )
        elif kind == "tested" or kind in FINAL_KINDS:
            points.update(
                (trial, key, 0, float(event[key]))
                for key in _FINAL
                if isinstance(event.get(key), int | float)
            )
        if kind in FINAL_KINDS:
            points[trial, "status", 0, _STATES[_ENDED[event["status"]]]] += 1
    return points


def mlflow_points(study: StudyDir, uri: str) -> Counter[Point]:
    """Every point that MLflow holds; a trial with two runs has its status twice."""
    client = MlflowClient(tracking_uri=uri)
    points: Counter[Point] = Counter()
    for run in _runs(client, study.name):
        trial = run.data.tags.get("tcpa.trial", "")
        points[trial, "status", 0, _STATES.get(run.info.status, 0.0)] += 1
        for name in run.data.metrics if trial else ():  # the study's own has what sums it up
            history = client.get_metric_history(run.info.run_id, name)
            points.update((trial, name, point.step, point.value) for point in history)
    return points


def _runs(client: MlflowClient, study: str) -> Iterator[Run]:
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None, f"MLflow has no experiment {study!r}"
    token = None
    while True:
        page = client.search_runs([experiment.experiment_id], page_token=token)
        yield from page
        token = page.token
        if not token:
            return
