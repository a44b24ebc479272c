"""Devices that are set aside, because workers end on them again and again.

The end of a worker does not show its cause, which may be one of its trials or its device. What goes
on elsewhere tells them apart. So the trials of a lost worker and its device part: other trials try
the device, one at a time, and the first epoch that is trained there clears it. A device whose
second worker ends before that is set aside and tried again after a while, and no trial is blamed.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

MAX_ENDS = 2
"""Workers that may end on a device in a row, without an epoch in between."""
MAX_ENDS_OF_LAST = 3
"""The same of the only device that is left, where the trials differ."""
PAUSE_S = 900.0
"""Until a device is tried again: most often somebody has to free, reset or cool it."""
MAX_PAUSE_S = 8 * 3600.0

Verdict = Literal["open", "aside", "still aside", "hopeless"]
"""Of an end: the device or its trials may be the cause; the device is set aside, or was before; it
is, and there is no other to go on with."""


@dataclass(slots=True)
class _Record:
    """A device since the last epoch that was trained on it."""

    ends: list[Mapping[str, int]] = field(default_factory=list)
    """What each lost worker has counted against its trials, by their names."""
    until: float | None = None
    """By the clock, when it is tried again; None: it is in use."""
    num_pauses: int = 0

    @property
    def suspects(self) -> set[str]:
        """Trials that every one of the lost workers held."""
        first, *rest = self.ends
        return set(first).intersection(*rest)


class Quarantine:
    """Follows the devices of a study by their names.

    Args:
        pause_s: Until a device is tried again for the first time; then twice as long, and so on.
        clock: Seconds.
    """

    def __init__(
        self, pause_s: float = PAUSE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._records: dict[str, _Record] = {}

    def pause_s(self, device: str) -> float:
        """Seconds until a device may be used; 0: at once."""
        record = self._records.get(device)
        if record is None or record.until is None:
            return 0.0
        return max(0.0, record.until - self._clock())

    def is_aside(self, device: str) -> bool:
        """Whether a device is set aside and has trained no epoch since."""
        record = self._records.get(device)
        return record is not None and record.until is not None

    def aside(self) -> set[str]:
        """Devices that are set aside and have trained no epoch since."""
        return {device for device in self._records if self.is_aside(device)}

    def is_doubted(self, device: str) -> bool:
        """Whether a worker has ended on a device and no epoch was trained there since."""
        return device in self._records

    def clear(self, device: str) -> None:
        """An epoch was trained on a device: whatever ended on it had another cause."""
        self._records.pop(device, None)

    def take_end(
        self,
        device: str,
        counted: Mapping[str, int],
        *,
        ended_elsewhere: Collection[str] = (),
        is_last: bool,
    ) -> Verdict:
        """Note that a worker has ended on a device.

        Args:
            device: Its name.
            counted: What the end would count against the trials of the worker.
            ended_elsewhere: Those that have lost a worker on another device, too.
            is_last: Whether no other device is in use.
        """
        record = self._records.setdefault(device, _Record())
        was_aside = record.until is not None
        record.ends.append(counted)
        if is_last and not was_aside:
            is_hopeless = len(record.ends) >= MAX_ENDS_OF_LAST and not record.suspects
            return "hopeless" if is_hopeless else "open"
        is_trial = not was_aside and record.suspects.intersection(ended_elsewhere)
        if len(record.ends) < MAX_ENDS or is_trial:
            return "open"
        pause = min(self._pause_s * 2**record.num_pauses, MAX_PAUSE_S)
        record.until = self._clock() + pause
        record.num_pauses += 1
        return "still aside" if was_aside else "aside"

    def taken_back(self, device: str) -> Iterator[tuple[str, int]]:
        """What the ends on a device have counted against trials, which are cleared of it now."""
        record = self._records[device]
        for end in record.ends:
            yield from end.items()
        record.ends = [dict.fromkeys(end, 0) for end in record.ends]

    def convict(self, trial: str) -> None:
        """A trial was the cause of its ends: devices that it has set aside are used at once."""
        for device, record in list(self._records.items()):
            ends = [end for end in record.ends if trial not in end]
            if not ends:
                del self._records[device]
            elif len(ends) < MAX_ENDS:
                record.ends, record.until = ends, None
