"""The one place where what happens to a study is written down, and then told."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from search.study.journal import Journal
from tcpa_core.errors import StoppedError
from tcpa_core.record.events import Epoch, Event, Notice, Resumed, StudyBegun
from tcpa_core.record.state import StudyState

Listener = Callable[[Event], None]
"""Called with every journal event as it was written, in order, one at a time."""


class Recorder:
    """The journal of a study that runs, what it says so far, and who listens.

    Two threads record: the main thread what is planned, the event pump what becomes of it.

    Args:
        journal: Open for writing.
        state: What the journal says up to now; learns of every further event.
        listeners: In the order in which they are told.
        taken_over_by: Names another driver that has taken the study over; None: nobody has.
    """

    def __init__(
        self,
        journal: Journal,
        state: StudyState,
        listeners: Sequence[Listener] = (),
        taken_over_by: Callable[[], object] = lambda: None,
    ) -> None:
        self._journal = journal
        self.state = state
        self._listeners = listeners
        self._taken_over_by = taken_over_by
        self._lock = threading.Lock()
        self._begun: tuple[float, float] | None = None
        """Since when the driver's time counts, and its GPUs: for the next event."""
        self._is_starting = True
        """The driver's time does not count yet."""

    def begin(self, num_gpus: float) -> None:
        """From now on the driver's time counts for the budget; its start did not."""
        self._is_starting = False
        self._begun = self.now(), num_gpus
        self.state.spent.begin(*self._begun)

    def record(self, *events: Event) -> None:
        """Write events, then tell them.

        An epoch that an earlier driver recorded is left out: a trial whose last checkpoint was lost
        trains it again.

        Raises:
            StoppedError: Another driver has taken the study over.
            StorageError: The journal cannot be written.
        """
        if other := self._taken_over_by():
            raise StoppedError(
                f"another driver has taken the study over, because this one showed no sign of "
                f"life for too long: {other}; what is recorded is kept."
            )
        # Held while listeners are told, too: they hear everything in the order of the journal.
        with self._lock:
            news = [event for event in events if self._is_news(event)]
            if self._is_starting:  # workers may wait for a place for hours
                now, begins = self.now(), (StudyBegun, Resumed)
                news = [replace(e, began=now) if isinstance(e, Notice) else e for e in news]
                if news and not isinstance(news[0], begins):  # what earlier studies have is free
                    news[0] = replace(news[0], began=now)
            if news and self._begun is not None:
                # On an event that is written anyway: the journal has no kind for it.
                began, num_gpus = self._begun
                gpus = num_gpus if news[0].gpus is None else news[0].gpus
                news[0] = replace(news[0], began=began, gpus=gpus)
                self._begun = None
            # On disk first: what a listener shows or mirrors is never lost with this process.
            for event in self._journal.append(*news):
                self.state.take(event)
                for listener in self._listeners:
                    listener(event)

    @property
    def has_open_trials(self) -> bool:
        """Whether the end of some trial is not in the journal yet."""
        return any(trial.ended is None for trial in self.state.trials.values())

    def now(self) -> float:
        """The journal's clock: Unix time in seconds."""
        return self._journal.now()

    def _is_news(self, event: Event) -> bool:
        if not isinstance(event, Epoch):
            return True
        # A second start is news as well: a trial that lost its worker starts again.
        known = self.state.trials.get(event.trial)  # None: planned in the same call
        return known is None or event.report.epoch > known.epoch
