"""Trials that follow on others: what takes the place of one that its scheduler ends."""

from collections.abc import Mapping

from search.tune.schedulers.base import Successor
from tcpa_core.chain import deviations
from tcpa_core.config import begun_from
from tcpa_core.record.events import Planned
from tcpa_core.record.state import StudyState


def following(successor: Successor, state: StudyState, fingerprints: Mapping[str, str]) -> Planned:
    """The trial of a successor.

    Args:
        successor: As a scheduler gives it.
        state: Of the study.
        fingerprints: Identities of data and weights.
    """
    config, parent = successor.config, successor.parent
    source = state.trials[parent.trial].planned
    ids = fingerprints["data"], fingerprints["weights"]
    return Planned.of(
        place_after(parent.replaces, parent.epoch),
        config,
        origin="pbt",
        digest=begun_from(config.digest(*ids), source.digest, parent.epoch),
        point=begun_from(config.point(*ids), source.point, parent.epoch),
        deviation=deviations(config),
        draw={},
        parent=parent,
    )


def place_after(trial: str, epoch: int) -> str:
    """Name of the trial that takes a place: "00003-4" after epoch 4 of "00003", and "00003-8" after
    epoch 8 of either."""
    return f"{trial.partition('-')[0]}-{epoch}"
