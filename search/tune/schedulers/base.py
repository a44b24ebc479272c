"""What a scheduler is: a file beside this one whose `Scheduler` says which trials end early.

The name in `scheduler.name` is that of the file. A scheduler knows trials by our names and nothing
of Ray, which takes seconds to load: plans and the live view ask it, too. `early_stopping` lets Ray
Tune ask it, and tells it again, in the same order, what a journal has.
"""

from collections.abc import Mapping, Sequence

from spaces.sections import SCHEDULERS, SchedulerConfig
from spaces.space import Space
from tcpa_core import plugins


class Scheduler:
    """Stops no trial; a subclass says at which epochs it looks at one, and whether it goes on.

    Args:
        space: Names it, with its settings.
    """

    def __init__(self, space: Space) -> None:
        self._space = space

    def decisions(self, trial: str, epochs: int) -> Sequence[int]:
        """Epochs before the last at which a trial may end, rising.

        Args:
            trial: Its name.
            epochs: As many as it has.
        """
        return ()

    def goes_on(self, trial: str, epoch: int, values: Sequence[float]) -> bool:
        """Let the values of a trial count, once for each epoch; whether it goes on.

        Args:
            trial: Its name.
            epoch: One of its decisions, or its last.
            values: Of the objectives at that epoch, turned so that larger is better.
        """
        return True

    @staticmethod
    def shares(settings: SchedulerConfig, epochs: int) -> Mapping[int, float]:
        """The share of those that reach an epoch which is meant to go on, where it is not all.

        Args:
            settings: Of the scheduler.
            epochs: Of the longest trial.
        """
        return {}

    @staticmethod
    def text(settings: SchedulerConfig, epochs: int) -> str:
        """What it does, for a plan; begins with its name.

        Args:
            settings: Of the scheduler.
            epochs: Of the longest trial.
        """
        return str(settings.name)


def scheduler_class(name: str) -> type[Scheduler]:
    """The scheduler of that name.

    Raises:
        PluginError: There is none.
    """
    found: type[Scheduler] = plugins.load(SCHEDULERS, name).Scheduler
    return found
