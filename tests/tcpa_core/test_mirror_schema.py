"""The names under which MLflow holds a study are distinct, and whole."""

from dataclasses import fields

from tcpa_core.record import mirror_schema
from tcpa_core.record.values import TrialResult


def test_outcomes_and_epochs_have_different_metrics() -> None:
    """A metric of an epoch and one of the outcome would be points of one series."""
    assert not set(mirror_schema.EPOCH_METRICS.values()) & set(mirror_schema.FINAL_METRICS.values())
    numbers = {f.name for f in fields(TrialResult) if "str" not in str(f.type)} - {"status"}
    assert set(mirror_schema.FINAL_METRICS) == numbers


def test_no_tag_stands_for_two_things() -> None:
    tags = [value for value in vars(mirror_schema).values() if str(value).startswith("tcpa.")]
    assert len(tags) == len(set(tags)) > 10
