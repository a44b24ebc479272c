"""A study as pandas frames: the public way into its numbers."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow as pa

from reports.parquet import read_table
from reports.records.course import Course
from reports.records.journal import load_journal
from reports.records.records import Records
from reports.records.study import Study
from reports.samples.gather import PredictionSamples, gather, table_of_samples
from reports.samples.regions import Regions, gather_regions, table_of_regions
from reports.statistics import ablation, importance, race
from reports.statistics import across_data_sets as cross
from reports.statistics.published import load_reference
from reports.tables import epoch_table, frame_of, settings_of, table_of, trial_table
from tcpa_core.errors import RecordError, StudyError


@dataclass(frozen=True)
class Frames:
    """Every table of a study; what a column means stands in docs/reports.md and in the Parquet."""

    study: Study
    settings: tuple[str, ...]
    """Columns of `trials` that are settings, by dotted path."""
    trials: pd.DataFrame
    epochs: pd.DataFrame
    ablation: pd.DataFrame
    effects: pd.DataFrame
    """Interactions of a factorial's factors."""
    importance: pd.DataFrame
    marginals: pd.DataFrame
    """The objective along each searched setting."""
    interactions: pd.DataFrame
    """What two settings explain together but not alone."""
    scores: pd.DataFrame
    """Methods, or levels of a design, on each of several data sets."""
    ranks: pd.DataFrame
    """Their means, differences and mean ranks across the data sets."""
    groups: pd.DataFrame
    """Means over the groups of VTAB."""
    notes: tuple[str, ...] = ()
    """Sentences that a reader of these tables needs."""
    course: Course | None = None
    """How the study went; None: read from MLflow, which does not know."""
    folder: Path | None = None
    """Of the study; None: read from MLflow."""

    @cached_property
    def samples(self) -> PredictionSamples:
        """What tested trials took single images for; read when it is first asked for."""
        return gather(self.folder, self.trials, self.study)

    @cached_property
    def regions(self) -> Regions:
        """What tested trials of a segmentation found; read when it is first asked for."""
        return gather_regions(self.folder, self.trials, self.study)

    @property
    def pixels(self) -> pd.DataFrame:
        """One row per tested trial, split, image and class; empty where no worker has kept them."""
        return table_of_regions(self.regions, self.study).to_pandas()

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per tested trial, split and image; empty where no worker has kept them."""
        return table_of_samples(self.samples, self.study).to_pandas()

    @property
    def used(self) -> pd.DataFrame:
        """Trials that statistics use: completed, with a finite leading objective."""
        return self.trials[self.trials["left_out"] == ""]

    @property
    def across(self) -> list[cross.Scores]:
        """The score table as a matrix for each factor and metric."""
        return cross.scores_of(self.scores, self.study)

    @property
    def reference(self) -> pd.DataFrame:
        """Published numbers; see reports/statistics/published.py."""
        return load_reference()


def load(
    study: str | Path, tracking_uri: str | None = None, *, study_id: str | None = None
) -> Frames:
    """Read a study into pandas frames.

    Args:
        study: Its folder; with `tracking_uri` its name.
        tracking_uri: Read the MLflow mirror instead of the journal; the tables are the same.
        study_id: With `tracking_uri`: `id` in its study.yaml, where several have the name.

    Raises:
        StudyError: There is no such study, or MLflow has several of the name.
        RecordError: The record is damaged.
    """
    if tracking_uri is None:
        if study_id is not None:
            raise StudyError("study_id chooses a study in MLflow; give its tracking_uri, too.")
        return frames(load_journal(Path(study)))[0]
    # MLflow takes seconds to load, and the journal needs none of it.
    from reports.records.mlflow_records import load_mlflow

    return frames(load_mlflow(tracking_uri, str(study), study_id))[0]


def frames(
    records: Records,
    timed: Callable[[str], AbstractContextManager[None]] | None = None,
    earlier: Path | None = None,
    *,
    explain: bool = True,
) -> tuple[Frames, dict[str, pa.Table]]:
    """All tables of the records, as frames and as Arrow tables by name.

    Args:
        timed: Gives for a step's name what is entered while the step runs.
        earlier: Folder of tables written before; its importance is taken over where it is of the
            very same trials.
        explain: Compute the importance of settings, which takes seconds; else its tables are empty.
    """
    step = timed or (lambda name: nullcontext())
    study = records.study
    with step("tables"):
        trials_arrow = trial_table(records)
        trials = frame_of(trials_arrow)
        arrow = {"trials": trials_arrow, "epochs": epoch_table(records)}
        # a number for each name: 500,000 times the same strings would be slow to group by
        epochs = frame_of(
            arrow["epochs"].set_column(0, "trial", arrow["epochs"]["trial"].dictionary_encode())
        )
    with step("statistics"):
        compared, about_levels = _comparisons(trials, study)
    with step("importance"):
        explained, about_importance = (
            _importance(trials, study, earlier) if explain else (_unexplained(study), "")
        )
    notes = [*records.notes, *study.data_notes(), *about_levels, about_importance]
    computed = compared | explained
    found = Frames(
        study=study,
        settings=settings_of(trials_arrow),
        trials=trials,
        epochs=epochs,
        **{name: frame_of(table) for name, table in computed.items()},
        notes=tuple(dict.fromkeys(filter(None, notes))),
        course=records.course,
        folder=records.folder,
    )
    return found, arrow | computed


def _comparisons(trials: pd.DataFrame, study: Study) -> tuple[dict[str, pa.Table], list[str]]:
    """Levels and methods, compared within a data set and across them; and notes on the tables."""
    arrow: dict[str, pa.Table] = {}
    notes: list[str] = []
    deviations = cross.deviations(trials)
    levels, effects = ablation.ablation_tables(trials, study.score, fraction=study.is_fraction)
    # The mark travels with each row, since a table is also read without its notes.
    rows = cross.marked(levels, deviations)
    if study.races:
        rows = race.untested(rows)
        notes.append(race.verdict(trials, study))
    arrow["ablation"] = table_of(rows, study, "ablation")
    arrow["effects"] = table_of(effects, study, "effects")
    notes += ablation.notes(frame_of(arrow["ablation"]))
    scored = cross.marked(cross.score_rows(rows, trials, study), deviations)
    notes += cross.moved_notes(scored)
    arrow["scores"] = table_of(scored, study, "scores")
    # Read back from the table itself: the numbers of a report and of `load` are the same.
    scores = cross.scores_of(frame_of(arrow["scores"]), study)
    ranked = [cross.rank_rows(one) for one in scores]
    ranks = cross.marked([row for one, _ in ranked for row in one], deviations)
    arrow["ranks"] = table_of(ranks, study, "ranks")
    notes += [note for _, note in ranked]
    groups = cross.marked([row for one in scores for row in cross.group_rows(one)], deviations)
    arrow["groups"] = table_of(groups, study, "groups")
    return arrow, notes


_IDENTITY = b"tcpa.importance_of"
OF_IMPORTANCE = ("importance", "marginals", "interactions")


def _unexplained(study: Study) -> dict[str, pa.Table]:
    return {name: table_of([], study, name) for name in OF_IMPORTANCE}


def _importance(
    trials: pd.DataFrame, study: Study, earlier: Path | None
) -> tuple[dict[str, pa.Table], str]:
    """The tables on importance, and a sentence where they are empty."""
    if study.kind != "search":
        return _unexplained(study), ""
    identity = importance.identity(trials, study).encode()
    if earlier is not None and all((earlier / f"{n}.parquet").is_file() for n in OF_IMPORTANCE):
        with suppress(RecordError):  # of another version: computed again
            tables = {name: read_table(earlier, name) for name in OF_IMPORTANCE}
            # A stopped report can leave tables of two different runs: all three must be of one.
            known = {table.schema.metadata.get(_IDENTITY) for table in tables.values()}
            if len(tables["importance"]) and known == {identity}:
                return tables, ""
    rows, note = importance.importance_tables(trials, study)
    tables = {}
    for name in OF_IMPORTANCE:
        table = table_of(rows[name], study, name)
        tables[name] = table.replace_schema_metadata({**table.schema.metadata, _IDENTITY: identity})
    return tables, note
