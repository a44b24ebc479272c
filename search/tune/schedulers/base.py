"""What a scheduler is: a file beside this one whose `Scheduler` says which trials end early.

The name in `scheduler.name` is that of the file. A scheduler knows trials by our names and nothing
of Ray, which takes seconds to load: plans and the live view ask it, too. `early_stopping` lets Ray
Tune ask it, and tells it again, in the same order, what a journal has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from spaces.sections import SCHEDULERS, Objective, SchedulerConfig
from spaces.space import Space
from tcpa_core import plugins
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.record.events import Parent, Planned


@dataclass(frozen=True, slots=True)
class Successor:
    """What is trained in place of a trial that ends."""

    config: TrialConfig
    parent: Parent
    """The state that it begins from, and whose place it takes."""


class Scheduler:
    """Stops no trial; a subclass says at which epochs it looks at one, and whether it goes on.

    Args:
        space: Names it, with its settings.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    """Settings that not every scheduler has and this one does."""
    has_one_objective: ClassVar[bool] = False

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

    def join(self, planned: Planned) -> None:
        """Know a trial of the study, before its values count."""

    def successor(self, trial: str) -> Successor | None:
        """What is trained in place of a trial that does not go on, asked for once; None: nothing.

        Args:
            trial: Of which `goes_on` said so last.
        """
        return None

    @classmethod
    def check(cls, space: Space) -> None:
        """Refuse a space that this scheduler cannot run.

        Raises:
            ConfigError: It has settings of another one, or more objectives than it can compare by.
        """
        settings, place = space.scheduler, space.place
        own = {key for key, field in type(settings).model_fields.items() if field.default is None}
        given = own & settings.model_dump(exclude_none=True).keys()
        if foreign := sorted(given - cls.reads):
            raise ConfigError(
                f"scheduler.{foreign[0]} is not a setting of {settings.name!r}, got "
                f"{getattr(settings, foreign[0])} ({place}); leave it out, or name its scheduler."
            )
        if cls.has_one_objective and len(space.objective) > 1:
            raise ConfigError(
                f"scheduler.name {settings.name!r} has one objective, got {len(space.objective)} "
                f"({place}); use 'asha', 'hyperband' or 'none'."
            )

    @staticmethod
    def shares(settings: SchedulerConfig, epochs: int) -> Mapping[int, float] | None:
        """The share of those that reach an epoch which is meant to go on, where it is not all.

        None: it is not known before trials tell.

        Args:
            settings: Of the scheduler.
            epochs: Of the longest trial.
        """
        return {}

    @classmethod
    def expected(cls, settings: SchedulerConfig, epochs: int) -> float | None:
        """Epochs that a trial is meant to train, on average; None: not known. As for `shares`."""
        shares = cls.shares(settings, epochs)
        if shares is None:
            return None
        left, found = 1.0, 0.0
        for epoch in range(1, epochs + 1):
            found += left
            left *= shares.get(epoch, 1.0)
        return found

    @staticmethod
    def least(settings: SchedulerConfig, epochs: int) -> float:
        """Epochs that a trial trains on average if each is stopped as soon as it can be. As for
        `shares`."""
        return epochs

    @staticmethod
    def text(settings: SchedulerConfig, epochs: int) -> str:
        """What it does, for a plan; begins with its name.

        Args:
            settings: Of the scheduler.
            epochs: Of the longest trial.
        """
        return str(settings.name)


def can_stop(objectives: Sequence[Objective]) -> bool:
    """Whether trials can be compared before their end: an objective is measured each epoch."""
    return any(one.is_of_epochs for one in objectives)


def scheduler_class(name: str) -> type[Scheduler]:
    """The scheduler of that name.

    Raises:
        PluginError: There is none.
    """
    found: type[Scheduler] = plugins.load(SCHEDULERS, name).Scheduler
    return found
