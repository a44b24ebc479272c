"""The tables of a report: their columns with unit and meaning, and records turned into them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from reports.records.journal import EPOCH_FIELDS, Records
from reports.records.study import Study
from spaces.selection import Ranking, Replicate, rank

SCHEMA_VERSION = 4
"""Raised whenever a column changes its name, type or meaning."""

TEXT, INT, REAL, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
SETTING = "setting"
"""Role of the columns of `trials` that are settings, in their metadata."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    dtype: pa.DataType
    meaning: str
    unit: str = ""
    """ "" for names and counts, "fraction" for values in [0, 1]."""

    def arrow(self) -> pa.Field:
        return pa.field(
            self.name, self.dtype, metadata={"meaning": self.meaning, "unit": self.unit}
        )


TRIAL_COLUMNS = (
    Column("trial", TEXT, "number of the trial within its study, in the order planned"),
    Column("status", TEXT, "planned, running, completed, pruned or failed"),
    Column("reason", TEXT, "why it failed or was pruned"),
    Column("left_out", TEXT, "why statistics do not use it; empty: they do"),
    Column("origin", TEXT, "who proposed it: first_point, sampler, random, replicate or design"),
    Column("digest", TEXT, "identity of everything that changes the result"),
    Column("point", TEXT, "the digest without the seed; equal for replicates"),
    Column("seed", INT, "replicate: initial values, batch order and augmentation"),
    Column("val_accuracy", REAL, "on val, of the selected epoch", "fraction"),
    Column("val_loss", REAL, "cross-entropy on val, of the selected epoch", "nat"),
    Column("test_accuracy", REAL, "on test, of the selected epoch; empty: not read", "fraction"),
    Column("test_loss", REAL, "cross-entropy on test, of the selected epoch", "nat"),
    Column("best_epoch", INT, "epoch whose state was selected, from 1"),
    Column("num_epochs", INT, "epochs trained"),
    Column("num_trainable", INT, "trainable parameters, head included"),
    Column("num_trainable_no_head", INT, "trainable parameters without the head"),
    Column("flops_per_image", REAL, "forward of one image, multiply-add = 2", "FLOP"),
    Column("train_flops_per_image", REAL, "of a training step, counted, per image", "FLOP"),
    Column("activation_bytes_per_image", REAL, "kept between the passes, per image", "byte"),
    Column("duration_s", REAL, "training time, divided among trials that shared the device", "s"),
    Column("gpu_s", REAL, "duration_s where the device was a GPU, else 0", "s"),
    Column("peak_memory_bytes", INT, "peak of the process or device", "byte"),
    Column("device", TEXT, "where it ran"),
    Column("warnings", TEXT, "JSON list of sentences that every use of the row has to say"),
    Column("val_in_train", INT, "val images whose bytes are also a train image's"),
    Column("test_in_train", INT, "test images whose bytes are also a train image's"),
    Column("test_in_val", INT, "test images whose bytes are also a val image's"),
    Column("two_labels", INT, "pictures of the data set that stand under two or more labels"),
    Column("deviation", TEXT, "what differs from the protocol and methods it claims; empty: none"),
    Column("cells", TEXT, "JSON list of the cells of a design that it counts for"),
)
_EPOCH_MEANINGS = {
    "train_loss": ("mean over the epoch, method loss included", "nat"),
    "ce_loss": ("mean cross-entropy over the epoch", "nat"),
    "match_loss": ("weighted method loss", "nat"),
    "val_loss": ("cross-entropy on val", "nat"),
    "val_accuracy": ("on val", "fraction"),
    "lr": ("learning rate of the last step", ""),
    "duration_s": ("time of the epoch, divided among trials that shared the device", "s"),
    "images_per_s": ("training images per second of duration_s", "1/s"),
}
EPOCH_COLUMNS = (
    Column("trial", TEXT, "number of the trial"),
    Column("epoch", INT, "epoch, from 1"),
    *(Column(name, REAL, *_EPOCH_MEANINGS[name]) for name in EPOCH_FIELDS),
)
_DEVIATION = Column("deviation", TEXT, "of the level's trials, as in `trials`")
ABLATION_COLUMNS = (
    Column("factor", TEXT, "what is varied: a setting's path, components, leave_one_out, ..."),
    Column("dataset", TEXT, "data set of a design that runs on several; empty: it has one"),
    Column("level", TEXT, "its value"),
    Column("order", INT, "place of the level in the design, from 0"),
    Column("is_baseline", BOOL, "the level that others are compared with"),
    Column("metric", TEXT, "column of `trials` that is summarised"),
    Column("n", INT, "replicates (seeds) with a value"),
    Column("missing", TEXT, "planned replicates without a value, each with the reason"),
    Column("left_out", TEXT, "of a factorial: seeds and combinations that lack a run"),
    Column("mean", REAL, "over the seeds, moved by `shift`", "fraction"),
    Column("shift", REAL, "what the seeds that a level lacks are worth to the others", "fraction"),
    Column("std", REAL, "sample standard deviation over the seeds", "fraction"),
    Column("low", REAL, "Student's 95 % interval of the mean; none of equal values", "fraction"),
    Column("high", REAL, "same", "fraction"),
    Column("median", REAL, "over the seeds", "fraction"),
    Column("median_low", REAL, "BCa 95 % interval of the median, from 20 seeds", "fraction"),
    Column("median_high", REAL, "same", "fraction"),
    Column("n_paired", INT, "seeds shared with the baseline"),
    Column("diff", REAL, "mean paired difference to the baseline", "fraction"),
    Column("diff_low", REAL, "95 % interval of it, the test's own; none if all equal", "fraction"),
    Column("diff_high", REAL, "same", "fraction"),
    Column("interval", TEXT, "kind of the difference's interval: student"),
    Column("test", TEXT, "two-sided test against the baseline: paired t"),
    Column("p", REAL, "of that test; none if all differences are equal"),
    Column("p_holm", REAL, "p after Holm over the tests of `family_of`"),
    Column("family", INT, "tests that Holm adjusted together"),
    Column("family_of", TEXT, "whose tests these are, of this data set and metric"),
    Column("dz", REAL, "paired Cohen's d: difference over the differences' standard deviation"),
    Column("rank_biserial", REAL, "matched-pairs rank-biserial correlation, in [-1, 1]"),
    Column("detectable", REAL, "smallest true difference seen with 80 % power at 5 %", "fraction"),
    Column("aliases", TEXT, "effects that the fraction cannot tell from the factor's"),
    Column("hint", TEXT, "interaction that the factor's differences depend on"),
    _DEVIATION,
    Column("trials", TEXT, "JSON list of the trials behind the row"),
)  # fmt: skip
EFFECT_COLUMNS = (
    Column("dataset", TEXT, "data set of a design that runs on several; empty: it has one"),
    Column("factor", TEXT, "a factor of a full or fractional factorial"),
    Column("level", TEXT, "its level; compared with its baseline"),
    Column("other", TEXT, "another factor"),
    Column("other_level", TEXT, "its level; compared with its baseline"),
    Column("metric", TEXT, "column of `trials` that is summarised"),
    Column("aliases", TEXT, "interactions that the fraction cannot tell from this one"),
    Column("n", INT, "seeds that have all runs of it"),
    Column("effect", REAL, "how much one level changes the difference of the other", "fraction"),
    Column("low", REAL, "95 % interval of it, the test's own; none if all equal", "fraction"),
    Column("high", REAL, "same", "fraction"),
    Column("interval", TEXT, "kind of the interval: student"),
    Column("test", TEXT, "two-sided test against 0: paired t"),
    Column("p", REAL, "of that test"),
    Column("p_holm", REAL, "p after Holm over the tests of `family_of`"),
    Column("family", INT, "tests that Holm adjusted together"),
    Column("family_of", TEXT, "whose tests these are, of this data set and metric"),
    Column("dz", REAL, "effect over its standard deviation over the seeds"),
    Column("rank_biserial", REAL, "matched-pairs rank-biserial correlation, in [-1, 1]"),
    Column("detectable", REAL, "smallest true effect seen with 80 % power at 5 %", "fraction"),
)
IMPORTANCE_COLUMNS = (
    Column("axis", TEXT, "searched setting"),
    Column("method", TEXT, "fanova or ped_anova"),
    Column("metric", TEXT, "the objective that is explained"),
    Column("importance", REAL, "share explained by the axis alone", "fraction"),
    Column("low", REAL, "95 % bootstrap interval over points", "fraction"),
    Column("high", REAL, "same", "fraction"),
    Column("null_high", REAL, "95 % quantile of what a shuffled copy of it gets", "fraction"),
    Column("is_distinct", BOOL, "low lies above null_high"),
    Column("n", INT, "completed points in which the axis was active, replicates averaged"),
)
MARGINAL_COLUMNS = (
    Column("axis", TEXT, "searched setting"),
    Column("value", REAL, "its value; of words their place among the sorted ones"),
    Column("label", TEXT, "the word; empty: a number"),
    Column("metric", TEXT, "the objective"),
    Column("mean", REAL, "objective there, mean over all other settings and the forest's trees"),
    Column("low", REAL, "95 % of the trees, each grown on a bootstrap sample"),
    Column("high", REAL, "same"),
    Column("n", INT, "completed points in which the axis was active, replicates averaged"),
)
INTERACTION_COLUMNS = (
    Column("axis", TEXT, "searched setting"),
    Column("other", TEXT, "another one, active in the same trials"),
    Column("metric", TEXT, "the objective that is explained"),
    Column("importance", REAL, "share explained by both together and neither alone", "fraction"),
    Column("low", REAL, "95 % bootstrap interval over points", "fraction"),
    Column("high", REAL, "same", "fraction"),
    Column("null_high", REAL, "95 % quantile of what it is where nothing interacts", "fraction"),
    Column("is_distinct", BOOL, "low lies above null_high"),
    Column("n", INT, "completed points in which both were active, replicates averaged"),
    Column("grid", TEXT, "JSON of the largest ones: x, y, their labels, and the mean objective"),
)
SCORE_COLUMNS = (
    Column("factor", TEXT, "methods, or the factor of a design that runs on several data sets"),
    Column("level", TEXT, "method chain, as in 'vfpt + tcpa', or level of the factor"),
    Column("is_baseline", BOOL, "the level that others are compared with"),
    Column("dataset", TEXT, "data set"),
    Column("metric", TEXT, "what is measured"),
    Column("n", INT, "seeds"),
    Column("mean", REAL, "over the seeds, as in `ablation`; of methods that of the best setting"),
    Column("low", REAL, "Student's 95 % interval of the mean"),
    Column("high", REAL, "same"),
    Column("diff", REAL, "mean difference to the baseline, paired by seed"),
    _DEVIATION,
)
RANK_COLUMNS = (
    Column("factor", TEXT, "as in `scores`"),
    Column("level", TEXT, "as in `scores`"),
    Column("is_baseline", BOOL, "the level that others are compared with"),
    Column("metric", TEXT, "what is ranked"),
    Column("n", INT, "data sets that all levels have"),
    Column("left_out", TEXT, "data sets that some level lacks"),
    Column("mean", REAL, "over these data sets"),
    Column("mean_rank", REAL, "over these data sets; 1 is best, ties share"),
    Column("diff", REAL, "mean over these data sets of `diff` of `scores`"),
    Column("diff_low", REAL, "95 % interval of it, the test's own; none below 6 data sets"),
    Column("diff_high", REAL, "same"),
    Column("interval", TEXT, "kind of that interval: wilcoxon"),
    Column("p", REAL, "Wilcoxon's signed ranks against the baseline, two-sided"),
    Column("p_holm", REAL, "p after Holm over the levels of the factor"),
    Column("family", INT, "tests that Holm adjusted together"),
    Column("rank_biserial", REAL, "matched-pairs rank-biserial correlation, in [-1, 1]"),
    Column("friedman_p", REAL, "Friedman's test that all levels are equal"),
    Column("critical_difference", REAL, "Nemenyi's, of mean ranks at 5 %"),
    Column("not_worse_than", TEXT, "JSON list: levels not told apart by Wilcoxon after Holm"),
    _DEVIATION,
)
GROUP_COLUMNS = (
    Column("factor", TEXT, "as in `scores`"),
    Column("level", TEXT, "as in `scores`"),
    Column("metric", TEXT, "what is averaged"),
    Column("group", TEXT, "natural, specialized, structured, mean of 19 tasks, mean of groups"),
    Column("mean", REAL, "over the group's tasks, each a mean over seeds", "fraction"),
    Column("n", INT, "tasks of the group with a value"),
    Column("missing", TEXT, "tasks without one; a group with a gap has no mean"),
    _DEVIATION,
)
COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "trials": TRIAL_COLUMNS,
    "epochs": EPOCH_COLUMNS,
    "ablation": ABLATION_COLUMNS,
    "effects": EFFECT_COLUMNS,
    "importance": IMPORTANCE_COLUMNS,
    "marginals": MARGINAL_COLUMNS,
    "interactions": INTERACTION_COLUMNS,
    "scores": SCORE_COLUMNS,
    "ranks": RANK_COLUMNS,
    "groups": GROUP_COLUMNS,
}
"""Every table of a study."""


def trial_table(records: Records) -> pa.Table:
    """One row per trial, also for those that failed or have not finished.

    After TRIAL_COLUMNS, each setting is a column by dotted path: null where it is not set or not
    part of the trial. A column is bool, int, float or text; a list is JSON text.
    """
    rows = [_trial_row(trial, records.study) for trial in records.trials]
    arrays = [pa.array([row.get(c.name) for row in rows], c.dtype) for c in TRIAL_COLUMNS]
    schema = [column.arrow() for column in TRIAL_COLUMNS]
    # A dict keeps the order in which the settings were met; "seed" is a column of its own.
    params = [trial["params"] or {} for trial in records.trials]
    for path in dict.fromkeys(p for one in params for p in one if p != "seed"):
        array = _setting([one.get(path) for one in params])
        arrays.append(array)
        about = {"meaning": f"setting {path}", "unit": "", "role": SETTING}
        schema.append(pa.field(path, array.type, metadata=about))
    return pa.table(arrays, schema=pa.schema(schema, metadata(records.study, "trials")))


def epoch_table(records: Records) -> pa.Table:
    """One row per trial and epoch. Null: not reported; NaN: the measured value was no number."""
    schema = pa.schema([c.arrow() for c in EPOCH_COLUMNS], metadata(records.study, "epochs"))
    return pa.table(records.epochs.columns, schema=schema)


def table_of(rows: Iterable[Mapping[str, Any]], study: Study, name: str) -> pa.Table:
    """Table `name` with one row per mapping; absent keys are null."""
    rows = list(rows)
    arrays = [pa.array([row.get(c.name) for row in rows], c.dtype) for c in COLUMNS[name]]
    return pa.table(
        arrays, schema=pa.schema([c.arrow() for c in COLUMNS[name]], metadata(study, name))
    )


def metadata(study: Study, table: str) -> dict[str, str]:
    """What every table carries about itself."""
    return {
        "tcpa.schema_version": str(SCHEMA_VERSION),
        "tcpa.table": table,
        "tcpa.study": json.dumps(study.document),
    }


def frame_of(table: pa.Table) -> pd.DataFrame:
    """As pandas: whole numbers and truth values keep missing values as such (Int64, boolean)."""
    kinds = {INT: pd.Int64Dtype(), BOOL: pd.BooleanDtype()}
    return table.to_pandas(types_mapper=kinds.get)


def settings_of(table: pa.Table) -> tuple[str, ...]:
    """Columns of the trial table that are settings."""
    return tuple(
        f.name for f in table.schema if (f.metadata or {}).get(b"role") == SETTING.encode()
    )


def varied(trials: pd.DataFrame, settings: Sequence[str]) -> list[str]:
    """Settings that differ between trials; absent in some counts as different."""
    return [path for path in settings if trials[path].nunique(dropna=False) > 1]


def ranking(trials: pd.DataFrame, study: Study) -> Ranking:
    """The points of trials by the one rule for the selected one; trials as in `trials`."""
    objective = study.objectives[0]
    seeds = () if study.races else study.seeds  # rows that were dropped lack seeds by design
    return rank(replicates(trials, objective.metric), objective, seeds)


def replicates(trials: pd.DataFrame, metric: str) -> list[Replicate]:
    """What the selection of a point needs of each trial; trials as in `trials`."""
    is_done = trials["status"] == "completed"
    values = trials[metric].where(is_done).astype(float)
    columns = (trials["trial"], trials["point"].fillna(trials["trial"]), trials["seed"].fillna(0))
    return [
        Replicate(str(trial), str(point), int(seed), None if value != value else value)
        for trial, point, seed, value in zip(*columns, values, strict=True)
    ]


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """Trials by status."""
    return {str(k): int(v) for k, v in trials["status"].value_counts().sort_index().items()}


def _trial_row(trial: Mapping[str, Any], study: Study) -> dict[str, Any]:
    row = dict(trial)
    data = study.data_of(trial["params"] or {})
    shared = data.get("shared") or {}
    row["val_in_train"] = shared.get("train/val")
    row["test_in_train"] = shared.get("train/test")
    row["test_in_val"] = shared.get("val/test")
    row["two_labels"] = data.get("two_labels")
    on_gpu = (trial.get("device") or "").startswith("cuda")
    duration = trial.get("duration_s")
    row["gpu_s"] = None if duration is None else duration if on_gpu else 0.0
    row["warnings"] = json.dumps(trial.get("warnings") or [])
    row["deviation"] = "; ".join(trial.get("deviation") or [])
    row["cells"] = json.dumps((trial.get("labels") or {}).get("cells") or [])
    row["left_out"] = _left_out(trial, study.objectives[0].metric)
    return row


def _left_out(trial: Mapping[str, Any], metric: str) -> str:
    """Why statistics leave a trial out; "" if they use it."""
    if trial["status"] != "completed":
        return str(trial["status"])
    value = trial.get(metric)
    if value is None:
        return f"{metric} is missing"
    return "" if abs(value) < float("inf") else f"{metric} is {value}"


def _setting(values: Sequence[Any]) -> pa.Array:
    """Values of one setting in the narrowest type that holds them all."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, BOOL)
    if kinds == {int} and all(abs(v) < 2**63 for v in values if v is not None):
        return pa.array(values, INT)
    if kinds and kinds <= {int, float}:
        return pa.array([None if v is None else float(v) for v in values], REAL)
    return pa.array([_as_text(value) for value in values], TEXT)


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
