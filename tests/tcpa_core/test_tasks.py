"""The task as an axis of a trial's settings, and what records say of it."""

from dataclasses import fields

import pytest

from tcpa_core import plugins
from tcpa_core.config import TrialConfig, known_paths
from tcpa_core.errors import ConfigError
from tcpa_core.record.events import Epoch, decode_line, encode_line
from tcpa_core.record.scores import SCORES, score_of
from tcpa_core.record.values import OF_SOME_TASKS, EpochReport, TrialResult
from tcpa_core.settings import TASKS

REPORT = {
    **{"epoch": 1, "train_loss": 1.0, "ce_loss": 1.0, "match_loss": 0.0, "val_loss": 1.0},
    **{"val_accuracy": 0.5, "lr": 0.1, "duration_s": 1.0, "images_per_s": 1.0},
}


def _epoch(**measured: float) -> Epoch:
    report = EpochReport(**REPORT, **measured)  # type: ignore[arg-type]
    return Epoch(trial="00001", report=report, n=1, t=0.0)


def test_settings_of_a_task_are_those_of_the_task_that_a_trial_names() -> None:
    segment = {path for path in known_paths() if path.startswith("segment.")}
    trial = TrialConfig.from_flat({"task.name": "segment", "segment.stride": 8})
    assert segment == {path for path in trial.flat() if path.startswith("segment.")}
    assert not segment & TrialConfig.from_flat({}).flat().keys()
    assert not segment & trial.replace_paths({"task.name": "classify"}).flat().keys()
    assert TrialConfig.from_flat(trial.flat()) == trial
    with pytest.raises(ConfigError, match=r"segment\.\* is set but task\.name is 'classify'"):
        TrialConfig.from_flat({"segment.stride": 8})


def test_a_trial_that_classifies_keeps_its_digest_and_one_that_segments_has_another() -> None:
    plain, named = TrialConfig.from_flat({}), TrialConfig.from_flat({"task.name": "classify"})
    segments = TrialConfig.from_flat({"task.name": "segment"})
    wide = segments.replace_paths({"segment.head": "setr_pup"})
    digests = [config.digest("data", "weights") for config in (plain, named, segments, wide)]
    assert len({digests[0], *digests[2:]}) == 3
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("segment.blocks", value) for value in ([], [0], [2, 1], [3, 3])],
        *[("segment.test_scales", value) for value in ([0.0], [1.0, 1.0], [9.0])],
    ],
)
def test_settings_of_a_segmentation_say_what_is_possible(path: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{path} must be .*write for example"):
        TrialConfig.from_flat({"task.name": "segment", path: value})


def test_what_is_no_list_is_said_to_be_none() -> None:
    with pytest.raises(ConfigError, match="segment.test_scales: must be a list, got 'big'"):
        TrialConfig.from_flat({"task.name": "segment", "segment.test_scales": "big"})


def test_every_task_has_a_score_that_trials_are_measured_by() -> None:
    assert SCORES.keys() == set(plugins.names(TASKS))
    measured = {f.name for f in fields(TrialResult)}
    for score in SCORES.values():
        assert {score.val, score.test} <= measured
    assert score_of({}).name == score_of({"task.name": "classify"}).name == "accuracy"


def test_events_name_only_what_is_measured_for_their_task() -> None:
    assert {f.name for f in fields(TrialResult)} >= OF_SOME_TASKS
    plain, segmented = _epoch(), _epoch(val_miou=0.25)
    assert not OF_SOME_TASKS & plain.as_dict().keys()
    for event in (plain, segmented):
        assert decode_line(encode_line(event.as_dict()), "here") == event
