"""The sentence on workers that wait for a place, and when it is said.

A journal keeps it when it begins, when its numbers change and when it ends; whoever shows a study
that runs may repeat the last one as often as there is somebody to read it.
"""

import time
from collections.abc import Callable, Collection

from search.workers.cluster_view import TOLERANCE, ClusterView
from search.workers.shares import Claim
from tcpa_core.record.events import Notice

PATIENCE_S = 10.0
"""A worker that has not got a place by then is said to wait."""
REPEAT_S = 60.0
"""Between two sentences with other numbers at first; then twice as long, and so on."""
MAX_REPEAT_S = 900.0


class Waiting:
    """Follows how many workers of a study wait for a place.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        """None: nobody waits."""
        self._told: str | None = None
        self._told_at = 0.0
        self._pause_s = REPEAT_S

    def look(self, num_waiting: int, text: Callable[[], str]) -> Notice | None:
        """What there is to say.

        Args:
            num_waiting: Workers that wait.
            text: The sentence on them.
        """
        now = self._clock()
        if not num_waiting:
            return self._end(now)
        if self._since is None:
            self._since, self._pause_s = now, REPEAT_S
        if now - self._since < PATIENCE_S:
            return None
        if self._told is not None and now - self._told_at < self._pause_s:
            return None
        said = text()
        if said == self._told:
            return None
        if self._told is not None:
            self._pause_s = min(2 * self._pause_s, MAX_REPEAT_S)
        self._told, self._told_at = said, now
        return Notice(text=said, waits=True)

    def _end(self, now: float) -> Notice | None:
        since, told, self._since, self._told = self._since, self._told, None, None
        if since is None or told is None:
            return None
        return Notice(text=f"no worker waits for a place any more, after {_span(now - since)}",
                      waits=False)  # fmt: skip


def waiting_text(
    claim: Claim,
    num_waiting: int,
    view: ClusterView,
    not_used: Collection[str] = (),
    *,
    leaves: bool = False,
) -> str:
    """Who waits for what, and who has it.

    Args:
        claim: Of the study.
        num_waiting: Its workers that wait.
        view: The cluster.
        not_used: Ids of nodes that the study does not use.
        leaves: It leaves free places to others for the time being.
    """
    # What there is less room for holds them up.
    places = {name: view.free(name, not_used) / unit for name, unit in claim.shape.items() if unit}
    name = min(sorted(places, reverse=True), key=lambda one: int(places[one] + TOLERANCE))
    unit, total, free = claim.shape[name], view.total(name, not_used), view.free(name, not_used)
    held = sum(count for node, count in claim.held.items() if node not in not_used) * unit
    used = max(0.0, total - free - held)
    who = "1 worker" if num_waiting == 1 else f"{num_waiting} workers"
    if claim.num_held:
        who = f"{num_waiting} of {num_waiting + claim.num_held} workers"
    need = "needs" if num_waiting == 1 else "need"
    each = "" if num_waiting == 1 else " each"
    text = f"waiting for a place: {who} {need} {unit:g} {name}{each}"
    if total < unit:
        return f"{text}, and no node of the cluster has one"
    text += f", {_amount(free)} of {_amount(total)} free"
    if used > TOLERANCE:
        text += f" ({_amount(used)} used by other jobs)"
    if leaves and free + TOLERANCE >= unit:
        text += ", left to others who may want it"
    return text


def _amount(value: float) -> str:
    return f"{round(value, 2):g}"


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
