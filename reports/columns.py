"""The tables of a report: names, types, units and meanings of their columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tcpa_core.record.mirror_schema import EPOCH_METRICS
from tcpa_core.record.scores import Score, fields_of
from tcpa_core.record.values import OF_SOME_TASKS

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
    # One column decides what statistics use, so that all of them use the same trials.
    Column("left_out", TEXT, "why statistics do not use it; empty: they do"),
    Column(
        "origin", TEXT, "who proposed it: first_point, sampler, random, replicate, design or pbt"
    ),
    Column("from_trial", TEXT, "whose state it began from (pbt); empty: it began from its seed"),
    Column("from_epoch", INT, "after which epoch of that trial; it trains the next one first"),
    Column("replaces", TEXT, "the trial whose place it took then; empty: none"),
    Column("reused_from", TEXT, "STUDY/TRIAL that trained it before; empty: it was trained here"),
    # Two identities: replicates are grouped by `point`, repeats are found by `digest`.
    Column("digest", TEXT, "identity of everything that changes the result"),
    Column("point", TEXT, "the digest without the seed; equal for replicates"),
    Column("seed", INT, "replicate: initial values, batch order and augmentation"),
    Column("val_accuracy", REAL, "on val, of the selected epoch", "fraction"),
    Column("val_loss", REAL, "cross-entropy on val, of the selected epoch", "nat"),
    Column("test_accuracy", REAL, "on test, of the selected epoch; empty: not read", "fraction"),
    Column("test_loss", REAL, "cross-entropy on test, of the selected epoch", "nat"),
    Column("val_miou", REAL, "mean intersection over union on val, so too", "fraction"),
    Column("test_miou", REAL, "the same on test; empty: not read", "fraction"),
    Column("test_miou_multiscale", REAL, "the same over segment.test_scales", "fraction"),
    Column("val_mean_accuracy", REAL, "mean over classes of the pixels found on val", "fraction"),
    Column("test_mean_accuracy", REAL, "the same on test; empty: not read", "fraction"),
    Column("best_epoch", INT, "epoch whose state was selected, from 1"),
    Column("num_epochs", INT, "epochs trained, without those of the trial that it began from"),
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
    # Images that two splits share make an accuracy too good; reports name them.
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
    "val_miou": ("of a segmentation: mean intersection over union on val", "fraction"),
    "val_mean_accuracy": ("of a segmentation: mean over classes of the pixels found", "fraction"),
}
EPOCH_COLUMNS = (
    Column("trial", TEXT, "number of the trial"),
    Column("epoch", INT, "epoch, from 1"),
    # By the fields of EpochReport: a new one without a meaning fails here.
    *(Column(name, REAL, *_EPOCH_MEANINGS[name]) for name in EPOCH_METRICS),
)


def measured(columns: Sequence[Column], score: Score) -> tuple[Column, ...]:
    """Without what trials of this task do not have."""
    known = fields_of(score)
    return tuple(one for one in columns if one.name in known or one.name not in OF_SOME_TASKS)


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
