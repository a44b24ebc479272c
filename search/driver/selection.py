"""For which trials the test split is read."""

from spaces.selection import Results
from spaces.space import Space
from tcpa_core.record.events import Planned
from tcpa_core.record.state import StudyState


def is_every_trial_tested(space: Space) -> bool:
    """Whether every trial reads the test split when it completes: rows of a table do."""
    return space.ablation is not None and space.ablation.test == "all"


def trials_to_test(space: Space, state: StudyState) -> list[Planned]:
    """The trials of the selected point whose test split is still to be read, at the study's end.

    It is read once, for the configuration that the search selected, so that nothing is selected by
    it.
    """
    if is_every_trial_tested(space):
        # Each that was trained here was scored when it completed.
        return [
            one.planned
            for one in state.trials.values()
            if one.reused and one.status == "completed" and one.test_accuracy is None
        ]
    selected = Results.of(space, state).ranking().selected
    if selected is None:
        return []
    trials = state.trials.items()
    left = [one for name, one in trials if name in selected.trials]
    return [one.planned for one in left if one.tested is None or one.tested.reason]
