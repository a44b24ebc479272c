"""Names under which MLflow holds a study: what the mirror writes, reports read back.

A study has a run of its own, and one run for each trial as its child. What is a number of a trial
is a metric: of an epoch at that step under "epoch/NAME", of the outcome at step 0 under its own
name, so that a column "val_accuracy" shows the selected value and not that of the last epoch. All
else is a tag, lists and mappings as JSON.
"""

from dataclasses import fields

from tcpa_core.record.values import EpochReport, TrialResult

# Tags of both kinds of runs, and of the study's experiment.
STUDY = "tcpa.study"
"""Name of the study."""
STUDY_ID = "tcpa.study_id"
"""`id` of its study.yaml: names repeat, this does not."""

# Tags of the study's own run.
KIND = "tcpa.kind"
OF_STUDY = "study"
"""What KIND is there; runs of trials have no such tag."""
CREATED = "tcpa.created"
SELECTED = "tcpa.selected"
"""Trials of the selected point."""
SELECTED_VALUE = "tcpa.selected_value"
BEST = "best."
"""Before the dotted path of a setting of the selected point."""
STATE = "tcpa.state"
"""Where the study stands, as of `StudyState.phase`."""
MODEL = "tcpa.model"
"""Tag of a version of a registered model: id of the logged one."""
HELD_FILES = "tcpa.files"
"""Digest of the report and tables that the run holds."""

# Tags of a trial's run, written when it is planned ...
TRIAL = "tcpa.trial"
DIGEST = "tcpa.digest"
POINT = "tcpa.point"
SEED = "tcpa.seed"
METHODS = "tcpa.methods"
ORIGIN = "tcpa.origin"
FROM = "tcpa.from"
"""Of a trial that began from another one's state: that one, the epoch, and whose place it took."""
LABELS = "tcpa.labels"
DEVIATION = "tcpa.deviation"
PARAMS = "tcpa.params"
"""Settings by dotted path; where MLflow's limit cuts the text off, CONFIG_FILE has them whole."""

# ... and as it goes on.
STARTED = "tcpa.started"
"""Device and time of the last start."""
HOST = "tcpa.host"
DEVICE_NAME = "tcpa.device_name"
DEVICE_BYTES = "tcpa.device_memory_bytes"
"""Where it was started last, on which model of GPU or processor, with how much memory."""
REUSED = "tcpa.reused"
"""Of a trial that an earlier study trained: that study, its id, the trial there and what became of
its trained state."""
PREPROCESSING = "tcpa.preprocessing"
STATUS = "tcpa.status"
REASON = "tcpa.reason"
RESULT = "tcpa.result"
"""Fields of the final event that are no numbers, and its time."""
LAST_EVENT = "tcpa.n"
"""Number of the last journal event that the run holds, written when a trial has ended."""

STUDY_FILE = "study.yaml"
"""Artifact of the study's own run."""
CONFIG_FILE = "config.json"
"""Artifact of a trial's run: its settings."""

EPOCH_METRICS = {f.name: f"epoch/{f.name}" for f in fields(EpochReport) if f.name != "epoch"}
"""Metrics of an epoch, at its step, by field of EpochReport; MLflow's pages put them together."""
_TEXTS = ("status", "reason", "device", "warnings")
FINAL_METRICS = {f.name: f.name for f in fields(TrialResult) if f.name not in _TEXTS}
"""Metrics of the outcome, at step 0, by field of TrialResult."""
OLD_FINAL_METRICS = {
    "selected_val_accuracy": "val_accuracy",
    "selected_val_loss": "val_loss",
    "total_duration_s": "duration_s",
}
"""How earlier versions called some of them, when epochs had the plain names: fields by metric."""
